#include "services/migration/forecast.h"
#include "services/migration/policy.h"

#include "base/random.h"
#include "services/migration/convergence.h"

#include <criterion/criterion.h>
#include <string.h>

/* ---- The curve --------------------------------------------------------------------------------
 */

static void sample_at(struct tw_dirty_curve *c, uint64_t ns, uint64_t lines, uint64_t pages)
{
    unsigned i = 0;
    while (i + 1 < TW_CURVE_SAMPLES && tw_dirty_curve_due_ns(i + 1) <= ns)
        i++;
    tw_dirty_curve_add(c, i, ns, lines, pages);
}

Test(dirty_curve, averages_and_interpolates)
{
    struct tw_dirty_curve c = {0};
    cr_assert_eq(tw_dirty_curve_at(&c, TW_SEC, 1000).lines, 0, "nothing is known");
    sample_at(&c, 10 * TW_MS, 100, 10);
    sample_at(&c, 10 * TW_MS, 300, 30);
    sample_at(&c, 100 * TW_MS, 400, 40);
    cr_assert_eq(tw_dirty_curve_at(&c, 10 * TW_MS, 1000).lines, 200);
    cr_assert_eq(tw_dirty_curve_at(&c, 5 * TW_MS, 1000).lines, 100);
    cr_assert_eq(tw_dirty_curve_at(&c, 55 * TW_MS, 1000).pages, 30);
    cr_assert_eq(tw_dirty_curve_end_ns(&c), 100 * TW_MS);
}

Test(dirty_curve, goes_on_beyond_its_end_and_never_beyond_memory)
{
    struct tw_dirty_curve c = {0};
    sample_at(&c, 50 * TW_MS, 1000, 100);
    sample_at(&c, 100 * TW_MS, 2000, 200);
    cr_assert_eq(tw_dirty_curve_at(&c, 200 * TW_MS, 100000).lines, 4000);
    cr_assert_eq(tw_dirty_curve_at(&c, 200 * TW_MS, 50).lines, 50 * 64);
    cr_assert_eq(tw_dirty_curve_at(&c, TW_NEVER, 50).pages, 50);
    struct tw_dirty_curve flat = {0};
    sample_at(&flat, 40 * TW_MS, 1000, 100);
    sample_at(&flat, 100 * TW_MS, 1000, 100);
    cr_assert_eq(tw_dirty_curve_at(&flat, 10 * TW_SEC, 100000).lines, 1000, "it is rewritten");
}

/* ---- The forecast -----------------------------------------------------------------------------
 */

#define MIB (UINT64_C(1) << 20)

/* A guest of 256 MiB, 128 MiB/s, that writes `lines_per_s` fresh lines over `hot_lines`. */
static struct tw_forecast_input guest(uint64_t lines_per_s, uint64_t hot_lines)
{
    struct tw_forecast_input in = {.memory_bytes = 256 * MIB,
                                   .data_bytes = 128 * MIB,
                                   .full_copy_bytes = 96 * MIB,
                                   .link_bytes_per_s = 512 * MIB,
                                   .sees_all_writers = true,
                                   .fixed = tw_fixed_costs_default(),
                                   .limits = {.bandwidth_bytes_per_s = 128 * MIB}};
    for (unsigned i = 0; i < TW_CURVE_SAMPLES; i++) {
        uint64_t ns = tw_dirty_curve_due_ns(i);
        uint64_t lines = (uint64_t)((unsigned __int128)lines_per_s * ns / TW_SEC);
        lines = lines < hot_lines ? lines : hot_lines;
        if (ns <= 5 * TW_SEC)
            tw_dirty_curve_add(&in.curve, i, ns, lines, lines);
    }
    return in;
}

Test(forecast, an_idle_guest_costs_its_copy)
{
    struct tw_forecast f;
    struct tw_forecast_input in = guest(0, 0);
    tw_forecast_make(&in, TW_METHOD_PRE_COPY, &f);
    cr_assert(f.converges);
    cr_assert_eq(f.rounds, 0);
    cr_assert_geq(f.bytes, in.full_copy_bytes + in.fixed.device_state_bytes);
    cr_assert_leq(f.bytes, in.full_copy_bytes + in.full_copy_bytes / 100 + MIB);
    cr_assert_geq(f.total_ns, 750 * TW_MS, "96 MiB at 128 MiB/s");
    cr_assert_leq(f.total_ns, TW_SEC);
    cr_assert_leq(f.downtime_ns, 100 * TW_MS);
}

Test(forecast, what_is_written_without_end_does_not_converge)
{
    struct tw_forecast f;
    /* Every line of the memory in a second: 256 MiB/s and more. */
    struct tw_forecast_input in = guest(4 * 1000 * 1000, 4 * 1000 * 1000);
    in.limits.downtime_ns = 60 * TW_MS;
    tw_forecast_make(&in, TW_METHOD_PRE_COPY, &f);
    cr_assert_not(f.converges);
    cr_assert_eq(f.rounds, TW_DEFAULT_MAX_ROUNDS);
    tw_forecast_make(&in, TW_METHOD_HYBRID, &f);
    cr_assert(f.converges);
    cr_assert_gt(f.lines_to_come, 0);
    cr_assert_gt(f.slow_down_permille, 0);
}

Test(forecast, rounds_shrink_where_the_set_does)
{
    struct tw_forecast few, many;
    struct tw_forecast_input slow = guest(100000, 2000000), fast = guest(800000, 2000000);
    tw_forecast_make(&slow, TW_METHOD_PRE_COPY, &few);
    tw_forecast_make(&fast, TW_METHOD_PRE_COPY, &many);
    cr_assert(few.converges && many.converges);
    cr_assert_geq(few.rounds, 1);
    cr_assert_gt(many.rounds, few.rounds);
    cr_assert_gt(many.bytes, few.bytes);
}

/* The switch waits until a mirror has what follows: all of the memory in post-copy, what is dirty
 * at the switch in hybrid. */
Test(forecast, a_mirror_is_part_of_the_downtime)
{
    struct tw_forecast without, with;
    struct tw_forecast_input in = guest(400000, 1000000);
    for (enum tw_migration_method m = 0; m < TW_METHODS; m++) {
        in.mirrored = false;
        tw_forecast_make(&in, m, &without);
        in.mirrored = true;
        tw_forecast_make(&in, m, &with);
        cr_assert_eq(without.mirror_ns, 0);
        cr_assert_eq(with.downtime_ns, without.downtime_ns + with.mirror_ns);
        if (m == TW_METHOD_PRE_COPY)
            cr_assert_eq(with.mirror_ns, 0, "nothing follows");
        if (m == TW_METHOD_POST_COPY) {
            cr_assert_gt(with.downtime_ns, 187 * TW_MS, "96 MiB at 512 MiB/s");
            cr_assert_lt(with.downtime_ns, 260 * TW_MS);
        }
    }
    in.limits.downtime_ns = 300 * TW_MS;
    in.full_copy_bytes *= 10;
    tw_forecast_make(&in, TW_METHOD_POST_COPY, &with);
    cr_assert_gt(with.mirror_ns, 1800 * TW_MS);
}

/* A choice without a budget's violation is hybrid then, and post-copy says what it costs. */
Test(policy, a_mirror_speaks_for_hybrid)
{
    struct tw_forecast f[TW_METHODS] = {{.method = TW_METHOD_PRE_COPY, .rounds = 30},
                                        {.method = TW_METHOD_HYBRID, .converges = true},
                                        {.method = TW_METHOD_POST_COPY, .converges = true}};
    struct tw_policy p = {.limits = {.downtime_ns = 300 * TW_MS}};
    struct tw_choice c;
    bool advised = false;
    f[1].downtime_ns = 150 * TW_MS;
    f[1].mirror_ns = 100 * TW_MS;
    f[2].downtime_ns = 2 * TW_SEC;
    f[2].mirror_ns = 1900 * TW_MS;
    tw_policy_choose(&p, f, &c);
    cr_assert_eq(c.method, TW_METHOD_HYBRID);
    for (unsigned i = 0; i < c.reason_count; i++)
        advised |= strcmp(c.reasons[i].rule, "mirror") == 0 &&
                   c.reasons[i].verdict == TW_REASON_WARN && strstr(c.reasons[i].text, "hybrid") &&
                   strcmp(c.reasons[i].about, "postcopy") == 0;
    cr_assert(advised);
}

Test(forecast, postcopy_stands_for_the_fixed_part_only)
{
    struct tw_forecast f;
    struct tw_forecast_input in = guest(400000, 1000000);
    tw_forecast_make(&in, TW_METHOD_POST_COPY, &f);
    cr_assert_eq(f.rounds, 0);
    cr_assert_eq(f.lines_to_come, in.data_bytes / 64);
    cr_assert_eq(f.downtime_ns, in.fixed.stop_ns + in.fixed.save_ns +
                                    in.fixed.of[TW_METHOD_POST_COPY].load_ns +
                                    in.fixed.of[TW_METHOD_POST_COPY].hand_over_ns);
    cr_assert_gt(f.fetch_ns, 500 * TW_MS);
}

Test(forecast, what_a_method_costs_is_its_own)
{
    struct tw_forecast before[TW_METHODS], f;
    struct tw_forecast_input in = guest(100000, 2000000);
    for (enum tw_migration_method m = 0; m < TW_METHODS; m++)
        tw_forecast_make(&in, m, &before[m]);
    in.fixed.of[TW_METHOD_HYBRID].load_ns += 30 * TW_MS;
    in.fixed.of[TW_METHOD_POST_COPY].hand_over_ns += 10 * TW_MS;
    tw_forecast_make(&in, TW_METHOD_PRE_COPY, &f);
    cr_assert_eq(f.downtime_ns, before[TW_METHOD_PRE_COPY].downtime_ns);
    tw_forecast_make(&in, TW_METHOD_HYBRID, &f);
    cr_assert_eq(f.downtime_ns, before[TW_METHOD_HYBRID].downtime_ns + 30 * TW_MS);
    tw_forecast_make(&in, TW_METHOD_POST_COPY, &f);
    cr_assert_eq(f.downtime_ns, before[TW_METHOD_POST_COPY].downtime_ns + 10 * TW_MS);
}

/* Whatever is measured: nothing overflows, and more of what costs never costs less. */
Test(forecast, holds_for_any_input)
{
    struct tw_random random = {4711};
    static const enum tw_migration_method methods[] = {TW_METHOD_PRE_COPY, TW_METHOD_HYBRID,
                                                       TW_METHOD_POST_COPY};
    for (unsigned n = 0; n < 3000; n++) {
        struct tw_forecast_input in =
            guest(tw_random_next(&random) >> (20 + tw_random_next(&random) % 44),
                  tw_random_next(&random) >> (30 + tw_random_next(&random) % 34));
        in.full_copy_bytes = tw_random_next(&random) >> (tw_random_next(&random) % 60);
        in.link_bytes_per_s = 1 + (tw_random_next(&random) >> (20 + tw_random_next(&random) % 44));
        in.limits.bandwidth_bytes_per_s = tw_random_next(&random) >> 34;
        in.sees_all_writers = n % 2;
        for (unsigned i = 0; i < 3; i++) {
            struct tw_forecast f, dearer;
            tw_forecast_make(&in, methods[i], &f);
            struct tw_forecast_input more = in;
            more.full_copy_bytes = tw_after(in.full_copy_bytes, MIB);
            tw_forecast_make(&more, methods[i], &dearer);
            cr_assert_leq(f.rounds, TW_MIGRATION_ROUNDS_MAX);
            cr_assert_leq(f.slow_down_permille, 1000);
            cr_assert_leq(f.downtime_ns, f.total_ns);
            cr_assert_geq(f.total_ns, in.fixed.start_ns);
            cr_assert_lt(f.lines_to_come, (in.memory_bytes / 64) + 1);
            if (in.full_copy_bytes < UINT64_MAX / 8)
                cr_assert_geq(f.bytes, in.full_copy_bytes);
        }
    }
}

Test(forecast, error_in_per_cent_of_what_was)
{
    cr_assert_eq(tw_forecast_error_percent(110, 100), 10);
    cr_assert_eq(tw_forecast_error_percent(75, 100), -25);
    cr_assert_eq(tw_forecast_error_percent(0, 0), 0);
    cr_assert_eq(tw_forecast_error_percent(1, 0), 100);
    cr_assert_eq(tw_forecast_error_percent(UINT64_MAX, 1), INT32_MAX);
}

/* ---- The choice -------------------------------------------------------------------------------
 */

static void choose(struct tw_forecast_input *in, struct tw_policy *p, struct tw_choice *c)
{
    struct tw_forecast f[TW_METHODS];
    tw_forecast_make(in, TW_METHOD_PRE_COPY, &f[0]);
    tw_forecast_make(in, TW_METHOD_HYBRID, &f[1]);
    tw_forecast_make(in, TW_METHOD_POST_COPY, &f[2]);
    p->limits = in->limits;
    tw_policy_choose(p, f, c);
}

static const struct tw_reason *reason(const struct tw_choice *c, const char *about,
                                      const char *rule)
{
    for (unsigned i = 0; i < c->reason_count; i++)
        if (strcmp(c->reasons[i].about, about) == 0 && strcmp(c->reasons[i].rule, rule) == 0)
            return &c->reasons[i];
    return NULL;
}

Test(policy, the_least_risk_that_fits)
{
    struct tw_policy p = {0};
    struct tw_choice c;
    struct tw_forecast_input in = guest(20000, 1000000);
    choose(&in, &p, &c);
    cr_assert_eq(c.method, TW_METHOD_PRE_COPY);
    cr_assert(c.fits);
    cr_assert_eq(reason(&c, "precopy", "downtime")->verdict, TW_REASON_PASS);
    cr_assert_eq(reason(&c, "precopy", "downtime")->limit, 300000);
    cr_assert_eq(reason(&c, "plan", "choice")->verdict, TW_REASON_PASS);
}

Test(policy, hybrid_where_rounds_do_not_converge)
{
    struct tw_policy p = {0};
    struct tw_choice c;
    struct tw_forecast_input in = guest(4 * 1000 * 1000, 4 * 1000 * 1000);
    choose(&in, &p, &c);
    cr_assert_eq(c.method, TW_METHOD_HYBRID);
    cr_assert_eq(reason(&c, "precopy", "converges")->verdict, TW_REASON_REFUSE);
    in.limits.on_no_convergence = TW_ON_NO_CONVERGENCE_STOP;
    choose(&in, &p, &c);
    cr_assert_eq(reason(&c, "precopy", "converges")->verdict, TW_REASON_WARN);
    cr_assert_eq(c.method, TW_METHOD_HYBRID, "it would stand still for too long");
}

/* Even where the other methods miss a budget by much. */
Test(policy, slows_writers_only_where_nothing_else_is_allowed)
{
    struct tw_policy p = {.total_ns = TW_MS};
    struct tw_choice c;
    struct tw_forecast_input in = guest(4 * 1000 * 1000, 4 * 1000 * 1000);
    in.limits.slow_down_permille = p.slow_down_permille = 200;
    choose(&in, &p, &c);
    cr_assert_neq(c.method, TW_METHOD_PRE_COPY);
    cr_assert_not(c.fits);
    const struct tw_reason *r = reason(&c, "precopy", "converges");
    cr_assert_eq(r->verdict, TW_REASON_WARN, "a plan for pre-copy is not refused");
    cr_assert(strstr(r->text, "last resort") && strstr(r->text, "20 %"), "%s", r->text);
}

Test(policy, postcopy_where_even_comparing_is_too_long)
{
    struct tw_policy p = {0};
    struct tw_choice c;
    struct tw_forecast_input in = guest(20000, 1000000);
    in.limits.downtime_ns = 60 * TW_MS;
    in.fixed.compare_bytes_per_s = 100 * MIB;
    choose(&in, &p, &c);
    cr_assert_eq(c.method, TW_METHOD_POST_COPY);
    cr_assert(c.fits);
    p.slow_down_permille = 1;
    choose(&in, &p, &c);
    cr_assert_not(c.fits);
    cr_assert_eq(reason(&c, "plan", "choice")->verdict, TW_REASON_WARN);
}

Test(policy, nothing_ends_in_time)
{
    struct tw_policy p = {0};
    struct tw_choice c;
    struct tw_forecast_input in = guest(20000, 1000000);
    in.limits.timeout_ns = 10 * TW_MS;
    choose(&in, &p, &c);
    cr_assert_eq(reason(&c, "plan", "choice")->verdict, TW_REASON_REFUSE);
    cr_assert_eq(reason(&c, "precopy", "timeout")->verdict, TW_REASON_REFUSE);
}
