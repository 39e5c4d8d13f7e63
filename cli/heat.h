/* Where lines were dirty, over address and time: gathered in blocks of 64 KiB and epochs, and
 * brought into a grid of rows and columns that fits a page. Pure. */
#ifndef TOWLINE_CLI_HEAT_H
#define TOWLINE_CLI_HEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOW_HEAT_BLOCK     65536u
#define TOW_HEAT_CELLS_MAX 4000000u /* 64 MiB; what comes after is left out, and said */
#define TOW_HEAT_ROWS      160u
#define TOW_HEAT_COLUMNS   240u

struct tow_heat_cell {
    uint64_t block; /* address / TOW_HEAT_BLOCK */
    uint32_t epoch;
    uint32_t lines;
};

/* What an epoch came to. */
struct tow_heat_epoch {
    uint64_t end_ms; /* since the start */
    uint64_t lines, pages, regions, whole_pages;
};

struct tow_heat {
    struct tow_heat_cell *cells;
    size_t count, capacity;
    struct tow_heat_epoch *epochs;
    size_t epoch_count, epoch_capacity;
    size_t epoch_first; /* cells of the epoch under way begin here */
    bool full;
};

void tow_heat_free(struct tow_heat *heat);
/* Lines of a page in the epoch under way. */
void tow_heat_add(struct tow_heat *heat, uint64_t page_address, unsigned lines);
void tow_heat_epoch_end(struct tow_heat *heat, struct tow_heat_epoch epoch);

struct tow_heat_row {
    uint64_t first, last; /* addresses: of the first byte, behind the last */
};
struct tow_heat_grid {
    unsigned rows, columns;
    struct tow_heat_row row[TOW_HEAT_ROWS];
    uint64_t *lines; /* rows * columns, row by row */
    uint64_t most;   /* in one cell */
};
/* Rows are the touched blocks in order of address, columns the epochs; neighbours are put together
 * where there are too many. False when there is no memory. */
bool tow_heat_grid_make(const struct tow_heat *heat, struct tow_heat_grid *grid);
void tow_heat_grid_free(struct tow_heat_grid *grid);

#endif
