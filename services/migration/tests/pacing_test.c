/* Slowing the writers of hot lines, in virtual time. */
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <string.h>

static struct scene s;

/* A guest that writes more hot lines than 8 MiB/s take. Its vCPU waits for four fifths of its time
 * at most, which is enough. */
static struct scene_config dirty_guest(enum fake_link link, uint32_t budget_permille)
{
    struct scene_config c = scene_plain(7);
    c.pages = 2048;
    c.hot_pages = 900;
    c.link = link;
    c.sees_all_writers = true;
    c.stores_per_ms = 300;
    c.link_bytes_per_s = 8 << 20;
    c.limits.slow_down_permille = budget_permille;
    c.limits.timeout_ns = 200 * TW_SEC;
    return c;
}

static const struct fake_writer *writer(unsigned who)
{
    return &s.side[0].host.writers[who];
}

static void expect_moved_by_pacing(enum fake_link link)
{
    struct scene_config c = dirty_guest(link, 0);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_FAILED_PRECONDITION, "%s", s.source_error.what);
    cr_assert_eq(s.at_source.paced_lines_most, 0);
    cr_assert_eq(s.at_source.pace_ns, 0);

    c.limits.slow_down_permille = 800;
    cr_assert(scene_play_loud(&s, &c));
    const struct tw_migration_progress *p = &s.at_source;
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert(s.memory_equal);
    cr_assert_leq(p->downtime_ns, TW_DEFAULT_DOWNTIME_NS);
    cr_assert_gt(p->paced_lines_most, 0);
    cr_assert_leq(p->paced_lines_most, TW_HOT_LINES_MAX);
    cr_assert_eq(p->paced_lines, 0);
    cr_assert_eq(p->pace_delay_ns, 0);
    cr_assert_gt(p->pace_waits, 0);
    cr_assert(strstr(p->pace_reason, "do not shrink"), "%s", p->pace_reason);
    /* Within the budget, and what is told is what the guest has waited. */
    const uint64_t burst_ns = TW_PACE_BURST_NS;
    cr_assert_leq(writer(FAKE_WRITER_HOT)->wait_ns, (p->pace_ns + burst_ns) * 8 / 10);
    cr_assert_leq(p->pace_wait_ns, writer(FAKE_WRITER_HOT)->wait_ns);
    cr_assert_geq(p->pace_wait_ns + TW_PACE_WAIT_MAX_NS, writer(FAKE_WRITER_HOT)->wait_ns);
    cr_assert_leq(s.side[0].host.pace_wait_max_ns, TW_PACE_WAIT_MAX_NS);
}

Test(pacing, makes_a_guest_movable_that_was_not)
{
    expect_moved_by_pacing(FAKE_LINK_MARKS);
}

Test(pacing, the_same_behind_a_cache_model)
{
    expect_moved_by_pacing(FAKE_LINK_CACHE);
}

/* The cold writer does all that its time is good for, but for stores that happen to hit a hot line.
 */
Test(pacing, slows_only_the_writers_of_hot_lines)
{
    struct scene_config c = dirty_guest(FAKE_LINK_MARKS, 800);
    cr_assert(scene_play_loud(&s, &c));
    const struct fake_host *h = &s.side[0].host;
    const uint64_t cold_due = h->paced_ns * c.stores_per_ms / (10 * TW_MS);
    const uint64_t hot_due = 9 * cold_due;
    cr_assert_gt(cold_due, 1000);
    cr_assert_leq(writer(FAKE_WRITER_HOT)->slowed, hot_due * 2 / 3);
    cr_assert_geq(writer(FAKE_WRITER_COLD)->slowed, cold_due * 9 / 10);
}

Test(pacing, is_not_for_a_guest_that_converges)
{
    struct scene_config c = dirty_guest(FAKE_LINK_MARKS, 800);
    c.link_bytes_per_s = 256 << 20;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_eq(s.at_source.pace_ns, 0);
}

Test(pacing, is_not_for_what_follows_the_vm)
{
    struct scene_config c = dirty_guest(FAKE_LINK_MARKS, 800);
    c.limits.method = TW_METHOD_HYBRID;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_eq(s.at_source.pace_ns, 0);
    cr_assert_eq(s.at_source.pace_budget_permille, 0);
}

/* A policy that stops the VM anyway does so only when pacing is used up. */
Test(pacing, comes_before_a_stop_by_policy)
{
    struct scene_config c = dirty_guest(FAKE_LINK_MARKS, 0);
    c.limits.on_no_convergence = TW_ON_NO_CONVERGENCE_STOP;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_gt(s.at_source.downtime_ns, TW_DEFAULT_DOWNTIME_NS);
    c.limits.slow_down_permille = 800;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_leq(s.at_source.downtime_ns, TW_DEFAULT_DOWNTIME_NS);
    /* A budget that does not do: it is stopped all the same. */
    c.limits.slow_down_permille = 10;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_gt(s.at_source.pace_ns, 0);
    cr_assert_gt(s.at_source.downtime_ns, TW_DEFAULT_DOWNTIME_NS);
}

/* ---- Nobody is slowed any more: the scene objects wherever somebody is without a right to it ---
 */

static void strike_while_paced(enum scene_action action, uint64_t after_ns)
{
    struct scene_config c = dirty_guest(FAKE_LINK_MARKS, 100); /* it would go on for long */
    c.limits.max_rounds = 1000;
    c.faults[c.fault_count++] = (struct scene_fault){true, TW_SOURCE_ROUND, after_ns, action, 1};
    if (action == SCENE_PAUSE)
        c.faults[c.fault_count++] =
            (struct scene_fault){true, TW_SOURCE_ROUND, after_ns + TW_SEC, SCENE_CANCEL, 1};
    if (action == SCENE_NO_PACE)
        c.faults[c.fault_count++] =
            (struct scene_fault){true, TW_SOURCE_ROUND, after_ns + TW_SEC, SCENE_CANCEL, 1};
    cr_assert(scene_play_loud(&s, &c), "action %d", action);
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_gt(writer(FAKE_WRITER_HOT)->slowed, 0, "action %d found nobody slowed", action);
    cr_assert_not(fake_host_is_slowed(&s.side[0].host));
}

Test(pacing, ends_with_what_it_was_for)
{
    static const enum scene_action ends[] = {SCENE_CANCEL,
                                             SCENE_PAUSE,
                                             SCENE_NO_PACE,
                                             SCENE_CUT,
                                             SCENE_CRASH_SOURCE,
                                             SCENE_CRASH_DESTINATION,
                                             SCENE_KILL_SOURCE_VM,
                                             SCENE_ABORT_DESTINATION,
                                             SCENE_KILL_DESTINATION_VM};
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++)
        strike_while_paced(ends[i], 10 * TW_SEC);
}
