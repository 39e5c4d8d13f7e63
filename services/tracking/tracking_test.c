#include "services/tracking/fake_attachment.h"

#include <criterion/criterion.h>
#include <string.h>

static struct fake_world world;
static struct tw_error err;
static const struct tw_tracking_wish plain = {0}, exact = {.exact = true};

static void setup(void)
{
    fake_open(&world);
}

static void teardown(void)
{
    fake_close(&world);
}

TestSuite(tracking, .init = setup, .fini = teardown);

static struct tw_tracking_session *open_on(unsigned pid, uint64_t offset, uint64_t length)
{
    struct tw_tracking_session *s;
    struct tw_range range = {FAKE_BASE + offset, length};
    cr_assert_eq(tw_tracking_session_open(world.tracking, pid, &plain, 7, &s, &err), TW_OK, "%s",
                 err.what);
    cr_assert_eq(tw_tracking_watch(s, &range, length ? 1 : 0, &err), TW_OK, "%s", err.what);
    return s;
}

static enum tw_epoch_state state_of(struct tw_tracking_session *s, unsigned epoch)
{
    enum tw_epoch_state state;
    tw_tracking_epoch_poll(s, epoch, &state, NULL);
    return state;
}

static unsigned epoch_on(struct tw_tracking_session *s, const char *name)
{
    unsigned epoch;
    cr_assert_eq(tw_tracking_epoch_open(s, name, &epoch, &err), TW_OK, "%s", err.what);
    fake_run(&world);
    cr_assert_eq(state_of(s, epoch), TW_EPOCH_RUNNING);
    return epoch;
}

static void collect(struct tw_tracking_session *s, unsigned epoch)
{
    cr_assert_eq(tw_tracking_collect(s, epoch, false, &err), TW_OK, "%s", err.what);
    fake_run(&world);
    cr_assert_eq(state_of(s, epoch), TW_EPOCH_RUNNING);
}

/* All lines of one page, 0 when it was not told. */
static uint64_t lines_at(struct tw_tracking_session *s, unsigned epoch, uint64_t offset)
{
    struct tw_dirty_lines out[64];
    uint64_t lines = 0;
    for (size_t n; (n = tw_tracking_read(s, epoch, out, 64)) > 0;)
        for (size_t i = 0; i < n; i++)
            if (out[i].address == FAKE_BASE + offset)
                lines |= out[i].lines;
    return lines;
}

Test(tracking, stores_before_the_start_do_not_count_and_each_store_counts_once)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    fake_store(&world, 1, 0x1000);
    unsigned e = epoch_on(s, "a");
    fake_store(&world, 1, 0x1040);
    collect(s, e);
    cr_assert_eq(lines_at(s, e, 0x1000), 2u);
    collect(s, e);
    cr_assert_eq(lines_at(s, e, 0x1000), 0u);
}

Test(tracking, epochs_and_sessions_stay_apart)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20), *t = open_on(1, 0x1000, 0x2000);
    unsigned a = epoch_on(s, "a"), b = epoch_on(s, "b"), c = epoch_on(t, "a");
    cr_assert_eq(world.attached, 1, "one attachment for all sessions of a program");
    fake_store(&world, 1, 0x1000);
    collect(s, a);
    cr_assert_eq(lines_at(s, a, 0x1000), 1u);
    fake_store(&world, 1, 0x1080);
    collect(s, b);
    collect(t, c);
    cr_assert_eq(lines_at(s, b, 0x1000), 5u);
    cr_assert_eq(lines_at(t, c, 0x1000), 5u);
    collect(s, a);
    cr_assert_eq(lines_at(s, a, 0x1000), 4u);
}

Test(tracking, a_pass_that_is_under_way_does_not_serve_who_comes_later)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    unsigned a = epoch_on(s, "a"), b = epoch_on(s, "b"), before = world.program[0].passes;
    world.program[0].steps = 3;
    cr_assert_eq(tw_tracking_collect(s, a, false, &err), TW_OK);
    tw_tracking_step(world.tracking, TW_MS); /* begins: finds nothing that comes now */
    fake_store(&world, 1, 0x3000);
    cr_assert_eq(tw_tracking_collect(s, b, false, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(world.program[0].passes, before + 2);
    cr_assert_eq(lines_at(s, b, 0x3000), 1u);
    cr_assert_eq(lines_at(s, a, 0x3000), 0u);
}

Test(tracking, one_pass_serves_all_that_wait)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    unsigned a = epoch_on(s, "a"), b = epoch_on(s, "b"), before = world.program[0].passes;
    cr_assert_eq(tw_tracking_collect(s, a, false, &err), TW_OK);
    cr_assert_eq(tw_tracking_collect(s, b, false, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(world.program[0].passes, before + 1);
}

Test(tracking, only_lines_of_the_ranges_are_told)
{
    struct tw_tracking_session *s = open_on(1, 0x1040, 100); /* lines 1 and 2 */
    unsigned e = epoch_on(s, "a");
    for (uint64_t at = 0; at < 2 * TW_PAGE_SIZE; at += 64)
        fake_store(&world, 1, at);
    collect(s, e);
    cr_assert_eq(lines_at(s, e, 0x1000), 6u);
    struct tw_figures f;
    tw_tracking_epoch_figures(s, e, &f);
    cr_assert(f.lines == 2 && f.pages == 1 && f.regions == 1);
}

Test(tracking, small_buffers_get_all_and_what_is_left_unread_comes_again)
{
    struct tw_tracking_session *s = open_on(1, 0, 0);
    unsigned e = epoch_on(s, "a");
    for (unsigned i = 0; i < 1000; i++)
        fake_store(&world, 1, i * UINT64_C(4096));
    collect(s, e);
    struct tw_dirty_lines out[7];
    size_t got = 0;
    for (unsigned i = 0; i < 50; i++)
        got += tw_tracking_read(s, e, out, 7);
    cr_assert_eq(got, 350);
    collect(s, e);
    for (size_t n; (n = tw_tracking_read(s, e, out, 7)) > 0;)
        got += n;
    cr_assert_eq(got, 1000);
}

Test(tracking, a_paced_collect_waits_for_the_budget)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    unsigned e = epoch_on(s, "a");
    world.program[0].due_ns = world.now_ns + 5 * TW_SEC;
    cr_assert_eq(tw_tracking_collect(s, e, true, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(state_of(s, e), TW_EPOCH_COLLECTING);
    cr_assert_eq(tw_tracking_step(world.tracking, TW_MS), world.now_ns + 5 * TW_SEC);
    world.now_ns += 5 * TW_SEC;
    fake_run(&world);
    cr_assert_eq(state_of(s, e), TW_EPOCH_RUNNING);
}

Test(tracking, a_failed_pass_loses_nothing)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    unsigned e = epoch_on(s, "a");
    enum tw_epoch_state state;
    fake_store(&world, 1, 0x5000);
    world.program[0].pass_error = TW_RESOURCE_EXHAUSTED;
    cr_assert_eq(tw_tracking_collect(s, e, false, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(tw_tracking_epoch_poll(s, e, &state, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(state, TW_EPOCH_RUNNING);
    collect(s, e);
    cr_assert_eq(lines_at(s, e, 0x5000), 1u);
}

Test(tracking, an_ended_program_can_be_read_once_more)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20), *t = open_on(1, 0, 1 << 20);
    unsigned e = epoch_on(s, "a"), f = epoch_on(t, "b"), g;
    fake_store(&world, 1, 0x1000);
    collect(s, e); /* the pass brings the store into both */
    world.program[0].dead = true;
    cr_assert_eq(tw_tracking_collect(s, e, false, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(state_of(s, e), TW_EPOCH_ENDED);
    cr_assert_eq(tw_tracking_collect(s, e, false, &err), TW_ABORTED);
    cr_assert_eq(tw_tracking_collect(t, f, false, &err), TW_OK);
    cr_assert_eq(state_of(t, f), TW_EPOCH_ENDED);
    cr_assert_eq(lines_at(t, f, 0x1000), 1u);
    cr_assert_eq(tw_tracking_epoch_open(s, "late", &g, &err), TW_ABORTED);
    world.program[0].dead = false; /* another program with this pid */
    struct tw_tracking_session *u;
    tw_tracking_session_close(s);
    tw_tracking_session_close(t);
    cr_assert_eq(tw_tracking_session_open(world.tracking, 1, &plain, 7, &u, &err), TW_OK);
    cr_assert_eq(world.attached, 2);
}

/* What it left behind may be much: nobody waits for all of it, and all of it is found. */
Test(tracking, the_last_pass_over_an_ended_program_is_made_in_slices)
{
    world.program[0].outlives = true;
    struct tw_tracking_session *s = open_on(1, 0, 0), *other = open_on(2, 0, 0);
    const unsigned epoch = epoch_on(s, "a"), others = epoch_on(other, "a");
    fake_store(&world, 1, 4096);
    fake_store(&world, 2, 64);
    world.program[0].dead = true;
    world.program[0].steps = 50;
    cr_assert_eq(tw_tracking_collect(s, epoch, false, &err), TW_OK);
    cr_assert_eq(tw_tracking_collect(other, others, false, &err), TW_OK);
    tw_tracking_step(world.tracking, TW_MS);
    cr_expect_eq(state_of(other, others), TW_EPOCH_RUNNING, "it has had its turn");
    cr_expect_eq(state_of(s, epoch), TW_EPOCH_COLLECTING);
    cr_expect_eq(lines_at(other, others, 0), 2);
    fake_run(&world);
    cr_expect_eq(state_of(s, epoch), TW_EPOCH_RUNNING, "collected");
    cr_expect_eq(lines_at(s, epoch, 4096), 1, "stored before its end");
    cr_expect_eq(tw_tracking_collect(s, epoch, false, &err), TW_OK);
    cr_expect_eq(state_of(s, epoch), TW_EPOCH_ENDED);
    cr_expect_eq(lines_at(s, epoch, 4096), 0);
    cr_expect_eq(tw_tracking_collect(s, epoch, false, &err), TW_ABORTED);
    tw_tracking_session_close(s);
    tw_tracking_session_close(other);
}

Test(tracking, loads_of_what_does_not_see_them_are_refused)
{
    const struct tw_tracking_wish loads = {.loads = true};
    struct tw_tracking_session *s;
    cr_expect_eq(tw_tracking_session_open(world.tracking, 1, &loads, 7, &s, &err),
                 TW_UNIMPLEMENTED);
    cr_expect(strstr(err.expected, "loads"), "%s", err.expected);
    cr_expect_eq(world.program[0].closed, 1, "nobody tracks it");
}

Test(tracking, an_ended_program_is_noticed_while_an_epoch_arms)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20);
    unsigned e;
    enum tw_epoch_state state;
    cr_assert_eq(tw_tracking_epoch_open(s, "a", &e, &err), TW_OK);
    world.program[0].dead = true;
    fake_run(&world);
    cr_assert_eq(tw_tracking_epoch_poll(s, e, &state, &err), TW_ABORTED);
    cr_assert_eq(state, TW_EPOCH_ENDED);
    cr_assert_eq(tw_tracking_read(s, e, NULL, 10), 0, "never armed, so nothing to read");
}

Test(tracking, the_program_is_let_go_with_the_last_session)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20), *t = open_on(1, 0, 0);
    epoch_on(s, "a");
    tw_tracking_session_close(s);
    cr_assert_eq(world.program[0].closed, 0);
    tw_tracking_session_close(t);
    cr_assert_eq(world.program[0].closed, 1);
    cr_assert_eq(world.program[0].watches, 0);
}

Test(tracking, limits_and_misuse_are_refused)
{
    struct tw_tracking_session *s = open_on(1, 0, 1 << 20), *t;
    struct tw_range range = {FAKE_BASE, 4096}, below = {4096, 4096}, empty = {FAKE_BASE, 0};
    unsigned e;
    cr_assert_eq(tw_tracking_watch(s, &range, 1, &err), TW_FAILED_PRECONDITION);
    for (unsigned i = 0; i < TW_TRACKING_EPOCHS_MAX; i++)
        epoch_on(s, (char[]){(char)('a' + i), 0});
    cr_assert_eq(tw_tracking_epoch_open(s, "x", &e, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(tw_tracking_epoch_open(s, "a", &e, &err), TW_ALREADY_EXISTS);
    cr_assert_eq(tw_tracking_epoch_open(s, "", &e, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_tracking_session_open(world.tracking, 1, &exact, 7, &t, &err),
                 TW_FAILED_PRECONDITION);
    cr_assert_eq(tw_tracking_session_open(world.tracking, 9, &plain, 7, &t, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_tracking_session_open(world.tracking, 2, &exact, 7, &t, &err), TW_OK);
    cr_assert_eq(tw_tracking_epoch_open(t, "a", &e, &err), TW_FAILED_PRECONDITION);
    cr_assert_eq(tw_tracking_watch(t, &empty, 1, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_tracking_watch(t, &below, 1, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_tracking_watch(t, &range, 1, &err), TW_OK, "and can be tried again");
    for (unsigned i = 2; i < TW_TRACKING_SESSIONS_MAX; i++)
        cr_assert_eq(tw_tracking_session_open(world.tracking, 1, &plain, 7, &t, &err), TW_OK);
    cr_assert_eq(tw_tracking_session_open(world.tracking, 1, &plain, 7, &t, &err),
                 TW_RESOURCE_EXHAUSTED);
}

Test(tracking, figures_are_counted_and_summed)
{
    struct tw_tracking_session *s = open_on(1, 0, 0);
    unsigned e = epoch_on(s, "a");
    struct tw_tracking_session_info info;
    struct tw_region hot[2];
    fake_store(&world, 1, 0);
    fake_store(&world, 1, 0x1000);
    fake_store(&world, 1, 0x1040);
    fake_store(&world, 1, 5 * TW_REGION_SIZE);
    world.now_ns += 2 * TW_SEC;
    collect(s, e);
    while (tw_tracking_read(s, e, NULL, 2) > 0)
        ;
    tw_tracking_session_info(s, &info);
    cr_assert(info.last.lines == 4 && info.last.pages == 3 && info.last.regions == 2);
    cr_assert_eq(info.last.duration_ns, 2 * TW_SEC);
    cr_assert_eq(tw_tracking_hottest(s, e, hot, 2), 2);
    cr_assert(hot[0].address == FAKE_BASE && hot[0].lines == 3 && hot[0].pages == 2);
    fake_whole(&world, 1, 0x2000);
    collect(s, e);
    while (tw_tracking_read(s, e, NULL, 2) > 0)
        ;
    tw_tracking_session_info(s, &info);
    cr_assert(info.last.whole_pages == 1 && info.last.lines == 64 && info.total.lines == 68);
    cr_assert(info.total.epochs == 2 && info.total.pages == 4);
}

/* ---- The meter's bytes ---------------------------------------------------------------------- */

static struct tw_figures figures_of(struct tw_tracking_session *s, unsigned epoch)
{
    struct tw_figures f;
    collect(s, epoch);
    while (tw_tracking_read(s, epoch, NULL, 64) > 0)
        continue;
    tw_tracking_epoch_figures(s, epoch, &f);
    return f;
}

Test(tracking, bytes_and_clean_pages_are_those_of_the_epoch)
{
    struct tw_tracking_session *s = open_on(1, 0, 0);
    unsigned a = epoch_on(s, "a"), b = epoch_on(s, "b");
    struct tw_tracking_session_info info;
    struct tw_region hot[2];
    fake_store(&world, 1, 0x1000);
    fake_store(&world, 1, 0x1040);
    fake_store(&world, 1, TW_REGION_SIZE);
    struct tw_figures f = figures_of(s, a);
    cr_assert(f.changed_bytes == 24 && f.known_lines == 3 && f.clean_pages == 0);
    cr_assert_eq(tw_tracking_hottest(s, a, hot, 2), 2);
    cr_assert(hot[0].lines == 2 && hot[0].bytes == 16 && hot[1].bytes == 8);
    world.program[0].bytes = 0;
    fake_store(&world, 1, 0x5000);
    f = figures_of(s, a);
    cr_assert(f.changed_bytes == 0 && f.clean_pages == 1 && f.pages == 0 && f.lines == 0);
    f = figures_of(s, b);
    cr_assert(f.changed_bytes == 24 && f.clean_pages == 1, "an epoch of its own");
    f = figures_of(s, a);
    cr_assert(f.changed_bytes == 0 && f.clean_pages == 0);
    tw_tracking_session_info(s, &info);
    cr_assert(info.counts_bytes && info.total.changed_bytes == 48 && info.total.clean_pages == 2);
    tw_tracking_session_close(s);
}

Test(tracking, bytes_of_whole_pages_and_of_parts_of_pages_are_not_known)
{
    struct tw_tracking_session *s = open_on(1, 0, 0), *part = open_on(1, 0x1000, 64);
    struct tw_tracking_session *other = open_on(1, 0x8000, 0x1000);
    struct tw_tracking_session_info info;
    unsigned e = epoch_on(s, "a"), p = epoch_on(part, "a"), o = epoch_on(other, "a");
    fake_store(&world, 1, 0x1000);
    fake_whole(&world, 1, 0x3000);
    struct tw_figures f = figures_of(s, e);
    cr_assert(f.lines == 65 && f.known_lines == 1 && f.changed_bytes == 8);
    f = figures_of(part, p);
    cr_assert(f.lines == 1 && f.known_lines == 0 && f.changed_bytes == 0);
    tw_tracking_session_info(part, &info);
    cr_assert_not(info.counts_bytes);
    f = figures_of(other, o);
    cr_assert(f.changed_bytes == 0, "not in its ranges");
    tw_tracking_session_close(s);
    tw_tracking_session_close(part);
    tw_tracking_session_close(other);
}

/* ---- A program that is held ------------------------------------------------------------------ */

Test(tracking, a_held_program_goes_when_it_is_watched_and_when_it_was_read)
{
    struct fake_program *p = &world.program[0];
    struct tw_tracking_session *s = open_on(1, 0, 0);
    p->hold = TW_HOLD_START;
    fake_run(&world);
    cr_assert(p->hold == TW_HOLD_START && p->passes == 0, "nobody watches yet");
    unsigned e = epoch_on(s, "a");
    cr_assert(p->hold == TW_HOLD_LATER && p->passes == 1);
    p->due_ns = world.now_ns + 30 * TW_SEC;
    fake_store(&world, 1, 0x1000);
    p->hold = TW_HOLD_END;
    fake_run(&world);
    cr_assert(p->hold == TW_HOLD_LATER && p->passes == 2, "its last pass, whatever the budget");
    p->dead = true;
    cr_assert_eq(tw_tracking_collect(s, e, true, &err), TW_OK);
    fake_run(&world);
    cr_assert_eq(lines_at(s, e, 0x1000), 1u, "what it wrote last is known");
    tw_tracking_session_close(s);
}

Test(tracking, a_failed_pass_holds_nobody)
{
    struct fake_program *p = &world.program[0];
    struct tw_tracking_session *s = open_on(1, 0, 0);
    epoch_on(s, "a");
    p->hold = TW_HOLD_END;
    p->pass_error = TW_INTERNAL;
    fake_run(&world);
    cr_assert_eq(p->hold, TW_HOLD_LATER);
    tw_tracking_session_close(s);
}

Test(tracking, one_that_may_be_held_is_looked_at_again_soon)
{
    struct tw_tracking_session *s = open_on(1, 0, 0);
    epoch_on(s, "a");
    cr_assert_eq(tw_tracking_step(world.tracking, TW_MS), TW_NEVER);
    world.program[0].hold = TW_HOLD_LATER;
    cr_assert_leq(tw_tracking_step(world.tracking, TW_MS), world.now_ns + 10 * TW_MS);
    tw_tracking_session_close(s);
}

static struct tw_tracking_session *open_with_bytes(void)
{
    static const struct tw_tracking_wish bytes = {.bytes = true};
    const struct tw_range range = {FAKE_BASE, 1 << 20};
    struct tw_tracking_session *s;
    cr_assert_eq(tw_tracking_session_open(world.tracking, 1, &bytes, 7, &s, &err), TW_OK);
    cr_assert_eq(tw_tracking_watch(s, &range, 1, &err), TW_OK);
    return s;
}

/* `bytes` of the line at `offset` change; 0: it is rewritten with what it held. A pass of its own.
 */
static void pass_with(struct tw_tracking_session *s, unsigned other, uint64_t offset,
                      unsigned bytes)
{
    world.program[0].bytes = bytes;
    fake_store(&world, 1, offset);
    collect(s, other);
}

Test(tracking, lines_rewritten_with_what_they_held_are_known_where_stores_are_seen)
{
    struct tw_tracking_session_info info;
    world.program[0].stores_seen = true;
    struct tw_tracking_session *s = open_with_bytes();
    const unsigned e = epoch_on(s, "a"), other = epoch_on(s, "b");
    tw_tracking_session_info(s, &info);
    cr_assert(info.counts_bytes && info.counts_same);
    pass_with(s, other, 0x1000, 8);
    pass_with(s, other, 0x1040, 0);
    pass_with(s, other, 0x1080, 0);
    pass_with(s, other, 0x1080, 1); /* changed once is changed */
    pass_with(s, other, 0x10c0, 1);
    pass_with(s, other, 0x10c0, 0);
    struct tw_figures f = figures_of(s, e);
    cr_assert(f.lines == 4 && f.known_lines == 4 && f.same_lines == 1, "%zu same",
              (size_t)f.same_lines);
    cr_assert(f.changed_bytes == 10 && f.clean_pages == 0);
    tw_tracking_session_info(s, &info);
    cr_assert_eq(info.last.same_lines, 1);
    /* Each epoch anew; and what nobody can say is neither. */
    pass_with(s, other, 0x2000, 0);
    pass_with(s, other, 0x2040, 0);
    world.program[0].unsure = true;
    pass_with(s, other, 0x2040, 0);
    pass_with(s, other, 0x2080, 0);
    f = figures_of(s, e);
    cr_assert(f.lines == 3 && f.known_lines == 1 && f.same_lines == 1);
    world.program[0].unsure = false;
    fake_whole(&world, 1, 0x3000);
    f = figures_of(s, e);
    cr_assert(f.known_lines == 0 && f.same_lines == 0);
}

/* Who does not ask for contents does not have them compared, nor is told 0 for "not known". */
Test(tracking, contents_are_compared_on_demand_while_somebody_wants_that)
{
    struct tw_tracking_session_info info;
    world.program[0].stores_seen = true;
    struct tw_tracking_session *plain_one = open_on(1, 0, 1 << 20);
    tw_tracking_session_info(plain_one, &info);
    cr_assert(!info.counts_bytes && !info.counts_same);
    cr_assert_null(world.program[0].told);
    struct tw_tracking_session *s = open_with_bytes(), *t = open_with_bytes();
    cr_assert_not_null(world.program[0].told);
    tw_tracking_session_close(s);
    cr_assert_not_null(world.program[0].told);
    tw_tracking_session_close(t);
    cr_assert_null(world.program[0].told, "nobody wants it any more");
    const unsigned e = epoch_on(plain_one, "a");
    fake_store(&world, 1, 0x1000);
    const struct tw_figures f = figures_of(plain_one, e);
    cr_assert(f.lines == 1 && f.known_lines == 0 && f.same_lines == 0);
}

/* By its pages nobody knows which lines were rewritten with what they held. */
Test(tracking, pages_do_not_tell_which_lines_were_rewritten)
{
    struct tw_tracking_session_info info;
    struct tw_tracking_session *s = open_with_bytes();
    tw_tracking_session_info(s, &info);
    cr_assert(info.counts_bytes && !info.counts_same);
}
