#include "fpga-model/page_set.h"

#include "base/random.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGES 10000u /* more than one word of summary */

static uint64_t naive_next(const bool *member, uint64_t from, uint64_t end)
{
    while (from < end && !member[from])
        from++;
    return from < end ? from : end;
}

Test(page_set, agrees_with_an_array)
{
    static bool member[PAGES];
    struct tw_page_set set;
    struct tw_random r = {7};
    cr_assert(tw_page_set_open(&set, PAGES));
    for (unsigned i = 0; i < 20000; i++) {
        /* thick at the front, thin behind, emptied again and again */
        uint64_t page = tw_random_below(&r, i % 3 ? PAGES : 300);
        member[page] = tw_random_below(&r, 100) < 30;
        tw_page_set_assign(&set, page, member[page]);
        uint64_t end = tw_random_below(&r, PAGES + 1);
        uint64_t from = tw_random_below(&r, PAGES);
        cr_assert_eq(tw_page_set_next(&set, from, end),
                     from < end ? naive_next(member, from, end) : end);
        cr_assert_eq(tw_page_set_has(&set, from), member[from]);
    }
    tw_page_set_close(&set);
}

Test(page_set, stale_summary_bits_do_not_matter)
{
    struct tw_page_set set;
    cr_assert(tw_page_set_open(&set, PAGES));
    for (uint64_t page = 0; page < PAGES; page++)
        tw_page_set_assign(&set, page, true);
    for (uint64_t page = 0; page < PAGES - 1; page++)
        tw_page_set_assign(&set, page, false);
    cr_expect_eq(tw_page_set_next(&set, 0, PAGES), PAGES - 1);
    cr_expect_eq(tw_page_set_next(&set, 0, PAGES - 1), PAGES - 1);
    cr_expect_eq(tw_page_set_next(&set, PAGES, PAGES), PAGES);
    tw_page_set_close(&set);
}
