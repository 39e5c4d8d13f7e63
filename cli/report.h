/* The page of "tow track report": everything in one file, nothing from elsewhere. */
#ifndef TOWLINE_CLI_REPORT_H
#define TOWLINE_CLI_REPORT_H

#include "cli/heat.h"
#include "cli/meter.h"

#include <stdio.h>

/* `text` with the characters that HTML gives a meaning replaced. */
void tow_html_text(const char *text, FILE *out);

/* False when there is no memory. */
bool tow_report_print(struct tow_meter *meter, FILE *out);

/* Writes the page into `path`, which appears when it is complete; says so on `tow->err`. */
int tow_report_write(struct tow *tow, struct tow_meter *meter, const char *path);

#endif
