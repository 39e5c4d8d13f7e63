/* A block of lines that is drawn again in its place on a terminal. */
#ifndef TOWLINE_CLI_REDRAW_H
#define TOWLINE_CLI_REDRAW_H

#include <stdbool.h>
#include <stdio.h>

struct tow_redraw {
    FILE *out;
    bool terminal;
    unsigned drawn; /* lines of the last drawing */
};

void tow_redraw_init(struct tow_redraw *r, FILE *out);
/* Replaces the last drawing. Lines are cut at the terminal's width, control characters replaced:
 * a wrapped line would make the next drawing climb too little. No terminal: prints `text`. */
void tow_redraw_show(struct tow_redraw *r, const char *text);

#endif
