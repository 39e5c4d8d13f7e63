/* The TCP fabric as the agent uses it: chunks gathered in place, checked and applied on the other
 * side; one-sided reads on the urgent lane. */
#include "bench/fabric/bench.h"
#include "fabric/fabric.h"
#include "pki/issue.h"
#include "pki/tls.h"

#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 8192u /* chunks of one measured stream */
#define WARM   80u
#define AHEAD  6u /* pages */

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[512];
    if (code)
        bench_fail("fabric", tw_error_text(err, text, sizeof text));
}

/* ---- Certificates ---------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

/* Of an authority that is gone when this returns. */
static void make_certificates(struct tw_tls *tls[2])
{
    static const char *const names[2] = {"sender", "receiver"};
    char folder[] = "/tmp/towline-bench-XXXXXX", ca[64], out[64];
    struct tw_error err = {0};
    if (!mkdtemp(folder))
        bench_fail("tls", "no folder for certificates");
    snprintf(ca, sizeof ca, "%s/ca", folder);
    must(tw_pki_init(ca, 2, &err), &err);
    for (unsigned i = 0; i < 2; i++) {
        const struct tw_pki_leaf leaf = {.role = TW_ROLE_AGENT, .name = names[i], .ends_s = 86400};
        struct tw_tls_files files;
        snprintf(out, sizeof out, "%s/%s", folder, names[i]);
        must(tw_pki_issue(ca, out, &leaf, &err), &err);
        must(tw_tls_files_in(out, &files, &err), &err);
        must(tw_tls_open(&files, &tls[i], &err), &err);
    }
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- The two ends ---------------------------------------------------------------------------- */

struct end {
    struct tw_fabric *fabric;
    struct tw_conn *conn;
    struct tw_tls *tls[2]; /* sender's, receiver's; NULL: plain */
    bool spin;             /* never sleep: for latencies */
    bool up, gone;
    uint8_t *memory; /* MEMORY_BYTES */
    uint64_t reads;
};

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    (void)hello;
    (void)err;
    ((struct end *)ctx)->conn = conn;
    *conn_ctx = ctx;
    return TW_OK;
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    (void)conn;
    ((struct end *)ctx)->up = true;
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    struct end *e = ctx;
    const struct tw_apply_target target = {.memory = e->memory, .memory_bytes = MEMORY_BYTES};
    (void)conn;
    (void)lane;
    return header->kind == TW_CHUNK_LINES ? tw_chunk_apply(header, payload, &target, err) : TW_OK;
}

static void on_read(void *ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code)
{
    (void)conn;
    (void)cookie;
    if (code)
        bench_fail("read", tw_code_name(code));
    ((struct end *)ctx)->reads++;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    struct end *e = ctx;
    char text[512];
    (void)conn;
    if (!e->gone && why->code != TW_UNAVAILABLE)
        bench_fail("fabric", tw_error_text(why, text, sizeof text));
    e->gone = true;
    e->conn = NULL;
}

static void fabric_open(struct end *e, const char *name, struct tw_tls *tls)
{
    static const struct tw_fabric_events events = {on_accept, on_up, on_chunk, on_read, on_down};
    const struct tw_fabric_config config = {.name = name, .events = &events, .ctx = e};
    struct tw_fabric_tcp_settings settings = {tls};
    struct tw_error err;
    must(tw_fabric_open(&tw_fabric_tcp, &settings, &config, &e->fabric, &err), &err);
}

static void turn(struct end *e)
{
    tw_fabric_poll(e->fabric, e->spin ? 0 : tw_after(tw_now(&tw_monotonic), 10 * TW_MS));
}

static void serve(struct shared *shared, void *ctx)
{
    struct end *e = ctx;
    const uint8_t token[TW_OWNER_SIZE] = {1};
    struct tw_error err;
    uint32_t key;
    fabric_open(e, "receiver", e->tls[1]);
    must(tw_fabric_listen(e->fabric, "127.0.0.1:0", &err), &err);
    must(tw_fabric_register(e->fabric, e->memory, MEMORY_BYTES, token, &key, &err), &err);
    snprintf(shared->address, sizeof shared->address, "%s", tw_fabric_address(e->fabric));
    shared->key = key;
    shared->ready = true;
    while (!shared->stop)
        turn(e);
    tw_fabric_close(e->fabric);
}

static void ends_open(struct end *e, struct pair *pair, const struct contender *self, bool spin)
{
    struct tw_error err;
    const struct tw_hello hello = {.owner = {1}};
    *e = (struct end){.spin = spin, .memory = memory_new(MEMORY_BYTES)};
    if (self->tls)
        make_certificates(e->tls);
    pair_open(pair, serve, e);
    fabric_open(e, "sender", e->tls[0]);
    must(tw_fabric_connect(e->fabric, pair->shared->address, &hello,
                           tw_after(tw_now(&tw_monotonic), 10 * TW_SEC), e, &e->conn, &err),
         &err);
    while (!e->up)
        turn(e);
}

static void ends_close(struct end *e, struct pair *pair)
{
    e->gone = true;
    pair_close(pair);
    tw_fabric_close(e->fabric);
    tw_tls_close(e->tls[0]);
    tw_tls_close(e->tls[1]);
    free(e->memory);
}

/* ---- Work ------------------------------------------------------------------------------------ */

static uint8_t *chunk_begin(struct end *e)
{
    uint8_t *payload;
    while (!(payload = tw_conn_chunk_begin(e->conn, TW_LANE_BULK)))
        turn(e);
    return payload;
}

static void chunk_send(struct end *e, enum tw_chunk_kind kind, uint32_t length, uint32_t count)
{
    const struct tw_chunk_header header = {
        .kind = (uint16_t)kind, .length = length, .count = count};
    struct tw_error err;
    must(tw_conn_chunk_send(e->conn, TW_LANE_BULK, &header, &err), &err);
}

static void drain(struct end *e)
{
    while (!tw_conn_drained(e->conn, TW_LANE_BULK))
        turn(e);
}

/* The payload is what an earlier chunk has left there, as the socket's sender sends one block. */
static void push(struct end *e, unsigned blocks)
{
    for (unsigned i = 0; i < blocks; i++) {
        chunk_begin(e);
        chunk_send(e, TW_CHUNK_BLOB, TW_CHUNK_PAYLOAD, 0);
    }
    drain(e);
}

static double ours_stream(const struct contender *self)
{
    struct end e;
    struct pair pair;
    ends_open(&e, &pair, self, false);
    push(&e, WARM);
    const double start = bench_now_s();
    push(&e, BLOCKS);
    const double took = bench_now_s() - start;
    ends_close(&e, &pair);
    return BLOCKS * (double)TW_CHUNK_PAYLOAD / took * 1e-6;
}

static void send_dirty(struct end *e, const struct dirty *d)
{
    struct tw_chunk_writer w;
    tw_chunk_writer_init(&w, chunk_begin(e));
    for (unsigned i = 0; i < DIRTY_PAGES; i++) {
        const uint64_t page = d->pages[i].page;
        if (i + AHEAD < DIRTY_PAGES && d->lines >= 4)
            tw_chunk_prefetch(e->memory + d->pages[i + AHEAD].page, d->pages[i + AHEAD].bitmap);
        uint64_t rest = tw_chunk_writer_add(&w, page, e->memory + page, d->pages[i].bitmap);
        while (rest) {
            chunk_send(e, TW_CHUNK_LINES, w.length, w.count);
            tw_chunk_writer_init(&w, chunk_begin(e));
            rest = tw_chunk_writer_add(&w, page, e->memory + page, rest);
        }
    }
    chunk_send(e, TW_CHUNK_LINES, w.length, w.count);
}

static double ours_lines(const struct contender *self, const struct dirty *d, int how)
{
    struct end e;
    struct pair pair;
    const unsigned passes = 8 + 256 / d->lines;
    (void)how;
    ends_open(&e, &pair, self, false);
    send_dirty(&e, d);
    drain(&e);
    const double start = bench_now_s();
    for (unsigned i = 0; i < passes; i++)
        send_dirty(&e, d);
    drain(&e);
    const double took = bench_now_s() - start;
    ends_close(&e, &pair);
    return (double)passes * DIRTY_PAGES * d->lines / took;
}

/* As much bulk as there is credit for; a turn after each, as an agent's loop does. */
static void keep_busy(struct end *e)
{
    if (tw_conn_chunk_begin(e->conn, TW_LANE_BULK))
        chunk_send(e, TW_CHUNK_BLOB, TW_CHUNK_PAYLOAD, 0);
}

static struct latency ours_reads(const struct contender *self, uint32_t size, bool busy)
{
    static double us[READS];
    static uint8_t into[TW_CHUNK_PAYLOAD];
    struct end e;
    struct pair pair;
    struct tw_error err;
    ends_open(&e, &pair, self, true);
    for (unsigned i = 0; i < READS + READS / 10; i++) {
        const uint64_t reads = e.reads;
        const uint64_t at = i * UINT64_C(0x9e3779b97f4a7c15) % (MEMORY_BYTES / 4096) * 4096;
        const double start = bench_now_s();
        must(tw_conn_read(e.conn, (uint32_t)pair.shared->key, at, size, into, 0, &err), &err);
        while (e.reads == reads) {
            if (busy)
                keep_busy(&e);
            turn(&e);
        }
        if (i >= READS / 10)
            us[i - READS / 10] = (bench_now_s() - start) * 1e6;
    }
    ends_close(&e, &pair);
    return latency_of(us, READS);
}

const struct contender contender_ours = {
    .name = "towline", .stream = ours_stream, .lines = ours_lines, .reads = ours_reads};
const struct contender contender_ours_tls = {.name = "towline, TLS",
                                             .stream = ours_stream,
                                             .lines = ours_lines,
                                             .reads = ours_reads,
                                             .tls = true};
