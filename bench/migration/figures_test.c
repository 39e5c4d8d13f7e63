#include "bench/migration/figures.h"

#include <criterion/criterion.h>
#include <math.h>

static void set(struct bench_sample *s, double converged, double downtime)
{
    bench_sample_clear(s);
    s->value[BENCH_CONVERGED] = converged;
    s->value[BENCH_DOWNTIME] = downtime;
}

Test(figures, median_of_odd_even_and_none)
{
    struct bench_sample s[4];
    double values[] = {30, 10, 20, 40};
    for (size_t i = 0; i < 4; i++)
        set(&s[i], 1, values[i]);
    cr_assert_eq(bench_sample_median(s, 3, BENCH_DOWNTIME), 20);
    cr_assert_eq(bench_sample_median(s, 4, BENCH_DOWNTIME), 25);
    s[0].value[BENCH_DOWNTIME] = NAN;
    cr_assert_eq(bench_sample_median(s, 2, BENCH_DOWNTIME), 10);
    cr_assert(isnan(bench_sample_median(s, 3, BENCH_TOTAL)));
}

Test(figures, runs_that_did_not_converge_give_no_downtime)
{
    struct bench_sample s[3];
    set(&s[0], 1, 100);
    set(&s[1], 0, 5);
    set(&s[2], 1, 300);
    cr_assert_eq(bench_result(s, 3, BENCH_DOWNTIME), 200, "only what converged counts");
    cr_assert_eq(bench_result(s, 3, BENCH_CONVERGED), 1);
    set(&s[2], 0, 7);
    cr_assert(isnan(bench_result(s, 3, BENCH_DOWNTIME)), "most runs did not converge");
    cr_assert_eq(bench_result(s, 3, BENCH_CONVERGED), 0);
}

Test(figures, ratio_says_how_many_times_better_ours_is)
{
    cr_assert_eq(bench_ratio(10, 40, false), 4);
    cr_assert_eq(bench_ratio(40, 10, true), 4);
    cr_assert_eq(bench_ratio(40, 10, false), 0.25);
    cr_assert_eq(bench_ratio(0, 0, false), 1);
    cr_assert(isnan(bench_ratio(0, 5, false)), "infinitely better is no number");
    cr_assert(isnan(bench_ratio(1, 0, true)));
    cr_assert_eq(bench_ratio(0, 1, true), 0);
    cr_assert(isnan(bench_ratio(NAN, 1, true)));
    cr_assert(isnan(bench_ratio(1, NAN, false)));
}

Test(figures, full_copy_as_qemu_counts_it)
{
    cr_assert_eq(bench_qemu_full_copy_bytes(10, 0), 10 * 4104);
    cr_assert_eq(bench_qemu_full_copy_bytes(10, 4), 6 * 4104 + 4 * 9);
    cr_assert_eq(bench_qemu_full_copy_bytes(10, 12), 10 * 9);
}

Test(figures, series)
{
    static struct bench_series s;
    bench_series_add(&s, 1000, 10);
    bench_series_add(&s, 2000, 20);
    bench_series_add(&s, 1500, 30); /* back in time */
    bench_series_add(&s, 2500, 15); /* a counter that fell */
    bench_series_add(&s, 5000, 50);
    cr_assert_eq(s.count, 3);
    cr_assert(isnan(bench_series_at(&s, 999)));
    cr_assert(isnan(bench_series_at(&s, 5001)));
    cr_assert_eq(bench_series_at(&s, 1000), 10);
    cr_assert_eq(bench_series_at(&s, 1500), 15);
    cr_assert_eq(bench_series_at(&s, 3500), 35);
    cr_assert_float_eq(bench_series_rate(&s, 1000, 5000), 1e7, 1);
    cr_assert(isnan(bench_series_rate(&s, 2000, 2000)));
    cr_assert_eq(bench_series_gap(&s, 1000, 2000), 1000);
    cr_assert_eq(bench_series_gap(&s, 1000, 2001), 3000, "a gap that begins inside counts whole");
    cr_assert_eq(bench_series_gap(&s, 3000, 3100), 3000, "one around the window too");
    cr_assert_eq(bench_series_gap(&s, 6000, 7000), 0);
}

Test(figures, pulse_takes_the_last_of_the_source_and_the_first_of_the_destination)
{
    struct bench_pulse p = {0};
    bench_pulse_look(&p, 100, 5, 0, 1);
    bench_pulse_look(&p, 200, 6, 0, 1);
    bench_pulse_look(&p, 300, 6, 0, 1);
    cr_assert_eq(bench_pulse_pause_ns(&p), 0);
    bench_pulse_look(&p, 350, 6, 3, 4); /* below the step: work of loading, not of running */
    cr_assert_eq(bench_pulse_pause_ns(&p), 0);
    bench_pulse_look(&p, 400, 6, 4, 4);
    bench_pulse_look(&p, 500, 6, 9, 4);
    cr_assert_eq(bench_pulse_pause_ns(&p), 200);
    bench_pulse_look(&p, 600, 7, 9, 4); /* the source went on: that was no switch-over */
    cr_assert_eq(bench_pulse_pause_ns(&p), 0);
    bench_pulse_look(&p, 700, 7, 12, 4);
    cr_assert_eq(bench_pulse_pause_ns(&p), 0, "measured from its value at that time");
    bench_pulse_look(&p, 800, 7, 13, 4);
    cr_assert_eq(bench_pulse_pause_ns(&p), 200);
}

Test(bench, when_a_counter_is_back_at_its_rate)
{
    static struct bench_series s;
    for (uint64_t ms = 0; ms < 100; ms++) /* 1000 a second, a stop, then slow, then as before */
        bench_series_add(&s, ms * 1000000, (double)ms);
    for (uint64_t ms = 200; ms < 300; ms++)
        bench_series_add(&s, ms * 1000000, 100 + (double)(ms - 200) / 4);
    for (uint64_t ms = 300; ms < 400; ms++)
        bench_series_add(&s, ms * 1000000, 125 + (double)(ms - 300));
    uint64_t at = bench_series_reaches(&s, 150000000, 900, 20000000);
    cr_expect_geq(at, 297000000);
    cr_expect_leq(at, 300000000);
    cr_expect_eq(bench_series_reaches(&s, 150000000, 2000, 20000000), 0);
}

Test(bench, waits_in_a_trace_of_qemu)
{
    static struct bench_waits w;
    static const char *const lines[] = {
        "qemu: something else",
        "77@100.000100:postcopy_ram_fault_thread_request Request for HVA=0x7f0000001040 rb=ram0 "
        "offset=0x1000 pid=3",
        "77@100.000200:postcopy_place_page host=0x7f0000005000",
        "77@100.000300:postcopy_ram_fault_thread_request Request for HVA=0x7f0000002000 rb=ram0 "
        "offset=0x2000 pid=3",
        "77@100.000350:postcopy_place_page host=0x7f0000001000",
        "77@101.000300:postcopy_place_page_zero host=0x7f0000002000",
        "77@:postcopy_place_page host=",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        bench_waits_line(&w, lines[i]);
    cr_assert_eq(w.count, 2);
    cr_expect_eq(w.open_count, 0);
    cr_expect_float_eq(bench_waits_us(&w, 50), 250, 0.1);
    cr_expect_float_eq(bench_waits_us(&w, 99), 1000000, 0.1);
}
