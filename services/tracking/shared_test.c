#include "services/tracking/shared.h"

#include <criterion/criterion.h>

static void add(struct tw_shared_lines *s, uint64_t address, bool falsely)
{
    const struct tw_shared_line line = {.address = address, .thread_count = 2, .disjoint = falsely};
    tw_shared_lines_add(s, &line);
}

Test(shared, falsely_shared_lines_come_first_then_by_address)
{
    struct tw_shared_lines s = {0};
    struct tw_shared_line out[4];
    add(&s, 640, false);
    add(&s, 128, false);
    add(&s, 1280, true);
    add(&s, 1280, true); /* once more, in a later pass */
    cr_assert_eq(s.total, 4);
    cr_assert_eq(s.falsely, 2);
    cr_assert_eq(tw_shared_lines_list(&s, out, 4), 3);
    cr_expect(out[0].address == 1280 && out[1].address == 128 && out[2].address == 640);
    cr_assert_eq(tw_shared_lines_list(&s, out, 1), 1);
    cr_expect_eq(out[0].address, 1280);
    tw_shared_lines_clear(&s);
    cr_expect_eq(tw_shared_lines_list(&s, out, 4), 0);
    tw_shared_lines_free(&s);
}

Test(shared, a_full_list_keeps_the_falsely_shared)
{
    struct tw_shared_lines s = {0};
    struct tw_shared_line out[TW_SHARED_LINES_MAX];
    for (unsigned i = 0; i < 2 * TW_SHARED_LINES_MAX; i++)
        add(&s, i * 64, false);
    add(&s, 1 << 20, true);
    cr_assert_eq(s.count, TW_SHARED_LINES_MAX);
    cr_assert_eq(s.total, 2 * TW_SHARED_LINES_MAX + 1);
    cr_assert_eq(tw_shared_lines_list(&s, out, TW_SHARED_LINES_MAX), TW_SHARED_LINES_MAX);
    cr_expect(out[0].address == 1 << 20 && out[0].disjoint);
    tw_shared_lines_free(&s);
}
