#include "fabric/backend.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Frames that leave ----------------------------------------------------------------------- */

static uint8_t *slot_of(const struct tw_lane_state *lane, uint64_t sequence)
{
    return lane->ring + (size_t)(sequence % lane->credits) * TW_FRAME_MAX;
}

static uint32_t encode(uint8_t *out, struct tw_frame_header header, const void *payload,
                       uint32_t length)
{
    tw_frame_seal(&header, payload, length);
    memcpy(out, &header, sizeof header);
    if (length)
        memcpy(out + sizeof header, payload, length);
    return TW_FRAME_HEADER + length;
}

uint32_t tw_goodbye_encode(const struct tw_error *why,
                           uint8_t bytes[TW_FRAME_HEADER + TW_GOODBYE_TEXT])
{
    char text[TW_GOODBYE_TEXT + 1] = "";
    if (why->code)
        tw_error_text(why, text, sizeof text);
    const struct tw_frame_header header = {.kind = TW_FRAME_GOODBYE, .numbers = {why->code}};
    return encode(bytes, header, text, (uint32_t)strlen(text));
}

static uint32_t encode_hello(struct tw_conn *conn, enum tw_frame_kind kind, uint8_t *out)
{
    struct tw_frame_header header = {
        .kind = (uint16_t)kind, .numbers = {conn->fabric->config.bulk_credits, TW_URGENT_CREDITS}};
    if (kind == TW_FRAME_ACCEPT)
        memcpy(header.id, conn->id, sizeof header.id);
    uint8_t hello[TW_HELLO_BYTES];
    tw_hello_encode(&conn->ours, hello);
    return encode(out, header, hello, sizeof hello);
}

static bool credit_is_due(const struct tw_conn *conn)
{
    return conn->lanes[TW_LANE_BULK].expected != conn->lanes[TW_LANE_BULK].told ||
           conn->lanes[TW_LANE_URGENT].expected != conn->lanes[TW_LANE_URGENT].told;
}

static uint32_t encode_credit(struct tw_conn *conn, uint8_t *out)
{
    struct tw_frame_header header = {.kind = TW_FRAME_CREDIT};
    for (unsigned i = 0; i < TW_LANES; i++)
        header.numbers[i] = conn->lanes[i].told = conn->lanes[i].expected;
    return encode(out, header, NULL, 0);
}

static uint32_t encode_read(struct tw_conn *conn, uint8_t *out)
{
    struct tw_reads *r = &conn->reads;
    const struct tw_read *read = &r->ring[r->sent % TW_READS_MAX];
    const struct tw_frame_header header = {
        .kind = TW_FRAME_READ, .numbers = {r->sent, read->address, read->key, read->length}};
    r->sent++;
    return encode(out, header, NULL, 0);
}

/* The answer to the peer's oldest read. Its bytes are copied before they are sealed: the memory
 * may be changing, and may be unregistered before the last of them has left. */
static uint32_t encode_data(struct tw_conn *conn)
{
    struct tw_reads *r = &conn->requests;
    const struct tw_read *read = &r->ring[r->done % TW_READS_MAX];
    const uint8_t *from =
        tw_fabric_region(conn->fabric, read->key, read->address, read->length, conn->ours.owner);
    const uint32_t length = from ? read->length : 0;
    struct tw_frame_header header = {.kind = TW_FRAME_DATA,
                                     .numbers = {r->done, from ? TW_OK : TW_OUT_OF_RANGE}};
    r->done++;
    if (length)
        memcpy(conn->answer + TW_FRAME_HEADER, from, length);
    tw_frame_seal(&header, conn->answer + TW_FRAME_HEADER, length);
    memcpy(conn->answer, &header, sizeof header);
    return TW_FRAME_HEADER + length;
}

static bool take_due(struct tw_conn *conn, enum tw_frame_kind kind)
{
    const uint32_t bit = 1u << kind;
    const bool due = conn->due & bit;
    conn->due &= ~bit;
    return due;
}

/* Frames of the protocol, in order of their haste. Chunks, which may be many, come after credits
 * and before the rest. */
static uint32_t next_control(struct tw_conn *conn, uint8_t *out)
{
    for (enum tw_frame_kind kind = TW_FRAME_HELLO; kind <= TW_FRAME_ACCEPT; kind++)
        if (take_due(conn, kind))
            return encode_hello(conn, kind, out);
    if (take_due(conn, TW_FRAME_READY))
        return encode(out, (struct tw_frame_header){.kind = TW_FRAME_READY}, NULL, 0);
    if (conn->machine.state == TW_CONN_UP && credit_is_due(conn))
        return encode_credit(conn, out);
    return 0;
}

static uint32_t next_join(struct tw_conn *conn, uint8_t *out)
{
    if (!take_due(conn, TW_FRAME_JOIN))
        return 0;
    struct tw_frame_header header = {.kind = TW_FRAME_JOIN};
    memcpy(header.id, conn->id, sizeof header.id);
    return encode(out, header, NULL, 0);
}

static const uint8_t *next_chunk(struct tw_conn *conn, struct tw_lane_state *lane, uint32_t *length)
{
    if (conn->machine.state != TW_CONN_UP || lane->pulled == lane->next)
        return NULL;
    const uint8_t *slot = slot_of(lane, lane->pulled++);
    struct tw_chunk_header header;
    memcpy(&header, slot, sizeof header);
    *length = TW_FRAME_HEADER + header.length;
    conn->stats.chunks_sent++;
    return slot;
}

static const uint8_t *next_urgent(struct tw_conn *conn, uint32_t *length)
{
    uint8_t *control = conn->control[TW_LANE_URGENT];
    if ((*length = next_control(conn, control)))
        return control;
    const uint8_t *chunk = next_chunk(conn, &conn->lanes[TW_LANE_URGENT], length);
    if (chunk)
        return chunk;
    if (conn->machine.state == TW_CONN_UP && conn->reads.sent < conn->reads.next &&
        !conn->fabric->backend->reads_itself)
        *length = encode_read(conn, control);
    else if (conn->requests.done < conn->requests.next) {
        *length = encode_data(conn);
        return conn->answer;
    } else if (take_due(conn, TW_FRAME_PING))
        *length = encode(control, (struct tw_frame_header){.kind = TW_FRAME_PING}, NULL, 0);
    else if (take_due(conn, TW_FRAME_GOODBYE))
        *length = tw_goodbye_encode(&conn->why, control);
    return control;
}

bool tw_conn_next_frame(struct tw_conn *conn, enum tw_lane lane, const uint8_t **bytes,
                        uint32_t *length)
{
    *length = 0;
    *bytes = conn->control[lane];
    if (conn->hung_up && conn->why.code) { /* failed: nothing but the reason */
        if (lane == TW_LANE_URGENT && take_due(conn, TW_FRAME_GOODBYE))
            *length = tw_goodbye_encode(&conn->why, conn->control[lane]);
    } else if (lane == TW_LANE_URGENT) {
        *bytes = next_urgent(conn, length);
    } else if (!(*length = next_join(conn, conn->control[lane]))) {
        *bytes = next_chunk(conn, &conn->lanes[lane], length);
    }
    if (!*bytes || *length == 0)
        return false;
    conn->stats.bytes_sent += *length;
    if (lane == TW_LANE_URGENT)
        conn->spoke_ns = tw_fabric_now(conn->fabric);
    return true;
}

/* ---- Handshake ------------------------------------------------------------------------------- */

struct tw_conn *tw_conn_incoming(struct tw_fabric *f, const struct tw_frame *hello,
                                 const char *label, struct tw_error *err)
{
    struct tw_hello peer,
        ours = {.version = TW_FABRIC_VERSION, .version_min = TW_FABRIC_VERSION_MIN};
    uint16_t version;
    tw_hello_decode(&peer, hello->payload);
    if (tw_hello_agree(&ours, &peer, &version, err))
        return NULL;
    struct tw_conn *conn = tw_conn_new(f, TW_CONN_INCOMING, err);
    if (!conn)
        return NULL;
    snprintf(conn->label, sizeof conn->label, "%.32s (%.60s)", peer.name, label);
    conn->setup_by_ns = tw_after(tw_fabric_now(f), f->config.handshake_timeout_ns);
    conn->peer = peer;
    conn->ours = ours;
    conn->ours.epoch = peer.epoch;
    memcpy(conn->ours.owner, peer.owner, TW_OWNER_SIZE);
    memcpy(conn->ours.name, f->name, sizeof f->name);
    conn->stats.bytes_received += hello->size;
    if (tw_conn_lanes_open(conn, hello->header.numbers, err)) {
        conn->hung_up = true;
        tw_conn_move(conn, TW_CONN_GONE, "bad hello");
        return NULL;
    }
    return conn;
}

bool tw_conn_ask(struct tw_conn *conn, struct tw_error *err)
{
    const struct tw_fabric_events *events = conn->fabric->config.events;
    void *ctx = NULL;
    *err = (struct tw_error){0};
    const enum tw_code code =
        events->on_accept(conn->fabric->config.ctx, conn, &conn->peer, &ctx, err);
    if (conn->hung_up)
        return false;
    if (code) {
        if (!err->code)
            tw_fail(err, code, conn->fabric->name, NULL, NULL, "connection refused");
        conn->why = *err;
        tw_conn_close(conn);
        return false;
    }
    conn->ctx = ctx;
    conn->accepted = true;
    tw_conn_move(conn, TW_CONN_HALF, "accepted");
    tw_conn_due(conn, TW_FRAME_ACCEPT);
    return true;
}

void tw_conn_connected(struct tw_conn *conn)
{
    tw_conn_move(conn, TW_CONN_GREETING, "reached");
    tw_conn_due(conn, TW_FRAME_HELLO);
}

static enum tw_code got_accept(struct tw_conn *conn, const struct tw_frame *frame,
                               struct tw_error *err)
{
    uint16_t version;
    tw_hello_decode(&conn->peer, frame->payload);
    enum tw_code code = tw_hello_agree(&conn->ours, &conn->peer, &version, err);
    if (!code)
        code = tw_conn_lanes_open(conn, frame->header.numbers, err);
    if (code)
        return code;
    char address[sizeof conn->label];
    memcpy(address, conn->label, sizeof address);
    snprintf(conn->label, sizeof conn->label, "%.32s (%.60s)", conn->peer.name, address);
    memcpy(conn->id, frame->header.id, sizeof conn->id);
    tw_conn_move(conn, TW_CONN_JOINING, "accepted");
    conn->due |= 1u << TW_FRAME_JOIN;
    return conn->fabric->backend->join(conn, err);
}

static enum tw_code got_join(struct tw_conn *conn, const struct tw_frame *frame,
                             struct tw_error *err)
{
    if (memcmp(frame->header.id, conn->id, sizeof conn->id) != 0)
        return tw_fail(err, TW_PERMISSION_DENIED, "join", NULL, NULL, "id of another connection");
    tw_conn_move(conn, TW_CONN_UP, "joined");
    tw_conn_due(conn, TW_FRAME_READY);
    tw_conn_kick(conn, TW_LANE_BULK); /* what was sent since on_accept */
    return TW_OK;
}

static enum tw_code got_ready(struct tw_conn *conn)
{
    tw_conn_move(conn, TW_CONN_UP, "ready");
    if (conn->fabric->backend->up)
        conn->fabric->backend->up(conn);
    conn->fabric->config.events->on_up(conn->ctx, conn);
    return TW_OK;
}

/* ---- Frames that arrive ---------------------------------------------------------------------- */

static enum tw_code bad(struct tw_error *err, enum tw_code code, uint64_t chunk, uint64_t expected,
                        uint64_t given, const char *what)
{
    char where[64], e[32], g[32];
    snprintf(where, sizeof where, "chunk %" PRIu64, chunk);
    snprintf(e, sizeof e, "%" PRIu64, expected);
    snprintf(g, sizeof g, "%" PRIu64, given);
    return tw_fail(err, code, where, e, g, "%s", what);
}

/* The crc first: when bits have flipped, the other fields tell tales. */
static enum tw_code check_chunk(const struct tw_conn *conn, const struct tw_lane_state *lane,
                                const struct tw_frame *frame, struct tw_error *err)
{
    const struct tw_chunk_header *h = &frame->chunk;
    const enum tw_code code = tw_chunk_check_payload(h, frame->payload, err);
    if (code)
        return code;
    if (memcmp(h->owner, conn->ours.owner, TW_OWNER_SIZE) != 0)
        return bad(err, TW_PERMISSION_DENIED, h->sequence, 0, 1, "chunk with a foreign token");
    if (h->epoch != conn->ours.epoch)
        return bad(err, TW_FAILED_PRECONDITION, h->sequence, conn->ours.epoch, h->epoch,
                   "chunk of another epoch");
    if (h->sequence != lane->expected)
        return bad(err, TW_DATA_LOSS, h->sequence, lane->expected, h->sequence,
                   h->sequence > lane->expected ? "chunk out of sequence: some were lost"
                                                : "chunk out of sequence: replayed");
    return TW_OK;
}

static enum tw_code got_chunk(struct tw_conn *conn, enum tw_lane lane, const struct tw_frame *frame,
                              struct tw_error *err)
{
    struct tw_lane_state *l = &conn->lanes[lane];
    enum tw_code code = check_chunk(conn, l, frame, err);
    if (code)
        return code;
    conn->stats.chunks_received++;
    *err = (struct tw_error){0};
    code = conn->fabric->config.events->on_chunk(conn->ctx, conn, lane, &frame->chunk,
                                                 frame->payload, err);
    if (code && !err->code)
        return tw_fail(err, code, "chunk", NULL, NULL, "not taken by the receiver");
    if (code)
        return code;
    l->expected++;
    const uint32_t granted =
        lane == TW_LANE_BULK ? conn->fabric->config.bulk_credits : TW_URGENT_CREDITS;
    if (l->expected - l->told >= (granted + 3) / 4)
        tw_conn_kick(conn, TW_LANE_URGENT);
    return TW_OK;
}

static enum tw_code got_credit(struct tw_conn *conn, const struct tw_frame *frame,
                               struct tw_error *err)
{
    for (unsigned i = 0; i < TW_LANES; i++) {
        struct tw_lane_state *l = &conn->lanes[i];
        const uint64_t consumed = frame->header.numbers[i];
        if (consumed < l->consumed || consumed > l->pulled)
            return bad(err, TW_INVALID_ARGUMENT, l->pulled, l->consumed, consumed,
                       "credit for chunks that were never sent, or taken back");
        l->consumed = consumed;
    }
    return TW_OK;
}

static enum tw_code got_read(struct tw_conn *conn, const struct tw_frame *frame,
                             struct tw_error *err)
{
    const uint64_t *n = frame->header.numbers;
    struct tw_reads *r = &conn->requests;
    if (n[0] != r->next)
        return bad(err, TW_DATA_LOSS, 0, r->next, n[0], "read out of sequence");
    if (n[2] > UINT32_MAX || n[3] > TW_CHUNK_PAYLOAD)
        return bad(err, TW_OUT_OF_RANGE, 0, TW_CHUNK_PAYLOAD, n[3], "length of a read");
    if (r->next - r->done >= TW_READS_MAX)
        return bad(err, TW_RESOURCE_EXHAUSTED, 0, TW_READS_MAX, r->next - r->done + 1,
                   "too many reads under way");
    if (!conn->answer && !(conn->answer = aligned_alloc(TW_LINE_SIZE, TW_FRAME_MAX)))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "read", NULL, NULL, "out of memory");
    r->ring[r->next++ % TW_READS_MAX] =
        (struct tw_read){.address = n[1], .key = (uint32_t)n[2], .length = (uint32_t)n[3]};
    tw_conn_kick(conn, TW_LANE_URGENT);
    return TW_OK;
}

static enum tw_code got_data(struct tw_conn *conn, const struct tw_frame *frame,
                             struct tw_error *err)
{
    struct tw_reads *r = &conn->reads;
    const uint64_t number = frame->header.numbers[0], result = frame->header.numbers[1];
    if (r->done == r->sent || number != r->done)
        return bad(err, TW_DATA_LOSS, 0, r->done, number, "answer to a read that was not asked");
    const struct tw_read read = r->ring[r->done % TW_READS_MAX];
    if (result > TW_UNAUTHENTICATED || frame->length != (result == TW_OK ? read.length : 0))
        return bad(err, TW_DATA_LOSS, 0, read.length, frame->length, "answer to a read: length");
    r->done++;
    if (frame->length)
        memcpy(read.into, frame->payload, frame->length);
    conn->fabric->config.events->on_read(conn->ctx, conn, read.cookie, (enum tw_code)result);
    return TW_OK;
}

static void got_goodbye(struct tw_conn *conn, const struct tw_frame *frame)
{
    struct tw_error why;
    const uint64_t code = frame->header.numbers[0];
    if (code == TW_OK) {
        tw_fail(&why, TW_UNAVAILABLE, NULL, NULL, NULL, "closed by the peer");
    } else {
        char text[TW_GOODBYE_TEXT + 1] = "";
        memcpy(text, frame->payload, frame->length);
        for (char *c = text; *c; c++)
            if (*c < ' ' || *c > '~')
                *c = '?';
        tw_fail(&why, code <= TW_UNAUTHENTICATED ? (enum tw_code)code : TW_UNKNOWN, NULL, NULL,
                NULL, "the peer says: %s", text);
    }
    tw_conn_lost(conn, &why);
}

/* In which states, and on which lane, a frame makes sense. */
static bool fits(const struct tw_conn *conn, enum tw_lane lane, enum tw_frame_kind kind)
{
    const unsigned s = conn->machine.state;
    if (lane == TW_LANE_BULK)
        return kind == TW_FRAME_CHUNK ? s == TW_CONN_UP
                                      : kind == TW_FRAME_JOIN && s == TW_CONN_HALF;
    switch (kind) {
    case TW_FRAME_ACCEPT:
        return s == TW_CONN_GREETING;
    case TW_FRAME_READY:
        return s == TW_CONN_JOINING;
    case TW_FRAME_CHUNK:
    case TW_FRAME_CREDIT:
    case TW_FRAME_READ:
    case TW_FRAME_DATA:
    case TW_FRAME_PING:
        return s == TW_CONN_UP;
    case TW_FRAME_GOODBYE:
        return true;
    default:
        return false;
    }
}

void tw_conn_frame_in(struct tw_conn *conn, enum tw_lane lane, const struct tw_frame *frame)
{
    struct tw_error err;
    enum tw_code code = TW_OK;
    if (conn->hung_up)
        return;
    tw_conn_heard(conn);
    conn->stats.bytes_received += frame->size;
    if (!fits(conn, lane, frame->kind)) {
        tw_fail(&err, TW_INVALID_ARGUMENT, "frame", NULL, NULL,
                "a frame of kind %d makes no sense on the %s lane in state %s", (int)frame->kind,
                lane == TW_LANE_BULK ? "bulk" : "urgent", tw_machine_state_name(&conn->machine));
        tw_conn_fail(conn, &err);
        return;
    }
    if (frame->kind == TW_FRAME_CHUNK)
        code = got_chunk(conn, lane, frame, &err);
    else if (frame->kind == TW_FRAME_ACCEPT)
        code = got_accept(conn, frame, &err);
    else if (frame->kind == TW_FRAME_JOIN)
        code = got_join(conn, frame, &err);
    else if (frame->kind == TW_FRAME_READY)
        code = got_ready(conn);
    else if (frame->kind == TW_FRAME_CREDIT)
        code = got_credit(conn, frame, &err);
    else if (frame->kind == TW_FRAME_READ)
        code = got_read(conn, frame, &err);
    else if (frame->kind == TW_FRAME_DATA)
        code = got_data(conn, frame, &err);
    else if (frame->kind == TW_FRAME_GOODBYE)
        got_goodbye(conn, frame);
    if (code)
        tw_conn_fail(conn, &err);
}

/* ---- Time ------------------------------------------------------------------------------------ */

static uint64_t ping_every(const struct tw_conn *conn)
{
    return conn->fabric->config.idle_timeout_ns / 4;
}

uint64_t tw_conn_tick_next(const struct tw_conn *conn)
{
    const unsigned s = conn->machine.state;
    if (s == TW_CONN_GONE || s == TW_CONN_DOWN)
        return TW_NEVER;
    if (s != TW_CONN_UP)
        return conn->setup_by_ns;
    const uint64_t idle = tw_after(conn->heard_ns, conn->fabric->config.idle_timeout_ns);
    const uint64_t ping = tw_after(conn->spoke_ns, ping_every(conn));
    /* A ping that could not leave yet must not make us spin. */
    return ping < idle && !(conn->due & 1u << TW_FRAME_PING) ? ping : idle;
}

void tw_conn_tick(struct tw_conn *conn, uint64_t now_ns)
{
    struct tw_error err;
    if (conn->hung_up)
        return;
    if (conn->machine.state != TW_CONN_UP) {
        if (now_ns >= conn->setup_by_ns) {
            tw_fail(&err, TW_DEADLINE_EXCEEDED, NULL, NULL, NULL,
                    "the connection was not up in time, it was %s",
                    tw_machine_state_name(&conn->machine));
            tw_conn_fail(conn, &err);
        }
        return;
    }
    if (now_ns >= tw_after(conn->heard_ns, conn->fabric->config.idle_timeout_ns)) {
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL,
                "the peer has been silent for %" PRIu64 " ms", (now_ns - conn->heard_ns) / TW_MS);
        tw_conn_fail(conn, &err);
        return;
    }
    if (now_ns >= tw_after(conn->spoke_ns, ping_every(conn)))
        tw_conn_due(conn, TW_FRAME_PING);
    if (credit_is_due(conn))
        tw_conn_kick(conn, TW_LANE_URGENT);
}
