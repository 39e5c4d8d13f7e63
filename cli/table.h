/* Aligned tables of text. Cells are copied, made safe for a terminal, and coloured by tone. On a
 * terminal that is too narrow the last column is broken at its spaces. */
#ifndef TOWLINE_CLI_TABLE_H
#define TOWLINE_CLI_TABLE_H

#include "cli/format.h"

#include <stdbool.h>
#include <stdio.h>

#define TOW_COLUMNS_MAX 16u
#define TOW_CELL_TEXT   256u

struct tow_column {
    const char *title;
    bool right; /* numbers stand right */
};

struct tow_cell {
    char *text;
    enum tow_tone tone;
};

struct tow_table {
    const struct tow_column *columns;
    unsigned column_count;
    struct tow_cell *cells; /* row by row */
    size_t count, capacity;
    unsigned width; /* in columns; 0 = that of the terminal it is printed on, if it is one */
    bool failed;    /* out of memory */
};

void tow_table_init(struct tow_table *table, const struct tow_column *columns, unsigned count);
void tow_table_free(struct tow_table *table);

/* The next cell, row by row; an empty one is shown as "-". */
void tow_table_add(struct tow_table *table, enum tow_tone tone, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Titles and rows; nothing but "none" when there are no rows. */
void tow_table_print(const struct tow_table *table, bool color, FILE *out);

#endif
