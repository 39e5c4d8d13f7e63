#include "services/migration/growth.h"

#include "base/clock.h"

#include <criterion/criterion.h>

Test(growth, knows_nothing_before_its_first_sample)
{
    struct tw_growth g;
    uint64_t bytes;
    tw_growth_begin(&g, TW_SEC);
    cr_assert_not(tw_growth_due(&g, TW_SEC));
    cr_assert(tw_growth_due(&g, TW_SEC + 2 * TW_MS));
    cr_assert_not(tw_growth_after(&g, TW_MS, &bytes));
}

Test(growth, answers_between_and_beyond_the_samples)
{
    struct tw_growth g;
    uint64_t bytes;
    tw_growth_begin(&g, TW_SEC);
    tw_growth_add(&g, TW_SEC + 10 * TW_MS, 1000);
    tw_growth_add(&g, TW_SEC + 20 * TW_MS, 3000);
    tw_growth_add(&g, TW_SEC + 30 * TW_MS, 2900); /* never smaller than before */
    cr_assert(tw_growth_after(&g, 0, &bytes));
    cr_assert_eq(bytes, 0);
    tw_growth_after(&g, 5 * TW_MS, &bytes);
    cr_assert_eq(bytes, 500);
    tw_growth_after(&g, 15 * TW_MS, &bytes);
    cr_assert_eq(bytes, 2000);
    tw_growth_after(&g, 25 * TW_MS, &bytes);
    cr_assert_eq(bytes, 3000);
    tw_growth_after(&g, TW_NEVER, &bytes);
    cr_assert_eq(bytes, 3000);
}

Test(growth, samples_get_further_apart_and_end)
{
    struct tw_growth g;
    uint64_t now = 0, taken = 0, bytes;
    tw_growth_begin(&g, now);
    for (; now < 3600 * TW_SEC; now += TW_MS) {
        if (tw_growth_due(&g, now)) {
            tw_growth_add(&g, now, now);
            taken++;
        }
    }
    cr_assert_leq(taken, TW_GROWTH_SAMPLES);
    cr_assert_gt(taken, 50);
    cr_assert(tw_growth_after(&g, 100 * TW_SEC, &bytes));
    cr_assert(bytes > 99 * TW_SEC && bytes <= 100 * TW_SEC, "a straight line stays one");
    tw_growth_add(&g, TW_NEVER, 1);
    tw_growth_add(&g, TW_NEVER, 1);
    cr_assert_leq(g.count, TW_GROWTH_SAMPLES);
}
