#include "fabric/verbs_parts.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

uint32_t verbs_queue_room(const struct verbs_queue *q)
{
    return q->depth - (uint32_t)(q->posted - q->done);
}

/* One completion in many: the device need not tell of each, as one tells of all before it. */
void verbs_request_finish(struct verbs_queue *q, struct ibv_send_wr *wr, bool signal)
{
    struct tw_verbs_stats *stats = &q->link->fabric->stats;
    const uint32_t every = q->depth / 4 < VERBS_SIGNAL_EVERY ? q->depth / 4 : VERBS_SIGNAL_EVERY;
    q->posted++;
    if (signal || q->posted - q->signalled >= every) {
        q->signalled = q->posted;
        wr->send_flags |= IBV_SEND_SIGNALED;
        if (!wr->wr_id)
            wr->wr_id = verbs_wr_id(VERBS_WR_SENT, q, q->posted);
        stats->signalled++;
    }
    if (wr->opcode != IBV_WR_RDMA_READ && wr->num_sge && wr->sg_list->length <= q->inline_max) {
        wr->send_flags |= IBV_SEND_INLINE;
        stats->inline_requests++;
    }
}

enum tw_code verbs_post(struct verbs_queue *q, struct ibv_send_wr *first, unsigned count,
                        struct tw_error *err)
{
    struct ibv_send_wr *bad;
    struct tw_verbs_stats *stats = &q->link->fabric->stats;
    const int number = ibv_post_send(q->id->qp, first, &bad);
    if (number)
        return tw_fail_errno(err, number, NULL, "the device does not take work requests");
    stats->doorbells++;
    stats->requests += count;
    return TW_OK;
}

/* ---- Credit ---------------------------------------------------------------------------------- */

void verbs_acks_take(struct verbs_conn *conn)
{
    struct tw_error err;
    if (!conn->memory || !conn->link || conn->link->failed || conn->base.hung_up)
        return;
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        struct verbs_stream *s = &conn->streams[lane];
        const uint64_t consumed = __atomic_load_n(&conn->memory->acks[lane], __ATOMIC_ACQUIRE);
        const uint64_t before = s->acked;
        if (!verbs_stream_ack(s, consumed)) {
            tw_fail(&err, TW_INVALID_ARGUMENT, "credit", NULL, NULL,
                    "for messages that were never sent");
            tw_conn_fail(&conn->base, &err);
            return;
        }
        if (s->acked > before && conn->link->starved[lane])
            conn->base.kicked |= 1u << lane;
    }
}

/* An inline write that nobody hears of; what follows it on the queue pair wakes the peer. */
static bool credit_request(struct verbs_conn *conn, struct ibv_send_wr *wr, struct ibv_sge *sge,
                           uint64_t numbers[TW_LANES])
{
    struct verbs_queue *q = &conn->link->urgent;
    if (conn->streams[0].told == conn->streams[0].expected &&
        conn->streams[1].told == conn->streams[1].expected)
        return false;
    for (unsigned lane = 0; lane < TW_LANES; lane++)
        numbers[lane] = conn->streams[lane].told = conn->streams[lane].expected;
    *sge = (struct ibv_sge){(uintptr_t)numbers, sizeof(uint64_t) * TW_LANES, 0};
    *wr = (struct ibv_send_wr){
        .sg_list = sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .wr.rdma = {conn->peer_acks.address, conn->peer_acks.key},
    };
    verbs_request_finish(q, wr, false);
    q->link->fabric->stats.credit_writes++;
    return true;
}

/* ---- Messages -------------------------------------------------------------------------------- */

static bool is_chunk(const struct tw_lane_state *lane, const uint8_t *bytes)
{
    const size_t size = (size_t)lane->credits * TW_FRAME_MAX;
    return lane->ring && bytes >= lane->ring && bytes < lane->ring + size;
}

/* Pulls a frame and keeps it as the lane's next message. A chunk stays where it is until its credit
 * is back; anything else is copied. */
static bool make_message(struct verbs_conn *conn, enum tw_lane lane)
{
    struct verbs_stream *s = &conn->streams[lane];
    struct tw_verbs_stats *stats = &verbs_fabric_of(&conn->base)->stats;
    uint8_t own[TW_FRAME_HEADER];
    const uint8_t *bytes = own;
    uint32_t length = lane == TW_LANE_URGENT ? verbs_reads_frame(conn, own) : 0;
    if (!length && !tw_conn_next_frame(&conn->base, lane, &bytes, &length))
        return false;
    struct verbs_message *m = &conn->out[lane][s->next % s->out_slots];
    *m = (struct verbs_message){bytes, length, is_chunk(&conn->base.lanes[lane], bytes)};
    if (m->chunk) {
        stats->chunks++;
        stats->chunk_bytes += length - TW_FRAME_HEADER;
    } else {
        /* Of bulk, JOIN alone is no chunk. */
        const size_t slot = lane == TW_LANE_BULK ? VERBS_URGENT_SLOTS : s->next % s->out_slots;
        uint8_t *copy = conn->memory->copies + slot * VERBS_COPY;
        memcpy(copy, bytes, length < VERBS_COPY ? length : VERBS_COPY);
        m->bytes = copy;
    }
    s->next++;
    return true;
}

/* Why a chain of work requests ended; STOP_FULL, too, while it goes on. */
enum stop { STOP_EMPTY, STOP_FULL, STOP_WINDOW, STOP_QUEUE };

/* Makes sure of the message to post next. STOP_FULL: it is there, with room for it. */
static enum stop next_message(struct verbs_conn *conn, enum tw_lane lane)
{
    struct verbs_stream *s = &conn->streams[lane];
    const unsigned q = (unsigned)(s->posted % verbs_queue_count(conn, lane));
    if (verbs_queue_room(verbs_queue_of(conn->link, lane, q)) < 2)
        return STOP_QUEUE;
    if (s->posted < s->next)
        return STOP_FULL;
    if (!verbs_stream_open(s))
        return STOP_WINDOW;
    return make_message(conn, lane) ? STOP_FULL : STOP_EMPTY;
}

static void message_request(struct verbs_conn *conn, enum tw_lane lane, struct verbs_queue *q,
                            struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    struct verbs_stream *s = &conn->streams[lane];
    const struct verbs_message *m = &conn->out[lane][s->posted % s->out_slots];
    const struct verbs_place *ring = &conn->peer_rings[lane];
    const struct ibv_mr *mr = m->chunk ? conn->memory->chunks_mr[lane] : conn->memory->local_mr;
    *sge = (struct ibv_sge){(uintptr_t)m->bytes, m->length, mr->lkey};
    *wr = (struct ibv_send_wr){.sg_list = sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    if (!q->link->fabric->iwarp) {
        wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        wr->imm_data = htobe32((uint32_t)s->posted);
        wr->wr.rdma.remote_addr = ring->address + s->posted % s->out_slots * VERBS_STRIDE;
        wr->wr.rdma.rkey = ring->key;
    }
    s->posted++;
    verbs_request_finish(q, wr, conn->base.hung_up);
}

/* Work requests of one flush, a chain for each queue pair. */
struct batch {
    struct ibv_send_wr requests[VERBS_CHAIN];
    struct ibv_sge parts[VERBS_CHAIN];
    uint64_t numbers[TW_LANES];
    struct ibv_send_wr *first[VERBS_QUEUES_MAX], *last[VERBS_QUEUES_MAX];
    unsigned chain[VERBS_QUEUES_MAX];
    unsigned count;
};

static void enchain(struct batch *b, unsigned queue)
{
    struct ibv_send_wr *wr = &b->requests[b->count++];
    if (b->last[queue])
        b->last[queue]->next = wr;
    else
        b->first[queue] = wr;
    b->last[queue] = wr;
    b->chain[queue]++;
}

static enum stop gather(struct verbs_conn *conn, enum tw_lane lane, struct batch *b)
{
    struct verbs_stream *s = &conn->streams[lane];
    enum stop stop = STOP_FULL;
    if (lane == TW_LANE_URGENT && verbs_queue_room(&conn->link->urgent) >= 2 &&
        credit_request(conn, &b->requests[0], &b->parts[0], b->numbers))
        enchain(b, 0);
    while (b->count < VERBS_CHAIN && (stop = next_message(conn, lane)) == STOP_FULL) {
        const unsigned queue = (unsigned)(s->posted % verbs_queue_count(conn, lane));
        message_request(conn, lane, verbs_queue_of(conn->link, lane, queue), &b->requests[b->count],
                        &b->parts[b->count]);
        enchain(b, queue);
    }
    return stop;
}

static void count_stop(struct tw_verbs_stats *stats, enum stop stop)
{
    switch (stop) {
    case STOP_EMPTY:
        stats->flush_empty++;
        break;
    case STOP_FULL:
        stats->flush_full++;
        break;
    case STOP_WINDOW:
        stats->flush_window++;
        break;
    case STOP_QUEUE:
        stats->flush_queue++;
        break;
    }
}

void verbs_flush(struct tw_conn *base, enum tw_lane lane)
{
    struct verbs_conn *conn = (struct verbs_conn *)base;
    struct tw_error err;
    enum stop stop = STOP_FULL;
    verbs_acks_take(conn);
    while (stop == STOP_FULL && verbs_lane_ready(conn, lane)) {
        struct verbs_link *link = conn->link;
        struct batch batch;
        batch.count = 0;
        memset(batch.first, 0, sizeof batch.first);
        memset(batch.last, 0, sizeof batch.last);
        memset(batch.chain, 0, sizeof batch.chain);
        stop = gather(conn, lane, &batch);
        for (unsigned i = 0; i < verbs_queue_count(conn, lane); i++)
            if (batch.first[i] &&
                verbs_post(verbs_queue_of(link, lane, i), batch.first[i], batch.chain[i], &err))
                verbs_link_fail_with(link, &err);
        link->starved[lane] = stop == STOP_WINDOW || stop == STOP_QUEUE;
        if (batch.count)
            count_stop(&link->fabric->stats, stop);
    }
    if (lane == TW_LANE_URGENT && verbs_lane_ready(conn, lane) && !base->hung_up)
        verbs_reads_pump(conn);
}
