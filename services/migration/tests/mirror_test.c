/* A mirror, in virtual time: whatever becomes of the source's host behind the hand-over, the VM
 * goes on and gets all of its memory; whatever becomes of the mirror, nobody waits for it longer
 * than for the source. */
#include "services/migration/destination.h"
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <string.h>

/* States of the mirror's table. */
enum { WAITING = 1, FILLING, HOLDING, SERVING, RELEASED };

static struct scene s;

static struct scene_config mirrored(uint64_t seed, enum tw_migration_method method)
{
    struct scene_config c = scene_plain(seed);
    c.limits.method = method;
    c.pages = 256;
    c.link_bytes_per_s = 16 << 20;
    c.limits.bandwidth_bytes_per_s = 4 << 20; /* so that something is left when the VM moves */
    c.mirror = true;
    return c;
}

static void strike(struct scene_config *c, bool at_source, unsigned state, uint64_t delay_ns,
                   enum scene_action action)
{
    c->faults[c->fault_count++] = (struct scene_fault){at_source, state, delay_ns, action, 1};
}

static void strike_mirror(struct scene_config *c, unsigned state, uint64_t delay_ns,
                          enum scene_action action)
{
    c->faults[c->fault_count++] =
        (struct scene_fault){false, state | SCENE_AT_MIRROR, delay_ns, action, 1};
}

static void expect_moved(const struct scene_config *c)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED, "%s", s.destination_error.what);
    cr_assert_eq(s.destination_error.code, TW_OK, "%s", s.destination_error.what);
    cr_assert_not(s.side[1].vm_was_stranded);
    cr_assert_eq(s.at_destination.lines_left, 0);
    cr_assert_eq(s.at_destination.lines_late, 0, "nothing that had arrived came twice");
}

static void expect_stayed(const struct scene_config *c)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert(s.side[0].host.running);
    cr_assert_not(s.side[1].host.running);
}

Test(mirror, holds_what_follows_before_the_vm_moves_and_is_let_go_at_the_end)
{
    static const enum tw_migration_method methods[] = {TW_METHOD_POST_COPY, TW_METHOD_HYBRID};
    for (unsigned i = 0; i < 20; i++) {
        struct scene_config c = mirrored(i, methods[i % 2]);
        expect_moved(&c);
        const struct tw_migration_progress *p = &s.at_source;
        cr_assert(s.mirror_complete);
        cr_assert_eq(s.at_mirror.lines_named, p->lines_to_come);
        cr_assert_eq(s.at_mirror.lines_held, p->lines_to_come);
        cr_assert_eq(p->mirror_lines, p->lines_to_come);
        cr_assert_geq(s.at_mirror.bytes_held * 2, p->lines_to_come ? 1 : 0);
        cr_assert_eq(p->mirrored, TW_MIRRORED);
        cr_assert_str_eq(s.at_mirror.phase, "released");
        cr_assert_not(s.mirror_told, "by the source, without a controller");
        cr_assert(p->memory_compared && p->memory_equal);
        cr_assert_not(s.at_destination.from_mirror);
    }
}

Test(mirror, none_is_wanted_of_a_pre_copy)
{
    struct tw_error err;
    struct scene_config c = scene_plain(1);
    c.mirror = false;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.at_source.mirrored, TW_MIRRORED_NOT);
    struct tw_source source = {.limits = {.method = TW_METHOD_PRE_COPY}, .params = {.id = "m-1"}};
    cr_assert_eq(
        tw_source_mirror_to(&source, NULL, "mir", (const uint8_t *)"0123456789abcdef", &err),
        TW_INVALID_ARGUMENT);
}

/* ---- The source's host is lost ----------------------------------------------------------------
 */

Test(lost_source, goes_on_from_the_mirror_by_itself)
{
    static const enum tw_migration_method methods[] = {TW_METHOD_POST_COPY, TW_METHOD_HYBRID};
    unsigned from_mirror = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct scene_config c = mirrored(seed, methods[seed % 2]);
        c.hot_pages = seed % 3 ? 64 : 0;
        strike(&c, false, TW_DESTINATION_FETCHING, seed / 2 * 500 * TW_US, SCENE_LOSE_SOURCE_HOST);
        expect_moved(&c);
        cr_assert_eq(s.operator_resumes, 0, "the deadline is enough");
        from_mirror += s.at_destination.from_mirror;
    }
    cr_assert_gt(from_mirror, 25);
}

/* At every point from the commit on. Before it the host takes its VM along, as it does without any
 * migration, and the copy at the destination goes. */
Test(lost_source, at_every_state_of_either_side)
{
    unsigned moved = 0, lost = 0;
    for (unsigned state = TW_SOURCE_CONNECTING; state <= TW_SOURCE_COMPLETED; state++) {
        for (unsigned us = 0; us < 4000; us += 500) {
            struct scene_config c = mirrored(state * 10 + us, TW_METHOD_HYBRID);
            c.hot_pages = 64;
            strike(&c, true, state, us * TW_US, SCENE_LOSE_SOURCE_HOST);
            cr_assert(scene_play_loud(&s, &c));
            cr_assert_not(s.side[1].vm_was_stranded);
            moved += s.side[1].host.running;
            lost += !s.side[1].host.running && !s.side[0].host.running;
        }
    }
    cr_assert_gt(moved, 8);
    cr_assert_gt(lost, 8);
}

Test(lost_source, what_had_arrived_does_not_come_again)
{
    struct scene_config c = mirrored(4, TW_METHOD_POST_COPY);
    strike(&c, false, TW_DESTINATION_FETCHING, 20 * TW_MS, SCENE_LOSE_SOURCE_HOST);
    expect_moved(&c);
    cr_assert(s.at_destination.from_mirror);
    cr_assert_eq(s.at_destination.reconnects, 1);
    uint64_t served = s.at_mirror.lines_served;
    cr_assert_gt(served, 0);
    cr_assert_lt(served, s.at_destination.lines_to_come);
}

Test(lost_source, without_a_mirror_is_a_lost_vm_and_it_is_said)
{
    struct scene_config c = mirrored(5, TW_METHOD_POST_COPY);
    c.mirror = false;
    strike(&c, false, TW_DESTINATION_FETCHING, 5 * TW_MS, SCENE_LOSE_SOURCE_HOST);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert(s.side[1].vm_was_stranded);
    cr_assert_eq(s.destination_error.code, TW_DATA_LOSS);
}

/* The agent comes back and knows nothing: what the controller does with a mirror. */
Test(lost_source, whose_agent_has_nothing_any_more_is_replaced_by_order)
{
    struct scene_config c = mirrored(9, TW_METHOD_POST_COPY);
    strike(&c, false, TW_DESTINATION_FETCHING, TW_MS, SCENE_KILL_SOURCE_VM);
    strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_CRASH_SOURCE);
    expect_moved(&c);
    cr_assert(s.at_destination.from_mirror);
}

/* And then the destination's agent, or the path to the mirror, or both sides of it. */
Test(lost_source, and_then_something_else)
{
    static const enum scene_action then[] = {SCENE_CRASH_DESTINATION, SCENE_CUT_MIRROR,
                                             SCENE_DROP_CHUNKS};
    for (unsigned i = 0; i < 30; i++) {
        struct scene_config c = mirrored(i, TW_METHOD_POST_COPY);
        strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_LOSE_SOURCE_HOST);
        strike_mirror(&c, SERVING, i * TW_MS, then[i % 3]);
        expect_moved(&c);
        cr_assert(s.at_destination.from_mirror);
    }
}

/* ---- The path to the source only ---------------------------------------------------------------
 */

/* Who is alive behind a wire that is cut for longer than the deadline is not asked any more. */
Test(cut, source_stays_out_of_it_once_the_mirror_serves)
{
    for (unsigned seed = 0; seed < 10; seed++) {
        struct scene_config c = mirrored(seed, TW_METHOD_POST_COPY);
        strike(&c, false, TW_DESTINATION_FETCHING, seed * TW_MS, SCENE_CUT);
        expect_moved(&c);
        cr_assert(s.at_destination.from_mirror);
        cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED);
        cr_assert_eq(s.at_source.reconnects, 0);
    }
}

/* ---- The mirror is lost -----------------------------------------------------------------------
 */

Test(lost_mirror, before_it_holds_all_keeps_the_vm_where_it_is)
{
    for (unsigned ms = 0; ms < 12; ms += 2) {
        struct scene_config c = mirrored(ms, TW_METHOD_POST_COPY);
        strike_mirror(&c, FILLING, ms * TW_MS, ms % 4 ? SCENE_CUT_MIRROR : SCENE_CRASH_MIRROR);
        expect_stayed(&c);
        cr_assert(strstr(s.source_error.what, "does not move without its mirror"), "%s",
                  s.source_error.what);
    }
}

/* One that is not insisted on: the VM moves as if nobody had asked for it, and that is told. */
Test(lost_mirror, that_is_optional_does_not_keep_the_vm)
{
    for (unsigned ms = 0; ms < 12; ms += 2) {
        struct scene_config c = mirrored(ms, ms % 3 ? TW_METHOD_POST_COPY : TW_METHOD_HYBRID);
        c.limits.mirror_optional = true;
        c.hot_pages = 64;
        strike_mirror(&c, ms % 3 ? FILLING : WAITING, ms * TW_MS,
                      ms % 4 ? SCENE_CUT_MIRROR : SCENE_CRASH_MIRROR);
        expect_moved(&c);
        cr_assert_eq(s.at_source.mirrored, TW_MIRRORED_WITHOUT);
        cr_assert(s.at_source.mirror_reason[0]);
        cr_assert_not(s.at_destination.from_mirror);
    }
}

/* ... and then it is lost with its source's host, which is said. */
Test(lost_mirror, that_was_optional_saves_nobody)
{
    struct scene_config c = mirrored(3, TW_METHOD_POST_COPY);
    c.limits.mirror_optional = true;
    strike_mirror(&c, FILLING, 0, SCENE_CRASH_MIRROR);
    strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_LOSE_SOURCE_HOST);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert(s.side[1].vm_was_stranded);
    cr_assert_eq(s.destination_error.code, TW_DATA_LOSS);
}

/* Nobody is there when the source connects: the VM is not even stopped. */
Test(lost_mirror, that_never_answers_stops_no_vm)
{
    for (unsigned i = 0; i < 6; i++) {
        struct scene_config c = mirrored(i, i % 2 ? TW_METHOD_HYBRID : TW_METHOD_POST_COPY);
        strike_mirror(&c, WAITING, 0, i % 3 ? SCENE_CUT_MIRROR : SCENE_CRASH_MIRROR);
        expect_stayed(&c);
        cr_assert_eq(s.at_source.downtime_ns, 0);
        cr_assert(strstr(s.source_error.what, "does not move without its mirror"));
    }
}

/* It is there, and says nothing: nobody waits for it for ever. */
Test(lost_mirror, that_never_has_enough_is_waited_for_so_long_only)
{
    for (unsigned optional = 0; optional < 2; optional++) {
        struct scene_config c = mirrored(optional, TW_METHOD_POST_COPY);
        c.limits.mirror_optional = optional;
        c.at_mirror.keep_quiet = true;
        if (optional)
            expect_moved(&c);
        else
            expect_stayed(&c);
        const char *why = optional ? s.at_source.mirror_reason : s.source_error.what;
        cr_assert(strstr(why, "taken nothing for 10 s"), "%s", why);
        cr_assert_lt(s.at_source.downtime_ns, 12 * TW_SEC);
    }
}

Test(lost_mirror, behind_the_hand_over_is_told_and_changes_nothing)
{
    for (unsigned seed = 0; seed < 10; seed++) {
        struct scene_config c = mirrored(seed, TW_METHOD_POST_COPY);
        strike(&c, false, TW_DESTINATION_FETCHING, seed * TW_MS, SCENE_CRASH_MIRROR);
        expect_moved(&c);
        cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED);
        cr_assert_not(s.at_destination.from_mirror);
    }
}

/* Of each state: either the VM never moved, or all of it did. */
Test(lost_mirror, at_every_state)
{
    for (unsigned state = WAITING; state <= RELEASED; state++)
        for (unsigned us = 0; us < 3000; us += 300) {
            struct scene_config c = mirrored(state * 7 + us, TW_METHOD_HYBRID);
            c.hot_pages = 64;
            strike_mirror(&c, state, us * TW_US, SCENE_CRASH_MIRROR);
            cr_assert(scene_play_loud(&s, &c));
            cr_assert(s.side[0].host.running || s.side[1].host.running);
        }
}

Test(lost_mirror, and_the_source_as_well_is_a_lost_vm_and_it_is_said)
{
    struct scene_config c = mirrored(6, TW_METHOD_POST_COPY);
    strike(&c, false, TW_DESTINATION_FETCHING, 5 * TW_MS, SCENE_CRASH_MIRROR);
    strike(&c, false, TW_DESTINATION_FETCHING, 6 * TW_MS, SCENE_LOSE_SOURCE_HOST);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert(s.side[1].vm_was_stranded);
    cr_assert_eq(s.destination_error.code, TW_DATA_LOSS);
}

/* ---- Chance -----------------------------------------------------------------------------------
 */

Test(chance, any_two_faults_at_any_time)
{
    static const enum scene_action actions[] = {
        SCENE_NOTHING,      SCENE_DROP_CHUNKS,      SCENE_CUT_LONG,
        SCENE_CUT_MIRROR,   SCENE_LOSE_SOURCE_HOST, SCENE_CRASH_DESTINATION,
        SCENE_CRASH_MIRROR, SCENE_CRASH_SOURCE,     SCENE_CANCEL};
    const unsigned n = sizeof actions / sizeof *actions;
    uint64_t dice = 88172645463325252u;
    for (unsigned i = 0; i < 400; i++) {
        struct scene_config c = mirrored(i, i % 2 ? TW_METHOD_HYBRID : TW_METHOD_POST_COPY);
        c.pages = 128;
        c.hot_pages = 48;
        for (unsigned k = 0; k < 2; k++) {
            dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
            unsigned state = 1 + (unsigned)(dice % TW_SOURCE_SERVING);
            strike(&c, true, state, dice / 64 % 6000 * TW_US, actions[dice / 1024 % n]);
        }
        cr_assert(scene_play_loud(&s, &c));
    }
}

/* ---- The checks bite --------------------------------------------------------------------------
 */

Test(mutations, a_source_that_does_not_wait_for_the_mirror_is_noticed)
{
    struct scene_config c = mirrored(7, TW_METHOD_POST_COPY);
    c.at_source.skip_mirror_wait = true;
    cr_assert_not(scene_play(&s, &c));
    cr_assert(strstr(s.problem, "before the mirror held"), "%s", s.problem);
}

Test(mutations, a_mirror_that_holds_something_else_is_noticed)
{
    struct scene_config c = mirrored(8, TW_METHOD_POST_COPY);
    c.at_mirror.keep_wrong = true;
    strike(&c, false, TW_DESTINATION_FETCHING, 2 * TW_MS, SCENE_LOSE_SOURCE_HOST);
    cr_assert_not(scene_play(&s, &c));
}
