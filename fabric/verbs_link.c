#include "fabric/verbs_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER_NS (300 * TW_MS)
#define NUDGE_NS  (50 * TW_MS)

/* Credit is always written from within its work request. */
static const uint32_t inline_sizes[] = {VERBS_INLINE, 128, 64, 32};

static uint32_t at_most(uint32_t wanted, int limit)
{
    return limit > 0 && (uint32_t)limit < wanted ? (uint32_t)limit : wanted;
}

/* Work requests to send: every slot of the peer twice, reads, credit. */
static uint32_t send_depth(const struct verbs_conn *conn, enum tw_lane lane)
{
    const struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    const uint32_t wanted = lane == TW_LANE_URGENT
                                ? 4 * VERBS_URGENT_SLOTS + TW_READS_MAX
                                : 2 * conn->streams[lane].out_slots + VERBS_SIGNAL_EVERY;
    return at_most(wanted, f->attributes.max_qp_wr);
}

static uint32_t receive_depth(const struct verbs_conn *conn, enum tw_lane lane)
{
    return conn->streams[lane].in_slots + 2;
}

static struct ibv_cq *make_cq(struct verbs_link *link, enum tw_lane lane, struct tw_error *err)
{
    const struct verbs_conn *conn = link->conn;
    struct verbs_fabric *f = link->fabric;
    const uint32_t entries =
        verbs_queue_count(conn, lane) * (send_depth(conn, lane) + receive_depth(conn, lane));
    if (entries > (uint32_t)f->attributes.max_cqe) {
        tw_fail(err, TW_RESOURCE_EXHAUSTED, conn->base.label, NULL, NULL,
                "%u completions are more than the device has room for: fewer bulk queue pairs or "
                "credits would do",
                entries);
        return NULL;
    }
    struct ibv_cq *cq = ibv_create_cq(f->context, (int)entries, link, f->completions, 0);
    const int number = cq ? ibv_req_notify_cq(cq, 0) : errno;
    if (!cq || number) {
        tw_fail_errno(err, number, conn->base.label, "completion queue of %u entries%s", entries,
                      cq ? ", notification" : "");
        if (cq)
            ibv_destroy_cq(cq);
        return NULL;
    }
    return cq;
}

enum tw_code verbs_streams_open(struct verbs_conn *conn, uint32_t bulk_slots, struct tw_error *err)
{
    conn->streams[TW_LANE_URGENT].in_slots = VERBS_URGENT_SLOTS;
    conn->streams[TW_LANE_BULK].in_slots = bulk_slots;
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        conn->arrived[lane] = calloc(conn->streams[lane].in_slots, sizeof *conn->arrived[lane]);
        if (!conn->arrived[lane])
            return tw_fail_errno(err, ENOMEM, conn->base.label, "slots");
    }
    return TW_OK;
}

struct verbs_link *verbs_link_new(struct verbs_conn *conn, struct tw_error *err)
{
    struct verbs_link *link = calloc(1, sizeof *link);
    if (!link) {
        tw_fail_errno(err, ENOMEM, conn->base.label, "queue pairs");
        return NULL;
    }
    link->fabric = verbs_fabric_of(&conn->base);
    link->conn = conn;
    link->give_up_ns = TW_NEVER;
    link->urgent = (struct verbs_queue){.link = link, .lane = TW_LANE_URGENT};
    for (unsigned i = 0; i < VERBS_QUEUES_MAX; i++)
        link->bulk[i] = (struct verbs_queue){.link = link, .lane = TW_LANE_BULK, .index = i};
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        struct verbs_stream *s = &conn->streams[lane];
        /* What came and was not consumed comes again. */
        memset(conn->arrived[lane], 0, s->in_slots * sizeof *conn->arrived[lane]);
        s->granted = s->expected;
    }
    return link;
}

/* The most bytes inside a work request that the device agrees to. */
static enum tw_code make_pair(struct verbs_queue *q, struct tw_error *err)
{
    struct verbs_link *link = q->link;
    const struct verbs_conn *conn = link->conn;
    for (unsigned i = 0; i < sizeof inline_sizes / sizeof *inline_sizes; i++) {
        struct ibv_qp_init_attr attr = {
            .send_cq = link->cqs[q->lane],
            .recv_cq = link->cqs[q->lane],
            .qp_type = IBV_QPT_RC,
            .cap = {.max_send_wr = send_depth(conn, q->lane),
                    .max_recv_wr = receive_depth(conn, q->lane),
                    .max_send_sge = 1,
                    .max_recv_sge = 1,
                    .max_inline_data = inline_sizes[i]},
        };
        q->depth = attr.cap.max_send_wr;
        if (rdma_create_qp(q->id, conn->domain->pd, &attr) == 0) {
            q->inline_max = attr.cap.max_inline_data;
            return TW_OK;
        }
        if (errno != EINVAL && errno != ENOMEM)
            break;
    }
    return tw_fail_errno(err, errno, conn->base.label, "queue pair");
}

static uint8_t *greeting_buffer(const struct verbs_queue *q)
{
    const unsigned n = q->lane == TW_LANE_URGENT ? 0 : 1 + q->index;
    return q->link->conn->memory->greetings + (size_t)2 * n * VERBS_GREETING;
}

enum tw_code verbs_queue_create(struct verbs_queue *q, struct tw_error *err)
{
    struct verbs_link *link = q->link;
    struct verbs_conn *conn = link->conn;
    if (!link->cqs[q->lane] && !(link->cqs[q->lane] = make_cq(link, q->lane, err)))
        return err ? err->code : TW_INTERNAL;
    const enum tw_code code = make_pair(q, err);
    if (code)
        return code;
    struct ibv_sge sge = {(uintptr_t)greeting_buffer(q), VERBS_GREETING,
                          conn->memory->local_mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = verbs_wr_id(VERBS_WR_GREETING, q, 0),
                             .sg_list = &sge,
                             .num_sge = 1},
                       *bad;
    const int number = ibv_post_recv(q->id->qp, &wr, &bad);
    if (number)
        return tw_fail_errno(err, number, conn->base.label, "receive of the greeting");
    const unsigned count = verbs_queue_count(conn, q->lane);
    for (unsigned i = 0; i < count; i++)
        if (!verbs_queue_of(link, q->lane, i)->id || !verbs_queue_of(link, q->lane, i)->id->qp)
            return TW_OK; /* receives are posted when all queues of the lane are there */
    return verbs_grant(conn, q->lane, err);
}

/* By SEND a message lands in the slot that its receive names; else the peer names the slot itself
 * and the receive only counts. */
enum tw_code verbs_grant(struct verbs_conn *conn, enum tw_lane lane, struct tw_error *err)
{
    const struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    struct verbs_stream *s = &conn->streams[lane];
    for (; s->granted < s->expected + s->in_slots; s->granted++) {
        struct verbs_queue *q = verbs_queue_of(
            conn->link, lane, (unsigned)(s->granted % verbs_queue_count(conn, lane)));
        const size_t slot = (size_t)(s->granted % s->in_slots);
        struct ibv_sge sge = {(uintptr_t)(conn->memory->rings[lane] + slot * VERBS_STRIDE),
                              VERBS_STRIDE, conn->memory->rings_mr->lkey};
        struct ibv_recv_wr wr = {.wr_id = verbs_wr_id(VERBS_WR_MESSAGE, q, s->granted),
                                 .sg_list = f->iwarp ? &sge : NULL,
                                 .num_sge = f->iwarp ? 1 : 0},
                           *bad;
        const int number = ibv_post_recv(q->id->qp, &wr, &bad);
        if (number)
            return tw_fail_errno(err, number, conn->base.label, "receive");
    }
    return TW_OK;
}

static void queue_silence(struct verbs_queue *q)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    if (q->id && q->id->qp && !q->call.running) /* what connects has nothing to say yet */
        ibv_modify_qp(q->id->qp, &attr, IBV_QP_STATE);
}

void verbs_link_silence(struct verbs_link *link)
{
    queue_silence(&link->urgent);
    for (unsigned i = 0; i < VERBS_QUEUES_MAX; i++)
        queue_silence(&link->bulk[i]);
}

void verbs_link_end(struct verbs_link *link)
{
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        if (!link->cqs[lane])
            continue;
        ibv_ack_cq_events(link->cqs[lane], link->cq_events[lane]);
        ibv_destroy_cq(link->cqs[lane]);
    }
    verbs_memory_put(link->fabric, link->memory);
    verbs_domain_put(link->fabric, link->domain);
    for (unsigned lane = 0; lane < TW_LANES; lane++)
        free(link->chunks[lane]);
    free(link);
}

void verbs_link_fail_with(struct verbs_link *link, const struct tw_error *why)
{
    if (link->failed)
        return;
    link->why = *why;
    link->why.where[0] = '\0'; /* the connection says who it is */
    link->failed = true;
    verbs_wake(link->fabric);
}

void verbs_link_fail(struct verbs_link *link, enum tw_code code, const char *what, ...)
{
    struct tw_error why;
    char text[sizeof why.what];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    tw_fail(&why, code, NULL, NULL, NULL, "%s", text);
    verbs_link_fail_with(link, &why);
}

bool verbs_lane_ready(const struct verbs_conn *conn, enum tw_lane lane)
{
    struct verbs_link *link = conn->link;
    if (!link || link->failed)
        return false;
    for (unsigned i = 0; i < verbs_queue_count(conn, lane); i++)
        if (verbs_queue_of(link, lane, i)->state != VERBS_READY)
            return false;
    return true;
}

void verbs_wake(struct verbs_fabric *f)
{
    const uint64_t one = 1;
    const ssize_t n = write(f->again, &one, sizeof one); /* full is as good */
    (void)n;
}

/* ---- A greeting that is not answered ----------------------------------------------------------
 */

/* Soft-iWARP answers a request before it reads the connection's socket as a queue pair's: what the
 * client says in between lies there until more comes. An empty write is more; it needs no receive,
 * and nobody hears of it. Each later than the one before: the peer may just be slow. */
static void nudge(struct verbs_queue *q, uint64_t now_ns)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};
    struct tw_error err;
    q->nudge_after_ns *= 2;
    q->nudge_ns = tw_after(now_ns, q->nudge_after_ns);
    if (verbs_queue_room(q) < 2)
        return;
    verbs_request_finish(q, &wr, false);
    if (verbs_post(q, &wr, 1, &err))
        verbs_link_fail_with(q->link, &err);
    q->link->fabric->stats.nudges++;
}

void verbs_nudge_later(struct verbs_queue *q)
{
    if (!q->link->fabric->iwarp)
        return;
    q->nudge_after_ns = NUDGE_NS;
    q->nudge_ns = tw_after(tw_fabric_now(&q->link->fabric->base), NUDGE_NS);
}

static bool is_unanswered(const struct verbs_queue *q)
{
    return q->nudge_ns && q->state == VERBS_GREETING_DUE && !q->link->failed;
}

void verbs_nudge(struct verbs_link *link, uint64_t now_ns)
{
    for (unsigned i = 0; i <= VERBS_QUEUES_MAX; i++) {
        struct verbs_queue *q = i ? &link->bulk[i - 1] : &link->urgent;
        if (is_unanswered(q) && now_ns >= q->nudge_ns)
            nudge(q, now_ns);
    }
}

uint64_t verbs_nudge_due(const struct verbs_link *link)
{
    uint64_t due = TW_NEVER;
    for (unsigned i = 0; i <= VERBS_QUEUES_MAX; i++) {
        const struct verbs_queue *q = i ? &link->bulk[i - 1] : &link->urgent;
        if (is_unanswered(q) && q->nudge_ns < due)
            due = q->nudge_ns;
    }
    return due;
}

/* ---- Last words ------------------------------------------------------------------------------ */

/* What was sent lies in memory that the device still reads: it stays as well. */
void verbs_link_linger(struct verbs_conn *conn, bool words)
{
    struct verbs_link *link = conn->link;
    struct verbs_fabric *f = link->fabric;
    link->conn = NULL;
    link->memory = conn->memory;
    link->domain = conn->domain;
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        link->chunks[lane] = conn->base.lanes[lane].ring;
        conn->base.lanes[lane].ring = NULL;
    }
    conn->link = NULL;
    conn->memory = NULL;
    conn->domain = NULL;
    link->give_up_ns = words ? tw_after(tw_fabric_now(&f->base), LINGER_NS) : 0;
    link->next = f->lingering;
    f->lingering = link;
}

void verbs_lingering_tick(struct verbs_fabric *f, uint64_t now_ns)
{
    for (struct verbs_link **at = &f->lingering; *at;) {
        struct verbs_link *link = *at;
        const bool done = link->failed || link->urgent.done == link->urgent.posted;
        if (done || now_ns >= link->give_up_ns) {
            *at = link->next;
            verbs_link_free(link);
        } else {
            at = &link->next;
        }
    }
}
