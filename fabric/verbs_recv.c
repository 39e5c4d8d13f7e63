#include "fabric/verbs_parts.h"

#include <endian.h>
#include <string.h>

#define EVENTS_A_GO 64u
#define COMPLETIONS 16
#define URGENT_A_GO VERBS_URGENT_SLOTS

unsigned verbs_completion_events(struct verbs_fabric *f)
{
    unsigned n = 0;
    struct ibv_cq *cq;
    void *context;
    for (; f->completions && n < EVENTS_A_GO && !ibv_get_cq_event(f->completions, &cq, &context);
         n++) {
        struct verbs_link *link = context;
        const enum tw_lane lane = cq == link->cqs[TW_LANE_BULK] ? TW_LANE_BULK : TW_LANE_URGENT;
        link->cq_events[lane]++;
        link->hot[lane] = true;
        /* Armed before it is polled: nothing that comes in between is missed. */
        if (ibv_req_notify_cq(cq, 0))
            verbs_link_fail(link, TW_UNAVAILABLE, "completions cannot be asked for");
    }
    return n;
}

/* ---- Completions ----------------------------------------------------------------------------- */

static void message_came(struct verbs_conn *conn, enum tw_lane lane, uint64_t number,
                         const struct ibv_wc *wc)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    const struct verbs_stream *s = &conn->streams[lane];
    uint32_t length = wc->byte_len;
    struct tw_error err;
    if (!f->iwarp) {
        if (wc->opcode != IBV_WC_RECV_RDMA_WITH_IMM || be32toh(wc->imm_data) != (uint32_t)number) {
            tw_fail(&err, TW_DATA_LOSS, "message", NULL, NULL,
                    "not the one that is due on its queue pair");
            tw_conn_fail(&conn->base, &err);
            return;
        }
        length = VERBS_STRIDE; /* what the header says counts, and the crc */
    }
    conn->arrived[lane][number % s->in_slots] = length;
}

static void completed(struct verbs_link *link, enum tw_lane lane, const struct ibv_wc *wc)
{
    struct verbs_queue *q = verbs_queue_of(link, lane, wc->wr_id >> 56 & 0xf);
    const enum verbs_what what = (enum verbs_what)(wc->wr_id >> 60);
    const uint64_t number = wc->wr_id & ((UINT64_C(1) << 56) - 1);
    if (wc->status == IBV_WC_SUCCESS && what == VERBS_WR_SENT)
        q->done = number;
    if (link->conn && what == VERBS_WR_READ)
        verbs_read_completed(link->conn, number, wc->status);
    if (wc->status != IBV_WC_SUCCESS) {
        verbs_link_fail(link, TW_UNAVAILABLE, "the %s queue pair is in error: %s",
                        lane == TW_LANE_BULK ? "bulk" : "urgent", ibv_wc_status_str(wc->status));
        return;
    }
    if (!link->conn)
        return;
    if (what == VERBS_WR_MESSAGE)
        message_came(link->conn, lane, number, wc);
    else if (what == VERBS_WR_GREETING)
        verbs_greeted(q, wc->byte_len);
    else if (link->starved[lane])
        link->conn->base.kicked |= 1u << lane;
}

/* ---- Messages -------------------------------------------------------------------------------- */

/* The client's full hello: what its private data said, and the whole name. */
static void full_hello(struct verbs_conn *conn, const struct tw_frame *frame)
{
    struct tw_hello hello;
    struct tw_error err;
    tw_hello_decode(&hello, frame->payload);
    if (hello.epoch != conn->base.peer.epoch || hello.version != conn->base.peer.version ||
        memcmp(hello.owner, conn->base.peer.owner, sizeof hello.owner) != 0) {
        tw_fail(&err, TW_PERMISSION_DENIED, "hello", NULL, NULL,
                "another hello than the one that was accepted");
        tw_conn_fail(&conn->base, &err);
        return;
    }
    conn->greeted = true;
    memcpy(conn->base.peer.name, hello.name, sizeof hello.name);
}

static void take_frame(struct verbs_conn *conn, enum tw_lane lane, const struct tw_frame *frame)
{
    if (frame->kind == TW_FRAME_HELLO && lane == TW_LANE_URGENT && !conn->client && !conn->greeted)
        full_hello(conn, frame);
    else if (lane == TW_LANE_BULK || !verbs_reads_take(conn, frame))
        tw_conn_frame_in(&conn->base, lane, frame);
}

/* The ring is the peer's to write at any time: what is checked has to be a copy that it is not. */
static enum tw_code fetch(const struct verbs_conn *conn, const uint8_t *slot, uint32_t length,
                          struct tw_frame *frame, struct tw_error *err)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    enum tw_code code;
    if (f->iwarp) {
        code = tw_frame_parse(slot, length, frame, err);
    } else {
        memcpy(f->scratch, slot, TW_FRAME_HEADER);
        code = tw_frame_parse(f->scratch, TW_FRAME_HEADER, frame, err);
        if (code == TW_UNAVAILABLE) {
            memcpy(f->scratch + TW_FRAME_HEADER, slot + TW_FRAME_HEADER,
                   frame->size - TW_FRAME_HEADER);
            code = tw_frame_parse(f->scratch, frame->size, frame, err);
        }
    }
    if (code == TW_UNAVAILABLE)
        return tw_fail(err, TW_DATA_LOSS, "frame", NULL, NULL, "frame cut off");
    return code;
}

/* Hands in the lane's next message if it is there. False: none, or nobody wants more. */
static bool deliver(struct verbs_link *link, enum tw_lane lane)
{
    struct verbs_conn *conn = link->conn;
    struct verbs_stream *s = &conn->streams[lane];
    const size_t slot = (size_t)(s->expected % s->in_slots);
    const uint32_t length = conn->arrived[lane][slot];
    struct tw_frame frame;
    struct tw_error err;
    if (!length || (lane == TW_LANE_BULK && conn->base.machine.state == TW_CONN_JOINING))
        return false;
    conn->arrived[lane][slot] = 0;
    tw_conn_heard(&conn->base);
    if (fetch(conn, conn->memory->rings[lane] + slot * VERBS_STRIDE, length, &frame, &err))
        tw_conn_fail(&conn->base, &err);
    else
        take_frame(conn, lane, &frame);
    if (conn->base.hung_up)
        return false;
    s->expected++;
    if (!link->failed && verbs_grant(conn, lane, &err))
        verbs_link_fail_with(link, &err);
    /* The peer waits for slots, not for chunks: a ping tells it to look. */
    if (lane == TW_LANE_URGENT && verbs_stream_told_late(s))
        tw_conn_due(&conn->base, TW_FRAME_PING);
    return true;
}

static unsigned poll_queue(struct verbs_link *link, enum tw_lane lane)
{
    struct ibv_wc wc[COMPLETIONS];
    if (!link->cqs[lane])
        return 0;
    const int n = ibv_poll_cq(link->cqs[lane], COMPLETIONS, wc);
    if (n < 0)
        verbs_link_fail(link, TW_UNAVAILABLE, "completions cannot be polled");
    for (int i = 0; i < n; i++)
        completed(link, lane, &wc[i]);
    return n > 0 ? (unsigned)n : 0;
}

/* Any callback in here may hang up the connection, and with it free or detach the link. */
unsigned verbs_serve(struct verbs_link *link, enum tw_lane lane)
{
    struct verbs_conn *conn = link->conn;
    unsigned handled = poll_queue(link, lane);
    if (!conn) {
        link->hot[lane] = handled == COMPLETIONS;
        return handled;
    }
    if (conn->base.hung_up)
        return handled;
    if (lane == TW_LANE_URGENT)
        verbs_reads_deliver(conn);
    if (conn->link != link)
        return handled;
    const unsigned most = lane == TW_LANE_BULK ? 1 : URGENT_A_GO;
    unsigned delivered = 0;
    while (delivered < most && deliver(link, lane)) {
        delivered++;
        if (conn->link != link)
            return handled + delivered;
    }
    if (conn->link != link)
        return handled + delivered;
    link->hot[lane] = handled > 0 || delivered > 0;
    verbs_acks_take(conn);
    tw_conn_settle(&conn->base);
    return handled + delivered;
}

void verbs_serve_all(struct verbs_link *link)
{
    struct verbs_conn *conn = link->conn;
    for (unsigned n = 1, limit = 4 * TW_CREDITS_MAX; n && limit; limit--) {
        n = verbs_serve(link, TW_LANE_URGENT);
        if (conn->link == link)
            n += verbs_serve(link, TW_LANE_BULK);
        if (conn->link != link)
            return;
    }
}
