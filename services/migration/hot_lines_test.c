/* The hot set against an oracle that remembers every round. */
#include "services/migration/hot_lines.h"

#include "base/line.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGES  16u
#define ROUNDS 60u

static uint64_t told[ROUNDS + 1][PAGES];

static uint64_t hot_by_history(unsigned round, uint64_t page)
{
    uint64_t lines = round >= TW_HOT_ROUNDS ? TW_ALL_LINES : 0;
    for (unsigned back = 0; lines && back < TW_HOT_ROUNDS; back++)
        lines &= told[round - back][page];
    return lines;
}

Test(hot_lines, are_those_of_each_of_the_last_rounds)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct tw_random r = {seed};
        struct tw_hot_lines h;
        cr_assert_eq(tw_hot_lines_open(&h, PAGES, NULL), TW_OK);
        memset(told, 0, sizeof told);
        for (unsigned round = 1; round <= ROUNDS; round++) {
            tw_hot_lines_round(&h);
            for (uint64_t page = 0; page < PAGES; page++) {
                if (tw_random_below(&r, 4) == 0)
                    continue;
                told[round][page] = tw_random_next(&r) | tw_random_next(&r);
                uint64_t hot = tw_hot_lines_add(&h, page, told[round][page]);
                cr_assert_eq(hot, hot_by_history(round, page), "seed %llu round %u page %llu",
                             (unsigned long long)seed, round, (unsigned long long)page);
            }
        }
        tw_hot_lines_close(&h);
    }
}

Test(hot_lines, chosen_ones_stay_and_are_counted_once)
{
    struct tw_hot_lines h;
    cr_assert_eq(tw_hot_lines_open(&h, PAGES, NULL), TW_OK);
    cr_assert_eq(tw_hot_lines_choose(&h, 3, 0x0f), 0x0f);
    cr_assert_eq(tw_hot_lines_choose(&h, 3, 0x3c), 0x3f);
    cr_assert_eq(tw_hot_lines_choose(&h, 3, 0), 0x3f);
    cr_assert_eq(h.chosen, 6);
    tw_hot_lines_close(&h);
    cr_assert_not(tw_hot_lines_is_open(&h));
    tw_hot_lines_close(&h);
}

Test(hot_lines, are_bounded_in_number)
{
    const uint64_t pages = TW_HOT_LINES_MAX / TW_LINES_PER_PAGE + 2;
    struct tw_hot_lines h;
    cr_assert_eq(tw_hot_lines_open(&h, pages, NULL), TW_OK);
    cr_assert_eq(tw_hot_lines_choose(&h, 0, 1), 1);
    for (uint64_t page = 1; page < pages; page++)
        tw_hot_lines_choose(&h, page, TW_ALL_LINES);
    cr_assert_eq(h.chosen, TW_HOT_LINES_MAX);
    cr_assert_eq(tw_hot_lines_choose(&h, pages - 2, 0), TW_ALL_LINES >> 1);
    cr_assert_eq(tw_hot_lines_choose(&h, pages - 1, TW_ALL_LINES), 0);
    tw_hot_lines_close(&h);
}
