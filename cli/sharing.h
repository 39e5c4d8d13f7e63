/* Lines that several threads of a program write, with the places in its source that do. */
#ifndef TOWLINE_CLI_SHARING_H
#define TOWLINE_CLI_SHARING_H

#include "client/towline.h"

#include <stdio.h>
#include <sys/types.h>

#define TOW_SHARED_MAX  64u
#define TOW_SYMBOLS_MAX 512u /* of program counters, kept */

struct tow_sharing {
    struct towline_shared_line lines[TOW_SHARED_MAX]; /* of the last epoch */
    size_t count;
    uint64_t total;
    char *maps; /* of the program, as last seen: symbols are asked for after its end, too */
    struct tow_symbol {
        uint64_t pc;
        char *text;
    } * symbols;
    size_t symbol_count;
};

/* Keeps what the program has mapped, if it still runs. */
void tow_sharing_look(struct tow_sharing *s, pid_t pid);
/* The lines of the epoch that was collected last. A code of libtowline. */
int tow_sharing_take(struct tow_sharing *s, towline_session *session, const char *epoch, pid_t pid);
void tow_sharing_free(struct tow_sharing *s);

/* Never NULL; may run addr2line. Only what can be printed. */
const char *tow_sharing_symbol(struct tow_sharing *s, uint64_t pc);

void tow_sharing_print(struct tow_sharing *s, size_t max, FILE *out);
void tow_sharing_print_json(struct tow_sharing *s, FILE *out);
void tow_sharing_print_html(struct tow_sharing *s, FILE *out);

#endif
