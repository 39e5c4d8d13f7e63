#include "base/clock.h"
#include "services/migration/throttle.h"

#include <criterion/criterion.h>

/* Sends chunks as fast as the bucket lets them for a while; returns bytes/s. */
static uint64_t rate_over(struct tw_throttle *t, uint64_t *now, uint64_t length_ns, uint64_t chunk)
{
    uint64_t start = *now, sent = 0;
    while (*now < start + length_ns) {
        uint64_t ready = tw_throttle_ready_ns(t, *now);
        if (ready > *now) {
            *now = ready;
            continue;
        }
        tw_throttle_spend(t, chunk);
        sent += chunk;
    }
    return (uint64_t)((unsigned __int128)sent * TW_SEC / (*now - start));
}

Test(throttle, keeps_to_its_rate)
{
    static const uint64_t rates[] = {1000, 100000, 10 << 20, UINT64_C(128) << 20,
                                     UINT64_C(4) << 30};
    for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct tw_throttle t;
        uint64_t now = 12345;
        tw_throttle_init(&t, rates[i], now);
        uint64_t chunk = rates[i] / 100 + 1;
        uint64_t got = rate_over(&t, &now, 2 * TW_SEC, chunk);
        cr_assert(got > rates[i] - rates[i] / 30 && got < rates[i] + rates[i] / 30,
                  "wanted %lu, got %lu", (unsigned long)rates[i], (unsigned long)got);
    }
}

Test(throttle, small_steps_of_time_lose_nothing)
{
    struct tw_throttle t;
    tw_throttle_init(&t, 1000, 0);
    tw_throttle_spend(&t, 1000);
    uint64_t now = 0;
    while (tw_throttle_ready_ns(&t, now) > now)
        now += 1300000; /* 1.3 bytes each */
    cr_assert(now >= TW_SEC + 10 * TW_MS && now < TW_SEC + 15 * TW_MS, "%lu", (unsigned long)now);
}

Test(throttle, can_be_changed_while_it_runs)
{
    struct tw_throttle t;
    uint64_t now = 0;
    tw_throttle_init(&t, 1000, now);
    tw_throttle_spend(&t, 100000); /* 100 s of debt */
    cr_assert(tw_throttle_ready_ns(&t, now) > 90 * TW_SEC);
    tw_throttle_set(&t, 10000000, now);
    cr_assert(tw_throttle_ready_ns(&t, now) < 25 * TW_MS, "a higher rate pays the debt faster");
    tw_throttle_set(&t, 0, now);
    cr_assert_eq(tw_throttle_ready_ns(&t, now), now, "no limit, no debt");
    tw_throttle_set(&t, 1000, now + TW_SEC);
    cr_assert_leq(tw_throttle_ready_ns(&t, now + TW_SEC), now + TW_SEC);
    tw_throttle_set(&t, UINT64_MAX, now + TW_SEC);
    cr_assert_eq(t.bytes_per_s, 0, "beyond what can be counted is no limit");
}

Test(throttle, chunks_go_in_groups)
{
    struct tw_throttle t;
    uint64_t now = 0, waits = 0, sent = 0;
    tw_throttle_init(&t, 100 << 20, now);
    while (now < TW_SEC) {
        uint64_t ready = tw_throttle_ready_ns(&t, now);
        if (ready > now) {
            waits++;
            now = ready;
        } else {
            tw_throttle_spend(&t, 64 << 10);
            sent++;
        }
    }
    cr_assert_gt(sent, 1500);
    cr_assert_leq(waits, 101, "10 ms each, not once a chunk: %lu", (unsigned long)waits);
}

Test(throttle, saves_up_a_short_burst_only)
{
    struct tw_throttle t;
    tw_throttle_init(&t, 1000000, 0);
    tw_throttle_ready_ns(&t, 3600 * TW_SEC);
    cr_assert_eq(t.tokens, 20000, "20 ms of 1 MB/s");
}
