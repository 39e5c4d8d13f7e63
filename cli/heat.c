#include "cli/heat.h"

#include <stdlib.h>
#include <string.h>

void tow_heat_free(struct tow_heat *heat)
{
    free(heat->cells);
    free(heat->epochs);
    *heat = (struct tow_heat){0};
}

/* Room for one more; false when there is no memory. */
static bool room(void **array, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity)
        return true;
    size_t more = *capacity ? 2 * *capacity : 1024;
    void *grown = realloc(*array, more * size);
    if (!grown)
        return false;
    *array = grown;
    *capacity = more;
    return true;
}

void tow_heat_add(struct tow_heat *heat, uint64_t page_address, unsigned lines)
{
    void *cells = heat->cells;
    uint64_t block = page_address / TOW_HEAT_BLOCK;
    if (heat->count > heat->epoch_first && heat->cells[heat->count - 1].block == block) {
        heat->cells[heat->count - 1].lines += lines;
        return;
    }
    if (heat->count == TOW_HEAT_CELLS_MAX ||
        !room(&cells, &heat->capacity, heat->count, sizeof *heat->cells)) {
        heat->full = true;
        return;
    }
    heat->cells = cells;
    heat->cells[heat->count++] = (struct tow_heat_cell){block, (uint32_t)heat->epoch_count, lines};
}

static int by_block(const void *a, const void *b)
{
    const struct tow_heat_cell *x = a, *y = b;
    return (x->block > y->block) - (x->block < y->block);
}

/* Cells of one block are put together: pages come in no particular order. */
void tow_heat_epoch_end(struct tow_heat *heat, struct tow_heat_epoch epoch)
{
    void *epochs = heat->epochs;
    size_t kept = heat->epoch_first;
    if (heat->count > kept)
        qsort(heat->cells + kept, heat->count - kept, sizeof *heat->cells, by_block);
    for (size_t i = heat->epoch_first; i < heat->count; i++) {
        if (kept > heat->epoch_first && heat->cells[kept - 1].block == heat->cells[i].block)
            heat->cells[kept - 1].lines += heat->cells[i].lines;
        else
            heat->cells[kept++] = heat->cells[i];
    }
    heat->count = kept;
    if (!room(&epochs, &heat->epoch_capacity, heat->epoch_count, sizeof *heat->epochs)) {
        heat->count = heat->epoch_first;
        heat->full = true;
        return;
    }
    heat->epochs = epochs;
    heat->epochs[heat->epoch_count++] = epoch;
    heat->epoch_first = heat->count;
}

/* ---- The grid ------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The touched blocks, ascending, each once; NULL when there is no memory. */
static uint64_t *touched(const struct tow_heat *heat, size_t *count)
{
    uint64_t *blocks = malloc((heat->count + 1) * sizeof *blocks);
    *count = 0;
    if (!blocks)
        return NULL;
    for (size_t i = 0; i < heat->count; i++)
        blocks[i] = heat->cells[i].block;
    qsort(blocks, heat->count, sizeof *blocks, by_number);
    for (size_t i = 0; i < heat->count; i++)
        if (*count == 0 || blocks[*count - 1] != blocks[i])
            blocks[(*count)++] = blocks[i];
    return blocks;
}

static void fill(const struct tow_heat *heat, const uint64_t *blocks, size_t count,
                 struct tow_heat_grid *grid)
{
    for (size_t i = 0; i < heat->epoch_first; i++) {
        const struct tow_heat_cell *cell = &heat->cells[i];
        const uint64_t *at = bsearch(&cell->block, blocks, count, sizeof *blocks, by_number);
        size_t row = (size_t)(at - blocks) * grid->rows / count;
        size_t column = (size_t)cell->epoch * grid->columns / heat->epoch_count;
        uint64_t *lines = &grid->lines[row * grid->columns + column];
        *lines += cell->lines;
        if (*lines > grid->most)
            grid->most = *lines;
    }
}

bool tow_heat_grid_make(const struct tow_heat *heat, struct tow_heat_grid *grid)
{
    size_t count;
    uint64_t *blocks = touched(heat, &count);
    *grid = (struct tow_heat_grid){0};
    if (!blocks)
        return false;
    grid->rows = count < TOW_HEAT_ROWS ? (unsigned)count : TOW_HEAT_ROWS;
    grid->columns =
        heat->epoch_count < TOW_HEAT_COLUMNS ? (unsigned)heat->epoch_count : TOW_HEAT_COLUMNS;
    grid->lines = calloc((size_t)grid->rows * grid->columns + 1, sizeof *grid->lines);
    for (size_t i = count; i-- > 0;) {
        struct tow_heat_row *row = &grid->row[i * grid->rows / count];
        row->first = blocks[i] * TOW_HEAT_BLOCK;
        if (row->last == 0)
            row->last = (blocks[i] + 1) * TOW_HEAT_BLOCK;
    }
    if (grid->lines && grid->columns)
        fill(heat, blocks, count, grid);
    free(blocks);
    return grid->lines != NULL;
}

void tow_heat_grid_free(struct tow_heat_grid *grid)
{
    free(grid->lines);
    *grid = (struct tow_heat_grid){0};
}
