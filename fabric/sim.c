/* Everything that is under way is an event in the heap of the endpoint that it travels to, sorted
 * by time, then by birth. An endpoint's poll handles its events that are due. A cut takes due
 * events out of the flow and the mending puts them back in their order, as TCP would resend. */
#include "fabric/sim.h"

#include "base/random.h"
#include "fabric/backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUTS_MAX     64u
#define FABRICS_MAX  1024u
#define MEGA         1000000u
#define DEFAULT_RATE (UINT64_C(1) << 30)

struct sim_fabric;

struct sim_conn {
    struct tw_conn base;
    struct sim_fabric *remote; /* NULL until reached, and when it has closed */
    struct sim_conn *peer;     /* NULL until it exists, and when it has hung up */
    char wanted[TW_FABRIC_ADDRESS_MAX];
    uint64_t free_at[TW_LANES]; /* when the wire has sent what was given to it */
    uint64_t last_at[TW_LANES]; /* arrival of the last frame: no overtaking on a lane */
};

enum event_kind {
    EVENT_DIAL,  /* to the dialling connection itself: the address answers, or nobody does */
    EVENT_FRAME, /* `from` sent it; to the peer, or to the endpoint if there is no peer yet */
    EVENT_END,   /* the peer has hung up */
};

struct event {
    uint64_t at;
    uint64_t birth;
    enum event_kind kind;
    enum tw_lane lane;
    struct sim_conn *to;   /* NULL: a HELLO for the endpoint, or the addressee is gone */
    struct sim_conn *from; /* NULL when gone */
    char from_name[64];    /* of the sending endpoint, for cuts */
    uint8_t *bytes;
    uint32_t length;
    bool stray; /* its addressee is gone */
};

struct events {
    struct event **items;
    size_t count, room;
};

struct sim_fabric {
    struct tw_fabric base;
    struct tw_sim *sim;
    struct events heap;
    struct events held; /* due, but blocked; in order */
};

struct tw_sim {
    struct tw_sim_config config;
    struct tw_random random;
    struct tw_clock clock;
    uint64_t now_ns;
    uint64_t births;
    struct sim_fabric *fabrics[FABRICS_MAX];
    unsigned fabric_count;
    char cuts[CUTS_MAX][2][64];
    unsigned cut_count;
    uint32_t drops;
};

/* ---- The heap -------------------------------------------------------------------------------- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->birth < b->birth;
}

static void append(struct events *list, struct event *e)
{
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->items = realloc(list->items, list->room * sizeof *list->items);
        if (!list->items)
            abort(); /* a simulation without memory proves nothing */
    }
    list->items[list->count++] = e;
}

static void heap_push(struct events *heap, struct event *e)
{
    append(heap, e);
    size_t i = heap->count - 1;
    for (size_t up; i > 0 && sooner(e, heap->items[up = (i - 1) / 2]); i = up)
        heap->items[i] = heap->items[up];
    heap->items[i] = e;
}

static struct event *heap_pop(struct events *heap)
{
    struct event *first = heap->items[0];
    struct event *last = heap->items[--heap->count];
    size_t i = 0;
    for (size_t down; (down = 2 * i + 1) < heap->count; i = down) {
        if (down + 1 < heap->count && sooner(heap->items[down + 1], heap->items[down]))
            down++;
        if (!sooner(heap->items[down], last))
            break;
        heap->items[i] = heap->items[down];
    }
    if (heap->count)
        heap->items[i] = last;
    return first;
}

static void event_free(struct event *e)
{
    free(e->bytes);
    free(e);
}

static void events_free(struct events *list)
{
    for (size_t i = 0; i < list->count; i++)
        event_free(list->items[i]);
    free(list->items);
}

/* A connection is about to go: whatever refers to it must not. */
static void forget_in(struct events *list, const struct sim_conn *conn)
{
    for (size_t i = 0; i < list->count; i++) {
        struct event *e = list->items[i];
        if (e->to == conn) {
            e->to = NULL;
            e->stray = true;
        }
        if (e->from == conn)
            e->from = NULL;
    }
}

/* ---- The network ----------------------------------------------------------------------------- */

static uint64_t sim_now(void *ctx)
{
    const struct tw_sim *sim = ctx;
    return sim->now_ns;
}

struct tw_sim *tw_sim_open(const struct tw_sim_config *config)
{
    struct tw_sim *sim = calloc(1, sizeof *sim);
    if (!sim)
        return NULL;
    sim->config = *config;
    sim->random.state = config->seed;
    sim->clock = (struct tw_clock){sim_now, sim};
    sim->now_ns = TW_SEC; /* a deadline of 0 is in the past here too */
    if (!sim->config.latency_min_ns)
        sim->config.latency_min_ns = 10 * TW_US;
    if (!sim->config.latency_max_ns)
        sim->config.latency_max_ns = 50 * TW_US;
    if (sim->config.latency_max_ns < sim->config.latency_min_ns)
        sim->config.latency_max_ns = sim->config.latency_min_ns;
    if (!sim->config.bandwidth_bytes_per_s)
        sim->config.bandwidth_bytes_per_s = DEFAULT_RATE;
    return sim;
}

void tw_sim_close(struct tw_sim *sim)
{
    if (!sim)
        return;
    assert(sim->fabric_count == 0);
    free(sim);
}

const struct tw_clock *tw_sim_clock(struct tw_sim *sim)
{
    return &sim->clock;
}

uint64_t tw_sim_due(const struct tw_fabric *fabric)
{
    const struct sim_fabric *f = (const struct sim_fabric *)fabric;
    const uint64_t event = f->heap.count ? f->heap.items[0]->at : TW_NEVER;
    const uint64_t tick = tw_fabric_tick_next(fabric);
    return event < tick ? event : tick;
}

void tw_sim_advance(struct tw_sim *sim, uint64_t max_ns)
{
    uint64_t next = tw_after(sim->now_ns, max_ns);
    for (unsigned i = 0; i < sim->fabric_count; i++) {
        const struct sim_fabric *f = sim->fabrics[i];
        /* What is due already waits for its endpoint's poll, not for time. */
        const uint64_t event = f->heap.count ? f->heap.items[0]->at : TW_NEVER;
        const uint64_t tick = tw_fabric_tick_next(&f->base);
        if (event > sim->now_ns && event < next)
            next = event;
        if (tick > sim->now_ns && tick < next)
            next = tick;
    }
    sim->now_ns = next;
}

static uint64_t latency(struct tw_sim *sim)
{
    const uint64_t spread = sim->config.latency_max_ns - sim->config.latency_min_ns;
    return sim->config.latency_min_ns + tw_random_below(&sim->random, spread + 1);
}

static uint64_t wire_time(const struct tw_sim *sim, uint64_t bytes)
{
    return (uint64_t)((unsigned __int128)bytes * TW_SEC / sim->config.bandwidth_bytes_per_s);
}

static bool same_pair(char pair[2][64], const char *a, const char *b)
{
    return (strcmp(pair[0], a) == 0 && strcmp(pair[1], b) == 0) ||
           (strcmp(pair[0], b) == 0 && strcmp(pair[1], a) == 0);
}

static bool is_cut(struct tw_sim *sim, const char *a, const char *b)
{
    for (unsigned i = 0; i < sim->cut_count; i++)
        if (same_pair(sim->cuts[i], a, b))
            return true;
    return false;
}

void tw_sim_cut(struct tw_sim *sim, const char *a, const char *b)
{
    if (is_cut(sim, a, b))
        return;
    assert(sim->cut_count < CUTS_MAX);
    snprintf(sim->cuts[sim->cut_count][0], 64, "%s", a);
    snprintf(sim->cuts[sim->cut_count][1], 64, "%s", b);
    sim->cut_count++;
}

/* What was held comes back; if something still blocks it, it is held again. */
static void let_go(struct sim_fabric *f)
{
    struct events held = f->held;
    f->held = (struct events){0};
    for (size_t i = 0; i < held.count; i++)
        heap_push(&f->heap, held.items[i]);
    free(held.items);
}

void tw_sim_mend(struct tw_sim *sim, const char *a, const char *b)
{
    for (unsigned i = 0; i < sim->cut_count; i++) {
        if (!same_pair(sim->cuts[i], a, b))
            continue;
        sim->cut_count--;
        memmove(sim->cuts[i], sim->cuts[sim->cut_count], sizeof sim->cuts[i]);
        break;
    }
    for (unsigned i = 0; i < sim->fabric_count; i++)
        let_go(sim->fabrics[i]);
}

void tw_sim_drop_chunks(struct tw_sim *sim, uint32_t count)
{
    sim->drops = count;
}

static struct event *event_new(struct sim_fabric *to, struct sim_conn *from, enum event_kind kind,
                               uint64_t at)
{
    struct event *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->kind = kind;
    e->at = at;
    e->birth = to->sim->births++;
    e->from = from;
    memcpy(e->from_name, from->base.fabric->name, sizeof e->from_name);
    return e;
}

/* ---- The back end ---------------------------------------------------------------------------- */

static struct sim_fabric *fabric_of(const struct sim_conn *conn)
{
    return (struct sim_fabric *)conn->base.fabric;
}

static enum tw_code sim_open(struct tw_fabric *base, void *arg, struct tw_error *err)
{
    struct sim_fabric *f = (struct sim_fabric *)base;
    struct tw_sim *sim = arg;
    if (sim->fabric_count == FABRICS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, base->name, NULL, NULL,
                       "too many endpoints in the simulation");
    f->sim = sim;
    base->config.clock = &sim->clock;
    sim->fabrics[sim->fabric_count++] = f;
    return TW_OK;
}

static void sim_close(struct tw_fabric *base)
{
    struct sim_fabric *f = (struct sim_fabric *)base;
    if (!f->sim)
        return;
    for (unsigned i = 0; i < f->sim->fabric_count; i++)
        if (f->sim->fabrics[i] == f)
            f->sim->fabrics[i--] = f->sim->fabrics[--f->sim->fabric_count];
    for (unsigned i = 0; i < f->sim->fabric_count; i++)
        for (struct tw_conn *c = f->sim->fabrics[i]->base.conns; c; c = c->sibling)
            if (((struct sim_conn *)c)->remote == f)
                ((struct sim_conn *)c)->remote = NULL;
    events_free(&f->heap);
    events_free(&f->held);
}

static struct sim_fabric *find(struct tw_sim *sim, const char *address)
{
    for (unsigned i = 0; i < sim->fabric_count; i++)
        if (strcmp(sim->fabrics[i]->base.address, address) == 0)
            return sim->fabrics[i];
    return NULL;
}

static enum tw_code sim_listen(struct tw_fabric *base, const char *address, struct tw_error *err)
{
    struct sim_fabric *f = (struct sim_fabric *)base;
    if (!address[0] || strlen(address) >= sizeof base->address)
        return tw_fail(err, TW_INVALID_ARGUMENT, base->name, "1 to 95 characters", address,
                       "address to listen at");
    if (find(f->sim, address))
        return tw_fail(err, TW_ALREADY_EXISTS, address, NULL, NULL, "the address is taken");
    memcpy(base->address, address, strlen(address) + 1);
    return TW_OK;
}

static enum tw_code sim_connect(struct tw_conn *base, const char *address, struct tw_error *err)
{
    struct sim_conn *conn = (struct sim_conn *)base;
    struct sim_fabric *f = fabric_of(conn);
    if (!address[0] || strlen(address) >= sizeof conn->wanted)
        return tw_fail(err, TW_INVALID_ARGUMENT, base->fabric->name, "1 to 95 characters", address,
                       "address to connect to");
    memcpy(conn->wanted, address, strlen(address) + 1);
    struct event *e =
        event_new(f, conn, EVENT_DIAL, f->sim->now_ns + latency(f->sim) + latency(f->sim));
    e->to = conn;
    heap_push(&f->heap, e);
    return TW_OK;
}

/* Now and then a bit flips in a chunk. */
static void maybe_corrupt(struct tw_sim *sim, struct event *e)
{
    if (!sim->config.corrupt_ppm || tw_random_below(&sim->random, MEGA) >= sim->config.corrupt_ppm)
        return;
    const uint64_t bit = tw_random_below(&sim->random, UINT64_C(8) * e->length);
    e->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* A lane's frames follow one another on the wire; urgent ones push into the middle of bulk. */
static uint64_t arrival(struct sim_conn *conn, enum tw_lane lane, uint32_t length)
{
    struct tw_sim *sim = fabric_of(conn)->sim;
    const uint64_t takes = wire_time(sim, length);
    uint64_t *free_at = conn->free_at;
    if (free_at[lane] < sim->now_ns)
        free_at[lane] = sim->now_ns;
    free_at[lane] += takes;
    if (lane == TW_LANE_URGENT && free_at[TW_LANE_BULK] > sim->now_ns)
        free_at[TW_LANE_BULK] += takes;
    uint64_t at = free_at[lane] + latency(sim);
    if (at < conn->last_at[lane])
        at = conn->last_at[lane];
    conn->last_at[lane] = at;
    return at;
}

static void sim_flush(struct tw_conn *base, enum tw_lane lane)
{
    struct sim_conn *conn = (struct sim_conn *)base;
    struct tw_sim *sim = fabric_of(conn)->sim;
    const uint8_t *bytes;
    uint32_t length, magic;
    while (tw_conn_next_frame(base, lane, &bytes, &length)) {
        const uint64_t at = arrival(conn, lane, length);
        memcpy(&magic, bytes, sizeof magic);
        if (magic == TW_CHUNK_MAGIC && sim->drops) {
            sim->drops--;
            continue;
        }
        if (!conn->remote)
            continue;
        struct event *e = event_new(conn->remote, conn, EVENT_FRAME, at);
        e->to = conn->peer;
        e->lane = lane;
        e->length = length;
        e->bytes = malloc(length);
        if (!e->bytes)
            abort();
        memcpy(e->bytes, bytes, length);
        if (magic == TW_CHUNK_MAGIC)
            maybe_corrupt(sim, e);
        /* Whoever hung up after it had a peer does not reach the endpoint as a stranger. */
        e->stray = !conn->peer && base->machine.state != TW_CONN_GREETING;
        heap_push(&conn->remote->heap, e);
    }
}

static enum tw_code sim_join(struct tw_conn *base, struct tw_error *err)
{
    (void)err;
    sim_flush(base, TW_LANE_BULK);
    return TW_OK;
}

static void sim_up(struct tw_conn *base)
{
    let_go(fabric_of((struct sim_conn *)base));
}

static void sim_hang_up(struct tw_conn *base)
{
    struct sim_conn *conn = (struct sim_conn *)base;
    struct sim_fabric *f = fabric_of(conn);
    sim_flush(base, TW_LANE_BULK);
    sim_flush(base, TW_LANE_URGENT);
    if (conn->peer && conn->remote) {
        const uint64_t *last = conn->last_at;
        uint64_t at = f->sim->now_ns + latency(f->sim);
        for (unsigned i = 0; i < TW_LANES; i++)
            at = at < last[i] ? last[i] : at;
        struct event *e = event_new(conn->remote, conn, EVENT_END, at);
        e->to = conn->peer;
        heap_push(&conn->remote->heap, e);
        conn->peer->peer = NULL;
    }
    for (unsigned i = 0; i < f->sim->fabric_count; i++) {
        forget_in(&f->sim->fabrics[i]->heap, conn);
        forget_in(&f->sim->fabrics[i]->held, conn);
    }
    conn->peer = NULL;
    conn->remote = NULL;
}

/* ---- Arrivals -------------------------------------------------------------------------------- */

static void dialled(struct sim_conn *conn)
{
    struct sim_fabric *f = fabric_of(conn);
    struct tw_error err;
    conn->remote = find(f->sim, conn->wanted);
    if (conn->remote) {
        tw_conn_connected(&conn->base);
        return;
    }
    tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "nobody listens there");
    tw_conn_lost(&conn->base, &err);
}

static void greeted(struct sim_fabric *f, struct event *e, const struct tw_frame *frame)
{
    struct tw_error err;
    if (!e->from || frame->kind != TW_FRAME_HELLO)
        return;
    struct sim_conn *client = e->from;
    struct tw_conn *base = tw_conn_incoming(&f->base, frame, e->from_name, &err);
    if (!base) { /* answer for the connection that there is not */
        struct event *no =
            event_new(fabric_of(client), client, EVENT_FRAME, f->sim->now_ns + latency(f->sim));
        memcpy(no->from_name, f->base.name, sizeof no->from_name);
        no->to = client;
        no->from = NULL;
        no->lane = TW_LANE_URGENT;
        no->bytes = malloc(TW_FRAME_HEADER + TW_GOODBYE_TEXT);
        if (!no->bytes)
            abort();
        no->length = tw_goodbye_encode(&err, no->bytes);
        heap_push(&fabric_of(client)->heap, no);
        return;
    }
    struct sim_conn *conn = (struct sim_conn *)base;
    conn->remote = fabric_of(client);
    conn->peer = client;
    client->peer = conn;
    tw_conn_ask(base, &err);
    tw_conn_settle(base);
}

static void frame_arrived(struct sim_fabric *f, struct event *e)
{
    struct tw_frame frame;
    struct tw_error err;
    const enum tw_code code = tw_frame_parse(e->bytes, e->length, &frame, &err);
    if (code == TW_UNAVAILABLE) /* a flipped bit in the length */
        tw_fail(&err, TW_DATA_LOSS, "frame", NULL, NULL, "frame cut off");
    if (!e->to && !code)
        greeted(f, e, &frame);
    else if (e->to && code)
        tw_conn_fail(&e->to->base, &err);
    else if (e->to)
        tw_conn_frame_in(&e->to->base, e->lane, &frame);
}

static void handle(struct sim_fabric *f, struct event *e)
{
    struct tw_error err;
    if (e->kind == EVENT_DIAL) {
        dialled(e->to);
    } else if (e->kind == EVENT_FRAME) {
        frame_arrived(f, e);
    } else {
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "closed by the peer");
        tw_conn_lost(&e->to->base, &err);
    }
    if (e->to)
        tw_conn_settle(&e->to->base);
}

/* By a cut; or it is bulk that has overtaken READY, which a client does not take in yet. */
static bool blocked(struct sim_fabric *f, const struct event *e)
{
    if (e->kind == EVENT_FRAME && e->to && e->lane == TW_LANE_BULK &&
        e->to->base.machine.state == TW_CONN_JOINING)
        return true;
    if (e->kind != EVENT_DIAL)
        return is_cut(f->sim, e->from_name, f->base.name);
    const struct sim_fabric *remote = find(f->sim, e->to->wanted);
    return remote && is_cut(f->sim, f->base.name, remote->base.name);
}

static unsigned sim_poll(struct tw_fabric *base, uint64_t deadline_ns)
{
    struct sim_fabric *f = (struct sim_fabric *)base;
    unsigned handled = 0;
    (void)deadline_ns; /* time passes in tw_sim_advance() only */
    while (f->heap.count && f->heap.items[0]->at <= f->sim->now_ns) {
        struct event *e = heap_pop(&f->heap);
        if (!e->stray && blocked(f, e)) {
            append(&f->held, e);
            continue;
        }
        if (!e->stray) {
            handle(f, e);
            handled++;
        }
        event_free(e);
    }
    return handled;
}

const struct tw_fabric_backend tw_fabric_sim = {
    .kind = "sim",
    .fabric_size = sizeof(struct sim_fabric),
    .conn_size = sizeof(struct sim_conn),
    .open = sim_open,
    .close = sim_close,
    .listen = sim_listen,
    .connect = sim_connect,
    .join = sim_join,
    .up = sim_up,
    .flush = sim_flush,
    .hang_up = sim_hang_up,
    .poll = sim_poll,
};
