/* When writers are slowed, and how much. */
#include "services/migration/pacing.h"

#include "hosts/pace.h"

#include <criterion/criterion.h>
#include <string.h>

/* 1 MiB/s and 100 ms for the last lines: what fits is about 100 KB. */
static struct tw_convergence look(uint64_t dirty, uint64_t last)
{
    return (struct tw_convergence){.dirty_bytes = dirty,
                                   .last_round = last,
                                   .rate = 1 << 20,
                                   .budget_ns = 100 * TW_MS,
                                   .rounds = 5,
                                   .max_rounds = 30,
                                   .stalled = TW_PACING_PATIENCE};
}

static struct tw_pacing begun(void)
{
    struct tw_pacing p = {.budget_permille = 200};
    struct tw_convergence c = look(500000, 500000);
    cr_assert_eq(tw_pacing_judge(&p, &c, TW_NEVER), TW_PACING_BEGIN);
    cr_assert_eq(p.delay_ns, TW_PACING_FIRST_NS);
    return p;
}

static void expect_off(struct tw_pacing p, struct tw_convergence c, uint64_t left_ns)
{
    cr_assert_eq(tw_pacing_judge(&p, &c, left_ns), TW_PACING_KEEP);
    cr_assert_eq(p.delay_ns, 0);
}

Test(pacing, only_as_the_last_resort)
{
    const struct tw_pacing allowed = {.budget_permille = 200};
    begun();
    expect_off((struct tw_pacing){0}, look(500000, 500000), TW_NEVER); /* without a budget */
    expect_off(allowed, look(50000, 50000), TW_NEVER);                 /* what is dirty fits */
    struct tw_convergence c = look(500000, 900000);
    c.stalled = 0; /* rounds shrink */
    expect_off(allowed, c, TW_NEVER);
    c.stalled = TW_PACING_PATIENCE - 1;
    expect_off(allowed, c, TW_NEVER);
    c = look(500000, 500000);
    c.rounds = c.max_rounds; /* too late to help */
    expect_off(allowed, c, TW_NEVER);
}

Test(pacing, earlier_when_few_rounds_are_left)
{
    struct tw_pacing p = {.budget_permille = 200};
    struct tw_convergence c = look(500000, 500000);
    c.max_rounds = c.rounds + TW_PACING_HURRY - 1;
    c.stalled = 1;
    cr_assert_eq(tw_pacing_judge(&p, &c, TW_NEVER), TW_PACING_BEGIN);
}

/* 900 KB are to be sent where each round is nine tenths of the one before: 9 s. */
Test(pacing, when_rounds_shrink_too_slowly_for_the_whole)
{
    char text[TW_PACE_REASON_SIZE];
    struct tw_pacing p = {.budget_permille = 200};
    struct tw_convergence c = look(900000, 1000000);
    c.stalled = 0;
    expect_off(p, c, 20 * TW_SEC);
    cr_assert_eq(tw_pacing_judge(&p, &c, 5 * TW_SEC), TW_PACING_BEGIN);
    tw_pacing_explain(&p, &c, 5 * TW_SEC, text);
    cr_assert(strstr(text, "of the whole"), "%s", text);
    c.stalled = TW_PACING_PATIENCE;
    tw_pacing_explain(&p, &c, TW_NEVER, text);
    cr_assert(strstr(text, "do not shrink") && strstr(text, "20 %"), "%s", text);
}

Test(pacing, steps_up_to_a_bound_and_says_when_it_is_spent)
{
    struct tw_pacing p = begun();
    struct tw_convergence c = look(500000, 500000);
    uint64_t before = p.delay_ns;
    while (tw_pacing_judge(&p, &c, TW_NEVER) == TW_PACING_UP) {
        cr_assert_gt(p.delay_ns, before);
        cr_assert_leq(p.delay_ns, TW_PACE_DELAY_MAX_NS);
        cr_assert_not(p.spent);
        before = p.delay_ns;
    }
    cr_assert_eq(p.delay_ns, TW_PACE_DELAY_MAX_NS);
    cr_assert(p.spent);
    c = look(300000, 500000); /* it works after all */
    tw_pacing_judge(&p, &c, TW_NEVER);
    cr_assert_not(p.spent);
}

Test(pacing, holds_while_rounds_shrink)
{
    struct tw_pacing p = begun();
    struct tw_convergence c = look(300000, 500000);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(tw_pacing_judge(&p, &c, TW_NEVER), TW_PACING_KEEP);
    cr_assert_eq(p.delay_ns, TW_PACING_FIRST_NS);
    c = look(90000, 90000); /* it fits, just: neither up nor down */
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(tw_pacing_judge(&p, &c, TW_NEVER), TW_PACING_KEEP);
}

Test(pacing, steps_down_with_hysteresis_and_ends)
{
    struct tw_pacing p = begun();
    struct tw_convergence high = look(500000, 500000), low = look(20000, 20000);
    cr_assert_eq(tw_pacing_judge(&p, &high, TW_NEVER), TW_PACING_UP);
    cr_assert_eq(tw_pacing_judge(&p, &low, TW_NEVER), TW_PACING_KEEP); /* once is not enough */
    cr_assert_eq(tw_pacing_judge(&p, &high, TW_NEVER), TW_PACING_UP);
    cr_assert_eq(tw_pacing_judge(&p, &low, TW_NEVER), TW_PACING_KEEP);
    uint64_t before = p.delay_ns;
    cr_assert_eq(tw_pacing_judge(&p, &low, TW_NEVER), TW_PACING_DOWN);
    cr_assert_eq(p.delay_ns, before / 2);
    enum tw_pacing_step step;
    unsigned steps = 0;
    while ((step = tw_pacing_judge(&p, &low, TW_NEVER)) != TW_PACING_END)
        cr_assert_lt(++steps, 40);
    cr_assert_eq(p.delay_ns, 0);
}
