#include "bench/fabric/verbs_ours.h"

#include "base/clock.h"
#include "bench/median.h"
#include "fabric/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGION    (UINT64_C(4) << 20) /* bytes that the server exposes */
#define LIMIT     (60 * TW_SEC)       /* of one measurement */
#define SERVE     (600 * TW_SEC)      /* of the server's life */
#define IDLE      (10 * TW_SEC)       /* silence that the fabric bears: the machine is slow */
#define TURN      (10 * TW_MS)
#define WARM_UP   16u
#define READS_MAX 10000u

/* One side of a connection. */
struct end {
    struct tw_fabric *fabric;
    struct tw_conn *conn;
    bool up, down;
    unsigned reads;
    enum tw_code read_code;
    struct tw_error why;
};

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    (void)conn, (void)hello, (void)err;
    *conn_ctx = ctx;
    return TW_OK;
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    struct end *end = ctx;
    (void)conn;
    end->up = true;
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    (void)ctx, (void)conn, (void)lane, (void)header, (void)payload, (void)err;
    return TW_OK;
}

static void on_read(void *ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code)
{
    struct end *end = ctx;
    (void)conn, (void)cookie;
    end->reads++;
    end->read_code = code;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    struct end *end = ctx;
    (void)conn;
    end->down = true;
    end->conn = NULL;
    end->why = *why;
}

static const struct tw_fabric_events events = {on_accept, on_up, on_chunk, on_read, on_down};

static struct tw_hello hello_of_all(void)
{
    struct tw_hello hello = {.epoch = 1};
    memset(hello.owner, 0x42, sizeof hello.owner);
    return hello;
}

static enum tw_code end_open(struct end *end, const char *name, const char *source,
                             struct tw_error *err)
{
    struct tw_verbs_config verbs = {.source = source};
    const struct tw_fabric_config config = {.name = name,
                                            .clock = &tw_monotonic,
                                            .events = &events,
                                            .ctx = end,
                                            .idle_timeout_ns = IDLE,
                                            .handshake_timeout_ns = IDLE};
    *end = (struct end){0};
    return tw_fabric_open(&tw_fabric_verbs, &verbs, &config, &end->fabric, err);
}

/* ---- Server ---------------------------------------------------------------------------------- */

struct greeting {
    char address[128];
    uint32_t key;
    struct tw_error err; /* code TW_OK: it listens */
};

static void serve(const char *address, int out)
{
    struct end end;
    struct greeting g = {0};
    char bind[128];
    const struct tw_hello hello = hello_of_all();
    uint8_t *memory = aligned_alloc(4096, REGION);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memset(memory, 1, REGION);
    snprintf(bind, sizeof bind, "%s:0", address);
    enum tw_code code = end_open(&end, "server", NULL, &g.err);
    if (!code)
        code = tw_fabric_listen(end.fabric, bind, &g.err);
    if (!code)
        code = tw_fabric_register(end.fabric, memory, REGION, hello.owner, &g.key, &g.err);
    if (!code)
        snprintf(g.address, sizeof g.address, "%s", tw_fabric_address(end.fabric));
    g.err.code = code;
    if (write(out, &g, sizeof g) != sizeof g || code)
        _exit(1);
    const uint64_t until = tw_after(tw_now(&tw_monotonic), SERVE);
    while (tw_now(&tw_monotonic) < until)
        tw_fabric_poll(end.fabric, tw_after(tw_now(&tw_monotonic), TURN));
    _exit(0);
}

enum tw_code bench_server_start(const char *address, struct bench_server *server,
                                struct tw_error *err)
{
    int ends[2];
    struct greeting g;
    if (pipe(ends) != 0)
        return tw_fail_errno(err, errno, "server", "cannot start");
    server->pid = fork();
    if (server->pid < 0)
        return tw_fail_errno(err, errno, "server", "cannot start");
    if (server->pid == 0)
        serve(address, ends[1]);
    close(ends[1]);
    ssize_t got = read(ends[0], &g, sizeof g);
    close(ends[0]);
    if (got != (ssize_t)sizeof g || g.err.code) {
        bench_server_stop(server);
        if (got == (ssize_t)sizeof g && err)
            *err = g.err;
        return got == (ssize_t)sizeof g
                   ? g.err.code
                   : tw_fail(err, TW_INTERNAL, "server", NULL, NULL, "ended without a word");
    }
    memcpy(server->address, g.address, sizeof server->address);
    server->key = g.key;
    return TW_OK;
}

void bench_server_stop(struct bench_server *server)
{
    if (server->pid > 0) {
        kill(server->pid, SIGKILL);
        waitpid(server->pid, NULL, 0);
    }
    server->pid = 0;
}

/* ---- Client ---------------------------------------------------------------------------------- */

static void turn(struct end *end)
{
    tw_fabric_poll(end->fabric, tw_after(tw_now(&tw_monotonic), TURN));
}

static enum tw_code late_or_down(const struct end *end, const char *what, struct tw_error *err)
{
    if (!end->down)
        return tw_fail(err, TW_DEADLINE_EXCEEDED, what, NULL, NULL, "not done in time");
    *err = end->why;
    return end->why.code;
}

static enum tw_code end_connect(struct end *end, const struct bench_server *server,
                                const char *source, struct tw_error *err)
{
    const struct tw_hello hello = hello_of_all();
    const uint64_t until = tw_after(tw_now(&tw_monotonic), LIMIT);
    enum tw_code code = end_open(end, "client", source, err);
    if (!code)
        code = tw_fabric_connect(end->fabric, server->address, &hello, until, end, &end->conn, err);
    while (!code && !end->up && !end->down && tw_now(&tw_monotonic) < until)
        turn(end);
    if (!code && !end->up)
        code = late_or_down(end, "connect", err);
    return code;
}

/* Writes full chunks and waits until the last one is consumed. */
static enum tw_code write_chunks(struct end *end, unsigned chunks, struct tw_error *err)
{
    const struct tw_chunk_header header = {.kind = TW_CHUNK_BLOB, .length = TW_CHUNK_PAYLOAD};
    const uint64_t until = tw_after(tw_now(&tw_monotonic), LIMIT);
    unsigned sent = 0;
    while (!end->down && tw_now(&tw_monotonic) < until) {
        while (sent < chunks && tw_conn_chunk_begin(end->conn, TW_LANE_BULK)) {
            enum tw_code code = tw_conn_chunk_send(end->conn, TW_LANE_BULK, &header, err);
            if (code)
                return code;
            sent++;
        }
        if (sent == chunks && tw_conn_drained(end->conn, TW_LANE_BULK))
            return TW_OK;
        turn(end);
    }
    return late_or_down(end, "write", err);
}

enum tw_code bench_ours_write(const struct bench_server *server, const char *source,
                              unsigned chunks, double *bytes_per_s, struct tw_error *err)
{
    struct end end;
    uint64_t start = 0;
    enum tw_code code = end_connect(&end, server, source, err);
    if (!code)
        code = write_chunks(&end, WARM_UP, err);
    if (!code) {
        start = tw_now(&tw_monotonic);
        code = write_chunks(&end, chunks, err);
    }
    if (!code)
        *bytes_per_s =
            (double)chunks * TW_CHUNK_PAYLOAD / ((double)(tw_now(&tw_monotonic) - start) / TW_SEC);
    tw_fabric_close(end.fabric);
    return code;
}

static enum tw_code read_once(struct end *end, uint32_t key, uint64_t at, uint32_t length,
                              uint8_t *into, struct tw_error *err)
{
    const unsigned before = end->reads;
    const uint64_t until = tw_after(tw_now(&tw_monotonic), LIMIT);
    enum tw_code code = tw_conn_read(end->conn, key, at, length, into, at, err);
    while (!code && end->reads == before && !end->down && tw_now(&tw_monotonic) < until)
        turn(end);
    if (code)
        return code;
    if (end->reads == before)
        return late_or_down(end, "read", err);
    if (end->read_code || into[0] != 1)
        return tw_fail(err, TW_DATA_LOSS, "read", NULL, NULL, "the read went wrong: %s",
                       tw_code_name(end->read_code));
    return TW_OK;
}

enum tw_code bench_ours_read(const struct bench_server *server, const char *source, unsigned reads,
                             uint32_t length, double *median_us, struct tw_error *err)
{
    static uint8_t into[TW_CHUNK_PAYLOAD];
    static double times[READS_MAX];
    struct end end;
    enum tw_code code = reads > 0 && reads <= READS_MAX && length <= sizeof into
                            ? end_connect(&end, server, source, err)
                            : tw_fail(err, TW_INVALID_ARGUMENT, "read", NULL, NULL, "too many");
    if (code == TW_INVALID_ARGUMENT)
        return code;
    for (unsigned i = 0; i < WARM_UP && !code; i++)
        code = read_once(&end, server->key, 0, length, into, err);
    for (unsigned i = 0; i < reads && !code; i++) {
        const uint64_t start = tw_now(&tw_monotonic);
        into[0] = 0;
        code = read_once(&end, server->key, (uint64_t)i * length % (REGION - length), length, into,
                         err);
        times[i] = (double)(tw_now(&tw_monotonic) - start) / TW_US;
    }
    if (!code)
        *median_us = bench_median(times, reads);
    tw_fabric_close(end.fabric);
    return code;
}
