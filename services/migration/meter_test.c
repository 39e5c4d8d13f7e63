#include "services/migration/meter.h"

#include <criterion/criterion.h>

Test(meter, rounds_beyond_the_list_share_its_last_entry)
{
    struct tw_meter m;
    uint64_t now = 1000, lines = 0, ns = 0;
    tw_meter_init(&m, 1 << 20, now);
    for (uint32_t i = 0; i < 100; i++) {
        tw_meter_round_begin(&m, i, i == 99, now);
        tw_meter_round(&m)->lines += i;
        now += 10;
        tw_meter_round_end(&m, now);
    }
    cr_assert_eq(m.p.round_count, TW_MIGRATION_ROUNDS_MAX);
    for (unsigned i = 0; i < m.p.round_count; i++) {
        lines += m.p.rounds[i].lines;
        ns += m.p.rounds[i].duration_ns;
    }
    cr_assert_eq(lines, 99 * 100 / 2);
    cr_assert_eq(ns, 1000);
    cr_assert_eq(m.p.rounds[63].index, 99);
    cr_assert(m.p.rounds[63].final);
    cr_assert_eq(m.p.rounds[10].lines, 10);
}

Test(meter, rate_is_of_the_last_second)
{
    struct tw_meter m;
    uint64_t now = 5 * TW_SEC;
    tw_meter_init(&m, 1 << 20, now);
    for (unsigned i = 0; i < 300; i++, now += 10 * TW_MS)
        tw_meter_sent(&m, 1000, now); /* 100 kB/s for 3 s */
    uint64_t rate = tw_meter_rate(&m, now);
    cr_assert(rate > 90000 && rate < 115000, "%lu", (unsigned long)rate);
    cr_assert_eq(tw_meter_rate(&m, now + 2 * TW_SEC), 0);
    tw_meter_sent(&m, 500, now + 60 * TW_SEC);
    cr_assert_lt(tw_meter_rate(&m, now + 60 * TW_SEC), 1000);
}

Test(meter, link_rate_believes_large_samples_only)
{
    struct tw_meter m;
    tw_meter_init(&m, 1 << 20, 0);
    tw_meter_round_begin(&m, 0, false, 0);
    tw_meter_sent(&m, 1 << 20, TW_MS);
    tw_meter_round_end(&m, 2 * TW_MS);
    cr_assert_eq(m.link_rate, 0, "a megabyte may be in buffers");
    tw_meter_round_begin(&m, 1, false, TW_SEC);
    for (unsigned i = 1; i <= 100; i++)
        tw_meter_sent(&m, 1 << 20, TW_SEC + i * 10 * TW_MS);
    tw_meter_round_end(&m, 2 * TW_SEC);
    cr_assert(m.link_rate > UINT64_C(95) << 20 && m.link_rate < UINT64_C(120) << 20);
}

Test(meter, a_limit_of_our_own_says_nothing_about_the_link)
{
    struct tw_meter m;
    uint64_t now = TW_SEC;
    tw_meter_init(&m, 1 << 20, 0);
    tw_meter_round_begin(&m, 0, false, now);
    for (unsigned group = 0; group < 50; group++) { /* 1 MiB in 2 ms, then a pause of 8 ms */
        for (unsigned i = 0; i < 16; i++)
            tw_meter_sent(&m, 64 << 10, now + i * 20 * TW_US);
        tw_meter_held_back(&m, 768 << 10, now + TW_MS);
        tw_meter_held_back(&m, 128 << 10, now + 2 * TW_MS);
        tw_meter_held_back(&m, 0, now + 8 * TW_MS);
        now += 10 * TW_MS;
    }
    cr_assert(m.link_rate > UINT64_C(400) << 20 && m.link_rate < UINT64_C(500) << 20, "%lu",
              (unsigned long)m.link_rate);
    m.link_rate = 0;
    for (unsigned group = 0; group < 50; group++) { /* not consumed before the next group */
        tw_meter_sent(&m, 1 << 20, now);
        tw_meter_held_back(&m, 768 << 10, now + 8 * TW_MS);
        now += 10 * TW_MS;
    }
    cr_assert_eq(m.link_rate, 0);
}

Test(meter, ends_once)
{
    struct tw_meter m;
    tw_meter_init(&m, 0, 100);
    tw_meter_end(&m, 300);
    tw_meter_end(&m, 900);
    cr_assert_eq(m.p.total_ns, 200);
    cr_assert_eq(tw_page_cost(true), 8);
    cr_assert_eq(tw_page_cost(false), 4104);
}
