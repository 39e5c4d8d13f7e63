/* The heartbeat thread: tells the controller what this agent is and holds, at the interval that the
 * controller asks for, and sooner when something has changed. */
#include "agentd/agent.h"

#include "base/log.h"
#include "rpc/rpc.h"
#include "towline/v1/host.pb-c.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define INTERVAL_DEFAULT_MS 1000u
#define TICK_US             20000u
#define CALL_TIMEOUT_MS     2000u

struct tw_heartbeat {
    struct tw_agent *agent;
    struct tw_rpc_client *client;
    pthread_t thread;
    _Atomic bool stop;
    bool lost; /* the last call failed: said once, not every second */
};

static enum tw_code gather(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    Towline__V1__HeartbeatRequest *r = arg;
    (void)err;
    atomic_store(&agent->changed, false);
    r->host = tw_agent_description(agent);
    r->vms = calloc(agent->vm_count + 1, sizeof *r->vms);
    for (struct tw_vm *vm = agent->vms; r->vms && vm; vm = vm->next)
        if ((r->vms[r->n_vms] = tw_vm_report(vm)))
            r->n_vms++;
    return TW_OK;
}

static void note(struct tw_heartbeat *h, enum tw_code code, const struct tw_error *err)
{
    if (code && !h->lost)
        tw_log(TW_LOG_WARN, "heartbeat", "controller not reached", "url=%s what=\"%s\"",
               h->agent->config.controller, err->what);
    else if (!code && h->lost)
        tw_log(TW_LOG_INFO, "heartbeat", "controller reached again", "url=%s",
               h->agent->config.controller);
    h->lost = code != TW_OK;
}

/* One call; returns the milliseconds until the next. */
static unsigned beat(struct tw_heartbeat *h)
{
    struct tw_agent *agent = h->agent;
    struct tw_error err = {0};
    unsigned interval = INTERVAL_DEFAULT_MS;
    Towline__V1__HeartbeatRequest *r = malloc(sizeof *r);
    if (!r)
        return interval;
    towline__v1__heartbeat_request__init(r);
    enum tw_code code =
        tw_mailbox_call(agent->mailbox, gather, r, tw_after(tw_now(&tw_monotonic), TW_SEC), &err);
    r->unix_ms = tw_wall_ms();
    ProtobufCMessage *answer = NULL;
    if (!code)
        code = tw_rpc_call(h->client, &towline__v1__host_service__descriptor, "Heartbeat", &r->base,
                           CALL_TIMEOUT_MS, TW_RPC_IDEMPOTENT, &answer, &err);
    if (!code) {
        const Towline__V1__HeartbeatResponse *a = (const Towline__V1__HeartbeatResponse *)answer;
        if (a->interval_ms >= 10 && a->interval_ms <= 60000)
            interval = a->interval_ms;
        atomic_store(&agent->controller_seen_ms, tw_wall_ms());
        protobuf_c_message_free_unpacked(answer, NULL);
    }
    note(h, code, &err);
    towline__v1__heartbeat_request__free_unpacked(r, NULL);
    return interval;
}

static void *run(void *arg)
{
    struct tw_heartbeat *h = arg;
    while (!atomic_load(&h->stop)) {
        uint64_t next = tw_now(&tw_monotonic) + beat(h) * TW_MS;
        while (!atomic_load(&h->stop) && tw_now(&tw_monotonic) < next) {
            usleep(TICK_US);
            if (atomic_load(&h->agent->changed) && !h->lost)
                break;
        }
    }
    return NULL;
}

enum tw_code tw_heartbeat_start(struct tw_agent *agent, struct tw_heartbeat **heartbeat,
                                struct tw_error *err)
{
    const struct tw_rpc_client_config config = {.url = agent->config.controller,
                                                .tls = agent->tls,
                                                .expected = {TW_ROLE_CONTROLLER, NULL},
                                                .insecure = agent->config.insecure};
    *heartbeat = NULL;
    if (!agent->config.controller[0])
        return TW_OK;
    struct tw_heartbeat *h = calloc(1, sizeof *h);
    if (!h)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "heartbeat", NULL, NULL, "cannot start");
    h->agent = agent;
    enum tw_code code = tw_rpc_client_open(&config, &h->client, err);
    if (!code && pthread_create(&h->thread, NULL, run, h) != 0) {
        tw_rpc_client_close(h->client);
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, "heartbeat", NULL, NULL, "cannot start");
    }
    if (code) {
        free(h);
        return code;
    }
    *heartbeat = h;
    return TW_OK;
}

void tw_heartbeat_stop(struct tw_heartbeat *heartbeat)
{
    if (!heartbeat)
        return;
    atomic_store(&heartbeat->stop, true);
    pthread_join(heartbeat->thread, NULL);
    tw_rpc_client_close(heartbeat->client);
    free(heartbeat);
}
