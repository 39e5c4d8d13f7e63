#include "services/migration/convergence.h"

#include <criterion/criterion.h>

static struct tw_convergence usual(void)
{
    return (struct tw_convergence){.dirty_bytes = 1 << 20,
                                   .rate = 100 << 20,
                                   .budget_ns = 200 * TW_MS, /* 20 MiB */
                                   .rounds = 3,
                                   .last_round = 1 << 20,
                                   .round_before = 1 << 20,
                                   .max_rounds = 30};
}

Test(convergence, stops_when_the_rest_fits_and_no_longer_shrinks)
{
    struct tw_convergence c = usual();
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP);
    c.last_round = 2 << 20;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND, "half of the last round: another one pays");
    c.dirty_bytes = 64 << 10;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP, "next to nothing is left to gain");
    c.dirty_bytes = 0;
    c.rounds = 0;
    c.last_round = c.round_before = 0;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP, "an idle VM needs no round");
}

Test(convergence, the_first_round_is_judged_by_the_growth_of_the_set)
{
    struct tw_convergence c = usual();
    c.rounds = 0;
    c.dirty_bytes = 15 << 20;
    c.last_round = c.round_before = 0;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND, "nothing is known: a round will tell");
    c.forecast_known = true;
    c.forecast = 14 << 20;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP, "the set is there again at once");
    c.forecast = 7 << 20;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND);
    c.rounds = 1;
    c.last_round = 15 << 20;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP, "a round that was made tells more");
}

Test(convergence, judges_bytes_against_the_link)
{
    struct tw_convergence c = usual();
    c.dirty_bytes = 40 << 20;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND);
    c.rate = 400 << 20;
    c.last_round = c.dirty_bytes;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_STOP);
}

Test(convergence, policy_decides_at_the_bound)
{
    struct tw_convergence c = usual();
    c.dirty_bytes = c.last_round = c.round_before = 40 << 20;
    c.rounds = c.max_rounds;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_NO_CONVERGENCE);
    c.policy = TW_ON_NO_CONVERGENCE_STOP;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_FORCE);
    c.rounds = 7;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND);
    c.stalled = TW_STALLED_ROUNDS;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_FORCE, "more rounds would be pointless");
    c.policy = TW_ON_NO_CONVERGENCE_ABORT;
    cr_assert_eq(tw_converge(&c), TW_VERDICT_ROUND, "but an abort waits for the bound");
}

Test(convergence, budget_leaves_out_what_is_fixed)
{
    cr_assert_eq(tw_budget_for_lines_ns(300 * TW_MS, 80 * TW_MS), 220 * TW_MS);
    cr_assert_eq(tw_budget_for_lines_ns(40 * TW_MS, 80 * TW_MS), 10 * TW_MS);
    cr_assert_eq(tw_fixed_downtime_ns(UINT64_C(1) << 30, 0, false), TW_DEVICE_STATE_ESTIMATE_NS);
    cr_assert_eq(tw_fixed_downtime_ns(1000000000, 0, true),
                 TW_DEVICE_STATE_ESTIMATE_NS + 100 * TW_MS);
    cr_assert_eq(tw_fixed_downtime_ns(1000000000, 7 * TW_MS, true),
                 TW_DEVICE_STATE_ESTIMATE_NS + 7 * TW_MS, "measured beats estimated");
}

Test(convergence, cost_and_estimate)
{
    cr_assert_eq(tw_dirty_cost(1, 1), 80);
    cr_assert_eq(tw_dirty_cost(1, 64), 4112);
    cr_assert_eq(tw_estimate_ns(1000000, 1000000, 0), TW_SEC);
    cr_assert_eq(tw_estimate_ns(1000000, 1000000, 500000), 2 * TW_SEC);
    cr_assert_eq(tw_estimate_ns(1000000, 1000000, 1000000), 0, "not known");
    cr_assert_eq(tw_estimate_ns(UINT64_MAX, 1, 0), TW_NEVER, "does not wrap");
}

Test(convergence, defaults)
{
    struct tw_migration_limits l = tw_limits_complete((struct tw_migration_limits){0});
    cr_assert_eq(l.downtime_ns, 300 * TW_MS);
    cr_assert_eq(l.max_rounds, 30);
    cr_assert_eq(l.timeout_ns, 600 * TW_SEC);
    l = tw_limits_complete((struct tw_migration_limits){.max_rounds = 2, .downtime_ns = 5});
    cr_assert_eq(l.max_rounds, 2);
    cr_assert_eq(l.downtime_ns, 5);
}
