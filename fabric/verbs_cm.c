#include "fabric/verbs_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BACKLOG     128
#define EVENTS_A_GO 64u
#define RETRIES     3u /* with an acknowledgement timeout; 7 would be for ever on some devices */
#define RNR_RETRIES 6u
#define RESOLVE_MS  1000
#define REFUSED_IB  8 /* "invalid service id": nobody listens */
#define RETOLD_MAX  3u

/* ---- Parameters ------------------------------------------------------------------------------ */

/* 4.096 us * 2^n; all tries together stay well inside the idle timeout. */
static uint8_t ack_timeout(const struct verbs_fabric *f)
{
    uint8_t n = 13;
    while (n < 18 &&
           (UINT64_C(4096) << (n + 1)) * (RETRIES + 1) * 2 <= f->base.config.idle_timeout_ns)
        n++;
    return n;
}

static void tune(const struct verbs_fabric *f, struct rdma_cm_id *id)
{
    uint8_t n = ack_timeout(f);
    /* iWARP has none: there TCP retransmits, and silence is noticed by us. */
    rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &n, sizeof n);
}

static struct rdma_conn_param parameters(const struct verbs_fabric *f,
                                         const struct verbs_private *priv)
{
    const int in = f->attributes.max_qp_rd_atom, out = f->attributes.max_qp_init_rd_atom;
    return (struct rdma_conn_param){
        .private_data = priv,
        .private_data_len = sizeof *priv,
        .responder_resources = (uint8_t)(in < (int)VERBS_READ_DEPTH ? in : (int)VERBS_READ_DEPTH),
        .initiator_depth = (uint8_t)(out < (int)VERBS_READ_DEPTH ? out : (int)VERBS_READ_DEPTH),
        .retry_count = RETRIES,
        .rnr_retry_count = RNR_RETRIES,
    };
}

static void private_of(const struct verbs_queue *q, struct verbs_private *priv)
{
    const struct verbs_conn *conn = q->link->conn;
    verbs_private_of_hello(&conn->base.ours, (uint16_t)conn->base.fabric->config.bulk_credits,
                           (uint8_t)conn->queues, priv);
    if (q->lane == TW_LANE_URGENT && !conn->broken)
        return;
    priv->purpose = q->lane == TW_LANE_BULK ? VERBS_BULK : VERBS_RESUME;
    priv->queue = (uint8_t)q->index;
    memcpy(priv->token, conn->base.id, sizeof priv->token);
    memset(priv->name, 0, sizeof priv->name);
}

/* ---- Client ---------------------------------------------------------------------------------- */

enum tw_code verbs_dial(struct verbs_queue *q, struct tw_error *err)
{
    struct verbs_conn *conn = q->link->conn;
    struct verbs_fabric *f = q->link->fabric;
    struct sockaddr *source = f->source.any.sa_family ? &f->source.any : NULL;
    if (rdma_create_id(f->events, &q->id, q, RDMA_PS_TCP))
        return tw_fail_errno(err, errno, conn->base.label, "connection");
    tune(f, q->id);
    q->state = VERBS_RESOLVING;
    if (rdma_resolve_addr(q->id, source, &conn->address.any, RESOLVE_MS))
        verbs_link_fail(q->link, TW_UNAVAILABLE, "no RDMA device leads to the address: %s",
                        strerrordesc_np(errno));
    return TW_OK;
}

static void address_resolved(struct verbs_queue *q)
{
    struct verbs_fabric *f = q->link->fabric;
    struct tw_error err;
    if (verbs_device_adopt(f, q->id->verbs, &err)) {
        verbs_link_fail_with(q->link, &err);
        return;
    }
    q->state = VERBS_ROUTING;
    verbs_link_free(q->link->conn->old); /* there is a way to the peer again */
    q->link->conn->old = NULL;
    if (rdma_resolve_route(q->id, RESOLVE_MS))
        verbs_link_fail(q->link, TW_UNAVAILABLE, "no route: %s", strerrordesc_np(errno));
}

/* Soft-iWARP loses the words of a refusal when the peer's closing comes on their heels: they are
 * asked for again. False: that will not help. */
static bool ask_again(struct verbs_queue *q, int status)
{
    struct verbs_conn *conn = q->link->conn;
    struct tw_error err;
    if (!q->link->fabric->iwarp || status != -ECONNRESET || q->lane != TW_LANE_URGENT ||
        conn->base.machine.state != TW_CONN_DIALLING || conn->retold == RETOLD_MAX)
        return false;
    struct verbs_link *link = verbs_link_new(conn, &err);
    if (!link)
        return false;
    conn->retold++;
    verbs_link_free(conn->link);
    conn->link = link;
    if (verbs_dial(&link->urgent, &err))
        verbs_link_fail_with(link, &err);
    return true;
}

/* The peer or the network has said no. Where the answer is definite, nothing is tried again. */
static void refused(struct verbs_queue *q, int status, const uint8_t *bytes, size_t size)
{
    struct verbs_conn *conn = q->link->conn;
    struct tw_error why;
    if (verbs_refusal_parse(bytes, size, &why)) {
        if (conn->broken) /* whatever it says, it does not know the connection any more */
            why.code = TW_UNAVAILABLE;
        tw_conn_lost(&conn->base, &why);
    } else if (status == REFUSED_IB || status == -ECONNREFUSED) {
        tw_fail(&why, TW_UNAVAILABLE, NULL, NULL, NULL, "nobody listens there");
        tw_conn_lost(&conn->base, &why);
    } else if (!ask_again(q, status)) {
        verbs_link_fail(q->link, TW_UNAVAILABLE, "the network refused the connection: %s (%d)",
                        status < 0 ? strerrordesc_np(-status) : "rejected", status);
    }
}

/* Domain and memory of a connection, once its device is known. */
static enum tw_code equip(struct verbs_conn *conn, struct tw_error *err)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    if (!conn->domain && !(conn->domain = verbs_domain_get(f, conn->base.ours.owner, err)))
        return TW_RESOURCE_EXHAUSTED;
    if (!conn->memory)
        conn->memory = verbs_memory_new(f, conn->domain, conn->streams[TW_LANE_BULK].in_slots,
                                        conn->base.label, err);
    return conn->memory ? TW_OK : TW_RESOURCE_EXHAUSTED;
}

static void route_resolved(struct verbs_queue *q)
{
    struct verbs_conn *conn = q->link->conn;
    struct tw_error err;
    enum tw_code code = equip(conn, &err);
    if (!code)
        code = verbs_queue_create(q, &err);
    if (code) {
        verbs_link_fail_with(q->link, &err);
        return;
    }
    private_of(q, &q->call.priv);
    q->call.param = parameters(q->link->fabric, &q->call.priv);
    q->state = VERBS_CONNECTING;
    const int number = verbs_connect_begin(q);
    if (number)
        refused(q, -number, NULL, 0);
}

void verbs_calls_take(struct verbs_conn *conn)
{
    struct verbs_link *link = conn->link;
    for (unsigned i = 0; link && i <= VERBS_QUEUES_MAX; i++) {
        struct verbs_queue *q = i ? &link->bulk[i - 1] : &link->urgent;
        int number = 0;
        if (!verbs_connect_ended(q, &number) || !number || link->failed ||
            q->state != VERBS_CONNECTING)
            continue;
        refused(q, -number, NULL, 0);
        if (conn->link != link)
            return;
    }
}

/* ---- Greetings ------------------------------------------------------------------------------- */

static void send_greeting(struct verbs_queue *q)
{
    struct verbs_conn *conn = q->link->conn;
    const struct verbs_memory *m = conn->memory;
    const uint32_t ring_key = q->link->fabric->iwarp ? 0 : m->rings_mr->rkey;
    struct verbs_greeting greeting = {
        .acks = {(uintptr_t)m->acks, m->acks_mr->rkey, 0},
    };
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        greeting.rings[lane] =
            (struct verbs_place){(uintptr_t)m->rings[lane], ring_key, conn->streams[lane].in_slots};
        greeting.consumed[lane] = conn->streams[lane].expected;
    }
    verbs_greeting_seal(&greeting);
    const unsigned n = q->lane == TW_LANE_URGENT ? 0 : 1 + q->index;
    uint8_t *buffer = m->greetings + (size_t)(2 * n + 1) * VERBS_GREETING;
    memcpy(buffer, &greeting, sizeof greeting);
    struct ibv_sge sge = {(uintptr_t)buffer, sizeof greeting, m->local_mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    struct tw_error err;
    verbs_request_finish(q, &wr, false);
    if (verbs_post(q, &wr, 1, &err))
        verbs_link_fail_with(q->link, &err);
}

/* The urgent queue pair tells where everything is, and what need not be sent again. */
static enum tw_code take_places(struct verbs_conn *conn, const struct verbs_greeting *greeting,
                                struct tw_error *err)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    conn->peer_acks = greeting->acks;
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        struct verbs_stream *s = &conn->streams[lane];
        const uint32_t slots = greeting->rings[lane].slots;
        conn->peer_rings[lane] = greeting->rings[lane];
        if (!conn->out[lane]) {
            const uint32_t most = lane == TW_LANE_URGENT ? VERBS_URGENT_SLOTS : TW_CREDITS_MAX;
            s->out_slots = slots < most ? slots : most;
            conn->out[lane] = calloc(s->out_slots, sizeof *conn->out[lane]);
            if (!conn->out[lane])
                return tw_fail_errno(err, ENOMEM, "greeting", "messages");
        } else if (slots < s->out_slots) {
            return tw_fail(err, TW_INVALID_ARGUMENT, "greeting", NULL, NULL,
                           "the peer's ring has become smaller");
        }
        if (!verbs_stream_resume(s, greeting->consumed[lane]))
            return tw_fail(err, TW_DATA_LOSS, "greeting", NULL, NULL,
                           "the peer consumed messages that were never sent, or took some back");
        f->stats.resent += s->next - s->posted;
    }
    return TW_OK;
}

void verbs_dial_bulk(struct verbs_conn *conn)
{
    struct tw_error err;
    for (unsigned i = 0; i < conn->queues; i++)
        if (!conn->link->failed && verbs_dial(&conn->link->bulk[i], &err))
            verbs_link_fail_with(conn->link, &err);
}

static void lane_is_ready(struct verbs_queue *q)
{
    struct verbs_conn *conn = q->link->conn;
    if (q->lane == TW_LANE_BULK) {
        if (verbs_lane_ready(conn, TW_LANE_BULK)) {
            q->link->give_up_ns = TW_NEVER;
            if (conn->broken) {
                conn->broken = false;
                q->link->fabric->stats.reconnects++;
                conn->base.stats.reconnects++;
            }
            conn->base.kicked |= 1u << TW_LANE_BULK | 1u << TW_LANE_URGENT;
        }
        return;
    }
    conn->base.kicked |= 1u << TW_LANE_URGENT;
    if (conn->client && !conn->broken)
        tw_conn_connected(&conn->base);
    else if (conn->client)
        verbs_dial_bulk(conn);
}

void verbs_greeted(struct verbs_queue *q, uint32_t length)
{
    struct verbs_conn *conn = q->link->conn;
    struct verbs_greeting greeting;
    struct tw_error err;
    const unsigned n = q->lane == TW_LANE_URGENT ? 0 : 1 + q->index;
    const uint8_t *buffer = conn->memory->greetings + (size_t)2 * n * VERBS_GREETING;
    if (q->state != VERBS_GREETING_DUE && q->state != VERBS_CONNECTING)
        return;
    tw_conn_heard(&conn->base);
    enum tw_code code = verbs_greeting_parse(buffer, length, &greeting, &err);
    if (!code && q->lane == TW_LANE_URGENT)
        code = take_places(conn, &greeting, &err);
    if (code) {
        tw_conn_fail(&conn->base, &err);
        return;
    }
    q->state = VERBS_READY;
    if (!conn->client)
        send_greeting(q);
    lane_is_ready(q);
}

/* ---- Server ---------------------------------------------------------------------------------- */

void verbs_reject(struct rdma_cm_id *id, const struct tw_error *why)
{
    struct verbs_refusal refusal;
    verbs_refusal_encode(why, &refusal);
    rdma_reject(id, &refusal, sizeof refusal);
    rdma_destroy_id(id);
}

/* Makes the requested queue pair and lets the client in. On failure the id is not ours yet. */
static enum tw_code accept_queue(struct verbs_conn *conn, struct verbs_queue *q,
                                 struct rdma_cm_id *id, struct tw_error *err)
{
    struct verbs_fabric *f = q->link->fabric;
    struct verbs_private priv;
    tune(f, id);
    q->id = id;
    enum tw_code code = verbs_queue_create(q, err);
    if (!code) {
        verbs_private_of_hello(&conn->base.ours, (uint16_t)f->base.config.bulk_credits,
                               (uint8_t)conn->queues, &priv);
        priv.purpose = VERBS_ACCEPT;
        struct rdma_conn_param param = parameters(f, &priv);
        if (rdma_accept(id, &param) == 0) {
            id->context = q;
            q->state = VERBS_GREETING_DUE;
            return TW_OK;
        }
        code = tw_fail_errno(err, errno, conn->base.label, "accept");
    }
    if (id->qp)
        rdma_destroy_qp(id);
    q->id = NULL;
    return code;
}

static enum tw_code prepare(struct verbs_conn *conn, const struct verbs_private *priv,
                            struct tw_error *err)
{
    const unsigned wanted = priv->queue, ours = verbs_fabric_of(&conn->base)->config.bulk_queues;
    conn->queues = wanted < ours ? wanted : ours;
    if (getrandom(conn->base.id, sizeof conn->base.id, 0) != sizeof conn->base.id)
        return tw_fail_errno(err, errno, conn->base.label, "getrandom");
    return verbs_streams_open(conn, conn->base.lanes[TW_LANE_BULK].credits, err);
}

/* The owner looks at the token before any memory is registered for the peer. */
static void new_connection(struct verbs_fabric *f, struct rdma_cm_id *id,
                           const struct verbs_private *priv)
{
    uint8_t hello[TW_HELLO_BYTES];
    char label[TW_FABRIC_ADDRESS_MAX];
    struct tw_frame frame;
    struct tw_error err;
    union tcp_address address = {.any = {0}};
    memcpy(&address, rdma_get_peer_addr(id), sizeof(struct sockaddr_in6));
    tcp_address_format(&address, label);
    verbs_private_to_frame(priv, hello, &frame);
    struct tw_conn *base = tw_conn_incoming(&f->base, &frame, label, &err);
    if (!base) {
        verbs_reject(id, &err);
        return;
    }
    struct verbs_conn *conn = (struct verbs_conn *)base;
    conn->request = id;
    if (prepare(conn, priv, &err)) {
        tw_conn_fail(base, &err);
        return;
    }
    if (!tw_conn_ask(base, &err))
        return;
    enum tw_code code = equip(conn, &err);
    if (!code)
        code = verbs_chunks_register(conn, &err);
    if (!code && !(conn->link = verbs_link_new(conn, &err)))
        code = TW_RESOURCE_EXHAUSTED;
    if (!code)
        code = accept_queue(conn, &conn->link->urgent, id, &err);
    if (code)
        tw_conn_fail(base, &err);
    else
        conn->request = NULL;
}

static struct verbs_conn *find(struct verbs_fabric *f, const struct verbs_private *priv)
{
    for (struct tw_conn *c = f->base.conns; c; c = c->sibling) {
        struct verbs_conn *conn = (struct verbs_conn *)c;
        if (!c->hung_up && !conn->client && c->ours.epoch == priv->epoch &&
            memcmp(c->id, priv->token, sizeof c->id) == 0)
            return conn;
    }
    return NULL;
}

static enum tw_code more_bulk(struct verbs_fabric *f, struct rdma_cm_id *id,
                              const struct verbs_private *priv, struct tw_error *err)
{
    struct verbs_conn *conn = find(f, priv);
    const bool due = conn && (conn->base.machine.state == TW_CONN_HALF || conn->broken);
    if (!due || priv->queue >= conn->queues || !conn->link || conn->link->failed ||
        conn->link->urgent.state != VERBS_READY || conn->link->bulk[priv->queue].id)
        return tw_fail(err, TW_NOT_FOUND, f->base.name, NULL, NULL,
                       "no connection waits to be joined so");
    return accept_queue(conn, &conn->link->bulk[priv->queue], id, err);
}

/* What has come on the old queue pairs is consumed first: it need not be sent again. */
static enum tw_code resume(struct verbs_fabric *f, struct rdma_cm_id *id,
                           const struct verbs_private *priv, struct tw_error *err)
{
    struct verbs_conn *conn = find(f, priv);
    if (conn && conn->link && conn->base.machine.state == TW_CONN_UP) {
        verbs_link_fail(conn->link, TW_UNAVAILABLE, "the peer comes again");
        verbs_break(conn);
    }
    if (!conn || conn->base.hung_up || !conn->broken)
        return tw_fail(err, TW_NOT_FOUND, f->base.name, NULL, NULL,
                       "the connection that should be resumed is not known");
    tw_conn_heard(&conn->base);
    verbs_link_free(conn->old);
    conn->old = NULL;
    conn->link = verbs_link_new(conn, err);
    if (!conn->link)
        return TW_RESOURCE_EXHAUSTED;
    const enum tw_code code = accept_queue(conn, &conn->link->urgent, id, err);
    if (code) {
        verbs_link_free(conn->link);
        conn->link = NULL;
    }
    return code;
}

static void requested(struct verbs_fabric *f, struct rdma_cm_id *id, const uint8_t *bytes,
                      size_t size)
{
    struct verbs_private priv;
    struct tw_error err;
    enum tw_code code = verbs_device_adopt(f, id->verbs, &err);
    if (!code)
        code = verbs_private_parse(bytes, size, &priv, &err);
    if (!code && priv.purpose == VERBS_HELLO) {
        new_connection(f, id, &priv);
        return;
    }
    if (!code && priv.purpose == VERBS_BULK)
        code = more_bulk(f, id, &priv, &err);
    else if (!code && priv.purpose == VERBS_RESUME)
        code = resume(f, id, &priv, &err);
    else if (!code)
        code = tw_fail(&err, TW_INVALID_ARGUMENT, "private data", NULL, NULL,
                       "a request that is an answer");
    if (code)
        verbs_reject(id, &err);
}

enum tw_code verbs_listen(struct tw_fabric *base, const char *text, struct tw_error *err)
{
    struct verbs_fabric *f = (struct verbs_fabric *)base;
    const enum tw_code code = tcp_address_parse(text, &f->bound, err);
    if (code)
        return code;
    struct rdma_cm_id *id;
    if (rdma_create_id(f->events, &id, NULL, RDMA_PS_TCP))
        return tw_fail_errno(err, errno, text, "listen");
    if (rdma_bind_addr(id, &f->bound.any) || rdma_listen(id, BACKLOG)) {
        const int number = errno;
        rdma_destroy_id(id);
        if (number == ENODEV || number == EADDRNOTAVAIL)
            return tw_fail(err, TW_NOT_FOUND, text, "an address of an RDMA device", NULL,
                           "no RDMA device has the address");
        return tw_fail_errno(err, number, text, "listen");
    }
    f->listener = id;
    memcpy(&f->bound, rdma_get_local_addr(id), tcp_address_size(&f->bound));
    if (id->verbs && verbs_device_adopt(f, id->verbs, err))
        return err ? err->code : TW_FAILED_PRECONDITION;
    /* What goes out takes the same way, unless told otherwise. */
    if (id->verbs && !f->source.any.sa_family) {
        f->source = f->bound;
        if (f->source.any.sa_family == AF_INET6)
            f->source.v6.sin6_port = 0;
        else
            f->source.v4.sin_port = 0;
    }
    tcp_address_format(&f->bound, base->address);
    return TW_OK;
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void established(struct verbs_queue *q, const uint8_t *bytes, size_t size)
{
    struct verbs_conn *conn = q->link->conn;
    struct verbs_private priv;
    struct tw_error err;
    if (!conn->client || q->state != VERBS_CONNECTING)
        return;
    if (verbs_private_parse(bytes, size, &priv, &err) || priv.purpose != VERBS_ACCEPT ||
        priv.queue > conn->queues || (conn->broken && priv.queue != conn->queues)) {
        verbs_link_fail(q->link, TW_INVALID_ARGUMENT, "the peer's answer makes no sense");
        return;
    }
    conn->queues = priv.queue;
    q->state = VERBS_GREETING_DUE;
    send_greeting(q);
    verbs_nudge_later(q);
}

static void queue_event(struct verbs_queue *q, enum rdma_cm_event_type type, int status,
                        const uint8_t *bytes, size_t size)
{
    struct verbs_link *link = q->link;
    if (!link->conn || link->failed) {
        link->failed |= type == RDMA_CM_EVENT_DISCONNECTED;
        return;
    }
    switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        address_resolved(q);
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        route_resolved(q);
        break;
    case RDMA_CM_EVENT_ESTABLISHED:
        established(q, bytes, size);
        break;
    case RDMA_CM_EVENT_REJECTED:
        refused(q, status, bytes, size);
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        verbs_link_fail(link, TW_UNAVAILABLE, "closed by the peer");
        break;
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
        break;
    default:
        verbs_link_fail(link, TW_UNAVAILABLE, "the network says: %s (%d)", rdma_event_str(type),
                        status);
    }
}

unsigned verbs_cm_events(struct verbs_fabric *f)
{
    unsigned n = 0;
    struct rdma_cm_event *event;
    for (; n < EVENTS_A_GO && rdma_get_cm_event(f->events, &event) == 0; n++) {
        uint8_t bytes[256];
        const enum rdma_cm_event_type type = event->event;
        const int status = event->status;
        struct rdma_cm_id *id = event->id;
        struct verbs_queue *q = id->context;
        const size_t size = event->param.conn.private_data ? event->param.conn.private_data_len : 0;
        if (size)
            memcpy(bytes, event->param.conn.private_data, size);
        /* Acknowledged at once: destroying an id waits for it, and a thread may be about to. */
        rdma_ack_cm_event(event);
        if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
            requested(f, id, bytes, size);
        else if (q && id != f->listener)
            queue_event(q, type, status, bytes, size);
        for (struct tw_conn *c = f->base.conns; c; c = c->sibling)
            tw_conn_settle(c);
    }
    return n;
}
