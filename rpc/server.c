/* The server side.
 *
 * Slots and workers. A slot is one nng rep context with its two aios; it holds one call from
 * receipt to answer and goes round
 *
 *     receiving --> queued --> running --> sending --> receiving
 *      (nng)       (queue)    (worker)     (nng)
 *
 * Only the holder named below a state touches the slot; passing it on is the only hand-over, so a
 * slot needs no lock of its own. There are more slots than workers: a call that waits for a worker
 * is then seen by us, with the time of its receipt, and dropped when its deadline has passed. nng
 * is never called with `lock` held.
 *
 * Close: stop receiving; answer what is queued with UNAVAILABLE; wait for what runs; then take nng
 * down on a thread that may hang without harm. */
#include "rpc/rpc.h"

#include "rpc/bounded.h"
#include "rpc/dispatch.h"
#include "rpc/tls.h"
#include "rpc/transport.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/transport/ipc/ipc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_DEFAULT  8u
#define WORKERS_MAX      64u
#define SLOTS_PER_WORKER 4u
#define ANSWER_SEND_MS   5000  /* for a peer that does not read its answers */
#define DRAIN_MS         10000 /* for running handlers when the server closes */
#define TEARDOWN_MS      5000  /* for nng itself */
#define REQUEST_HEADER   4u    /* bytes that the request/reply protocol puts before our frame */

struct slot {
    struct tw_rpc_server *server;
    nng_ctx ctx;
    bool ctx_open;
    nng_aio *receive;
    nng_aio *send;
    nng_msg *request;
    uint64_t received_ns;
    struct slot *next;
};

struct tw_rpc_server {
    struct tw_dispatch dispatch;
    nng_socket socket;
    nng_listener listener;
    struct tw_rpc_tls *tls; /* NULL: a plain door */
    char *url;
    struct slot *slots;
    unsigned slot_count;
    pthread_t *threads;
    unsigned worker_count;
    unsigned thread_count; /* started */

    pthread_mutex_t lock;
    pthread_cond_t work;    /* something in the queue, or quit */
    pthread_cond_t changed; /* busy has become 0 */
    struct slot *first, *last;
    unsigned busy; /* slots that are queued, running or sending */
    bool stopping; /* no handler is started any more */
    bool quit;     /* workers end when the queue is empty */
};

/* ---- Slots: callbacks run on nng's threads -------------------------------------------------- */

static void slot_release(struct slot *slot)
{
    struct tw_rpc_server *server = slot->server;
    pthread_mutex_lock(&server->lock);
    bool stopping = server->stopping;
    if (--server->busy == 0)
        pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    if (!stopping)
        nng_ctx_recv(slot->ctx, slot->receive);
}

static void on_received(void *arg)
{
    struct slot *slot = arg;
    struct tw_rpc_server *server = slot->server;
    int failed = nng_aio_result(slot->receive);
    if (failed) {
        if (failed != NNG_ECANCELED && failed != NNG_ECLOSED)
            tw_log(TW_LOG_ERROR, "rpc.server", "receive failed", "why=\"%s\"",
                   nng_strerror(failed));
        return;
    }
    slot->request = nng_aio_get_msg(slot->receive);
    slot->received_ns = tw_now(&tw_monotonic);
    slot->next = NULL;
    pthread_mutex_lock(&server->lock);
    if (server->last)
        server->last->next = slot;
    else
        server->first = slot;
    server->last = slot;
    server->busy++;
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
}

static void on_sent(void *arg)
{
    struct slot *slot = arg;
    int failed = nng_aio_result(slot->send);
    if (failed) {
        nng_msg_free(nng_aio_get_msg(slot->send));
        nng_aio_set_msg(slot->send, NULL);
        tw_log(TW_LOG_WARN, "rpc.server", "answer not sent", "why=\"%s\"", nng_strerror(failed));
    }
    slot_release(slot);
}

/* ---- Workers -------------------------------------------------------------------------------- */

/* Who sent this; NULL behind a plain door. On doubt peer->error says which. */
static const struct tw_identity *caller_find(const struct tw_rpc_server *server, nng_msg *msg,
                                             struct tw_rpc_peer *peer)
{
    if (!server->tls)
        return NULL;
    if (!tw_rpc_tls_peer(nng_msg_get_pipe(msg), peer))
        tw_fail(&peer->error, TW_UNAUTHENTICATED, "rpc", NULL, NULL,
                "the connection of the call is gone");
    return &peer->identity;
}

static void slot_run(struct slot *slot, bool stopping)
{
    static const struct tw_error closing = {
        .code = TW_UNAVAILABLE, .where = "rpc", .what = "server is closing"};
    struct tw_rpc_peer peer = {0};
    struct tw_frame answer = {0};
    nng_msg *msg = slot->request;
    slot->request = NULL;
    const struct tw_identity *caller = caller_find(slot->server, msg, &peer);
    const struct tw_error *refuse = peer.error.code != TW_OK ? &peer.error : NULL;
    tw_dispatch_call(&slot->server->dispatch, nng_msg_body(msg), nng_msg_len(msg),
                     slot->received_ns, stopping ? &closing : refuse, caller, &answer);
    nng_msg_clear(msg);
    int failed = answer.data ? nng_msg_append(msg, answer.data, answer.size) : NNG_ENOMEM;
    tw_frame_free(&answer);
    if (failed) {
        /* Without memory for an answer: the caller's deadline tells it. */
        nng_msg_free(msg);
        slot_release(slot);
        return;
    }
    nng_aio_set_msg(slot->send, msg);
    nng_ctx_send(slot->ctx, slot->send);
}

static void *worker_main(void *arg)
{
    struct tw_rpc_server *server = arg;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        while (!server->first && !server->quit)
            pthread_cond_wait(&server->work, &server->lock);
        struct slot *slot = server->first;
        if (!slot)
            break;
        server->first = slot->next;
        if (!server->first)
            server->last = NULL;
        bool stopping = server->stopping;
        pthread_mutex_unlock(&server->lock);
        slot_run(slot, stopping);
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* ---- Open, start ---------------------------------------------------------------------------- */

static struct tw_rpc_server *server_alloc(const struct tw_rpc_server_config *config)
{
    struct tw_rpc_server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    pthread_mutex_init(&server->lock, NULL);
    tw_cond_init(&server->work);
    tw_cond_init(&server->changed);
    server->worker_count = config->workers ? config->workers : WORKERS_DEFAULT;
    if (server->worker_count > WORKERS_MAX)
        server->worker_count = WORKERS_MAX;
    server->slot_count = server->worker_count * SLOTS_PER_WORKER;
    server->dispatch.versions.newest = config->version ? config->version : TW_RPC_VERSION;
    server->dispatch.versions.oldest =
        config->version_min ? config->version_min : TW_RPC_VERSION_MIN;
    server->url = strdup(config->url);
    server->slots = calloc(server->slot_count, sizeof *server->slots);
    server->threads = calloc(server->worker_count, sizeof *server->threads);
    return server;
}

static void server_free(struct tw_rpc_server *server)
{
    for (unsigned i = 0; server->slots && i < server->slot_count; i++) {
        nng_aio_free(server->slots[i].receive);
        nng_aio_free(server->slots[i].send);
    }
    tw_dispatch_clear(&server->dispatch);
    tw_rpc_tls_close(server->tls);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->work);
    pthread_cond_destroy(&server->changed);
    free(server->slots);
    free(server->threads);
    free(server->url);
    free(server);
}

static int slots_open(struct tw_rpc_server *server)
{
    int failed = 0;
    for (unsigned i = 0; !failed && i < server->slot_count; i++) {
        struct slot *slot = &server->slots[i];
        slot->server = server;
        failed = nng_ctx_open(&slot->ctx, server->socket);
        slot->ctx_open = !failed;
        if (!failed)
            failed = nng_aio_alloc(&slot->receive, on_received, slot);
        if (!failed)
            failed = nng_aio_alloc(&slot->send, on_sent, slot);
        if (!failed)
            nng_aio_set_timeout(slot->send, ANSWER_SEND_MS);
    }
    return failed;
}

static int listener_tls(struct tw_rpc_server *server)
{
    nng_tls_config *config;
    int failed = tw_rpc_tls_config(server->tls, &config);
    if (failed)
        return failed;
    failed = nng_listener_set_ptr(server->listener, NNG_OPT_TLS_CONFIG, config);
    nng_tls_config_free(config);
    return failed;
}

static int socket_open(struct tw_rpc_server *server)
{
    int failed = nng_rep0_open(&server->socket);
    if (failed)
        return failed;
    failed =
        nng_socket_set_size(server->socket, NNG_OPT_RECVMAXSZ, TW_RPC_MESSAGE_MAX + REQUEST_HEADER);
    if (!failed)
        failed = nng_listener_create(&server->listener, server->socket, server->url);
    if (!failed && strncmp(server->url, "ipc:", 4) == 0)
        failed = nng_listener_set_int(server->listener, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (!failed && server->tls)
        failed = listener_tls(server);
    return failed ? failed : slots_open(server);
}

enum tw_code tw_rpc_server_open(const struct tw_rpc_server_config *config,
                                struct tw_rpc_server **server, struct tw_error *err)
{
    *server = NULL;
    enum tw_code code = tw_rpc_url_check(config->url, config->tls, config->insecure, err);
    if (code != TW_OK)
        return code;
    struct tw_rpc_server *s = server_alloc(config);
    if (!s || !s->url || !s->slots || !s->threads) {
        if (s)
            server_free(s);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->url, NULL, NULL, "out of memory");
    }
    if (strncmp(config->url, "tls", 3) == 0)
        code = tw_rpc_tls_open(config->tls, NULL, NULL, &s->tls, err);
    int failed = code == TW_OK ? socket_open(s) : 0;
    if (failed)
        code = tw_fail_nng(err, failed, config->url, "cannot open the RPC server");
    if (code == TW_OK)
        *server = s;
    else
        tw_rpc_server_close(s);
    return code;
}

enum tw_code tw_rpc_server_add(struct tw_rpc_server *server,
                               const ProtobufCServiceDescriptor *service,
                               const struct tw_rpc_method *methods, size_t count, void *ctx,
                               struct tw_error *err)
{
    if (server->thread_count > 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, service->name, "a server not yet started", NULL,
                       "service added too late");
    return tw_dispatch_add(&server->dispatch, service, methods, count, ctx, err);
}

/* "tcp://127.0.0.1:0" has the system choose a port: put it into the URL. */
static int url_complete(struct tw_rpc_server *server)
{
    nng_sockaddr address;
    char *completed;
    size_t length = strlen(server->url);
    bool tcp = strncmp(server->url, "tcp", 3) == 0 || strncmp(server->url, "tls+tcp", 7) == 0;
    if (!tcp || length < 2 || strcmp(server->url + length - 2, ":0") != 0)
        return 0;
    int failed = nng_listener_get_addr(server->listener, NNG_OPT_LOCADDR, &address);
    if (failed)
        return failed;
    uint16_t port = address.s_family == NNG_AF_INET6 ? address.s_in6.sa_port : address.s_in.sa_port;
    if (asprintf(&completed, "%.*s:%u", (int)(length - 2), server->url, ntohs(port)) < 0)
        return NNG_ENOMEM;
    free(server->url);
    server->url = completed;
    return 0;
}

enum tw_code tw_rpc_server_start(struct tw_rpc_server *server, struct tw_error *err)
{
    if (server->thread_count > 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, server->url, NULL, NULL, "started twice");
    while (server->thread_count < server->worker_count) {
        int number = tw_thread_start(&server->threads[server->thread_count], "rpc-worker",
                                     worker_main, server);
        if (number)
            return tw_fail_errno(err, number, server->url, "cannot start an RPC worker");
        server->thread_count++;
    }
    for (unsigned i = 0; i < server->slot_count; i++)
        nng_ctx_recv(server->slots[i].ctx, server->slots[i].receive);
    int failed = nng_listener_start(server->listener, 0);
    if (!failed)
        failed = url_complete(server);
    if (failed)
        return tw_fail_nng(err, failed, server->url, "cannot listen");
    return TW_OK;
}

const char *tw_rpc_server_url(const struct tw_rpc_server *server)
{
    return server->url;
}

/* ---- Close ---------------------------------------------------------------------------------- */

static void receiving_stop(void *arg)
{
    struct tw_rpc_server *server = arg;
    for (unsigned i = 0; i < server->slot_count; i++)
        if (server->slots[i].receive)
            nng_aio_stop(server->slots[i].receive);
}

static void nng_teardown(void *arg)
{
    struct tw_rpc_server *server = arg;
    for (unsigned i = 0; i < server->slot_count; i++) {
        struct slot *slot = &server->slots[i];
        if (slot->send)
            nng_aio_stop(slot->send);
        if (slot->ctx_open)
            nng_ctx_close(slot->ctx);
    }
    nng_close(server->socket);
}

/* True when every received call has been answered. */
static bool drain(struct tw_rpc_server *server)
{
    uint64_t deadline_ns = tw_now(&tw_monotonic) + DRAIN_MS * TW_MS;
    pthread_mutex_lock(&server->lock);
    while (server->busy > 0 && tw_cond_wait_until(&server->changed, &server->lock, deadline_ns))
        continue;
    bool idle = server->busy == 0;
    pthread_mutex_unlock(&server->lock);
    return idle;
}

static void workers_end(struct tw_rpc_server *server, bool join)
{
    pthread_mutex_lock(&server->lock);
    server->quit = true;
    pthread_cond_broadcast(&server->work);
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->thread_count; i++) {
        if (join)
            pthread_join(server->threads[i], NULL);
        else
            pthread_detach(server->threads[i]);
    }
}

void tw_rpc_server_close(struct tw_rpc_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    bool stopped = tw_bounded_run(receiving_stop, server, TEARDOWN_MS);
    bool idle = drain(server);
    workers_end(server, idle);
    bool down = tw_bounded_run(nng_teardown, server, TEARDOWN_MS);
    if (stopped && idle && down)
        server_free(server);
    else /* somebody still uses it: better lost memory than freed memory */
        tw_log(TW_LOG_ERROR, "rpc.server", "not closed in time", "url=%s handlers_idle=%d nng=%d",
               server->url, idle, stopped && down);
}
