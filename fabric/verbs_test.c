/* What is special to RDMA: breaks and reconnects, one-sided reads, registrations, refusals before
 * anything is exposed. Skipped, and says so, where no device is named: see fabric/contract.h.
 *
 *   TOWLINE_VERBS_CUT, TOWLINE_VERBS_MEND   commands that cut the wire between the two addresses
 *                                           and mend it; without them that test is skipped */
#include "fabric/contract.h"
#include "fabric/memlock.h"
#include "fabric/verbs_parts.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct tw_fabric_config patient = {.idle_timeout_ns = 8 * TW_SEC,
                                                .handshake_timeout_ns = 5 * TW_SEC};

static struct world *open_world(const struct tw_verbs_config *settings,
                                const struct tw_fabric_config *config)
{
    if (!world_use_verbs(settings))
        cr_skip_test("no RDMA device is named in TOWLINE_VERBS_ADDRESS");
    return world_open(false, config, NULL);
}

static struct world *connected_as(const struct tw_verbs_config *settings,
                                  const struct tw_fabric_config *config)
{
    struct world *w = open_world(settings, config);
    cr_assert(world_connect(w), "%s: %s", w->b.why.where, w->b.why.what);
    return w;
}

static struct world *connected(const struct tw_verbs_config *settings)
{
    return connected_as(settings, &patient);
}

static struct tw_verbs_stats stats_of(const struct side *s)
{
    struct tw_verbs_stats stats;
    tw_fabric_verbs_stats(s->fabric, &stats);
    return stats;
}

/* Sends chunks with rising tags on both lanes until `total` were taken, doing `at_half` half-way.
 */
static void stream(struct world *w, unsigned total, void (*at_half)(struct world *w))
{
    static uint8_t block[9000];
    const uint64_t until = tw_now(w->clock) + 60 * TW_SEC;
    unsigned sent = 0;
    while (w->a.chunks[0] + w->a.chunks[1] < total) {
        cr_assert_lt(tw_now(w->clock), until, "%u sent, %llu there", sent,
                     (unsigned long long)(w->a.chunks[0] + w->a.chunks[1]));
        cr_assert_eq(w->a.downs + w->b.downs, 0, "%s%s", w->a.why.what, w->b.why.what);
        for (; sent < total; sent++) {
            const enum tw_lane lane = sent % 7 ? TW_LANE_BULK : TW_LANE_URGENT;
            memset(block, (int)(sent % 251), sizeof block);
            if (tw_conn_send(w->b.conn, lane, TW_CHUNK_BLOB, sent, 0, block, sent * 7919 % 9000,
                             NULL))
                break;
        }
        if (at_half && sent > total / 2) {
            at_half(w);
            at_half = NULL;
        }
        world_step(w);
    }
    cr_assert(WORLD_UNTIL(w, 10000,
                          tw_conn_drained(w->b.conn, TW_LANE_BULK) &&
                              tw_conn_drained(w->b.conn, TW_LANE_URGENT)));
    /* Sequence numbers without gap or repetition are checked by the receiver; here the sums. */
    uint64_t sums = 0, bytes = 0;
    for (unsigned i = 0; i < total; i++) {
        bytes += i * 7919 % 9000;
        sums += (uint64_t)(i * 7919 % 9000) * (i % 251);
    }
    cr_assert_eq(w->a.bytes[0] + w->a.bytes[1], bytes);
    cr_assert_eq(w->a.sums, sums);
}

static void to_error(struct rdma_cm_id *id)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    cr_assert_eq(ibv_modify_qp(id->qp, &attr, IBV_QP_STATE), 0);
}

static void break_bulk_of_sender(struct world *w)
{
    to_error(((struct verbs_conn *)w->b.conn)->link->bulk[0].id);
}

static void break_urgent_of_receiver(struct world *w)
{
    to_error(((struct verbs_conn *)w->a.conn)->link->urgent.id);
}

Test(verbs, a_broken_bulk_queue_pair_loses_nothing)
{
    struct world *w = connected(NULL);
    stream(w, 600, break_bulk_of_sender);
    cr_assert_eq(stats_of(&w->b).reconnects, 1);
    cr_assert_eq(stats_of(&w->a).reconnects, 1);
    struct tw_conn_stats stats;
    tw_conn_stats_get(w->b.conn, &stats);
    cr_assert_eq(stats.reconnects, 1);
    world_close(w);
}

Test(verbs, a_broken_urgent_queue_pair_loses_nothing)
{
    struct world *w = connected(&(struct tw_verbs_config){.bulk_queues = 2});
    stream(w, 600, break_urgent_of_receiver);
    cr_assert_geq(stats_of(&w->b).reconnects, 1);
    world_close(w);
}

Test(verbs, several_bulk_queue_pairs_keep_the_order)
{
    struct world *w = connected(&(struct tw_verbs_config){.bulk_queues = 3});
    cr_assert_eq(((struct verbs_conn *)w->a.conn)->queues, 3);
    stream(w, 1000, NULL);
    const struct tw_verbs_stats s = stats_of(&w->b);
    cr_assert_eq(s.chunks, 1000);
    cr_assert_eq(s.breaks + s.resent, 0);
    cr_assert_geq(s.requests, 1000);
    cr_assert_lt(s.doorbells, s.requests, "chained");
    cr_assert_lt(s.signalled, s.requests / 4, "one completion in many");
    cr_assert_gt(s.inline_requests, 0);
    cr_assert_gt(stats_of(&w->a).credit_writes, 0);
    cr_assert_eq(s.chunk_bytes, w->a.bytes[0] + w->a.bytes[1]);
    world_close(w);
}

/* Soft-iWARP may forget a greeting until more comes; a peer that is late is nudged in any case. */
Test(verbs, a_greeting_that_is_not_answered_is_followed_by_nudges, .timeout = 100)
{
    struct world *w = open_world(NULL, &patient);
    const struct tw_hello hello = world_hello();
    struct tw_error err;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + 20 * TW_SEC, &w->b, &w->b.conn, &err),
                 TW_OK, "%s", err.what);
    const struct verbs_conn *conn = (const struct verbs_conn *)w->b.conn;
    cr_assert(WORLD_UNTIL(w, 10000, conn->link->urgent.state >= VERBS_GREETING_DUE));
    const uint64_t until = tw_now(w->clock) + TW_SEC;
    while (conn->link->urgent.state == VERBS_GREETING_DUE && tw_now(w->clock) < until)
        tw_fabric_poll(w->b.fabric, tw_now(w->clock) + 10 * TW_MS); /* the peer has no time */
    const bool iwarp = ((const struct verbs_fabric *)w->b.fabric)->iwarp;
    if (iwarp)
        cr_expect_gt(stats_of(&w->b).nudges, 2);
    else
        cr_expect_eq(stats_of(&w->b).nudges, 0);
    cr_assert(WORLD_UNTIL(w, 15000, w->b.ups || w->b.downs) && w->b.ups, "%s", w->b.why.what);
    stream(w, 40, NULL);
    world_close(w);
}

/* ---- The wire -------------------------------------------------------------------------------- */

static void run(const char *variable)
{
    cr_assert_eq(system(getenv(variable)), 0, "%s", variable);
}

/* Longer than Soft-RoCE's own retries last. The wire is whole again whatever is found: the tests
 * that follow have the same one. */
static void cut_for_a_while(struct world *w)
{
    run("TOWLINE_VERBS_CUT");
    const bool down = WORLD_UNTIL(w, 4000, w->a.downs || w->b.downs);
    run("TOWLINE_VERBS_MEND");
    cr_assert_not(down, "%s%s", w->a.why.what, w->b.why.what);
}

Test(verbs, a_wire_that_is_cut_and_mended_loses_nothing, .timeout = 100)
{
    if (!getenv("TOWLINE_VERBS_CUT") || !getenv("TOWLINE_VERBS_MEND"))
        cr_skip_test("no wire can be cut: TOWLINE_VERBS_CUT, TOWLINE_VERBS_MEND");
    /* iWARP has no retries of its own: TCP's, ever longer apart, may come late after a cut. */
    const char *kind = getenv("TOWLINE_RDMA_KIND");
    struct tw_fabric_config config = patient;
    if (kind && strcmp(kind, "siw") == 0)
        config.idle_timeout_ns = 24 * TW_SEC;
    struct world *w = connected_as(NULL, &config);
    stream(w, 600, cut_for_a_while);
    fprintf(stderr, "resent %llu, breaks %llu\n", (unsigned long long)stats_of(&w->b).resent,
            (unsigned long long)stats_of(&w->b).breaks);
    world_close(w);
}

Test(verbs, a_wire_that_stays_cut_is_a_clear_failure, .timeout = 100)
{
    if (!getenv("TOWLINE_VERBS_CUT") || !getenv("TOWLINE_VERBS_MEND"))
        cr_skip_test("no wire can be cut: TOWLINE_VERBS_CUT, TOWLINE_VERBS_MEND");
    struct world *w = connected(NULL);
    run("TOWLINE_VERBS_CUT");
    const uint64_t before = tw_now(w->clock);
    const bool down = WORLD_UNTIL(w, 20000, w->a.downs && w->b.downs);
    run("TOWLINE_VERBS_MEND");
    cr_assert(down);
    cr_assert_lt(tw_now(w->clock) - before, patient.idle_timeout_ns * 3 / 2);
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE);
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
    world_close(w);
}

/* ---- A peer that dies ------------------------------------------------------------------------ */

static enum tw_code count_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                                const struct tw_chunk_header *header, const uint8_t *payload,
                                struct tw_error *err)
{
    (void)ctx, (void)conn, (void)lane, (void)header, (void)payload, (void)err;
    return TW_OK;
}

static enum tw_code let_in(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                           void **conn_ctx, struct tw_error *err)
{
    (void)conn, (void)hello, (void)err;
    *conn_ctx = ctx;
    return TW_OK;
}

static void nothing_up(void *ctx, struct tw_conn *conn)
{
    (void)ctx, (void)conn;
}

static void nothing_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    (void)ctx, (void)conn, (void)why;
}

/* Listens in a process of its own; tells the address through the pipe. */
static void serve(int out)
{
    static const struct tw_fabric_events events = {let_in, nothing_up, count_chunk, NULL,
                                                   nothing_down};
    const struct tw_fabric_config config = {.name = "doomed", .events = &events};
    char address[TW_FABRIC_ADDRESS_MAX] = "";
    struct tw_fabric *f;
    struct tw_verbs_config settings = {0};
    snprintf(address, sizeof address, "%s:0", getenv("TOWLINE_VERBS_ADDRESS"));
    if (tw_fabric_open(&tw_fabric_verbs, &settings, &config, &f, NULL) ||
        tw_fabric_listen(f, address, NULL))
        _exit(1);
    memcpy(address, tw_fabric_address(f), sizeof address);
    if (write(out, address, sizeof address) != sizeof address)
        _exit(1);
    for (;;)
        tw_fabric_poll(f, tw_now(&tw_monotonic) + TW_SEC);
}

Test(verbs, a_killed_peer_is_a_clear_failure)
{
    if (!world_use_verbs(NULL))
        cr_skip_test("no RDMA device is named in TOWLINE_VERBS_ADDRESS");
    int pipes[2];
    char address[TW_FABRIC_ADDRESS_MAX];
    cr_assert_eq(pipe(pipes), 0);
    const pid_t pid = fork();
    if (pid == 0)
        serve(pipes[1]);
    cr_assert_eq(read(pipes[0], address, sizeof address), sizeof address);
    struct world *w = world_open(false, &patient, NULL);
    const struct tw_hello hello = world_hello();
    cr_assert_eq(tw_fabric_connect(w->b.fabric, address, &hello, tw_now(w->clock) + 5 * TW_SEC,
                                   &w->b, &w->b.conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 5000, w->b.ups == 1), "%s", w->b.why.what);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    const uint64_t before = tw_now(w->clock);
    cr_assert(WORLD_UNTIL(w, 20000, w->b.downs == 1));
    cr_assert_lt(tw_now(w->clock) - before, patient.idle_timeout_ns * 3 / 2);
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE);
    fprintf(stderr, "after %llu ms: %s\n",
            (unsigned long long)((tw_now(w->clock) - before) / TW_MS), w->b.why.what);
    world_close(w);
}

/* ---- What is exposed ------------------------------------------------------------------------- */

Test(verbs, a_refused_peer_is_shown_nothing)
{
    struct world *w = open_world(NULL, &patient);
    w->a.refuse = TW_PERMISSION_DENIED;
    cr_assert_not(world_connect(w));
    cr_assert_eq(w->b.why.code, TW_PERMISSION_DENIED);
    cr_assert_eq(stats_of(&w->a).registrations, 0, "no memory was registered for it");
    cr_assert_null(((struct verbs_fabric *)w->a.fabric)->domains);
    world_close(w);
}

/* One who knows the port, but neither a token nor the id of a connection. */
Test(verbs, nobody_joins_or_resumes_a_foreign_connection)
{
    struct world *w = connected(NULL);
    struct verbs_conn *server = (struct verbs_conn *)w->a.conn;
    struct verbs_conn *client = (struct verbs_conn *)w->b.conn;
    client->base.id[3] ^= 1;
    to_error(client->link->urgent.id);
    cr_assert(WORLD_UNTIL(w, 20000, w->b.downs == 1));
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE);
    cr_assert_not_null(strstr(w->b.why.what, "not known"), "%s", w->b.why.what);
    cr_assert_eq(stats_of(&w->a).reconnects, 0);
    cr_assert(WORLD_UNTIL(w, 20000, w->a.downs == 1), "%d", server->broken);
    world_close(w);
}

Test(verbs, absurd_credit_closes_the_connection)
{
    struct world *w = connected(NULL);
    ((struct verbs_conn *)w->a.conn)->streams[TW_LANE_BULK].expected += 1000;
    cr_assert_eq(tw_conn_send(w->b.conn, TW_LANE_URGENT, TW_CHUNK_BLOB, 0, 0, "x", 1, NULL), TW_OK);
    cr_assert(WORLD_UNTIL(w, 5000, w->a.downs == 1 && w->b.downs == 1));
    cr_assert_eq(w->b.why.code, TW_INVALID_ARGUMENT, "%s", w->b.why.what);
    world_close(w);
}

static void without_exemption(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    cr_assert_eq(syscall(SYS_capget, &header, data), 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

static void limit_memlock(uint64_t bytes)
{
    struct rlimit limit = {bytes, RLIM_INFINITY};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
}

Test(verbs, too_little_memlock_is_said_before)
{
    without_exemption(); /* first: the connection manager serves no one who changes */
    struct world *w = open_world(NULL, &patient);
    struct tw_error err;
    uint32_t key;
    const struct tw_hello hello = world_hello();
    const size_t size = 1 << 20;
    uint8_t *memory = aligned_alloc(4096, size);
    memset(memory, 1, size);
    limit_memlock(65536);
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, size, hello.owner, &key, &err),
                 TW_RESOURCE_EXHAUSTED);
    cr_assert_not_null(strstr(err.what, "ulimit -l"), "%s", err.what);
    cr_assert_not_null(strstr(err.expected, "1048576"), "%s", err.expected);
    cr_assert_not_null(strstr(err.given, "65536"), "%s", err.given);
    cr_assert_not(world_connect(w));
    cr_assert_eq(w->b.why.code, TW_RESOURCE_EXHAUSTED);
    cr_assert_not_null(strstr(w->b.why.what, "memlock"), "%s", w->b.why.what);
    cr_assert_eq(stats_of(&w->a).registrations + stats_of(&w->b).registrations, 0);
    world_close(w);
    free(memory);
}

/* ---- One-sided reads ------------------------------------------------------------------------- */

Test(verbs, reads_cross_slices_and_cost_is_reported)
{
    struct world *w = connected(&(struct tw_verbs_config){.slice_bytes = 65536});
    const struct tw_hello hello = world_hello();
    const size_t size = 5 * 65536 + 777;
    uint8_t *memory = aligned_alloc(4096, 6 * 65536);
    static uint8_t into[TW_CHUNK_PAYLOAD];
    uint32_t key;
    for (size_t i = 0; i < size; i++)
        memory[i] = (uint8_t)(i * 31 ^ i >> 9);
    const struct tw_verbs_stats before = stats_of(&w->a);
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, size, hello.owner, &key, NULL), TW_OK);
    const struct tw_verbs_stats after = stats_of(&w->a);
    cr_assert_eq(after.registrations - before.registrations, 6);
    cr_assert_gt(after.registered_bytes - before.registered_bytes, size);
    cr_assert_gt(after.register_ns, before.register_ns);
    for (unsigned i = 0; i < 40; i++) {
        const uint64_t at = (uint64_t)i * 8111 % size, left = size - at;
        const uint32_t length = left < sizeof into ? (uint32_t)left : (uint32_t)sizeof into;
        cr_assert_eq(tw_conn_read(w->b.conn, key, at, length, into, i, NULL), TW_OK);
        cr_assert(WORLD_UNTIL(w, 5000, w->b.reads == i + 1));
        cr_assert_eq(w->b.read_code, TW_OK, "read %u", i);
        cr_assert_arr_eq(into, memory + at, length);
    }
    cr_assert_eq(stats_of(&w->b).reads, 40);
    cr_assert_leq(stats_of(&w->b).lookups, 6);
    tw_fabric_unregister(w->a.fabric, key);
    cr_assert_eq(stats_of(&w->a).registered_bytes, before.registered_bytes);
    world_close(w);
    free(memory);
}

/* The reader still knows the place: the device says no, and the connection survives that. */
Test(verbs, a_read_of_what_is_gone_ends_and_the_connection_lives)
{
    struct world *w = connected(NULL);
    const struct tw_hello hello = world_hello();
    static uint8_t memory[8192], into[64];
    uint32_t key;
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, sizeof memory, hello.owner, &key, NULL),
                 TW_OK);
    cr_assert_eq(tw_conn_read(w->b.conn, key, 64, 64, into, 1, NULL), TW_OK);
    cr_assert(WORLD_UNTIL(w, 5000, w->b.reads == 1 && w->b.read_code == TW_OK));
    tw_fabric_unregister(w->a.fabric, key);
    cr_assert_eq(tw_conn_read(w->b.conn, key, 128, 64, into, 2, NULL), TW_OK);
    cr_assert(WORLD_UNTIL(w, 10000, w->b.reads == 2));
    cr_assert_eq(w->b.read_code, TW_OUT_OF_RANGE);
    stream(w, 50, NULL);
    world_close(w);
}

/* Poll looks out for what is read before it asks the kernel what else there is; but it does ask. */
Test(verbs, reads_in_close_order_do_not_keep_a_chunk_out)
{
    struct world *w = connected(NULL);
    const struct tw_hello hello = world_hello();
    static uint8_t memory[4096], into[64];
    uint32_t key;
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, sizeof memory, hello.owner, &key, NULL),
                 TW_OK);
    for (unsigned n = 0; !w->b.chunks[TW_LANE_BULK]; n++) {
        cr_assert_lt(n, 3000);
        if (n == 50)
            cr_assert_eq(tw_conn_send(w->a.conn, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, "x", 1, NULL),
                         TW_OK);
        cr_assert_eq(tw_conn_read(w->b.conn, key, 0, 64, into, n, NULL), TW_OK);
        cr_assert(WORLD_UNTIL(w, 5000, w->b.reads == n + 1));
        cr_assert_eq(w->b.read_code, TW_OK);
    }
    world_close(w);
}

/* A reader in the middle of a break gets its bytes, or a clear word; never silence. */
Test(verbs, reads_survive_a_break)
{
    struct world *w = connected(NULL);
    const struct tw_hello hello = world_hello();
    static uint8_t memory[65536], into[TW_READS_MAX][64];
    uint32_t key;
    for (unsigned i = 0; i < sizeof memory; i++)
        memory[i] = (uint8_t)(i / 64);
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, sizeof memory, hello.owner, &key, NULL),
                 TW_OK);
    for (unsigned i = 0; i < TW_READS_MAX; i++) {
        cr_assert_eq(tw_conn_read(w->b.conn, key, i * 64, 64, into[i], i, NULL), TW_OK);
        if (i == TW_READS_MAX / 2)
            to_error(((struct verbs_conn *)w->b.conn)->link->urgent.id);
    }
    cr_assert(WORLD_UNTIL(w, 10000, w->b.reads == TW_READS_MAX), "%u", w->b.reads);
    cr_assert_eq(w->b.downs, 0);
    for (unsigned i = 0; i < TW_READS_MAX; i++)
        cr_assert_eq(into[i][5], i);
    world_close(w);
}
