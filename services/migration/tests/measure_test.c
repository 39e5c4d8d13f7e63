/* A measured guest in virtual time. */
#include "services/migration/measure.h"
#include "services/migration/tests/fake_host.h"

#include <criterion/criterion.h>

static uint64_t clock_now;

static uint64_t read_clock(void *ctx)
{
    (void)ctx;
    return clock_now;
}
static const struct tw_clock virtual_clock = {read_clock, NULL};

/* Each look at it takes a microsecond, for a while fifty. */
static uint64_t looks, slow_from, slow_until;

static uint64_t read_and_advance(void *ctx)
{
    (void)ctx;
    bool slow = looks >= slow_from && looks < slow_until;
    looks++;
    return clock_now += slow ? 50 * TW_US : TW_US;
}
static const struct tw_clock dear_clock = {read_and_advance, NULL};

static void run(struct tw_measure *m, struct fake_host *h)
{
    for (unsigned n = 0; tw_measure_left_ns(m) > 0; n++) {
        cr_assert_lt(n, 100000, "it has to end");
        fake_host_run(h);
        uint64_t next = tw_measure_step(m, &h->host);
        clock_now = next > clock_now && next != TW_NEVER ? next : clock_now + TW_MS / 4;
    }
}

static struct tw_measured measured_by(const struct tw_clock *clock, uint32_t stores_per_ms,
                                      uint32_t hot_pages, enum fake_link link)
{
    struct fake_host h;
    struct tw_measure *m;
    struct tw_measured out;
    struct tw_error err;
    clock_now = TW_SEC;
    const struct fake_host_config config = {.clock = &virtual_clock,
                                            .pages = 4096,
                                            .seed = 7,
                                            .link = link,
                                            .sees_all_writers = true,
                                            .stores_per_ms = stores_per_ms,
                                            .hot_pages = hot_pages};
    fake_host_open(&h, &config);
    cr_assert_eq(tw_measure_start(clock, &h.host, "p-1", TW_SEC, &m, &err), TW_OK);
    run(m, &h);
    tw_measure_result(m, &out);
    cr_assert_null(tw_tracker_find(h.host.device, "measure-p-1"), "nothing is left in the device");
    tw_measure_free(m, &h.host);
    fake_host_close(&h);
    return out;
}

static struct tw_measured measured(uint32_t stores_per_ms, uint32_t hot_pages, enum fake_link link)
{
    return measured_by(&virtual_clock, stores_per_ms, hot_pages, link);
}

Test(measure, times_a_comparison_without_what_held_it_up)
{
    for (unsigned steps = 0; steps <= 3; steps += 3) {
        looks = 0;
        slow_from = 1500; /* two looks a page, 256 pages a step */
        slow_until = slow_from + steps * 512;
        struct tw_measured m = measured_by(&dear_clock, 0, 0, FAKE_LINK_EVENTS);
        cr_expect_geq(m.compare_bytes_per_s, TW_PAGE_SIZE * TW_SEC / (3 * TW_US / 2));
        cr_expect_leq(m.compare_bytes_per_s, TW_PAGE_SIZE * TW_SEC / TW_US);
    }
}

Test(measure, finds_how_much_gets_dirty)
{
    struct tw_measured m = measured(20, 0, FAKE_LINK_MARKS);
    uint64_t lines = tw_dirty_curve_at(&m.curve, 100 * TW_MS, 4096).lines;
    cr_assert(lines > 1500 && lines <= 2200, "20 stores a ms all over, %llu lines",
              (unsigned long long)lines);
    cr_assert_geq(m.duration_ns, 900 * TW_MS);
    cr_assert_gt(m.working_set_lines, lines);
    cr_assert_gt(m.data_bytes, 0);
    cr_assert_gt(m.full_copy_bytes, 0);
    cr_assert_leq(m.full_copy_bytes, m.data_bytes + m.data_bytes / 50);
}

Test(measure, a_rewritten_set_stops_growing)
{
    struct tw_measured all = measured(200, 0, FAKE_LINK_MARKS);
    struct tw_measured hot = measured(200, 4, FAKE_LINK_CACHE);
    uint64_t of_all = tw_dirty_curve_at(&all.curve, 400 * TW_MS, 4096).lines;
    uint64_t of_hot = tw_dirty_curve_at(&hot.curve, 400 * TW_MS, 4096).lines;
    cr_assert_lt(of_hot, of_all / 2);
}

Test(measure, a_quiet_guest_has_no_dirty_line)
{
    struct tw_measured m = measured(0, 0, FAKE_LINK_EVENTS);
    cr_assert_eq(tw_dirty_curve_at(&m.curve, 10 * TW_SEC, 4096).lines, 0);
    cr_assert_eq(m.write_backs_per_s, 0);
}

Test(measure, refuses_a_time_without_sense)
{
    struct fake_host h;
    struct tw_measure *m;
    struct tw_error err;
    const struct fake_host_config config = {.clock = &virtual_clock, .pages = 16, .seed = 1};
    fake_host_open(&h, &config);
    cr_assert_eq(tw_measure_start(&virtual_clock, &h.host, "x", TW_MS, &m, &err),
                 TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_measure_start(&virtual_clock, &h.host, "x", 3600 * TW_SEC, &m, &err),
                 TW_INVALID_ARGUMENT);
    fake_host_close(&h);
}
