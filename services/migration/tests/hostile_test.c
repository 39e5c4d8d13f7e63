/* A real side against a peer that sends whatever it likes: the side stays whole, says why, and the
 * VM never runs where it must not. */
#include "services/migration/line_hash.h"
#include "services/migration/tests/duel.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Against a destination
 * ----------------------------------------------------------------------- */

Test(hostile, a_destination_survives_anything_and_never_runs)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        struct tw_random r = {seed};
        duel_open(seed, true);
        struct tw_hello hello = hello_of(&d.params);
        meet_destination(&hello);
        cr_assert(d.peer_up);
        if (seed % 4)
            say_begin();
        for (unsigned n = 0; n < 30 && d.peer; n++)
            say_something(&r);
        tw_conn_close(d.peer);
        d.peer = NULL;
        turns(100, 10 * TW_MS);
        cr_assert(tw_destination_done(d.destination), "seed %lu", (unsigned long)seed);
        cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ABORTED);
        cr_assert(tw_destination_error(d.destination));
        cr_assert_not(d.host.running);
        duel_close();
    }
}

static void expect_refused_hello(const struct tw_hello *hello, const char *text)
{
    duel_open(1, true);
    meet_destination(hello);
    cr_assert(d.peer_down && !d.peer_up);
    cr_assert(strstr(d.peer_why.what, text), "%s", d.peer_why.what);
    turns(10, TW_MS);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ACTIVE,
                 "a stranger does not end it");
    duel_close();
}

Test(hostile, strangers_are_refused)
{
    d.params.epoch = 8;
    memcpy(d.params.token, "0123456789abcde", TW_OWNER_SIZE);
    struct tw_hello hello = hello_of(&d.params);
    hello.epoch = 9;
    expect_refused_hello(&hello, "another epoch");
    hello = (struct tw_hello){.epoch = 8, .owner = "somebody else's"};
    expect_refused_hello(&hello, "token");
}

Test(hostile, another_memory_size_is_refused_and_the_reason_told)
{
    duel_open(1, true);
    struct tw_hello hello = hello_of(&d.params);
    meet_destination(&hello);
    union tw_control m = {.begin = {(PAGES + 1) * TW_PAGE_SIZE, d.params.epoch, 1, 0}};
    say(TW_CONTROL_BEGIN, &m);
    turns(50, TW_MS);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ABORTED);
    cr_assert(strstr(tw_destination_error(d.destination)->what, "another memory size"));
    cr_assert_str_eq(tw_destination_error(d.destination)->expected, "262144");
    cr_assert(d.peer_down);
    duel_close();
}

/* Goes the whole way with an empty memory and a small device state, up to its end. */
static void send_everything(uint64_t hash)
{
    duel_open(1, true);
    struct tw_hello hello = hello_of(&d.params);
    meet_destination(&hello);
    say_begin();
    union tw_control final = {.final_end = {.verify = 1}};
    say(TW_CONTROL_FINAL_END, &final);
    cr_assert_eq(tw_conn_send(d.peer, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, "state", 5, NULL), TW_OK);
    union tw_control end = {.state_end = {5, hash}};
    say(TW_CONTROL_STATE_END, &end);
    turns(50, TW_MS);
}

Test(hostile, a_commit_before_everything_is_prepared_is_refused)
{
    duel_open(1, true);
    struct tw_hello hello = hello_of(&d.params);
    meet_destination(&hello);
    say_begin();
    union tw_control commit = {.epoch = {8}};
    say(TW_CONTROL_COMMIT, &commit);
    turns(50, TW_MS);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ABORTED);
    cr_assert(strstr(tw_destination_error(d.destination)->what, "commit out of place"));
    duel_close();
}

Test(hostile, a_corrupted_device_state_is_refused)
{
    send_everything(4711);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ABORTED);
    cr_assert_eq(tw_destination_error(d.destination)->code, TW_DATA_LOSS);
    cr_assert_eq(d.heard[TW_CONTROL_ABORT], 1, "and the source is told");
    duel_close();
}

static void prepare(void)
{
    send_everything(tw_bytes_hash("state", 5));
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_PREPARED);
    cr_assert_eq(d.heard[TW_CONTROL_PREPARED], 1);
    cr_assert_not(tw_destination_peer_lost(d.destination));
}

Test(hostile, prepared_and_then_nonsense_waits_for_a_decision)
{
    prepare();
    union tw_control commit = {.epoch = {7}};
    say(TW_CONTROL_COMMIT, &commit);
    turns(50, TW_MS);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_PREPARED);
    cr_assert(tw_destination_peer_lost(d.destination));
    cr_assert_not(d.host.running);
    turns(100, TW_SEC);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_PREPARED,
                 "for as long as it takes");

    struct tw_error err;
    cr_assert_eq(tw_destination_commit(d.destination, 7, &err), TW_FAILED_PRECONDITION);
    d.host.may_run = true;
    cr_assert_eq(tw_destination_commit(d.destination, 8, &err), TW_OK);
    cr_assert_eq(d.durable, TW_HAND_OVER_COMMITTED, "before it runs");
    cr_assert_not(d.host.running);
    turns(20, TW_MS);
    cr_assert(d.host.running && tw_destination_done(d.destination));
    cr_assert_eq(tw_destination_commit(d.destination, 8, &err), TW_OK, "again is fine");
    cr_assert_eq(tw_destination_abort(d.destination, &err), TW_FAILED_PRECONDITION);
    duel_close();
}

Test(hostile, prepared_and_told_to_abort)
{
    prepare();
    struct tw_error err;
    cr_assert_eq(tw_destination_abort(d.destination, &err), TW_OK);
    cr_assert_eq(tw_destination_abort(d.destination, &err), TW_OK);
    cr_assert_eq(d.durable, TW_HAND_OVER_ABORTED);
    cr_assert_eq(tw_destination_commit(d.destination, 8, &err), TW_FAILED_PRECONDITION);
    union tw_control commit = {.epoch = {8}};
    say(TW_CONTROL_COMMIT, &commit);
    turns(50, 20 * TW_MS);
    cr_assert(tw_destination_done(d.destination));
    cr_assert_eq(d.heard[TW_CONTROL_ABORT], 1);
    cr_assert_not(d.host.running);
    duel_close();
}

Test(hostile, a_second_source_is_refused)
{
    prepare();
    struct tw_conn *first = d.peer;
    struct tw_hello hello = hello_of(&d.params);
    d.peer_up = false;
    cr_assert_eq(tw_fabric_connect(d.fabric[1], "real", &hello, tw_now(d.clock) + TW_SEC, NULL,
                                   &d.peer, NULL),
                 TW_OK);
    turns(50, 100 * TW_US);
    cr_assert(d.peer_down && !d.peer_up);
    cr_assert(strstr(d.peer_why.what, "a source was here before"), "%s", d.peer_why.what);
    d.peer = first;
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_PREPARED);
    cr_assert_not(tw_destination_peer_lost(d.destination), "the first is still there");
    duel_close();
}

/* ---- Maps of what is to come ------------------------------------------------------------------
 */

static void say_map(const struct tw_record_header *records, uint32_t count)
{
    if (d.peer)
        tw_conn_send(d.peer, TW_LANE_BULK, TW_CHUNK_BLOB, TW_BLOB_MAP, 0, records,
                     count * (uint32_t)sizeof *records, NULL);
    turns(6, 60 * TW_US);
}

static void say_map_end(uint64_t lines, uint32_t final)
{
    union tw_control m = {.map_end = {lines, final, 0}};
    say(TW_CONTROL_MAP_END, &m);
}

static void meet_for_post_copy(void)
{
    duel_open(1, true);
    struct tw_hello hello = hello_of(&d.params);
    meet_destination(&hello);
    say_begin_with(TW_METHOD_POST_COPY);
}

static void expect_refused(const char *text)
{
    turns(50, TW_MS);
    cr_assert(d.peer_down, "%s", text);
    cr_assert_eq(tw_destination_hand_over(d.destination), TW_HAND_OVER_ABORTED);
    const struct tw_error *why = tw_destination_error(d.destination);
    cr_assert(why && strstr(why->what, text), "%s: %s", text, why ? why->what : "no error");
    cr_assert_not(d.host.running);
    duel_close();
}

#define RECORD(page, kind, word)                                                                   \
    {                                                                                              \
        (page) * UINT64_C(4096) | (kind), (word)                                                   \
    }

Test(hostile, maps_that_are_wrong_are_refused)
{
    static const struct {
        const char *text;
        struct tw_record_header records[2];
        uint32_t count;
    } wrong[] = {
        {"named twice",
         {RECORD(3, TW_RECORD_ZERO_LINES, 6), RECORD(3, TW_RECORD_ZERO_LINES, 4)},
         2},
        {"named twice",
         {RECORD(9, TW_RECORD_ZERO_PAGES, 3), RECORD(11, TW_RECORD_ZERO_LINES, 1)},
         2},
        {"", {RECORD(3, TW_RECORD_LINES, 1)}, 1},               /* data, and none there */
        {"", {RECORD(PAGES, TW_RECORD_ZERO_LINES, 1)}, 1},      /* behind the memory */
        {"", {RECORD(1, TW_RECORD_ZERO_PAGES, PAGES)}, 1},      /* across its end */
        {"", {RECORD(1, TW_RECORD_ZERO_PAGES, UINT64_MAX)}, 1}, /* and round it */
        {"", {RECORD(1, TW_RECORD_ZERO_LINES, 0)}, 1},          /* nothing */
        {"", {{1 << 12 | 7, 1}}, 1},                            /* an unknown kind */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        meet_for_post_copy();
        say_map(wrong[i].records, wrong[i].count);
        expect_refused(wrong[i].text);
    }
}

Test(hostile, a_map_out_of_place_is_refused)
{
    static const struct tw_record_header one = RECORD(3, TW_RECORD_ZERO_LINES, 6);
    meet_for_post_copy();
    say_map(&one, 1);
    say_map_end(3, 0);
    expect_refused("names other lines than its end says");

    meet_for_post_copy();
    say_map_end(0, 1); /* the announcement comes first */
    expect_refused("out of place");

    duel_open(1, true); /* pre-copy knows no map */
    struct tw_hello hello = hello_of(&d.params);
    meet_destination(&hello);
    say_begin();
    say_map(&one, 1);
    expect_refused("out of place");

    meet_for_post_copy();
    say_map(&one, 1);
    say_map_end(2, 0);
    turns(20, TW_MS);
    cr_assert_eq(d.heard[TW_CONTROL_ROOM], 1);
    say_map(&one, 1);
    say_map_end(2, 1);
    say_map(&one, 1); /* final is final */
    expect_refused("out of place");

    meet_for_post_copy();
    union tw_control want = {.want = {.page = 1, .lines = 1}};
    say(TW_CONTROL_WANT, &want); /* nothing that a source says */
    expect_refused("out of place");
}

Test(hostile, lines_behind_a_map_need_a_reason_and_a_state_before_them)
{
    static const struct tw_record_header one = RECORD(3, TW_RECORD_ZERO_LINES, 6);
    meet_for_post_copy();
    say_map(&one, 1);
    say_map_end(2, 0);
    turns(20, TW_MS);
    say_map(&one, 1);
    say_map_end(2, 1);
    say_line(3);
    expect_refused("before the device state");
}

/* ---- A mirror that is none --------------------------------------------------------------------
 */

static enum tw_code dial_peer(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                              void *conn_ctx, struct tw_conn **conn, struct tw_error *err)
{
    (void)ctx;
    return tw_fabric_connect(d.fabric[0], "peer", hello, deadline_ns, conn_ctx, conn, err);
}

/* The VM runs at the destination and misses lines 1 and 2 of page 3, its source has gone, and who
 * answers as its mirror is the peer. */
static void meet_as_mirror(void)
{
    static const struct tw_record_header one = RECORD(3, TW_RECORD_ZERO_LINES, 6);
    duel_open(1, true);
    struct tw_hello hello = hello_of(&d.params);
    d.params.mirror_after_ns = TW_MS;
    d.dial_mirror = dial_peer;
    meet_destination(&hello);
    say_begin_with(TW_METHOD_POST_COPY);
    say_map(&one, 1);
    say_map_end(2, 0);
    turns(20, TW_MS);
    say_map(&one, 1);
    say_map_end(2, 1);
    const union tw_control final = {.final_end = {.verify = 1}};
    say(TW_CONTROL_FINAL_END, &final);
    cr_assert_eq(tw_conn_send(d.peer, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, "state", 5, NULL), TW_OK);
    const union tw_control end = {.state_end = {5, tw_bytes_hash("state", 5)}};
    say(TW_CONTROL_STATE_END, &end);
    turns(50, TW_MS);
    cr_assert_eq(d.heard[TW_CONTROL_PREPARED], 1);
    d.host.may_run = true;
    const union tw_control commit = {.epoch = {8}};
    say(TW_CONTROL_COMMIT, &commit);
    turns(50, TW_MS);
    cr_assert(d.host.running);
    tw_conn_close(d.peer);
    d.peer = NULL;
    cr_assert_eq(tw_fabric_listen(d.fabric[1], "peer", NULL), TW_OK);
    for (unsigned n = 0; n < 4000 && !d.heard[TW_CONTROL_MISSING]; n++)
        turn(TW_MS);
    cr_assert_eq(d.heard[TW_CONTROL_MISSING], 1);
    d.peer_down = false;
}

/* What it sends is checked like what a source sends: the VM waits on, and nothing was written. */
static void expect_mirror_refused(const char *text)
{
    struct tw_migration_progress p;
    turns(20, TW_MS);
    cr_assert(d.peer_down || !d.peer || d.heard[TW_CONTROL_MISSING] > 1, "%s", text);
    tw_destination_progress(d.destination, &p);
    cr_assert_eq(p.lines_left, 2, "%s: %lu", text, (unsigned long)p.lines_left);
    cr_assert(d.host.running);
    for (uint64_t i = 0; i < PAGES * TW_PAGE_SIZE; i++)
        cr_assert_eq(d.host.host.memory[i], 0);
    duel_close();
}

Test(hostile, what_a_mirror_serves_is_checked_like_a_sources)
{
    static const struct tw_record_header map = RECORD(3, TW_RECORD_ZERO_LINES, 6);
    const union tw_control final = {.final_end = {.verify = 1}};
    meet_as_mirror();
    say_line(PAGES);
    expect_mirror_refused("behind the memory");
    meet_as_mirror();
    say_line(UINT64_MAX >> 13);
    expect_mirror_refused("far behind it");
    meet_as_mirror();
    say_map(&map, 1);
    expect_mirror_refused("another map");
    meet_as_mirror();
    say(TW_CONTROL_FINAL_END, &final);
    expect_mirror_refused("a switch");
    meet_as_mirror();
    say_begin_with(TW_METHOD_POST_COPY);
    expect_mirror_refused("an opening");
    meet_as_mirror();
    tw_conn_send(d.peer, TW_LANE_BULK, TW_CHUNK_LINES, 0, 1, "0123456789abcdef", 16, NULL);
    expect_mirror_refused("no records");
}

/* ---- Against a source -------------------------------------------------------------------------
 */

static void meet_source(uint64_t seed)
{
    duel_open(seed, false);
    struct tw_migration_env e = env();
    cr_assert_eq(tw_fabric_listen(d.fabric[1], "peer", NULL), TW_OK);
    cr_assert_eq(tw_source_start(&e, &d.params, &d.host.host, "peer", &d.source, NULL), TW_OK);
    for (unsigned n = 0; n < 200 && !d.peer_up; n++)
        turn(20 * TW_US);
    cr_assert(d.peer_up);
}

Test(hostile, a_source_survives_anything_and_its_vm_runs_on)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct tw_random r = {seed};
        meet_source(seed);
        turns((unsigned)tw_random_below(&r, 40), 500 * TW_US);
        for (unsigned n = 0;
             n < 20 && d.peer && tw_source_hand_over(d.source) == TW_HAND_OVER_ACTIVE; n++)
            say_something(&r);
        bool given_up = d.durable == TW_HAND_OVER_GIVEN_UP; /* it was told "prepared" in time */
        tw_conn_close(d.peer);
        d.peer = NULL;
        turns(100, 10 * TW_MS);
        if (given_up) {
            cr_assert(tw_source_peer_lost(d.source));
            cr_assert_not(d.host.running);
            cr_assert_eq(tw_source_cancel(d.source, NULL), TW_FAILED_PRECONDITION);
            cr_assert_eq(tw_source_reclaim(d.source, NULL), TW_OK);
            turns(100, 10 * TW_MS);
        }
        cr_assert(tw_source_done(d.source), "seed %lu", (unsigned long)seed);
        cr_assert_eq(d.durable, TW_HAND_OVER_ABORTED);
        cr_assert(d.host.running, "seed %lu", (unsigned long)seed);
        duel_close();
    }
}

static bool source_refuses(uint64_t page, uint64_t lines, uint32_t critical, unsigned times)
{
    union tw_control want = {.want = {page, lines, critical, 0}};
    for (unsigned i = 0; i < times; i++)
        say(TW_CONTROL_WANT, &want);
    turns(100, 10 * TW_MS);
    bool refused = d.peer_down && d.durable == TW_HAND_OVER_ABORTED && d.host.running;
    duel_close();
    return refused;
}

static void meet_post_copy_source(bool mapped)
{
    duel_open(6, false);
    d.params.limits.method = TW_METHOD_POST_COPY;
    struct tw_migration_env e = env();
    cr_assert_eq(tw_fabric_listen(d.fabric[1], "peer", NULL), TW_OK);
    cr_assert_eq(tw_source_start(&e, &d.params, &d.host.host, "peer", &d.source, NULL), TW_OK);
    for (unsigned n = 0; n < 400 && d.heard[TW_CONTROL_MAP_END] == 0; n++)
        turn(100 * TW_US);
    cr_assert_eq(d.heard[TW_CONTROL_MAP_END], 1);
    union tw_control room = {.epoch = {.epoch = d.params.epoch}};
    if (mapped)
        say(TW_CONTROL_ROOM, &room);
    for (unsigned n = 0; mapped && n < 2000 && d.heard[TW_CONTROL_STATE_END] == 0; n++)
        turn(100 * TW_US);
    cr_assert_eq(d.heard[TW_CONTROL_STATE_END], mapped);
}

Test(hostile, wants_that_are_wrong_are_refused_and_the_vm_runs_on)
{
    meet_post_copy_source(false);
    cr_expect(source_refuses(1, 1, 0, 1), "before the map is final");
    meet_post_copy_source(true);
    cr_expect(source_refuses(PAGES, 1, 0, 1), "a page behind the memory");
    meet_post_copy_source(true);
    cr_expect(source_refuses(UINT64_MAX, 1, 0, 1), "a page behind everything");
    meet_post_copy_source(true);
    cr_expect(source_refuses(1, 0, 0, 1), "no line");
    meet_post_copy_source(true);
    cr_expect(source_refuses(1, 1, 64, 1), "a line that no page has");
}

/* The same page again and again: it crosses once, and nothing grows. */
Test(hostile, a_want_said_again_is_answered_once)
{
    struct tw_migration_progress p;
    union tw_control want = {.want = {1, TW_ALL_LINES, 5, 0}};
    meet_post_copy_source(true);
    for (unsigned i = 0; i < 200; i++)
        say(TW_CONTROL_WANT, &want);
    tw_source_progress(d.source, &p);
    cr_expect_leq(p.lines_on_demand, TW_LINES_PER_PAGE);
    cr_expect_not(d.peer_down);
    duel_close();
}

Test(hostile, a_destination_that_falls_silent_does_not_keep_the_vm_stopped)
{
    meet_source(1);
    for (unsigned n = 0; n < 2000 && !d.heard[TW_CONTROL_STATE_END]; n++)
        turn(100 * TW_US);
    cr_assert_eq(d.heard[TW_CONTROL_STATE_END], 1);
    cr_assert_not(d.host.running);
    turns(700, 50 * TW_MS); /* 35 s: keepalives come, an answer does not */
    cr_assert(d.host.running);
    cr_assert_eq(tw_source_hand_over(d.source), TW_HAND_OVER_ABORTED);
    cr_assert_eq(tw_source_error(d.source)->code, TW_DEADLINE_EXCEEDED);
    cr_assert_str_eq(tw_source_error(d.source)->what, "the VM stood still for too long");
    duel_close();
}

Test(hostile, a_destination_that_never_says_running_leads_to_a_decision)
{
    meet_source(2);
    for (unsigned n = 0; n < 2000 && !d.heard[TW_CONTROL_STATE_END]; n++)
        turn(100 * TW_US);
    union tw_control prepared = {.prepared = {.epoch = 8, .compared = 1}};
    say(TW_CONTROL_PREPARED, &prepared);
    turns(100, TW_MS);
    cr_assert_eq(d.durable, TW_HAND_OVER_GIVEN_UP);
    cr_assert_eq(d.heard[TW_CONTROL_COMMIT], 1);
    cr_assert_not(tw_source_peer_lost(d.source));
    cr_assert_eq(tw_source_reclaim(d.source, NULL), TW_FAILED_PRECONDITION, "the peer is there");
    turns(300, 50 * TW_MS);
    cr_assert(tw_source_peer_lost(d.source));
    cr_assert_not(d.host.running);
    cr_assert_eq(tw_source_finish(d.source, NULL), TW_OK);
    cr_assert_eq(tw_source_finish(d.source, NULL), TW_OK);
    cr_assert_eq(d.durable, TW_HAND_OVER_COMMITTED);
    cr_assert(tw_source_done(d.source));
    cr_assert_null(tw_source_error(d.source));
    duel_close();
}

Test(hostile, orders_out_of_place_are_refused)
{
    struct tw_error err;
    meet_source(3);
    cr_assert_eq(tw_source_finish(d.source, &err), TW_FAILED_PRECONDITION);
    cr_assert_str_eq(err.expected, "given_up");
    cr_assert_eq(tw_source_reclaim(d.source, &err), TW_FAILED_PRECONDITION);
    cr_assert_eq(tw_source_cancel(d.source, &err), TW_OK);
    cr_assert_eq(tw_source_cancel(d.source, &err), TW_OK, "again is fine");
    turns(100, 10 * TW_MS);
    cr_assert(tw_source_done(d.source) && d.host.running);
    duel_close();
}

Test(hostile, bad_parameters_are_refused)
{
    struct tw_error err;
    duel_open(4, false);
    struct tw_migration_env e = env();
    memset(d.params.id, 'x', 60);
    cr_assert_eq(tw_source_start(&e, &d.params, &d.host.host, "peer", &d.source, &err),
                 TW_INVALID_ARGUMENT);
    strcpy(d.params.id, "m-1");
    d.host.host.memory_bytes--;
    cr_assert_eq(tw_destination_start(&e, &d.params, &d.host.host, TW_SEC, &d.destination, &err),
                 TW_INVALID_ARGUMENT);
    d.host.host.memory_bytes++;
    struct tw_device *device = d.host.host.device;
    d.host.host.device = NULL;
    cr_assert_eq(tw_source_start(&e, &d.params, &d.host.host, "peer", &d.source, &err),
                 TW_FAILED_PRECONDITION);
    d.host.host.device = device;
    cr_assert_eq(d.durable, 0, "nothing was written down");
    duel_close();
}
