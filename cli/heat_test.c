#include "cli/heat.h"
#include "cli/report.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK (uint64_t) TOW_HEAT_BLOCK

static void epoch(struct tow_heat *heat, uint64_t lines)
{
    tow_heat_epoch_end(heat, (struct tow_heat_epoch){
                                 .end_ms = heat->epoch_count + 1, .lines = lines, .pages = lines});
}

Test(heat, pages_of_a_block_and_epoch_are_one_cell)
{
    struct tow_heat heat = {0};
    struct tow_heat_grid grid;
    tow_heat_add(&heat, 8 * BLOCK, 1);
    tow_heat_add(&heat, 3 * BLOCK, 5);
    tow_heat_add(&heat, 8 * BLOCK + 4096, 2);
    epoch(&heat, 8);
    tow_heat_add(&heat, 8 * BLOCK, 10);
    epoch(&heat, 10);
    cr_assert_eq(heat.count, 3);
    cr_assert(tow_heat_grid_make(&heat, &grid));
    cr_assert(grid.rows == 2 && grid.columns == 2 && grid.most == 10);
    cr_assert(grid.row[0].first == 3 * BLOCK && grid.row[0].last == 4 * BLOCK);
    cr_assert(grid.lines[0] == 5 && grid.lines[1] == 0 && grid.lines[2] == 3 &&
              grid.lines[3] == 10);
    tow_heat_grid_free(&grid);
    tow_heat_free(&heat);
}

Test(heat, nothing_and_too_much_fit)
{
    struct tow_heat heat = {0};
    struct tow_heat_grid grid;
    uint64_t sum = 0;
    cr_assert(tow_heat_grid_make(&heat, &grid));
    cr_assert(grid.rows == 0 && grid.columns == 0);
    tow_heat_grid_free(&grid);
    for (unsigned e = 0; e < 1000; e++) {
        for (unsigned b = 0; b < 500; b++)
            tow_heat_add(&heat, (uint64_t)b * 3 * BLOCK, 1);
        epoch(&heat, 500);
    }
    cr_assert(tow_heat_grid_make(&heat, &grid));
    cr_assert(grid.rows == TOW_HEAT_ROWS && grid.columns == TOW_HEAT_COLUMNS);
    for (unsigned i = 0; i < grid.rows * grid.columns; i++)
        sum += grid.lines[i];
    cr_assert_eq(sum, 500000);
    for (unsigned i = 1; i < grid.rows; i++)
        cr_assert(grid.row[i].first >= grid.row[i - 1].last);
    cr_assert_eq(grid.row[grid.rows - 1].last, 499 * 3 * BLOCK + BLOCK);
    tow_heat_grid_free(&grid);
    tow_heat_free(&heat);
}

Test(report, is_one_page_of_its_own_and_names_are_only_text)
{
    struct tow_heat heat = {0};
    struct tow_heat accessed = {0};
    struct tow_meter meter = {.pid = 7,
                              .name = "<script>&\"",
                              .heat = &heat,
                              .heat_accessed = &accessed,
                              .accessed = true,
                              .counts_bytes = true,
                              .counts_same = true};
    char *text;
    size_t size;
    tow_heat_add(&heat, BLOCK, 3);
    epoch(&heat, 3);
    tow_heat_add(&accessed, 2 * BLOCK, 5);
    epoch(&accessed, 5);
    meter.total = (struct towline_sums){.epochs = 1,
                                        .lines = 3,
                                        .pages = 1,
                                        .regions = 1,
                                        .known_lines = 3,
                                        .same_lines = 2,
                                        .accessed_lines = 5,
                                        .accessed_pages = 1};
    FILE *out = open_memstream(&text, &size);
    cr_assert(tow_report_print(&meter, out));
    fclose(out);
    cr_assert(strstr(text, "Dirty lines of &lt;script&gt;&amp;&quot;</h1>"));
    cr_assert_not(strstr(text, "http"), "nothing from elsewhere");
    cr_assert(strstr(text, "draw('dirty'") && strstr(text, ",\n[3]);") &&
              strstr(text, "21.3 times"));
    cr_assert(strstr(text, "draw('accessed'") && strstr(text, ",\n[5]);") &&
              strstr(text, "12.8 times"));
    cr_assert(strstr(text, "3 lines whose contents were compared 2 were rewritten"));
    cr_assert(strstr(text, "</html>"));
    free(text);
    /* What nobody asked for is not known, and has neither map nor row nor number. */
    meter.heat_accessed = NULL;
    meter.accessed = meter.counts_bytes = meter.counts_same = false;
    out = open_memstream(&text, &size);
    cr_assert(tow_report_print(&meter, out));
    fclose(out);
    cr_assert_not(strstr(text, "draw('accessed'") || strstr(text, "12.8 times"));
    cr_assert(strstr(text, "loaded is not known") && strstr(text, "are not known: contents"));
    free(text);
    tow_heat_free(&accessed);
    tow_heat_free(&heat);
}
