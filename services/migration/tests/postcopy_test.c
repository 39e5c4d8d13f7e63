/* Post-copy and hybrid in virtual time. The fake guest checks every page at the moment it is let at
 * it, and the whole memory at the end. */
#include "services/migration/destination.h"
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct scene s;

static unsigned seeds(unsigned standard)
{
    const char *text = getenv("TOWLINE_SEEDS");
    long factor = text ? strtol(text, NULL, 10) : 1;
    return standard * (unsigned)(factor > 1 ? factor : 1);
}

static struct scene_config following(uint64_t seed, enum tw_migration_method method)
{
    struct scene_config c = scene_plain(seed);
    c.limits.method = method;
    c.pages = 384;
    c.link_bytes_per_s = 16 << 20; /* so that the guest runs into what is not there yet */
    return c;
}

static void expect_moved(const struct scene_config *c)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_eq(s.source_error.code, TW_OK, "%s", s.source_error.what);
    cr_assert_eq(s.destination_error.code, TW_OK, "%s", s.destination_error.what);
    cr_assert(s.memory_checked && s.memory_equal);
    cr_assert_eq(s.at_source.memory_equal, !c->limits.skip_verify);
}

Test(postcopy, the_vm_runs_at_once_and_its_memory_becomes_what_it_was)
{
    uint64_t faults = 0, merged = 0, on_demand = 0;
    for (unsigned seed = 0; seed < seeds(40); seed++) {
        struct scene_config c = following(seed, TW_METHOD_POST_COPY);
        c.link = seed % 3;
        c.hook = seed % 5 == 0;
        c.limits.skip_verify = seed % 7 == 0;
        c.hot_pages = seed % 2 ? 4 : 0;
        c.corrupt_ppm = 0;
        expect_moved(&c);
        const struct tw_migration_progress *p = &s.at_source, *q = &s.at_destination;
        cr_assert_eq(p->round_count, 1, "no round: only the empty last pass");
        cr_assert_eq(p->lines_to_come, q->lines_to_come);
        cr_assert_gt(p->lines_to_come, 0);
        cr_assert_eq(q->lines_left, 0);
        cr_assert_eq(q->lines_late, 0, "each line crosses once");
        cr_assert_eq(p->faults, q->faults);
        cr_assert_leq(p->lines_on_demand, p->lines_to_come);
        cr_assert_leq(p->fault_p50_ns, p->fault_p99_ns);
        faults += p->faults;
        merged += s.side[1].host.merged;
        on_demand += p->lines_on_demand;
    }
    cr_assert_gt(faults, 100);
    cr_assert_gt(on_demand, 1000);
    cr_assert_gt(merged, 10, "several vCPUs waited for one page, and one demand did");
}

/* Bytes tell whether lines crossed more than once: what is not zero costs 64 bytes, and there is
 * little else. */
Test(postcopy, nothing_crosses_twice)
{
    struct scene_config c = following(7, TW_METHOD_POST_COPY);
    c.pages = 512;
    expect_moved(&c);
    cr_assert_leq(s.at_source.bytes_sent - s.at_source.bytes_device_state,
                  s.at_source.lines_to_come * TW_LINE_SIZE * 11 / 10 + 100000);
}

Test(postcopy, it_ends_without_any_demand)
{
    for (unsigned seed = 0; seed < seeds(6); seed++) {
        struct scene_config c = following(seed, TW_METHOD_POST_COPY);
        c.pages = c.hot_pages = 8;
        c.link_bytes_per_s = 0; /* everything is there before the guest touches it, or nearly */
        expect_moved(&c);
    }
}

Test(postcopy, a_bandwidth_limit_spares_those_who_wait)
{
    struct scene_config c = following(9, TW_METHOD_POST_COPY);
    c.pages = 512;
    c.link_bytes_per_s = 0;
    c.limits.bandwidth_bytes_per_s = 2 << 20;
    expect_moved(&c);
    const struct tw_migration_progress *p = &s.at_source;
    double unasked = (double)(p->bytes_sent - p->bytes_on_demand - p->bytes_device_state);
    double seconds = (double)p->total_ns / 1e9;
    cr_assert_lt(unasked, 1.5 * seconds * (2 << 20) + 200000, "the background obeys it");
    cr_assert_lt(s.at_source.fault_p50_ns, 3 * TW_MS);
}

Test(hybrid, sends_first_and_lets_the_rest_follow)
{
    uint64_t followed = 0;
    for (unsigned seed = 0; seed < seeds(30); seed++) {
        struct scene_config c = following(seed, TW_METHOD_HYBRID);
        c.link = seed % 3;
        c.sees_all_writers = seed % 2;
        c.hook = seed % 5 == 0;
        c.limits.skip_verify = seed % 7 == 0;
        c.stores_per_ms = 40;
        expect_moved(&c);
        cr_assert_geq(s.at_source.round_count, 2);
        cr_assert_eq(s.at_source.rounds[s.at_source.round_count - 1].lines, 0,
                     "named, not sent, while the VM stands still");
        if (c.sees_all_writers)
            cr_assert_eq(s.at_source.lines_found_by_compare_only, 0, "named lines are no find");
        cr_assert_lt(s.at_source.lines_to_come, c.pages * TW_LINES_PER_PAGE / 2);
        cr_assert_eq(s.at_destination.lines_late, 0);
        followed += s.at_source.lines_to_come;
    }
    cr_assert_gt(followed, 1000);
}

/* A writer faster than the link: rounds do not help, and need not. */
Test(hybrid, moves_a_vm_that_does_not_converge)
{
    struct scene_config c = following(5, TW_METHOD_HYBRID);
    c.stores_per_ms = 150;
    c.hot_pages = 0;
    c.sees_all_writers = true;
    c.limits.bandwidth_bytes_per_s = c.link_bytes_per_s = 2 << 20;
    c.limits.downtime_ns = 10 * TW_MS;
    c.limits.max_rounds = 30;
    expect_moved(&c);
    cr_assert_leq(s.at_source.round_count, 6, "a few rounds show that they do not shrink");
    cr_assert_gt(s.at_source.lines_to_come, 100);
}

static unsigned rounds_of(bool told)
{
    struct scene_config c = following(6, TW_METHOD_HYBRID);
    c.pages = 256;
    c.stores_per_ms = 60;
    c.hot_pages = 200;
    c.limits.bandwidth_bytes_per_s = 4 << 20;
    if (told)
        c.faults[c.fault_count++] =
            (struct scene_fault){true, TW_SOURCE_FULL_COPY, TW_MS, SCENE_SWITCH, 1};
    expect_moved(&c);
    return s.at_source.round_count;
}

Test(hybrid, switches_when_told)
{
    unsigned untold = rounds_of(false), told = rounds_of(true);
    cr_assert_eq(told, 2, "full copy and the stop");
    cr_assert_gt(untold, told);
}

/* ---- Ahead of its turn ------------------------------------------------------------------------
 */

/* Pages that the guest gets to for each hundred waits: who waits less also gets further. */
static unsigned reach_with(enum tw_foresight_choice choice, enum fake_touches touches,
                           struct tw_foresight_figures *sum)
{
    uint64_t waits = 0, reached = 0;
    *sum = (struct tw_foresight_figures){0};
    for (unsigned seed = 0; seed < 4; seed++) {
        struct scene_config c = following(200 + seed, TW_METHOD_POST_COPY);
        c.pages = 2048;
        c.limits.foresight = choice;
        c.touches = touches;
        expect_moved(&c);
        const struct tw_foresight_figures *f = &s.at_source.foresight;
        cr_assert_eq(s.at_destination.lines_late, 0, "each line crosses once");
        cr_assert_leq(f->ahead, f->named + f->misses);
        cr_assert_leq(f->late, f->misses);
        cr_assert_leq(f->touched, f->watched);
        cr_assert_eq(f->watched, s.at_destination.foresight.watched);
        sum->misses += f->misses;
        sum->ahead += f->ahead;
        sum->watched += f->watched;
        sum->touched += f->touched;
        waits += s.at_source.faults;
        reached += s.side[1].host.reached;
    }
    return (unsigned)(reached * 100 / (waits + 1));
}

Test(foresight, a_guest_that_goes_page_by_page_waits_less)
{
    struct tw_foresight_figures none, spatial, chosen;
    unsigned untold = reach_with(TW_FORESIGHT_NONE, FAKE_TOUCH_ASCENDING, &none);
    unsigned told = reach_with(TW_FORESIGHT_SPATIAL, FAKE_TOUCH_ASCENDING, &spatial);
    unsigned trial = reach_with(TW_FORESIGHT_AUTO, FAKE_TOUCH_ASCENDING, &chosen);
    cr_expect_eq(none.ahead, 0);
    cr_expect_gt(told, untold * 5 / 4, "%u and %u pages", told, untold);
    cr_expect_gt(trial, untold * 9 / 8, "%u and %u pages", trial, untold);
    cr_expect_gt(spatial.touched * 2, spatial.watched, "most guesses were right");
}

Test(foresight, a_guest_that_goes_in_steps_waits_less)
{
    struct tw_foresight_figures none, stride;
    unsigned untold = reach_with(TW_FORESIGHT_NONE, FAKE_TOUCH_STRIDE, &none);
    unsigned told = reach_with(TW_FORESIGHT_STRIDE, FAKE_TOUCH_STRIDE, &stride);
    cr_expect_gt(told, untold * 3 / 2, "%u and %u pages", told, untold);
    cr_expect_gt(stride.touched * 4, stride.watched * 3, "three of four guesses were right");
}

Test(foresight, what_is_touched_at_random_is_not_followed)
{
    struct tw_foresight_figures chosen;
    reach_with(TW_FORESIGHT_AUTO, FAKE_TOUCH_AT_RANDOM, &chosen);
    cr_expect_lt(chosen.ahead, chosen.misses, "%lu ahead for %lu misses",
                 (unsigned long)chosen.ahead, (unsigned long)chosen.misses);
}

Test(foresight, its_figures_come_to_what_they_say)
{
    struct tw_foresight_figures f = {
        .misses = 100, .ahead = 800, .late = 50, .watched = 100, .touched = 75};
    struct tw_foresight_quality q = tw_foresight_judge(&f);
    cr_expect_eq(q.accuracy, 75);
    cr_expect_eq(q.coverage, 86, "600 of 700, given %u", q.coverage);
    cr_expect_eq(q.timeliness, 92, "600 of 650, given %u", q.timeliness);
    f = (struct tw_foresight_figures){0};
    q = tw_foresight_judge(&f);
    cr_expect_eq(q.accuracy + q.coverage + q.timeliness, 0);
}

/* ---- Behind caches that miss line by line ----------------------------------------------------
 */

Test(lines, a_miss_fetches_a_line)
{
    uint64_t faults = 0, on_demand = 0, hits = 0;
    for (unsigned seed = 0; seed < seeds(20); seed++) {
        struct scene_config c = following(seed, seed % 3 ? TW_METHOD_POST_COPY : TW_METHOD_HYBRID);
        c.by_line = true;
        c.link = seed % 3;
        c.hot_pages = seed % 2 ? 4 : 0;
        c.limits.foresight = seed % 5;
        c.limits.skip_verify = seed % 7 == 0;
        expect_moved(&c);
        const struct tw_migration_progress *p = &s.at_source;
        cr_assert_eq(s.at_destination.lines_late, 0, "each line crosses once");
        cr_assert_leq(p->lines_on_demand, p->faults);
        faults += p->faults;
        on_demand += p->lines_on_demand;
        hits += s.side[1].host.hits;
    }
    cr_assert_gt(faults, 100);
    cr_assert_gt(on_demand * 2, faults, "merged or under way are the others");
    cr_assert_gt(hits, 10, "what the cache has waits for nothing");
}

/* ---- What may not be asked --------------------------------------------------------------------
 */

Test(errors, a_destination_that_cannot_guard_memory_refuses_and_the_source_resumes)
{
    struct scene_config c = following(3, TW_METHOD_POST_COPY);
    c.faults[c.fault_count++] =
        (struct scene_fault){false, TW_DESTINATION_WAITING, 0, SCENE_FAIL_GUARD, 1};
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_UNIMPLEMENTED, "%s", s.source_error.what);
    cr_assert_str_eq(s.source_error.what, "memory has no guard");
}

Test(errors, no_room_is_known_before_the_vm_stops)
{
    struct scene_config c = following(4, TW_METHOD_POST_COPY);
    c.faults[c.fault_count++] =
        (struct scene_fault){false, TW_DESTINATION_WAITING, 0, SCENE_FAIL_RESERVE, 1};
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_RESOURCE_EXHAUSTED, "%s", s.source_error.what);
    cr_assert_eq(s.at_source.downtime_ns, 0);
}

Test(errors, a_wire_that_is_cut_before_the_hand_over_leaves_the_vm_where_it_was)
{
    struct scene_config c = following(8, TW_METHOD_POST_COPY);
    c.faults[c.fault_count++] =
        (struct scene_fault){false, TW_DESTINATION_PREPARED, 0, SCENE_CUT, 1};
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_ABORTED, "prepared without memory is nothing");
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert(s.side[0].host.running);
}

/* ---- The checks bite --------------------------------------------------------------------------
 */

static bool holds(struct tw_migration_mutations at_source,
                  struct tw_migration_mutations at_destination)
{
    bool all = true;
    for (unsigned seed = 0; seed < 5; seed++) {
        struct scene_config c = following(100 + seed, TW_METHOD_POST_COPY);
        c.at_source = at_source;
        c.at_destination = at_destination;
        all &= scene_play(&s, &c);
    }
    return all;
}

Test(mutations, late_data_is_dropped_and_would_spoil_the_memory_otherwise)
{
    struct tw_migration_mutations twice = {.send_twice = true}, none = {0};
    cr_assert(holds(twice, none), "%s", s.problem);
    cr_assert_gt(s.at_destination.lines_late, 0);
    struct tw_migration_mutations overwrites = {.late_overwrites = true};
    cr_assert_not(holds(twice, overwrites));
}

Test(mutations, a_line_counted_twice_ends_it_too_early)
{
    struct tw_migration_mutations twice = {.send_twice = true}, counts = {.count_twice = true};
    cr_assert_not(holds(twice, counts));
}

Test(mutations, a_page_may_not_be_opened_by_its_first_line)
{
    struct tw_migration_mutations none = {0}, early = {.ready_early = true};
    bool all = true;
    for (unsigned seed = 0; seed < 5; seed++) {
        struct scene_config c = following(100 + seed, TW_METHOD_POST_COPY);
        c.at_source = none;
        c.at_destination = early;
        all &= scene_play(&s, &c);
    }
    cr_assert_not(all);
}
