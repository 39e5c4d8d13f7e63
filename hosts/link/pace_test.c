/* The two buckets of pacing, with writers of every kind in virtual time. */
#include "hosts/pace.h"

#include "base/clock.h"
#include "base/random.h"

#include <criterion/criterion.h>

struct writer {
    struct tw_random random;
    struct tw_pace_rule rule;
    struct tw_pace_bucket bucket;
    uint64_t now_ns, stores, waited_ns, longest_ns;
    uint64_t overshoot_ns; /* that a sleep takes longer than asked, at most */
};

/* A store to a paced line behind `work_ns` of other work. */
static void store(struct writer *w, uint64_t work_ns)
{
    w->now_ns += work_ns;
    w->stores++;
    if (!tw_pace_owe(&w->bucket, w->rule.delay_ns))
        return;
    uint64_t wait_ns = tw_pace_wait(&w->bucket, w->rule.share_permille, w->now_ns);
    if (wait_ns == 0)
        return;
    w->longest_ns = wait_ns > w->longest_ns ? wait_ns : w->longest_ns;
    if (w->overshoot_ns)
        wait_ns += tw_random_below(&w->random, w->overshoot_ns);
    tw_pace_waited(&w->bucket, wait_ns);
    w->waited_ns += wait_ns;
    w->now_ns += wait_ns;
}

static struct writer writer(uint64_t seed, uint64_t delay_ns, uint32_t share)
{
    return (struct writer){
        .random = {seed}, .rule = {delay_ns, share}, .now_ns = TW_SEC, .overshoot_ns = 0};
}

Test(pace, never_more_than_the_share_and_never_long)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct writer w = writer(seed, 0, 0);
        w.rule.delay_ns = tw_random_below(&w.random, 3 * TW_PACE_DELAY_MAX_NS);
        w.rule.share_permille = (uint32_t)tw_random_below(&w.random, 1200);
        w.overshoot_ns = tw_random_below(&w.random, 2) * 100 * TW_US;
        uint64_t busy_ns = 1 + tw_random_below(&w.random, 50 * TW_US), start_ns = w.now_ns;
        for (unsigned i = 0; i < 20000; i++)
            store(&w, tw_random_below(&w.random, 50) ? tw_random_below(&w.random, busy_ns)
                                                     : tw_random_below(&w.random, 5 * TW_MS));
        uint64_t share =
            w.rule.share_permille < TW_PACE_SHARE_MAX ? w.rule.share_permille : TW_PACE_SHARE_MAX;
        uint64_t most = (w.now_ns - start_ns + TW_PACE_BURST_NS) * share / 1000;
        cr_assert_leq(w.waited_ns, most + w.overshoot_ns, "seed %llu", (unsigned long long)seed);
        cr_assert_leq(w.longest_ns, TW_PACE_WAIT_MAX_NS);
    }
}

/* Where the share allows it, a line costs its writer the delay: no less and no more. */
Test(pace, a_line_costs_the_delay)
{
    static const uint64_t delays[] = {500, 2 * TW_US, 50 * TW_US, TW_PACE_DELAY_MAX_NS};
    for (unsigned i = 0; i < 4; i++) {
        struct writer w = writer(1, delays[i], TW_PACE_SHARE_MAX);
        for (unsigned n = 0; n < 20000; n++)
            store(&w, delays[i] / 4);
        uint64_t owed = w.stores * delays[i];
        cr_assert_leq(w.waited_ns, owed);
        cr_assert_geq(w.waited_ns, owed - owed / 20, "delay %llu: %llu of %llu",
                      (unsigned long long)delays[i], (unsigned long long)w.waited_ns,
                      (unsigned long long)owed);
    }
}

/* What cannot be paid is not saved up for later: who begins to write little is soon free. */
Test(pace, debts_are_bounded)
{
    struct writer w = writer(1, TW_PACE_DELAY_MAX_NS, 100);
    for (unsigned i = 0; i < 100000; i++)
        store(&w, 100);
    w.rule.delay_ns = 0;
    uint64_t before = w.waited_ns;
    for (unsigned i = 0; i < 1000; i++)
        store(&w, TW_MS);
    cr_assert_leq(w.waited_ns - before, TW_PACE_WAIT_MAX_NS);
}

Test(pace, no_share_no_wait)
{
    struct writer w = writer(1, TW_PACE_DELAY_MAX_NS, 0);
    for (unsigned i = 0; i < 10000; i++)
        store(&w, TW_US);
    cr_assert_eq(w.waited_ns, 0);
    w.rule = (struct tw_pace_rule){0, TW_PACE_SHARE_MAX};
    w.bucket.owed_ns = 0;
    for (unsigned i = 0; i < 10000; i++)
        store(&w, TW_US);
    cr_assert_eq(w.waited_ns, 0);
}
