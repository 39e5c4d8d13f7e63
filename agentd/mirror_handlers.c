/* AgentService: mirrors. Runs on RPC worker threads. */
#include "agentd/agent.h"

#include "rpc/rpc.h"

#include <stdlib.h>

struct hold_query {
    const Towline__V1__HoldMirrorRequest *request;
    Towline__V1__HoldMirrorResponse *response;
};

static enum tw_code hold_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct hold_query *q = arg;
    Towline__V1__MirrorTarget *target = malloc(sizeof *target);
    if (!target)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, q->request->migration, NULL, NULL, "no memory");
    towline__v1__mirror_target__init(target);
    q->response->mirror = target; /* freed with the response, whatever comes */
    return tw_mirrors_hold(owner, q->request, target, err);
}

enum tw_code tw_agent_hold_mirror(void *ctx, const struct tw_rpc_call *call,
                                  const ProtobufCMessage *request, ProtobufCMessage *response,
                                  struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    struct hold_query q = {(const Towline__V1__HoldMirrorRequest *)request,
                           (Towline__V1__HoldMirrorResponse *)response};
    return tw_mailbox_call(agent->mailbox, hold_on_data_thread, &q, call->deadline_ns, err);
}

struct get_query {
    const char *migration;
    Towline__V1__GetMirrorResponse *out;
};

static enum tw_code get_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct get_query *q = arg;
    (void)err;
    tw_mirrors_get(owner, q->migration, q->out);
    return TW_OK;
}

enum tw_code tw_agent_get_mirror(void *ctx, const struct tw_rpc_call *call,
                                 const ProtobufCMessage *request, ProtobufCMessage *response,
                                 struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    struct get_query q = {((const Towline__V1__GetMirrorRequest *)request)->migration,
                          (Towline__V1__GetMirrorResponse *)response};
    return tw_mailbox_call(agent->mailbox, get_on_data_thread, &q, call->deadline_ns, err);
}

static enum tw_code release_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    (void)err;
    tw_mirrors_release(owner, arg);
    return TW_OK;
}

enum tw_code tw_agent_release_mirror(void *ctx, const struct tw_rpc_call *call,
                                     const ProtobufCMessage *request, ProtobufCMessage *response,
                                     struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__ReleaseMirrorRequest *r = (const Towline__V1__ReleaseMirrorRequest *)request;
    (void)response;
    return tw_mailbox_call(agent->mailbox, release_on_data_thread, r->migration, call->deadline_ns,
                           err);
}
