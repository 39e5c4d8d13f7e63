/* RPC in virtual time: real frames, real dispatch and real handlers behind rpc/rpc.h, and a network
 * between them that delays, loses, holds and repeats. A call travels on a fiber of its own, which
 * becomes one of the server's workers. What the real client does about a lost connection is done
 * here, too: calls that may be repeated are. */
#include "tests/cluster/virtual/fiber.h"
#include "tests/cluster/virtual/world.h"

#include "rpc/dispatch.h"
#include "rpc/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_MAX  8u
#define SERVERS_MAX  16u
#define RETRY_NS     (100 * TW_MS)
#define ONCE_NS      (250 * TW_MS) /* a call that may not be repeated waits so long for a server */
#define HELD_LOOK_NS (20 * TW_MS)
#define HELD_MAX_NS  (20 * TW_SEC) /* a connection that is cut for longer is given up */

struct tw_rpc_server {
    struct vt_node *node;
    char url[64];
    struct tw_dispatch dispatch;
    unsigned workers, busy, waiting;
    bool closed;
};

struct tw_rpc_client {
    struct vt_node *node;
    char url[64];
    uint64_t sequence;
};

/* One attempt; freed when neither caller nor carrier needs it. */
struct letter {
    char url[64];
    struct vt_node *from;
    char request_id[TW_RPC_REQUEST_ID_MAX + 1];
    struct tw_frame request, answer;
    bool done, lost, gone; /* an answer is there; none will come; the caller has gone */
    bool refused;          /* nobody listens there */
};

static struct tw_rpc_server *servers[SERVERS_MAX];
static uint64_t request_ids;

/* Of the linker. */
enum tw_code __wrap_tw_rpc_server_open(const struct tw_rpc_server_config *config,
                                       struct tw_rpc_server **server, struct tw_error *err);
enum tw_code __wrap_tw_rpc_server_add(struct tw_rpc_server *server,
                                      const ProtobufCServiceDescriptor *service,
                                      const struct tw_rpc_method *methods, size_t count, void *ctx,
                                      struct tw_error *err);
enum tw_code __wrap_tw_rpc_server_start(struct tw_rpc_server *server, struct tw_error *err);
const char *__wrap_tw_rpc_server_url(const struct tw_rpc_server *server);
void __wrap_tw_rpc_server_close(struct tw_rpc_server *server);
enum tw_code __wrap_tw_rpc_client_open(const struct tw_rpc_client_config *config,
                                       struct tw_rpc_client **client, struct tw_error *err);
void __wrap_tw_rpc_client_close(struct tw_rpc_client *client);
enum tw_code __wrap_tw_rpc_call(struct tw_rpc_client *client,
                                const ProtobufCServiceDescriptor *service, const char *method,
                                const ProtobufCMessage *request, unsigned timeout_ms,
                                enum tw_rpc_flags flags, ProtobufCMessage **response,
                                struct tw_error *err);

/* ---- Servers --------------------------------------------------------------------------------- */

enum tw_code __wrap_tw_rpc_server_open(const struct tw_rpc_server_config *config,
                                       struct tw_rpc_server **server, struct tw_error *err)
{
    struct tw_rpc_server *s = calloc(1, sizeof *s);
    (void)err;
    *server = s;
    s->node = vt_here();
    s->workers = config->workers ? config->workers : WORKERS_MAX;
    s->dispatch.versions = (struct tw_rpc_versions){TW_RPC_VERSION, TW_RPC_VERSION_MIN};
    snprintf(s->url, sizeof s->url, "%s", config->url);
    return TW_OK;
}

enum tw_code __wrap_tw_rpc_server_add(struct tw_rpc_server *server,
                                      const ProtobufCServiceDescriptor *service,
                                      const struct tw_rpc_method *methods, size_t count, void *ctx,
                                      struct tw_error *err)
{
    return tw_dispatch_add(&server->dispatch, service, methods, count, ctx, err);
}

enum tw_code __wrap_tw_rpc_server_start(struct tw_rpc_server *server, struct tw_error *err)
{
    for (unsigned i = 0; i < SERVERS_MAX; i++) {
        if (servers[i])
            continue;
        servers[i] = server;
        return TW_OK;
    }
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, server->url, NULL, NULL, "too many servers");
}

const char *__wrap_tw_rpc_server_url(const struct tw_rpc_server *server)
{
    return server->url;
}

void __wrap_tw_rpc_server_close(struct tw_rpc_server *server)
{
    if (!server)
        return;
    server->closed = true;
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        if (servers[i] == server)
            servers[i] = NULL;
    vt_wake(server, ~0u);
    while (server->busy || server->waiting)
        vt_wait(server, TW_NEVER);
    tw_dispatch_clear(&server->dispatch);
    free(server);
}

static struct tw_rpc_server *server_find(const char *url)
{
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        if (servers[i] && !servers[i]->node->dead && strcmp(servers[i]->url, url) == 0)
            return servers[i];
    return NULL;
}

/* ---- The network ----------------------------------------------------------------------------- */

/* One way. False: lost. What is cut is held and comes when the cut is mended, as TCP would have
 * it, long after its sender may have gone. */
static bool travel(const struct vt_node *from, const struct vt_node *to)
{
    const struct vt_network *n = &vt_world.network;
    uint64_t sent = vt_now();
    vt_sleep(20 * TW_US + vt_below(n->delay_ns ? n->delay_ns : 300 * TW_US));
    while (vt_is_cut(from, to)) {
        if (vt_now() > sent + HELD_MAX_NS)
            return false;
        vt_sleep(HELD_LOOK_NS);
    }
    return !n->loss_percent || vt_below(100) >= n->loss_percent;
}

static void letter_put(struct letter *l)
{
    if (!l->gone || !(l->done || l->lost))
        return;
    tw_frame_free(&l->request);
    tw_frame_free(&l->answer);
    free(l);
}

static void letter_end(struct letter *l, bool lost)
{
    *(lost ? &l->lost : &l->done) = true;
    vt_wake(l, 1);
    letter_put(l);
}

/* Becomes a worker of the server; false when it stopped before one was free. */
static bool work(struct tw_rpc_server *s, struct letter *l, struct tw_frame *answer)
{
    uint64_t received = vt_now();
    s->waiting++;
    while (s->busy == s->workers && !s->closed && !s->node->dead)
        vt_wait(s, TW_NEVER);
    s->waiting--;
    bool serve = !s->closed && !s->node->dead;
    if (serve) {
        s->busy++;
        tw_dispatch_call(&s->dispatch, l->request.data, l->request.size, received, NULL, NULL,
                         answer);
        s->busy--;
    }
    vt_wake(s, ~0u);
    return serve;
}

static void *carry(void *arg)
{
    struct letter *l = arg;
    struct tw_rpc_server *s = server_find(l->url);
    struct vt_node *to = vt_node_of(l->url);
    if (!travel(l->from, to)) {
        letter_end(l, true);
        return NULL;
    }
    if (!(s = server_find(l->url))) {
        l->refused = true;
        letter_end(l, true);
        return NULL;
    }
    uint64_t start = to->starts;
    vt_enter(to);
    bool served = work(s, l, &l->answer);
    vt_enter(NULL);
    bool lost = !served || to->dead || to->starts != start || !travel(to, l->from);
    letter_end(l, lost);
    return NULL;
}

/* Something that was lost on its way back has been done, and may be done twice: the first time by
 * a frame that comes late. */
static void send_twin(const struct letter *l)
{
    struct letter *twin = calloc(1, sizeof *twin);
    *twin = *l;
    twin->answer = (struct tw_frame){0};
    twin->request.data = malloc(l->request.size);
    memcpy(twin->request.data, l->request.data, l->request.size);
    twin->gone = true;
    vt_spawn_free(NULL, carry, twin);
}

/* ---- Clients --------------------------------------------------------------------------------- */

enum tw_code __wrap_tw_rpc_client_open(const struct tw_rpc_client_config *config,
                                       struct tw_rpc_client **client, struct tw_error *err)
{
    (void)err;
    *client = calloc(1, sizeof **client);
    (*client)->node = vt_here();
    snprintf((*client)->url, sizeof(*client)->url, "%s", config->url);
    return TW_OK;
}

void __wrap_tw_rpc_client_close(struct tw_rpc_client *client)
{
    free(client);
}

static enum tw_code answer_read(struct letter *l, const ProtobufCMethodDescriptor *method,
                                ProtobufCMessage **response, struct tw_error *err)
{
    Towline__V1__RpcResponse *head = NULL;
    enum tw_code code =
        tw_envelope_response_unpack(l->answer.data, l->answer.size, l->request_id, &head, err);
    if (code != TW_OK)
        return code;
    if (head->code) {
        tw_error_from_proto(head->error, err);
        code = (enum tw_code)head->code;
        if (err)
            err->code = code;
    } else {
        *response =
            protobuf_c_message_unpack(method->output, NULL, head->body.len, head->body.data);
    }
    towline__v1__rpc_response__free_unpacked(head, NULL);
    return code;
}

static struct letter *letter_write(struct tw_rpc_client *client,
                                   const ProtobufCServiceDescriptor *service, const char *method,
                                   const ProtobufCMessage *request, uint64_t deadline_ns,
                                   struct tw_error *err)
{
    Towline__V1__RpcRequest head = TOWLINE__V1__RPC_REQUEST__INIT;
    struct letter *l = calloc(1, sizeof *l);
    snprintf(l->request_id, sizeof l->request_id, "v-%llu", (unsigned long long)++request_ids);
    snprintf(l->url, sizeof l->url, "%s", client->url);
    l->from = vt_here();
    head.version = TW_RPC_VERSION;
    head.request_id = l->request_id;
    head.deadline_ms = (uint32_t)((deadline_ns - vt_now()) / TW_MS) + 1;
    head.service = (char *)(uintptr_t)service->name;
    head.method = (char *)(uintptr_t)method;
    if (tw_envelope_request_pack(&head, request, &l->request, err) == TW_OK)
        return l;
    free(l);
    return NULL;
}

/* UNAVAILABLE with *again: nothing was heard, and the caller may ask once more. */
static enum tw_code attempt(struct tw_rpc_client *client, const ProtobufCServiceDescriptor *service,
                            const ProtobufCMethodDescriptor *method,
                            const ProtobufCMessage *request, uint64_t deadline_ns, bool repeat,
                            bool *again, ProtobufCMessage **response, struct tw_error *err)
{
    struct letter *l = letter_write(client, service, method->name, request, deadline_ns, err);
    if (!l)
        return TW_RESOURCE_EXHAUSTED;
    if (repeat && vt_world.network.twin_percent && vt_below(100) < vt_world.network.twin_percent)
        send_twin(l);
    vt_spawn_free(NULL, carry, l);
    while (!l->done && !l->lost && vt_now() < deadline_ns && !vt_dead())
        vt_wait(l, deadline_ns);
    enum tw_code code;
    if (l->done && !vt_dead())
        code = answer_read(l, method, response, err);
    else if (l->lost || vt_dead())
        code = tw_fail(err, TW_UNAVAILABLE, client->url, NULL, NULL, "%s lost", method->name);
    else
        code = tw_fail(err, TW_DEADLINE_EXCEEDED, client->url, NULL, NULL, "no answer to %s",
                       method->name);
    *again = l->lost && !vt_dead();
    l->gone = true;
    letter_put(l);
    return code;
}

enum tw_code __wrap_tw_rpc_call(struct tw_rpc_client *client,
                                const ProtobufCServiceDescriptor *service, const char *method,
                                const ProtobufCMessage *request, unsigned timeout_ms,
                                enum tw_rpc_flags flags, ProtobufCMessage **response,
                                struct tw_error *err)
{
    const ProtobufCMethodDescriptor *m =
        protobuf_c_service_descriptor_get_method_by_name(service, method);
    bool repeat = flags & TW_RPC_IDEMPOTENT, again = false;
    uint64_t deadline = tw_after(vt_now(), timeout_ms * TW_MS);
    enum tw_code code;
    *response = NULL;
    do {
        code = attempt(client, service, m, request, deadline, repeat, &again, response, err);
        if (again && repeat)
            vt_sleep(RETRY_NS);
    } while (again && repeat && vt_now() < deadline && !vt_dead());
    return code;
}
