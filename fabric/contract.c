#include "fabric/contract.h"

#include "fabric/tls_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    struct side *s = ctx;
    (void)hello;
    if (s->refuse)
        return tw_fail(err, s->refuse, "vm web-1", NULL, NULL, "not today");
    s->accepts++;
    s->conn = conn;
    *conn_ctx = s;
    return TW_OK;
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    struct side *s = ctx;
    s->ups++;
    s->conn = conn;
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    struct side *s = ctx;
    s->chunks[lane]++;
    s->bytes[lane] += header->length;
    for (uint32_t i = 0; i < header->length; i++)
        s->sums += payload[i];
    if (s->logged < SIDE_LOG) {
        s->log[s->logged].lane = lane;
        s->log[s->logged].header = *header;
        s->log[s->logged++].first = header->length ? payload[0] : 0;
    }
    if (s->echo && tw_conn_send(conn, lane, (enum tw_chunk_kind)header->kind, header->tag,
                                header->count, payload, header->length, NULL))
        s->echoes_lost++;
    if (s->prompt && lane == TW_LANE_BULK) {
        if (tw_conn_send(s->prompt->conn, TW_LANE_URGENT, TW_CHUNK_CONTROL, 0, 0, NULL, 0, NULL))
            s->echoes_lost++;
        s->prompt = NULL;
    }
    if (s->close_in_chunk) {
        s->conn = NULL;
        tw_conn_close(conn);
    }
    if (s->spoil)
        return tw_fail(err, s->spoil, "disk", NULL, NULL, "cannot take it");
    return TW_OK;
}

static void on_read(void *ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code)
{
    struct side *s = ctx;
    (void)conn;
    s->reads++;
    s->cookie = cookie;
    s->read_code = code;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    struct side *s = ctx;
    s->downs++;
    s->why = *why;
    if (s->conn == conn)
        s->conn = NULL;
}

static const struct tw_fabric_events events = {on_accept, on_up, on_chunk, on_read, on_down};

static bool use_tls;

void world_use_tls(void)
{
    use_tls = true;
}

/* What is loaded needs its files no longer. */
static void make_certificates(struct world *w)
{
    struct fixture f = fixture_open();
    fixture_authority(&f, "ca");
    w->a.tls = fixture_tls(&f, &(struct fixture_leaf){"ca", NULL, TW_ROLE_AGENT, "a", 0, 0});
    w->b.tls = fixture_tls(&f, &(struct fixture_leaf){"ca", NULL, TW_ROLE_AGENT, "b", 0, 0});
    fixture_close(&f);
}

static bool use_verbs;
static struct tw_verbs_config verbs_settings;

bool world_use_verbs(const struct tw_verbs_config *settings)
{
    const char *address = getenv("TOWLINE_VERBS_ADDRESS");
    use_verbs = address && address[0];
    if (!use_verbs)
        fprintf(stderr, "skipped: TOWLINE_VERBS_ADDRESS names no address of an RDMA device\n");
    verbs_settings = settings ? *settings : (struct tw_verbs_config){0};
    return use_verbs;
}

const char *world_kind(void)
{
    return use_verbs ? "verbs" : "tcp";
}

/* Devices in software, in an emulated machine, are many times slower than the times of these tests
 * were made for: there all of them, timeouts and waits alike, are stretched as one. */
static uint64_t stretched_now(void *ctx)
{
    (void)ctx;
    const char *factor = getenv("TOWLINE_VERBS_STRETCH");
    const uint64_t n = factor ? strtoull(factor, NULL, 10) : 1;
    return tw_now(&tw_monotonic) / (n ? n : 1);
}

static const struct tw_clock stretched = {stretched_now, NULL};

static bool open_verbs(struct side *side, const struct tw_fabric_config *config)
{
    struct tw_verbs_config c = verbs_settings;
    struct tw_error err;
    char text[512];
    if (strcmp(config->name, "b") == 0)
        c.source = getenv("TOWLINE_VERBS_SOURCE");
    if (tw_fabric_open(&tw_fabric_verbs, &c, config, &side->fabric, &err) == TW_OK)
        return true;
    fprintf(stderr, "%s\n", tw_error_text(&err, text, sizeof text));
    return false;
}

/* Both ends live in this process: while it waits for a processor, on a busy machine for longer than
 * any timeout here, neither can speak, and by the machine's clock each would find the other dead.
 * So no gap between two looks counts for more than what a step waits, with room to spare. */
#define GAP_MAX_NS (2 * TW_MS)

static uint64_t own_now(void *ctx)
{
    struct world *w = ctx;
    const uint64_t now = tw_now(&tw_monotonic), gap = now - w->seen_ns;
    w->own_ns += gap < GAP_MAX_NS ? gap : GAP_MAX_NS;
    w->seen_ns = now;
    return w->own_ns;
}

static const struct tw_clock *choose_clock(struct world *w)
{
    if (w->sim)
        return tw_sim_clock(w->sim);
    if (use_verbs) /* devices have time of their own */
        return &stretched;
    w->seen_ns = w->own_ns = tw_now(&tw_monotonic);
    w->own_clock = (struct tw_clock){own_now, w};
    return &w->own_clock;
}

static bool open_side(struct world *w, struct side *side, const char *name,
                      const struct tw_fabric_config *config)
{
    struct tw_fabric_config c = config ? *config : (struct tw_fabric_config){0};
    c.name = name;
    c.clock = w->clock;
    c.events = &events;
    c.ctx = side;
    if (!c.idle_timeout_ns)
        c.idle_timeout_ns = 400 * TW_MS;
    if (!c.handshake_timeout_ns) /* devices in software, in an emulated machine, are slow */
        c.handshake_timeout_ns = use_verbs ? 5 * TW_SEC : 400 * TW_MS;
    if (w->sim)
        return tw_fabric_open(&tw_fabric_sim, w->sim, &c, &side->fabric, NULL) == TW_OK;
    if (use_verbs)
        return open_verbs(side, &c);
    struct tw_fabric_tcp_settings tcp = {side->tls};
    return tw_fabric_open(&tw_fabric_tcp, &tcp, &c, &side->fabric, NULL) == TW_OK;
}

struct world *world_open(bool sim, const struct tw_fabric_config *config,
                         const struct tw_sim_config *sim_config)
{
    struct tw_error err;
    char text[512], address[64] = "127.0.0.1:0";
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    if (sim) {
        const struct tw_sim_config plain = {.seed = 1};
        w->sim = tw_sim_open(sim_config ? sim_config : &plain);
    }
    if (use_tls && !sim)
        make_certificates(w);
    w->clock = choose_clock(w);
    if (!open_side(w, &w->a, "a", config) || !open_side(w, &w->b, "b", config))
        abort();
    if (use_verbs)
        snprintf(address, sizeof address, "%s:0", getenv("TOWLINE_VERBS_ADDRESS"));
    if (tw_fabric_listen(w->a.fabric, sim ? "here" : address, &err)) {
        fprintf(stderr, "%s\n", tw_error_text(&err, text, sizeof text));
        abort();
    }
    return w;
}

void world_close(struct world *w)
{
    tw_fabric_close(w->a.fabric);
    tw_fabric_close(w->b.fabric);
    tw_sim_close(w->sim);
    tw_tls_close(w->a.tls);
    tw_tls_close(w->b.tls);
    free(w);
}

void world_step(struct world *w)
{
    if (w->sim)
        tw_sim_advance(w->sim, TW_MS);
    if (!w->a_is_deaf)
        tw_fabric_poll(w->a.fabric, 0);
    if (w->b.fabric)
        tw_fabric_poll(w->b.fabric, tw_now(w->clock) + 100 * TW_US);
}

void world_cut(struct world *w)
{
    if (w->sim)
        tw_sim_cut(w->sim, "a", "b");
    else
        w->a_is_deaf = true;
}

void world_mend(struct world *w)
{
    if (w->sim)
        tw_sim_mend(w->sim, "a", "b");
    w->a_is_deaf = false;
}

struct tw_hello world_hello(void)
{
    struct tw_hello hello = {.epoch = 5};
    memset(hello.owner, 0x77, sizeof hello.owner);
    return hello;
}

bool world_connect(struct world *w)
{
    const struct tw_hello hello = world_hello();
    const unsigned ups = w->b.ups, downs = w->b.downs;
    struct tw_error err;
    if (tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                          tw_now(w->clock) + 5 * TW_SEC, &w->b, &w->b.conn, &err))
        return false;
    return WORLD_UNTIL(w, 6000, w->b.ups > ups || w->b.downs > downs) && w->b.ups > ups;
}
