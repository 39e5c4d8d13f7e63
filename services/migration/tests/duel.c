#include "services/migration/tests/duel.h"

#include "services/migration/control.h"

#include <criterion/criterion.h>
#include <string.h>

struct duel d;

static enum tw_code journal(void *ctx, enum tw_hand_over state, struct tw_error *err)
{
    (void)ctx;
    (void)err;
    d.durable = state;
    return TW_OK;
}

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    if (ctx) { /* the peer plays a destination that takes everybody */
        *conn_ctx = NULL;
        d.peer = conn;
        d.peer_up = true;
        return TW_OK;
    }
    *conn_ctx = tw_destination_end(d.destination);
    return tw_destination_accept(d.destination, conn, hello, err);
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    if (ctx)
        tw_migration_on_up(ctx, conn);
    else
        d.peer_up = true;
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    if (ctx)
        return tw_migration_on_chunk(ctx, conn, lane, header, payload, err);
    if (header->kind == TW_CHUNK_CONTROL)
        d.heard[header->tag & 15]++;
    return TW_OK;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    if (ctx) {
        tw_migration_on_down(ctx, conn, why);
        return;
    }
    d.peer = NULL;
    d.peer_down = true;
    d.peer_why = *why;
}

static const struct tw_fabric_events events = {
    .on_accept = on_accept, .on_up = on_up, .on_chunk = on_chunk, .on_down = on_down};

struct tw_migration_env env(void)
{
    return (struct tw_migration_env){
        .clock = d.clock, .fabric = d.fabric[0], .journal = journal, .dial_mirror = d.dial_mirror};
}

void duel_open(uint64_t seed, bool incoming)
{
    memset(&d, 0, sizeof d);
    struct tw_sim_config sim = {.seed = seed};
    d.sim = tw_sim_open(&sim);
    d.clock = tw_sim_clock(d.sim);
    for (unsigned i = 0; i < 2; i++) {
        struct tw_fabric_config config = {.name = i ? "peer" : "real",
                                          .clock = d.clock,
                                          .events = &events,
                                          .ctx = i ? &d : NULL,
                                          .bulk_credits = 4};
        cr_assert_eq(tw_fabric_open(&tw_fabric_sim, d.sim, &config, &d.fabric[i], NULL), TW_OK);
    }
    struct fake_host_config host = {.clock = d.clock,
                                    .pages = PAGES,
                                    .seed = seed,
                                    .incoming = incoming,
                                    .sees_all_writers = true,
                                    .stores_per_ms = incoming ? 0 : 5};
    fake_host_open(&d.host, &host);
    d.host.may_run = !incoming;
    d.params = (struct tw_migration_params){.id = "m-1",
                                            .vm = "web",
                                            .epoch = 8,
                                            .token = "0123456789abcde",
                                            .limits = {.timeout_ns = 90 * TW_SEC}};
}

void duel_close(void)
{
    tw_source_free(d.source);
    tw_destination_free(d.destination);
    tw_fabric_close(d.fabric[0]);
    tw_fabric_close(d.fabric[1]);
    fake_host_close(&d.host);
    tw_sim_close(d.sim);
}

void turn(uint64_t ns)
{
    fake_host_run(&d.host);
    if (d.source)
        tw_source_step(d.source);
    if (d.destination)
        tw_destination_step(d.destination);
    tw_sim_advance(d.sim, ns);
    tw_fabric_poll(d.fabric[0], 0);
    tw_fabric_poll(d.fabric[1], 0);
    cr_assert_not(d.host.ran_too_early);
}

void turns(unsigned n, uint64_t ns)
{
    while (n--)
        turn(ns);
}

struct tw_hello hello_of(const struct tw_migration_params *params)
{
    struct tw_hello hello = {.epoch = params->epoch};
    memcpy(hello.owner, params->token, TW_OWNER_SIZE);
    return hello;
}

void meet_destination(const struct tw_hello *hello)
{
    struct tw_migration_env e = env();
    cr_assert_eq(tw_fabric_listen(d.fabric[0], "real", NULL), TW_OK);
    cr_assert_eq(tw_destination_start(&e, &d.params, &d.host.host, TW_SEC, &d.destination, NULL),
                 TW_OK);
    cr_assert_eq(tw_fabric_connect(d.fabric[1], "real", hello, tw_now(d.clock) + TW_SEC, NULL,
                                   &d.peer, NULL),
                 TW_OK);
    for (unsigned n = 0; n < 200 && !d.peer_up && !d.peer_down; n++)
        turn(20 * TW_US);
}

/* ---- Saying things -----------------------------------------------------------------------------
 */

void say(enum tw_control_kind kind, const union tw_control *m)
{
    if (d.peer)
        tw_control_send(d.peer, kind, m, NULL);
    turns(6, 60 * TW_US);
}

void say_begin_with(enum tw_migration_method method)
{
    union tw_control m = {.begin = {PAGES * TW_PAGE_SIZE, d.params.epoch, 1, (uint32_t)method}};
    say(TW_CONTROL_BEGIN, &m);
}

void say_begin(void)
{
    say_begin_with(TW_METHOD_PRE_COPY);
}

void say_line(uint64_t page)
{
    uint8_t *payload = d.peer ? tw_conn_chunk_begin(d.peer, TW_LANE_BULK) : NULL;
    static uint8_t content[TW_PAGE_SIZE] __attribute__((aligned(64)));
    struct tw_chunk_writer w;
    if (!payload)
        return;
    memset(content, 5, sizeof content);
    tw_chunk_writer_init(&w, payload);
    tw_chunk_writer_add(&w, page * TW_PAGE_SIZE, content, 1);
    struct tw_chunk_header h = {.kind = TW_CHUNK_LINES, .length = w.length, .count = w.count};
    tw_conn_chunk_send(d.peer, TW_LANE_BULK, &h, NULL);
    turns(6, 60 * TW_US);
}

static void say_noise(struct tw_random *r)
{
    uint8_t noise[700];
    enum tw_lane lane = tw_random_below(r, 2) ? TW_LANE_BULK : TW_LANE_URGENT;
    uint32_t tag = (uint32_t)tw_random_below(r, 10);
    uint32_t size =
        tw_random_below(r, 3) ? tw_control_size(tag) : (uint32_t)tw_random_below(r, 700);
    for (unsigned i = 0; i < sizeof noise; i++)
        noise[i] = tw_random_below(r, 3) ? 0 : (uint8_t)tw_random_next(r);
    enum tw_chunk_kind kind = 1 + tw_random_below(r, 3);
    if (d.peer)
        tw_conn_send(d.peer, lane, kind, tag, (uint32_t)tw_random_below(r, 4), noise, size, NULL);
    turns(3, 60 * TW_US);
}

void say_something(struct tw_random *r)
{
    union tw_control m;
    memset(&m, 0, sizeof m);
    switch (tw_random_below(r, 12)) {
    case 0:
        say_begin();
        break;
    case 1:
        say(TW_CONTROL_ROUND_END, &m);
        break;
    case 2:
        m.final_end.verify = (uint32_t)tw_random_below(r, 2);
        say(TW_CONTROL_FINAL_END, &m);
        break;
    case 3:
        m.state_end.size = 100;
        say(TW_CONTROL_STATE_END, &m);
        break;
    case 4:
        m.prepared.epoch = 7 + tw_random_below(r, 2);
        say(TW_CONTROL_PREPARED, &m);
        break;
    case 5:
    case 6:
        m.epoch.epoch = 7 + tw_random_below(r, 2);
        say(tw_random_below(r, 2) ? TW_CONTROL_COMMIT : TW_CONTROL_RUNNING, &m);
        break;
    case 7:
        m.abort.code = (uint32_t)tw_random_below(r, 30);
        say(TW_CONTROL_ABORT, &m);
        break;
    case 8:
    case 9:
        say_line(tw_random_below(r, PAGES + 2));
        break;
    case 10:
        if (d.peer)
            tw_conn_send(d.peer, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, "0123456789", 10, NULL);
        break;
    default:
        say_noise(r);
        break;
    }
}
