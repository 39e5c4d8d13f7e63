/* Post-copy whose path is lost, or whose agents are, in virtual time: the VM goes on, gets all of
 * its memory, and nothing that had arrived crosses twice. */
#include "services/migration/destination.h"
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct scene s;

static struct scene_config following(uint64_t seed)
{
    struct scene_config c = scene_plain(seed);
    c.limits.method = TW_METHOD_POST_COPY;
    c.pages = 384;
    c.link_bytes_per_s = 16 << 20;
    return c;
}

static void strike(struct scene_config *c, bool at_source, unsigned state, uint64_t delay_ns,
                   enum scene_action action)
{
    c->faults[c->fault_count++] = (struct scene_fault){at_source, state, delay_ns, action, 1};
}

static void expect_moved(const struct scene_config *c)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_eq(s.source_error.code, TW_OK, "%s", s.source_error.what);
    cr_assert_eq(s.destination_error.code, TW_OK, "%s", s.destination_error.what);
    cr_assert_not(s.side[1].vm_was_stranded);
    cr_assert_eq(s.at_destination.lines_left, 0);
    cr_assert_eq(s.at_destination.lines_late, 0, "nothing that had arrived came twice");
}

Test(path, comes_back_and_only_what_is_missing_follows)
{
    uint64_t again = 0;
    for (unsigned seed = 0; seed < 20; seed++) {
        struct scene_config c = following(seed);
        c.hot_pages = seed % 2 ? 8 : 0;
        strike(&c, false, TW_DESTINATION_FETCHING, seed * TW_MS, SCENE_CUT_LONG);
        expect_moved(&c);
        const struct tw_migration_progress *p = &s.at_source, *q = &s.at_destination;
        cr_assert_eq(q->reconnects, 1, "seed %u: %lu", seed, (unsigned long)q->reconnects);
        cr_assert_eq(p->reconnects, 1);
        cr_assert_eq(p->lines_to_come, q->lines_to_come);
        cr_assert(p->memory_compared && p->memory_equal, "over both connections");
        cr_assert_gt(q->path_waited_ns, 0);
        cr_assert_eq(s.operator_resumes, 0);
        again += p->lines_again;
    }
    cr_assert_gt(again, 100, "what was on its way when the wire was cut");
}

/* Bytes tell whether more than what was lost on the way was sent again. */
Test(path, bytes_are_those_of_each_line_once_and_of_what_was_lost)
{
    struct scene_config c = following(7);
    strike(&c, false, TW_DESTINATION_FETCHING, 20 * TW_MS, SCENE_CUT_LONG);
    expect_moved(&c);
    const struct tw_migration_progress *p = &s.at_source;
    uint64_t lines = p->lines_to_come + p->lines_again;
    cr_assert_lt(p->lines_again, p->lines_to_come / 4);
    cr_assert_leq(p->bytes_sent - p->bytes_device_state, lines * TW_LINE_SIZE * 11 / 10 + 200000);
}

Test(path, that_stays_away_leaves_a_vm_that_can_be_resumed)
{
    struct scene_config c = following(8);
    strike(&c, false, TW_DESTINATION_FETCHING, 5 * TW_MS, SCENE_CUT);
    expect_moved(&c);
    cr_assert_eq(s.operator_resumes, 1, "the deadline passed, and an operator came");
    cr_assert_eq(s.at_destination.reconnects, 1);
    cr_assert_gt(s.at_destination.path_waited_ns, 300 * TW_MS);
}

/* Cut when the commit is on its way or has just arrived. */
Test(path, lost_at_the_hand_over_leaves_one_owner)
{
    unsigned moved = 0, stayed = 0;
    for (unsigned us = 0; us < 8000; us += 100) {
        struct scene_config c = following(us);
        strike(&c, true, TW_SOURCE_GIVEN_UP, us * TW_US, SCENE_CUT_LONG);
        cr_assert(scene_play_loud(&s, &c));
        cr_assert_not(s.side[1].vm_was_stranded);
        moved += s.destination_end == TW_HAND_OVER_COMMITTED;
        stayed += s.source_end == TW_HAND_OVER_ABORTED;
    }
    cr_assert_eq(moved + stayed, 80);
    cr_assert_gt(moved, 10);
}

Test(agents, a_source_that_starts_again_serves_what_is_missing)
{
    for (unsigned seed = 0; seed < 10; seed++) {
        struct scene_config c = following(seed);
        strike(&c, true, TW_SOURCE_SERVING, seed * TW_MS, SCENE_CRASH_SOURCE);
        expect_moved(&c);
        cr_assert_eq(s.at_source.reconnects, 1);
        cr_assert_not(s.at_source.memory_compared, "what came before it is known to nobody");
    }
}

Test(agents, a_destination_that_starts_again_knows_what_is_missing)
{
    for (unsigned seed = 0; seed < 10; seed++) {
        struct scene_config c = following(seed);
        strike(&c, false, TW_DESTINATION_FETCHING, seed * TW_MS, SCENE_CRASH_DESTINATION);
        expect_moved(&c);
        cr_assert_eq(s.at_destination.reconnects, 1);
        cr_assert_gt(s.at_destination.lines_to_come, 0);
        cr_assert_eq(s.at_destination.lines_to_come, s.at_source.lines_to_come);
    }
}

Test(agents, both_may_start_again_at_once_or_one_after_the_other)
{
    for (unsigned ms = 0; ms < 40; ms += 4) {
        struct scene_config c = following(ms);
        strike(&c, false, TW_DESTINATION_FETCHING, 10 * TW_MS, SCENE_CRASH_DESTINATION);
        strike(&c, false, TW_DESTINATION_FETCHING, ms * TW_MS, SCENE_CRASH_SOURCE);
        expect_moved(&c);
    }
}

/* At each state of either machine behind the switch: an agent, the other one, the wire, for a while
 * or until somebody mends it, and a second thing on top of the first. */
Test(agents, every_state_behind_the_switch_is_survived)
{
    static const struct {
        bool at_source;
        unsigned state;
    } states[] = {{true, TW_SOURCE_GIVEN_UP},        {true, TW_SOURCE_SERVING},
                  {true, TW_SOURCE_PATH_LOST},       {false, TW_DESTINATION_COMMITTING},
                  {false, TW_DESTINATION_REJOINING}, {false, TW_DESTINATION_RESUMING},
                  {false, TW_DESTINATION_FETCHING},  {false, TW_DESTINATION_PATH_LOST},
                  {false, TW_DESTINATION_PAUSED},    {false, TW_DESTINATION_COMMITTED}};
    static const enum scene_action actions[] = {SCENE_DROP_CHUNKS, SCENE_CUT_LONG, SCENE_CUT,
                                                SCENE_CRASH_SOURCE, SCENE_CRASH_DESTINATION};
    for (unsigned i = 0; i < 5 * 5 * sizeof states / sizeof *states; i++) {
        struct scene_config c = following(i);
        c.pages = 256;
        strike(&c, false, TW_DESTINATION_FETCHING, TW_MS, actions[i / 5 % 5]);
        strike(&c, states[i / 25].at_source, states[i / 25].state, i % 3 * TW_MS, actions[i % 5]);
        cr_assert(scene_play_loud(&s, &c));
        cr_assert_not(s.side[1].vm_was_stranded);
        cr_assert(s.side[0].host.running || s.side[1].host.running);
    }
}

Test(agents, who_cannot_take_the_waits_over_tries_again)
{
    struct scene_config c = following(3);
    strike(&c, false, TW_DESTINATION_WAITING, 0, SCENE_FAIL_REJOIN);
    strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_CRASH_DESTINATION);
    expect_moved(&c);
}

Test(lost, is_only_a_vm_whose_source_has_nothing_any_more_and_it_is_said)
{
    struct scene_config c = following(9);
    strike(&c, false, TW_DESTINATION_FETCHING, TW_MS, SCENE_KILL_SOURCE_VM);
    expect_moved(&c); /* its memory outlives its process as long as its agent lives */
    strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_CRASH_SOURCE);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert(s.side[1].vm_was_stranded);
    cr_assert_eq(s.destination_error.code, TW_DATA_LOSS);
    cr_assert(strstr(s.destination_error.what, "its memory could not follow it"), "%s",
              s.destination_error.what);
    cr_assert_str_eq(s.at_destination.phase, "lost");
    cr_assert_gt(s.at_destination.lines_left, 0);
}

/* ---- The checks bite --------------------------------------------------------------------------
 */

Test(mutations, a_source_that_sends_all_again_is_noticed)
{
    struct scene_config c = following(5);
    c.at_source.send_all_again = true;
    strike(&c, false, TW_DESTINATION_FETCHING, 20 * TW_MS, SCENE_CUT_LONG);
    cr_assert_not(scene_play(&s, &c));
    cr_assert(strstr(s.problem, "came twice"), "%s", s.problem);
}

/* Opened before the line is there, or the set told before it: what a killed agent would leave. */
Test(mutations, a_set_that_forgets_a_line_is_noticed)
{
    struct scene_config c = following(6);
    c.at_destination.forget_line = true;
    strike(&c, false, TW_DESTINATION_FETCHING, 5 * TW_MS, SCENE_CRASH_DESTINATION);
    cr_assert_not(scene_play(&s, &c));
}
