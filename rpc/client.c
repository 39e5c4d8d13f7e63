/* The client side.
 *
 * A call borrows a lane: one nng req context with its aio, opened on first use and kept. All lanes
 * share one connection, which nng dials and redials in the background; its coming and going is
 * counted by the pipe callbacks. nng's resend is off: when the connection is lost after a request
 * was sent, nng answers ECONNRESET and we decide (see tw_rpc_call).
 *
 * When our certificates have been read again the connection is stale: it is closed as soon as no
 * request is on its way on it, and nng dials the next with the new material. New calls wait for
 * that a moment; if others take longer, they still go the old way. */
#include "rpc/rpc.h"

#include "rpc/bounded.h"
#include "rpc/envelope.h"
#include "rpc/probe.h"
#include "rpc/tls.h"
#include "rpc/transport.h"

#include "base/clock.h"
#include "base/log.h"

#include "towline/v1/common.pb-c.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define LANES         32u
#define REDIAL_MIN_MS 10
#define REDIAL_MAX_MS 250
#define CONNECT_ONCE_MS                                                                            \
    2000 /* until a call that may not be repeated asks whether anybody is there */
#define PROBE_MS        200
#define PROBE_TLS_MS    2000
#define DRAIN_MS        1000u /* for calls on a connection with certificates that were replaced */
#define RETRY_FIRST_MS  10u
#define RETRY_LAST_MS   500u
#define LEAVE_MS        2000 /* for calls under way when the client is closed */
#define CANCEL_AGAIN_MS 20
#define TEARDOWN_MS     5000
#define REQUEST_HEADER  4u

struct lane {
    nng_ctx ctx;
    nng_aio *aio; /* NULL = not opened yet */
    bool used;
};

struct tw_rpc_client {
    char *url;
    uint32_t version;
    uint64_t id; /* random: makes request ids unique among clients */
    _Atomic uint32_t sequence;
    nng_socket socket;
    bool socket_open;
    struct tw_rpc_tls *tls; /* NULL: plain */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a pipe came or went, a lane came free, an answer came, closing */
    unsigned pipes;
    nng_pipe pipe;       /* the newest */
    uint64_t generation; /* of the material that it was opened with */
    unsigned under_way;  /* requests sent or being sent, not yet answered */
    unsigned used;
    bool closing;
    struct lane lanes[LANES];
};

/* One call, while its attempts are made. */
struct attempt {
    struct tw_rpc_client *client;
    struct lane *lane;
    const ProtobufCServiceDescriptor *service;
    const ProtobufCMethodDescriptor *method;
    const ProtobufCMessage *request;
    uint64_t deadline_ns;
    enum tw_rpc_flags flags;
    bool repeatable; /* the attempt failed in a way that another may not */
    char where[TW_RPC_NAME_MAX];
    char request_id[TW_RPC_REQUEST_ID_MAX + 1];
};

/* ---- The connection -------------------------------------------------------------------------- */

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct tw_rpc_client *client = arg;
    struct tw_rpc_peer peer = {0};
    bool come = event == NNG_PIPE_EV_ADD_POST;
    if (come && client->tls)
        tw_rpc_tls_peer(pipe, &peer);
    pthread_mutex_lock(&client->lock);
    if (come) {
        client->pipes++;
        client->pipe = pipe;
        client->generation = peer.generation;
    } else if (client->pipes > 0)
        client->pipes--;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

static int dial(struct tw_rpc_client *client)
{
    nng_dialer dialer;
    nng_tls_config *config;
    int failed = nng_dialer_create(&dialer, client->socket, client->url);
    if (!failed && client->tls && !(failed = tw_rpc_tls_config(client->tls, &config))) {
        failed = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config);
        nng_tls_config_free(config);
    }
    return failed ? failed : nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
}

static int socket_open(struct tw_rpc_client *client)
{
    int failed = nng_req0_open(&client->socket);
    if (failed)
        return failed;
    client->socket_open = true;
    nng_socket s = client->socket;
    if ((failed = nng_socket_set_ms(s, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) ||
        (failed = nng_socket_set_ms(s, NNG_OPT_RECONNMINT, REDIAL_MIN_MS)) ||
        (failed = nng_socket_set_ms(s, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS)) ||
        (failed = nng_socket_set_size(s, NNG_OPT_RECVMAXSZ, TW_RPC_MESSAGE_MAX + REQUEST_HEADER)) ||
        (failed = nng_pipe_notify(s, NNG_PIPE_EV_ADD_POST, on_pipe, client)) ||
        (failed = nng_pipe_notify(s, NNG_PIPE_EV_REM_POST, on_pipe, client)))
        return failed;
    return dial(client);
}

static uint64_t random_id(const void *client)
{
    uint64_t id;
    if (getrandom(&id, sizeof id, 0) == (ssize_t)sizeof id)
        return id;
    return tw_now(&tw_monotonic) ^ (uint64_t)(uintptr_t)client;
}

enum tw_code tw_rpc_client_open(const struct tw_rpc_client_config *config,
                                struct tw_rpc_client **client, struct tw_error *err)
{
    *client = NULL;
    enum tw_code code = tw_rpc_url_check(config->url, config->tls, config->insecure, err);
    if (code != TW_OK)
        return code;
    struct tw_rpc_client *c = calloc(1, sizeof *c);
    if (!c || !(c->url = strdup(config->url))) {
        free(c);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->url, NULL, NULL, "out of memory");
    }
    c->version = config->version ? config->version : TW_RPC_VERSION;
    c->id = random_id(c);
    pthread_mutex_init(&c->lock, NULL);
    tw_cond_init(&c->changed);
    if (strncmp(config->url, "tls", 3) == 0)
        code = tw_rpc_tls_open(config->tls, &config->expected, config->url, &c->tls, err);
    int failed = code == TW_OK ? socket_open(c) : 0;
    if (failed)
        code = tw_fail_nng(err, failed, config->url, "cannot open the RPC client");
    if (code == TW_OK)
        *client = c;
    else
        tw_rpc_client_close(c);
    return code;
}

static void teardown(void *arg)
{
    struct tw_rpc_client *client = arg;
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &client->lanes[i];
        if (!lane->aio)
            continue;
        nng_aio_stop(lane->aio);
        nng_ctx_close(lane->ctx);
        nng_aio_free(lane->aio);
    }
    if (client->socket_open)
        nng_close(client->socket);
}

/* True when no call is under way any more. Cancels again and again: a call may be between two
 * operations, where there is nothing to cancel. */
static bool calls_cancel(struct tw_rpc_client *client)
{
    uint64_t now_ns = tw_now(&tw_monotonic), end_ns = now_ns + LEAVE_MS * TW_MS;
    pthread_mutex_lock(&client->lock);
    client->closing = true;
    pthread_cond_broadcast(&client->changed);
    while (client->used > 0 && now_ns < end_ns) {
        for (unsigned i = 0; i < LANES; i++)
            if (client->lanes[i].used)
                nng_aio_cancel(client->lanes[i].aio);
        tw_cond_wait_until(&client->changed, &client->lock, now_ns + CANCEL_AGAIN_MS * TW_MS);
        now_ns = tw_now(&tw_monotonic);
    }
    bool idle = client->used == 0;
    pthread_mutex_unlock(&client->lock);
    return idle;
}

void tw_rpc_client_close(struct tw_rpc_client *client)
{
    if (!client)
        return;
    if (calls_cancel(client) && tw_bounded_run(teardown, client, TEARDOWN_MS)) {
        pthread_mutex_destroy(&client->lock);
        pthread_cond_destroy(&client->changed);
        tw_rpc_tls_close(client->tls);
        free(client->url);
        free(client);
    } else { /* somebody still uses it: better lost memory than freed memory */
        tw_log(TW_LOG_ERROR, "rpc.client", "not closed in time", "url=%s", client->url);
    }
}

/* ---- Lanes ---------------------------------------------------------------------------------- */

static struct lane *lane_free(struct tw_rpc_client *client)
{
    for (unsigned i = 0; i < LANES; i++)
        if (!client->lanes[i].used)
            return &client->lanes[i];
    return NULL;
}

static void lane_release(struct tw_rpc_client *client, struct lane *lane)
{
    pthread_mutex_lock(&client->lock);
    lane->used = false;
    client->used--;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

static enum tw_code lane_open(struct lane *lane, nng_socket socket, struct tw_error *err)
{
    nng_aio *aio;
    int failed = nng_aio_alloc(&aio, NULL, NULL);
    if (failed)
        return tw_fail_nng(err, failed, "rpc", "cannot open a request context");
    failed = nng_ctx_open(&lane->ctx, socket);
    if (failed) {
        nng_aio_free(aio);
        return tw_fail_nng(err, failed, "rpc", "cannot open a request context");
    }
    lane->aio = aio;
    return TW_OK;
}

static enum tw_code lane_borrow(struct tw_rpc_client *client, uint64_t deadline_ns,
                                struct lane **lane, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    bool in_time = true;
    pthread_mutex_lock(&client->lock);
    while (!(*lane = lane_free(client)) && !client->closing && in_time)
        in_time = tw_cond_wait_until(&client->changed, &client->lock, deadline_ns);
    if (client->closing)
        code = tw_fail(err, TW_CANCELLED, client->url, NULL, NULL, "client is closing");
    else if (!*lane)
        code = tw_fail(err, TW_DEADLINE_EXCEEDED, client->url, NULL, NULL,
                       "%u calls under way to this peer, no more at once", LANES);
    else if (!(*lane)->aio)
        code = lane_open(*lane, client->socket, err);
    if (code == TW_OK) {
        (*lane)->used = true;
        client->used++;
    }
    pthread_mutex_unlock(&client->lock);
    return code;
}

/* ---- One attempt ---------------------------------------------------------------------------- */

static bool connected(struct tw_rpc_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool yes = client->pipes > 0;
    pthread_mutex_unlock(&client->lock);
    return yes;
}

/* Called with the lock held. */
static bool stale(const struct tw_rpc_client *client)
{
    return client->tls && client->pipes > 0 &&
           client->generation != tw_tls_generation(tw_rpc_tls_material(client->tls));
}

/* Closes a stale connection when nothing is on its way on it. Called with the lock held, which is
 * let go meanwhile: nng calls on_pipe. */
static void renew(struct tw_rpc_client *client)
{
    if (client->under_way > 0 || !stale(client))
        return;
    nng_pipe pipe = client->pipe;
    client->under_way++; /* nobody else does the same, or sends */
    pthread_mutex_unlock(&client->lock);
    nng_pipe_close(pipe);
    pthread_mutex_lock(&client->lock);
    client->under_way--;
    pthread_cond_broadcast(&client->changed);
}

/* Waits until a request may be sent, and counts it. Called with the lock held. */
static bool way_wait(struct tw_rpc_client *client, uint64_t until_ns)
{
    uint64_t drain_ns = tw_after(tw_now(&tw_monotonic), DRAIN_MS * TW_MS);
    bool in_time = true;
    for (;;) {
        renew(client);
        bool old = stale(client), drained = tw_now(&tw_monotonic) >= drain_ns;
        if (client->closing || (client->pipes > 0 && (!old || drained)) || !in_time)
            break;
        uint64_t next_ns = old && drain_ns < until_ns ? drain_ns : until_ns;
        if (!tw_cond_wait_until(&client->changed, &client->lock, next_ns))
            in_time = tw_now(&tw_monotonic) < until_ns;
    }
    bool up = !client->closing && client->pipes > 0;
    if (up)
        client->under_way++;
    return up;
}

static void way_leave(struct tw_rpc_client *client)
{
    pthread_mutex_lock(&client->lock);
    client->under_way--;
    renew(client);
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

/* The server does not believe us. Our certificates may have been replaced since this connection
 * was opened: then the next one tells. False when there is nothing to hope for. */
static bool renewable(struct tw_rpc_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool yes = stale(client);
    nng_pipe pipe = client->pipe;
    pthread_mutex_unlock(&client->lock);
    if (yes)
        nng_pipe_close(pipe);
    return yes;
}

/* Waits for a connection. A call that may not be repeated does so only while somebody listens, who
 * may be slow: an operator hears at once that nobody is there. Nothing has been sent when this
 * fails; else the way is to be left (way_leave). */
static enum tw_code connection_wait(struct attempt *a, struct tw_error *err)
{
    struct tw_rpc_client *client = a->client;
    const unsigned probe_ms = client->tls ? PROBE_TLS_MS : PROBE_MS;
    bool hopeful = true;
    enum tw_code code = TW_UNAVAILABLE;
    while (hopeful) {
        uint64_t until_ns = tw_now(&tw_monotonic) + CONNECT_ONCE_MS * TW_MS;
        bool last = a->flags & TW_RPC_IDEMPOTENT || until_ns >= a->deadline_ns;
        pthread_mutex_lock(&client->lock);
        bool up = way_wait(client, last ? a->deadline_ns : until_ns), closing = client->closing;
        pthread_mutex_unlock(&client->lock);
        if (up)
            return TW_OK;
        if (closing)
            return tw_fail(err, TW_CANCELLED, client->url, NULL, NULL, "client is closing");
        code = tw_probe(client->url, client->tls, a->where, probe_ms, &hopeful, err);
        hopeful = hopeful && !last;
    }
    return code;
}

static enum tw_code not_in_time(struct attempt *a, const char *what, struct tw_error *err)
{
    if (!connected(a->client))
        return tw_fail(err, TW_UNAVAILABLE, a->client->url, NULL, NULL, "connection of %s lost",
                       a->where);
    return tw_fail(err, TW_DEADLINE_EXCEEDED, a->client->url, NULL, NULL, "%s %s in time", what,
                   a->where);
}

/* The outcome of the lane's aio as a code; `what` for the case that time ran out. */
static enum tw_code aio_outcome(struct attempt *a, const char *what, struct tw_error *err)
{
    nng_aio_wait(a->lane->aio);
    int failed = nng_aio_result(a->lane->aio);
    switch (failed) {
    case 0:
        return TW_OK;
    case NNG_ETIMEDOUT:
        return not_in_time(a, what, err);
    case NNG_ECANCELED:
        return tw_fail(err, TW_CANCELLED, a->client->url, NULL, NULL, "client is closing");
    case NNG_ENOMEM:
        return tw_fail_nng(err, failed, a->client->url, a->where);
    default:
        a->repeatable = true;
        return tw_fail(err, TW_UNAVAILABLE, a->client->url, NULL, NULL,
                       "connection lost before the answer to %s: %s", a->where,
                       nng_strerror(failed));
    }
}

static enum tw_code request_send(struct attempt *a, struct tw_error *err)
{
    Towline__V1__RpcRequest head = TOWLINE__V1__RPC_REQUEST__INIT;
    struct tw_frame frame;
    nng_msg *msg;
    head.version = a->client->version;
    head.request_id = a->request_id;
    head.deadline_ms = tw_remaining_ms(a->deadline_ns);
    if (head.deadline_ms == 0)
        return not_in_time(a, "could not send", err);
    head.service = (char *)(uintptr_t)a->service->name; /* only read */
    head.method = (char *)(uintptr_t)a->method->name;
    enum tw_code code = tw_envelope_request_pack(&head, a->request, &frame, err);
    if (code != TW_OK)
        return code;
    int failed = nng_msg_alloc(&msg, 0);
    if (!failed && (failed = nng_msg_append(msg, frame.data, frame.size)))
        nng_msg_free(msg);
    tw_frame_free(&frame);
    if (failed)
        return tw_fail_nng(err, failed, a->client->url, a->where);
    nng_aio_set_timeout(a->lane->aio, (nng_duration)head.deadline_ms);
    nng_aio_set_msg(a->lane->aio, msg);
    nng_ctx_send(a->lane->ctx, a->lane->aio);
    code = aio_outcome(a, "could not send", err);
    if (code != TW_OK)
        nng_msg_free(nng_aio_get_msg(a->lane->aio));
    nng_aio_set_msg(a->lane->aio, NULL);
    return code;
}

static enum tw_code answer_receive(struct attempt *a, Towline__V1__RpcResponse **head,
                                   struct tw_error *err)
{
    nng_aio_set_timeout(a->lane->aio, (nng_duration)tw_remaining_ms(a->deadline_ns));
    nng_ctx_recv(a->lane->ctx, a->lane->aio);
    enum tw_code code = aio_outcome(a, "no answer to", err);
    if (code != TW_OK)
        return code;
    nng_msg *msg = nng_aio_get_msg(a->lane->aio);
    code =
        tw_envelope_response_unpack(nng_msg_body(msg), nng_msg_len(msg), a->request_id, head, err);
    nng_aio_set_msg(a->lane->aio, NULL);
    nng_msg_free(msg);
    return code;
}

static enum tw_code remote_error(const struct attempt *a, const Towline__V1__RpcResponse *head,
                                 struct tw_error *err)
{
    enum tw_code code = head->code <= TW_UNAUTHENTICATED ? (enum tw_code)head->code : TW_UNKNOWN;
    if (!head->error)
        return tw_fail(err, code, a->where, NULL, NULL, "%s", tw_code_name(code));
    tw_error_from_proto(head->error, err);
    if (err)
        err->code = code;
    return code;
}

static enum tw_code attempt(struct attempt *a, ProtobufCMessage **response, struct tw_error *err)
{
    Towline__V1__RpcResponse *head = NULL;
    a->repeatable = false;
    enum tw_code code = connection_wait(a, err);
    if (code != TW_OK)
        return code;
    code = request_send(a, err);
    if (code == TW_OK)
        code = answer_receive(a, &head, err);
    way_leave(a->client);
    if (code != TW_OK)
        return code;
    if (head->code != 0) {
        code = remote_error(a, head, err);
    } else {
        *response =
            protobuf_c_message_unpack(a->method->output, NULL, head->body.len, head->body.data);
        if (!*response)
            code = tw_fail(err, TW_INTERNAL, a->client->url, a->method->output->name, NULL,
                           "answer to %s of %zu bytes cannot be read", a->where, head->body.len);
    }
    towline__v1__rpc_response__free_unpacked(head, NULL);
    return code;
}

/* ---- The call ------------------------------------------------------------------------------- */

/* Sleeps, but no longer than the deadline. False when the client closes. */
static bool back_off(struct attempt *a, unsigned ms)
{
    struct tw_rpc_client *client = a->client;
    uint64_t until_ns = tw_now(&tw_monotonic) + ms * TW_MS;
    if (until_ns > a->deadline_ns)
        until_ns = a->deadline_ns;
    pthread_mutex_lock(&client->lock);
    while (!client->closing && tw_cond_wait_until(&client->changed, &client->lock, until_ns))
        continue;
    bool closing = client->closing;
    pthread_mutex_unlock(&client->lock);
    return !closing;
}

static enum tw_code attempts(struct attempt *a, ProtobufCMessage **response, struct tw_error *err)
{
    unsigned pause_ms = RETRY_FIRST_MS;
    for (;;) {
        enum tw_code code = attempt(a, response, err);
        bool again = code == TW_UNAVAILABLE && a->repeatable && a->flags & TW_RPC_IDEMPOTENT;
        if (code == TW_UNAUTHENTICATED && renewable(a->client))
            again = true; /* refused before anything was done */
        if (!again || !back_off(a, pause_ms) || tw_remaining_ms(a->deadline_ns) == 0)
            return code;
        tw_log(TW_LOG_DEBUG, "rpc.client", "call repeated", "method=%s request=%s", a->where,
               a->request_id);
        pause_ms = pause_ms * 2 > RETRY_LAST_MS ? RETRY_LAST_MS : pause_ms * 2;
    }
}

enum tw_code tw_rpc_call(struct tw_rpc_client *client, const ProtobufCServiceDescriptor *service,
                         const char *method, const ProtobufCMessage *request, unsigned timeout_ms,
                         enum tw_rpc_flags flags, ProtobufCMessage **response, struct tw_error *err)
{
    struct attempt a = {.client = client,
                        .service = service,
                        .request = request,
                        .flags = flags,
                        .deadline_ns = tw_now(&tw_monotonic) + timeout_ms * TW_MS};
    *response = NULL;
    a.method = protobuf_c_service_descriptor_get_method_by_name(service, method);
    if (!a.method || a.method->input != request->descriptor)
        return tw_fail(err, TW_INVALID_ARGUMENT, service->name,
                       a.method ? a.method->input->name : "a method of the service", method,
                       "call does not fit the service");
    snprintf(a.where, sizeof a.where, "%s/%s", service->short_name, method);
    snprintf(a.request_id, sizeof a.request_id, "%016llx-%u", (unsigned long long)client->id,
             atomic_fetch_add(&client->sequence, 1) + 1);
    enum tw_code code = lane_borrow(client, a.deadline_ns, &a.lane, err);
    if (code != TW_OK)
        return code;
    code = attempts(&a, response, err);
    lane_release(client, a.lane);
    tw_log(TW_LOG_DEBUG, "rpc.client", "call", "method=%s request=%s code=%s", a.where,
           a.request_id, tw_code_name(code));
    return code;
}
