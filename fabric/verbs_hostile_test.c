/* A peer that was let in and then reaches for what is not its: memory of others, rings with noise,
 * regions that are gone. The device or the fabric says no, the error names what was wrong, and
 * another connection of the same endpoint, of another token, loses nothing. Skipped, and says so,
 * where no device is named: see fabric/contract.h. */
#include "fabric/contract.h"
#include "fabric/verbs_parts.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 20000
#define HONEST  100u /* chunks before and behind each attack */

static const struct tw_fabric_config patient = {.idle_timeout_ns = 8 * TW_SEC,
                                                .handshake_timeout_ns = 5 * TW_SEC};

/* The victim is side a. Both peers are of side b; they have different tokens. */
struct scene {
    struct world *w;
    struct tw_conn *honest;
    struct verbs_conn *hostile;
    struct verbs_conn *victim; /* a's end of the hostile connection */
    uint64_t sent;             /* by the honest one */
};

static void honest_sends(struct scene *s)
{
    static uint8_t block[3000];
    const uint64_t until = s->sent + HONEST;
    for (; s->sent < until; world_step(s->w))
        while (s->sent < until &&
               tw_conn_send(s->honest, s->sent % 5 ? TW_LANE_BULK : TW_LANE_URGENT, TW_CHUNK_BLOB,
                            (uint32_t)s->sent, 0, block, sizeof block, NULL) == TW_OK)
            s->sent++;
    cr_assert(WORLD_UNTIL(s->w, WAIT_MS,
                          s->w->a.chunks[TW_LANE_BULK] + s->w->a.chunks[TW_LANE_URGENT] == s->sent),
              "the honest peer's chunks");
}

static struct tw_conn *join(struct world *w, uint8_t token)
{
    struct tw_hello hello = world_hello();
    struct tw_conn *conn;
    const unsigned ups = w->b.ups;
    memset(hello.owner, token, sizeof hello.owner);
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + 5 * TW_SEC, &w->b, &conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, WAIT_MS, w->b.ups == ups + 1), "%s", w->b.why.what);
    return conn;
}

static struct scene scene_open(void)
{
    struct scene s = {0};
    if (!world_use_verbs(NULL))
        cr_skip_test("no RDMA device is named in TOWLINE_VERBS_ADDRESS");
    s.w = world_open(false, &patient, NULL);
    s.honest = join(s.w, 0x11);
    honest_sends(&s);
    s.hostile = (struct verbs_conn *)join(s.w, 0x66);
    s.victim = (struct verbs_conn *)s.w->a.conn;
    return s;
}

static struct tw_verbs_stats stats_of(const struct side *side)
{
    struct tw_verbs_stats stats;
    tw_fabric_verbs_stats(side->fabric, &stats);
    return stats;
}

static bool by_send(const struct scene *s)
{
    return verbs_fabric_of(s->honest)->iwarp;
}

/* ---- Memory of others ------------------------------------------------------------------------ */

/* One-sided, by the hostile connection's own queue pair; its status at the attacker's device. */
static enum ibv_wc_status reach(struct scene *s, enum ibv_wr_opcode opcode, uint64_t address,
                                uint32_t key, uint32_t length)
{
    struct verbs_queue *q = &s->hostile->link->urgent;
    const uint64_t id = verbs_wr_id(VERBS_WR_SENT, q, q->posted + 1), until = 10 * TW_SEC;
    struct ibv_sge sge = {(uintptr_t)s->hostile->memory->copies, length,
                          s->hostile->memory->local_mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = opcode,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {address, key}};
    struct tw_error err;
    memset(s->hostile->memory->copies, 0xee, length);
    q->posted++;
    cr_assert_eq(verbs_post(q, &wr, 1, &err), TW_OK, "%s", err.what);
    const uint64_t began = tw_now(&tw_monotonic);
    while (tw_now(&tw_monotonic) - began < until) {
        struct ibv_wc wc;
        if (ibv_poll_cq(s->hostile->link->cqs[TW_LANE_URGENT], 1, &wc) == 1 && wc.wr_id == id)
            return wc.status;
    }
    cr_assert_fail("the device does not say what became of it");
    return IBV_WC_GENERAL_ERR;
}

/* The device has refused: that queue pair is lost to both, and nothing else. iWARP's sender does
 * not hear what became of a write. */
static void expect_refused(struct scene *s, enum ibv_wc_status status, enum ibv_wr_opcode opcode)
{
    if (!by_send(s))
        cr_assert_eq(status, IBV_WC_REM_ACCESS_ERR, "%s", ibv_wc_status_str(status));
    else if (opcode == IBV_WR_RDMA_READ)
        cr_assert_neq(status, IBV_WC_SUCCESS);
    cr_assert(WORLD_UNTIL(s->w, WAIT_MS, stats_of(&s->w->a).breaks == 1), "seen by the victim");
    honest_sends(s);
    cr_assert_not(((struct verbs_conn *)s->honest)->broken);
    cr_assert_eq(stats_of(&s->w->a).breaks, 1, "of the hostile connection alone");
    cr_assert_eq(s->w->a.logged < SIDE_LOG ? s->w->a.logged : s->sent, s->sent);
    world_close(s->w);
}

Test(hostile, a_write_behind_the_end_of_its_ring)
{
    struct scene s = scene_open();
    if (by_send(&s)) { /* there no ring can be written at all, not even at its beginning */
        const struct verbs_memory *m = s.victim->memory;
        const enum ibv_wc_status status =
            reach(&s, IBV_WR_RDMA_WRITE, (uintptr_t)m->rings[TW_LANE_BULK], m->rings_mr->rkey, 64);
        cr_expect_neq(m->rings[TW_LANE_BULK][0], 0xee);
        expect_refused(&s, status, IBV_WR_RDMA_WRITE);
        return;
    }
    const struct verbs_place *ring = &s.hostile->peer_rings[TW_LANE_BULK];
    const uint64_t end = ring->address + (uint64_t)ring->slots * VERBS_STRIDE;
    const enum ibv_wc_status status = reach(&s, IBV_WR_RDMA_WRITE, end + 4096, ring->key, 64);
    expect_refused(&s, status, IBV_WR_RDMA_WRITE);
}

Test(hostile, a_write_with_a_guessed_key)
{
    struct scene s = scene_open();
    const uint32_t key = s.victim->memory->acks_mr->rkey ^ 0x5500;
    const enum ibv_wc_status status =
        reach(&s, IBV_WR_RDMA_WRITE, (uintptr_t)s.victim->memory->acks, key, 16);
    expect_refused(&s, status, IBV_WR_RDMA_WRITE);
}

/* The right key and address, of a connection with another token: another protection domain. */
Test(hostile, a_write_into_the_credit_words_of_another)
{
    struct scene s = scene_open();
    struct verbs_conn *other = NULL;
    for (struct tw_conn *c = s.w->a.fabric->conns; c; c = c->sibling)
        if (c != &s.victim->base)
            other = (struct verbs_conn *)c;
    cr_assert_not_null(other);
    const uint64_t before = other->memory->acks[TW_LANE_BULK];
    const enum ibv_wc_status status = reach(&s, IBV_WR_RDMA_WRITE, (uintptr_t)other->memory->acks,
                                            other->memory->acks_mr->rkey, 16);
    cr_expect_eq(other->memory->acks[TW_LANE_BULK], before);
    expect_refused(&s, status, IBV_WR_RDMA_WRITE);
}

/* ---- Regions --------------------------------------------------------------------------------- */

static uint8_t guest[8192];

/* A region of the hostile peer's own token; it learns its place by an honest read. */
static struct verbs_slice expose(struct scene *s, uint32_t *key)
{
    static uint8_t into[64];
    memset(guest, 0x2a, sizeof guest);
    cr_assert_eq(tw_fabric_register(s->w->a.fabric, guest, sizeof guest,
                                    s->hostile->base.ours.owner, key, NULL),
                 TW_OK);
    cr_assert_eq(tw_conn_read(&s->hostile->base, *key, 0, 64, into, 1, NULL), TW_OK);
    cr_assert(WORLD_UNTIL(s->w, WAIT_MS, s->w->b.reads == 1));
    cr_assert_eq(s->w->b.read_code, TW_OK);
    cr_assert_eq(s->hostile->reads.slice_count, 1);
    return s->hostile->reads.slices[0];
}

Test(hostile, a_write_into_a_region_that_is_for_reading)
{
    struct scene s = scene_open();
    uint32_t key;
    const struct verbs_slice slice = expose(&s, &key);
    const enum ibv_wc_status status = reach(&s, IBV_WR_RDMA_WRITE, slice.address, slice.rkey, 64);
    for (unsigned i = 0; i < sizeof guest; i++)
        cr_assert_eq(guest[i], 0x2a, "byte %u", i);
    expect_refused(&s, status, IBV_WR_RDMA_WRITE);
}

Test(hostile, a_read_beyond_a_region)
{
    struct scene s = scene_open();
    uint32_t key;
    const struct verbs_slice slice = expose(&s, &key);
    const enum ibv_wc_status status =
        reach(&s, IBV_WR_RDMA_READ, slice.address + sizeof guest - 32, slice.rkey, 64);
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(s.hostile->memory->copies[i], 0xee, "byte %u", i);
    expect_refused(&s, status, IBV_WR_RDMA_READ);
}

Test(hostile, a_read_of_a_region_that_has_ended)
{
    struct scene s = scene_open();
    uint32_t key;
    const struct verbs_slice slice = expose(&s, &key);
    tw_fabric_unregister(s.w->a.fabric, key);
    const enum ibv_wc_status status = reach(&s, IBV_WR_RDMA_READ, slice.address, slice.rkey, 64);
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(s.hostile->memory->copies[i], 0xee, "byte %u", i);
    expect_refused(&s, status, IBV_WR_RDMA_READ);
}

/* ---- Noise in the ring ----------------------------------------------------------------------- */

/* A message of the urgent lane, just as the fabric would send it, but with these bytes, and with
 * `skew` added to its number. */
static void send_raw(struct scene *s, const void *bytes, uint32_t length, uint32_t skew)
{
    struct verbs_conn *conn = s->hostile;
    struct verbs_queue *q = &conn->link->urgent;
    struct verbs_stream *stream = &conn->streams[TW_LANE_URGENT];
    const struct verbs_place *ring = &conn->peer_rings[TW_LANE_URGENT];
    uint8_t *copy = conn->memory->copies + (size_t)VERBS_URGENT_SLOTS * VERBS_COPY;
    memcpy(copy, bytes, length);
    struct ibv_sge sge = {(uintptr_t)copy, length, conn->memory->local_mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    if (!by_send(s)) {
        wr.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        wr.imm_data = htobe32((uint32_t)stream->posted + skew);
        wr.wr.rdma.remote_addr = ring->address + stream->posted % stream->out_slots * VERBS_STRIDE;
        wr.wr.rdma.rkey = ring->key;
    }
    struct verbs_message *m = &conn->out[TW_LANE_URGENT][stream->next % stream->out_slots];
    *m = (struct verbs_message){copy, length, false};
    stream->next++;
    stream->posted++;
    struct tw_error err;
    verbs_request_finish(q, &wr, false);
    cr_assert_eq(verbs_post(q, &wr, 1, &err), TW_OK, "%s", err.what);
}

/* The victim closes that connection, with a reason that the peer hears, and counts it. */
static void expect_closed(struct scene *s, enum tw_code code)
{
    cr_assert(WORLD_UNTIL(s->w, WAIT_MS, s->w->a.downs == 1 && s->w->b.downs == 1), "%s",
              s->w->a.why.what);
    cr_expect_eq(s->w->a.why.code, code, "%s: %s", tw_code_name(s->w->a.why.code),
                 s->w->a.why.what);
    cr_expect_eq(s->w->b.why.code, code, "%s: %s", tw_code_name(s->w->b.why.code),
                 s->w->b.why.what);
    cr_expect_eq(stats_of(&s->w->a).refused, 1);
    honest_sends(s);
    cr_expect_eq(stats_of(&s->w->a).breaks, 0);
    world_close(s->w);
}

Test(hostile, noise)
{
    struct scene s = scene_open();
    uint8_t bytes[200];
    memset(bytes, 0x5a, sizeof bytes);
    send_raw(&s, bytes, sizeof bytes, 0);
    expect_closed(&s, TW_INVALID_ARGUMENT);
}

static struct tw_frame_header ping(void)
{
    struct tw_frame_header header = {.kind = TW_FRAME_PING};
    tw_frame_seal(&header, NULL, 0);
    return header;
}

Test(hostile, a_frame_of_absurd_length)
{
    struct scene s = scene_open();
    struct tw_frame_header header = ping();
    header.kind = TW_FRAME_DATA;
    header.length = UINT32_MAX;
    send_raw(&s, &header, sizeof header, 0);
    expect_closed(&s, TW_OUT_OF_RANGE);
}

Test(hostile, a_chunk_longer_than_what_came)
{
    struct scene s = scene_open();
    struct tw_chunk_header header = {.magic = TW_CHUNK_MAGIC,
                                     .version = TW_CHUNK_VERSION,
                                     .kind = TW_CHUNK_BLOB,
                                     .length = TW_CHUNK_PAYLOAD};
    send_raw(&s, &header, sizeof header, 0);
    expect_closed(&s, TW_DATA_LOSS); /* cut off, or whatever lay in the slot: its crc is wrong */
}

Test(hostile, a_damaged_frame)
{
    struct scene s = scene_open();
    struct tw_frame_header header = ping();
    header.crc32c ^= 1;
    send_raw(&s, &header, sizeof header, 0);
    expect_closed(&s, TW_DATA_LOSS);
}

Test(hostile, a_greeting_out_of_turn)
{
    struct scene s = scene_open();
    uint8_t bytes[TW_FRAME_HEADER + TW_HELLO_BYTES] = {0};
    struct tw_frame_header header = {.kind = TW_FRAME_HELLO, .numbers = {4, 4}};
    tw_frame_seal(&header, bytes + TW_FRAME_HEADER, TW_HELLO_BYTES);
    memcpy(bytes, &header, sizeof header);
    send_raw(&s, bytes, sizeof bytes, 0);
    expect_closed(&s, TW_INVALID_ARGUMENT);
}

/* iWARP carries no numbers of messages; those of the chunks inside remain. */
Test(hostile, a_message_that_is_not_due)
{
    struct scene s = scene_open();
    struct tw_chunk_header chunk = {
        .kind = TW_CHUNK_BLOB, .sequence = 7, .epoch = s.hostile->base.ours.epoch};
    const struct tw_frame_header frame = ping();
    memcpy(chunk.owner, s.hostile->base.ours.owner, sizeof chunk.owner);
    tw_chunk_seal(&chunk, NULL);
    if (by_send(&s))
        send_raw(&s, &chunk, sizeof chunk, 0);
    else
        send_raw(&s, &frame, sizeof frame, 3);
    expect_closed(&s, TW_DATA_LOSS);
}

/* ---- Endless handshakes ---------------------------------------------------------------------- */

Test(hostile, one_who_never_joins_is_given_up)
{
    if (!world_use_verbs(NULL))
        cr_skip_test("no RDMA device is named in TOWLINE_VERBS_ADDRESS");
    struct world *w = world_open(false, &patient, NULL);
    struct scene s = {.w = w, .honest = join(w, 0x11)};
    const struct tw_hello hello = world_hello();
    struct tw_conn *conn;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + 30 * TW_SEC, &w->b, &conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, WAIT_MS, w->a.accepts == 2));
    /* From here on it takes everything and says nothing. */
    struct tw_conn *const half = w->a.conn;
    struct verbs_conn *silent = (struct verbs_conn *)conn;
    silent->link->urgent.state = VERBS_READY;
    silent->base.hung_up = true;
    cr_assert(WORLD_UNTIL(w, WAIT_MS, w->a.downs == 1));
    cr_assert_null(w->a.conn, "%p", (void *)half);
    cr_assert_eq(w->a.why.code, TW_DEADLINE_EXCEEDED, "%s", w->a.why.what);
    silent->base.hung_up = false;
    honest_sends(&s);
    world_close(w);
}
