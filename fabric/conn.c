#include "base/log.h"
#include "fabric/backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool lanes_are_open(const void *object)
{
    const struct tw_conn *conn = object;
    return conn->lanes[TW_LANE_BULK].ring && conn->lanes[TW_LANE_URGENT].ring;
}

static bool has_a_reason(const void *object)
{
    const struct tw_conn *conn = object;
    return conn->hung_up && conn->why.code != TW_OK;
}

static const struct tw_state states[] = {
    [TW_CONN_DIALLING] = {"dialling",
                          TW_MAY(TW_CONN_GREETING) | TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE),
                          "the peer is being reached", NULL},
    [TW_CONN_GREETING] = {"greeting",
                          TW_MAY(TW_CONN_JOINING) | TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE),
                          "HELLO is on its way", NULL},
    [TW_CONN_JOINING] = {"joining",
                         TW_MAY(TW_CONN_UP) | TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE),
                         "accepted, the bulk lane comes up", lanes_are_open},
    [TW_CONN_INCOMING] = {"incoming",
                          TW_MAY(TW_CONN_HALF) | TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE),
                          "the owner is being asked", NULL},
    [TW_CONN_HALF] = {"half", TW_MAY(TW_CONN_UP) | TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE),
                      "accepted, the peer has not joined its bulk lane", lanes_are_open},
    [TW_CONN_UP] = {"up", TW_MAY(TW_CONN_DOWN) | TW_MAY(TW_CONN_GONE), "chunks flow",
                    lanes_are_open},
    [TW_CONN_DOWN] = {"down", TW_MAY(TW_CONN_GONE), "broken, on_down is due", has_a_reason},
    [TW_CONN_GONE] = {"gone", 0, "waits to be freed", NULL},
};

const struct tw_machine_table tw_conn_table = {"connection", states,
                                               sizeof states / sizeof *states};

static void trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                  const char *why)
{
    const struct tw_conn *conn = ctx;
    const struct tw_state *s = machine->table->states;
    tw_log(TW_LOG_DEBUG, "fabric", "connection", "peer=\"%s\" from=%s to=%s why=\"%s\"",
           conn->label, s[from].name, s[to].name, why);
}

void tw_conn_move(struct tw_conn *conn, enum tw_conn_state to, const char *why)
{
    if (conn->machine.state == TW_CONN_DOWN)
        conn->fabric->downs--;
    if (to == TW_CONN_DOWN)
        conn->fabric->downs++;
    if (to == TW_CONN_GONE)
        conn->fabric->conn_count--;
    tw_machine_move(&conn->machine, to, why);
}

/* ---- Life ------------------------------------------------------------------------------------ */

struct tw_conn *tw_conn_new(struct tw_fabric *f, enum tw_conn_state state, struct tw_error *err)
{
    if (f->conn_count >= f->config.max_connections) {
        char limit[32];
        snprintf(limit, sizeof limit, "at most %u", f->config.max_connections);
        tw_fail(err, TW_RESOURCE_EXHAUSTED, f->name, limit, NULL, "too many connections");
        return NULL;
    }
    struct tw_conn *conn = calloc(1, f->backend->conn_size);
    if (!conn) {
        tw_fail(err, TW_RESOURCE_EXHAUSTED, f->name, NULL, NULL, "out of memory");
        return NULL;
    }
    conn->fabric = f;
    tw_machine_init(&conn->machine, &tw_conn_table, conn, trace, conn);
    conn->machine.state = state;
    conn->heard_ns = conn->spoke_ns = tw_fabric_now(f);
    conn->sibling = f->conns;
    f->conns = conn;
    f->conn_count++;
    return conn;
}

/* The peer may send `credits` chunks to us; what we may send is bounded by its word and ours. */
enum tw_code tw_conn_lanes_open(struct tw_conn *conn, const uint64_t credits[TW_LANES],
                                struct tw_error *err)
{
    const uint32_t ours[TW_LANES] = {conn->fabric->config.bulk_credits, TW_URGENT_CREDITS};
    for (unsigned i = 0; i < TW_LANES; i++) {
        if (credits[i] == 0 || credits[i] > TW_CREDITS_MAX) {
            char expected[32], given[32];
            snprintf(expected, sizeof expected, "1 to %u", TW_CREDITS_MAX);
            snprintf(given, sizeof given, "%llu", (unsigned long long)credits[i]);
            return tw_fail(err, TW_OUT_OF_RANGE, "hello", expected, given,
                           "credits granted by the peer");
        }
        struct tw_lane_state *l = &conn->lanes[i];
        l->credits = credits[i] < ours[i] ? (uint32_t)credits[i] : ours[i];
        /* Big enough to come straight from mmap: slots that are never used take no memory. */
        l->ring = aligned_alloc(TW_LINE_SIZE, (size_t)l->credits * TW_FRAME_MAX);
        if (!l->ring)
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, conn->label, NULL, NULL,
                           "no memory for %u chunks in flight", l->credits);
    }
    return TW_OK;
}

void tw_conn_free(struct tw_conn *conn)
{
    for (unsigned i = 0; i < TW_LANES; i++)
        free(conn->lanes[i].ring);
    free(conn->answer);
    free(conn);
}

static void hang_up(struct tw_conn *conn)
{
    conn->hung_up = true;
    conn->fabric->backend->hang_up(conn);
}

void tw_conn_close(struct tw_conn *conn)
{
    if (!conn || conn->machine.state == TW_CONN_GONE)
        return;
    if (!conn->hung_up) {
        if (conn->machine.state != TW_CONN_DIALLING)
            conn->due |= 1u << TW_FRAME_GOODBYE;
        hang_up(conn);
    }
    tw_conn_move(conn, TW_CONN_GONE, "closed by its owner");
}

static void down(struct tw_conn *conn, const struct tw_error *why, bool tell)
{
    if (conn->hung_up)
        return;
    conn->why = *why;
    if (why->where[0])
        snprintf(conn->why.where, sizeof conn->why.where, "%.38s, %.22s", conn->label, why->where);
    else
        snprintf(conn->why.where, sizeof conn->why.where, "%.63s", conn->label);
    conn->due = tell && conn->machine.state != TW_CONN_DIALLING ? 1u << TW_FRAME_GOODBYE : 0;
    hang_up(conn);
    tw_conn_move(conn, TW_CONN_DOWN, conn->why.what);
}

void tw_conn_lost(struct tw_conn *conn, const struct tw_error *why)
{
    down(conn, why, false);
}

void tw_conn_fail(struct tw_conn *conn, const struct tw_error *why)
{
    down(conn, why, true);
}

void tw_conn_kick(struct tw_conn *conn, enum tw_lane lane)
{
    /* Inside poll, what a callback sends waits for the end of the event: a chunk, its credit and
     * the answer then leave together. */
    if (conn->fabric->polling)
        conn->kicked |= 1u << lane;
    else if (!conn->hung_up)
        conn->fabric->backend->flush(conn, lane);
}

void tw_conn_settle(struct tw_conn *conn)
{
    for (unsigned lane = TW_LANES; lane--;) { /* urgent first */
        const unsigned bit = 1u << lane;
        if (!(conn->kicked & bit))
            continue;
        conn->kicked &= ~bit;
        if (!conn->hung_up)
            conn->fabric->backend->flush(conn, (enum tw_lane)lane);
    }
}

void tw_conn_settle_urgent(struct tw_conn *conn)
{
    const struct tw_lane_state *l = &conn->lanes[TW_LANE_URGENT];
    if (l->pulled == l->next || conn->hung_up)
        return;
    conn->kicked &= ~(1u << TW_LANE_URGENT);
    conn->fabric->backend->flush(conn, TW_LANE_URGENT);
}

void tw_conn_due(struct tw_conn *conn, enum tw_frame_kind kind)
{
    conn->due |= 1u << kind;
    tw_conn_kick(conn, kind == TW_FRAME_JOIN ? TW_LANE_BULK : TW_LANE_URGENT);
}

/* ---- Sending --------------------------------------------------------------------------------- */

static bool may_send(const struct tw_conn *conn)
{
    const unsigned s = conn->machine.state;
    return !conn->hung_up && (s == TW_CONN_UP || s == TW_CONN_HALF || s == TW_CONN_INCOMING);
}

static enum tw_code not_up(const struct tw_conn *conn, struct tw_error *err)
{
    if (conn->why.code) {
        if (err)
            *err = conn->why;
        return TW_UNAVAILABLE;
    }
    return tw_fail(err, TW_UNAVAILABLE, conn->label, "up", tw_machine_state_name(&conn->machine),
                   "the connection cannot send now");
}

static uint8_t *slot_of(const struct tw_lane_state *lane, uint64_t sequence)
{
    return lane->ring + (size_t)(sequence % lane->credits) * TW_FRAME_MAX;
}

uint8_t *tw_conn_chunk_begin(struct tw_conn *conn, enum tw_lane lane)
{
    struct tw_lane_state *l = &conn->lanes[lane];
    if (!may_send(conn))
        return NULL;
    assert(!l->begun);
    if (l->next - l->consumed >= l->credits) {
        conn->stats.credit_stalls++;
        return NULL;
    }
    l->begun = true;
    return slot_of(l, l->next) + TW_FRAME_HEADER;
}

void tw_conn_chunk_release(struct tw_conn *conn, enum tw_lane lane)
{
    conn->lanes[lane].begun = false;
}

enum tw_code tw_conn_chunk_send(struct tw_conn *conn, enum tw_lane lane,
                                const struct tw_chunk_header *header, struct tw_error *err)
{
    struct tw_lane_state *l = &conn->lanes[lane];
    if (!may_send(conn))
        return not_up(conn, err);
    assert(l->begun);
    assert(header->length <= TW_CHUNK_PAYLOAD);
    struct tw_chunk_header h = *header;
    h.epoch = conn->ours.epoch;
    h.sequence = l->next;
    memcpy(h.owner, conn->ours.owner, TW_OWNER_SIZE);
    uint8_t *slot = slot_of(l, l->next);
    tw_chunk_seal(&h, slot + TW_FRAME_HEADER);
    memcpy(slot, &h, sizeof h);
    l->begun = false;
    l->next++;
    tw_conn_kick(conn, lane);
    return TW_OK;
}

enum tw_code tw_conn_send(struct tw_conn *conn, enum tw_lane lane, enum tw_chunk_kind kind,
                          uint32_t tag, uint32_t count, const void *payload, uint32_t length,
                          struct tw_error *err)
{
    if (length > TW_CHUNK_PAYLOAD) {
        char expected[32], given[32];
        snprintf(expected, sizeof expected, "at most %u", TW_CHUNK_PAYLOAD);
        snprintf(given, sizeof given, "%u", length);
        return tw_fail(err, TW_INVALID_ARGUMENT, conn->label, expected, given,
                       "too long for a chunk");
    }
    if (!may_send(conn))
        return not_up(conn, err);
    uint8_t *to = tw_conn_chunk_begin(conn, lane);
    if (!to)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, conn->label, NULL, NULL,
                       "no credit on the %s lane now", lane == TW_LANE_BULK ? "bulk" : "urgent");
    if (length)
        memcpy(to, payload, length);
    const struct tw_chunk_header header = {
        .kind = (uint16_t)kind, .length = length, .count = count, .tag = tag};
    return tw_conn_chunk_send(conn, lane, &header, err);
}

bool tw_conn_drained(const struct tw_conn *conn, enum tw_lane lane)
{
    const struct tw_lane_state *l = &conn->lanes[lane];
    return !l->begun && l->next == l->consumed;
}

uint32_t tw_conn_in_flight(const struct tw_conn *conn, enum tw_lane lane)
{
    const struct tw_lane_state *l = &conn->lanes[lane];
    return (uint32_t)(l->next - l->consumed);
}

enum tw_code tw_conn_read(struct tw_conn *conn, uint32_t key, uint64_t address, uint32_t length,
                          void *into, uint64_t cookie, struct tw_error *err)
{
    assert(conn->fabric->config.events->on_read);
    if (length == 0 || length > TW_CHUNK_PAYLOAD) {
        char expected[32], given[32];
        snprintf(expected, sizeof expected, "1 to %u", TW_CHUNK_PAYLOAD);
        snprintf(given, sizeof given, "%u", length);
        return tw_fail(err, TW_INVALID_ARGUMENT, conn->label, expected, given,
                       "length of a one-sided read");
    }
    if (!may_send(conn))
        return not_up(conn, err);
    struct tw_reads *r = &conn->reads;
    if (r->next - r->done >= TW_READS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, conn->label, NULL, NULL,
                       "too many one-sided reads under way, %u at most", TW_READS_MAX);
    r->ring[r->next++ % TW_READS_MAX] = (struct tw_read){
        .cookie = cookie, .address = address, .key = key, .length = length, .into = into};
    conn->stats.reads++;
    tw_conn_kick(conn, TW_LANE_URGENT);
    return TW_OK;
}

/* ---- The rest -------------------------------------------------------------------------------- */

void *tw_conn_ctx(const struct tw_conn *conn)
{
    return conn->ctx;
}

const char *tw_conn_kind(const struct tw_conn *conn)
{
    return conn->fabric->backend->kind;
}

const struct tw_hello *tw_conn_peer(const struct tw_conn *conn)
{
    return &conn->peer;
}

void tw_conn_stats_get(const struct tw_conn *conn, struct tw_conn_stats *out)
{
    *out = conn->stats;
}
