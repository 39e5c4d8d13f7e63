/* AgentService: plans, and changes to a running migration. Runs on RPC worker threads. */
#include "agentd/agent.h"

#include "rpc/rpc.h"

#define SLOW_DOWN_MAX (TW_PACE_SHARE_MAX / 10) /* per cent */

struct measure_query {
    const Towline__V1__MeasureVmRequest *request;
    Towline__V1__MeasureVmResponse *response;
};

static enum tw_code measure_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct measure_query *q = arg;
    return tw_plan_ask(owner, q->request, q->response, err);
}

enum tw_code tw_agent_measure_vm(void *ctx, const struct tw_rpc_call *call,
                                 const ProtobufCMessage *request, ProtobufCMessage *response,
                                 struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    struct measure_query q = {(const Towline__V1__MeasureVmRequest *)request,
                              (Towline__V1__MeasureVmResponse *)response};
    return tw_mailbox_call(agent->mailbox, measure_on_data_thread, &q, call->deadline_ns, err);
}

static enum tw_code adjust_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    const Towline__V1__AgentAdjustRequest *r = arg;
    struct tw_job *job = tw_job_find(owner, r->migration);
    if (!job || !job->source)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->migration, "the source of a migration",
                       job ? "the destination" : "none", "no such migration leaves from here now");
    if (r->set_downtime && r->downtime_ms == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->migration, "at least 1 ms", "0",
                       "no usable downtime budget");
    if (r->set_slow_down && r->slow_down_percent > SLOW_DOWN_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->migration, "at most 90 per cent", NULL,
                       "no usable budget of slow-down: %u", r->slow_down_percent);
    if (r->set_bandwidth)
        tw_source_set_bandwidth(job->source, r->bandwidth_bytes_per_s);
    if (r->set_downtime)
        tw_source_set_downtime(job->source, r->downtime_ms * TW_MS);
    if (r->set_slow_down)
        tw_source_set_slow_down(job->source, r->slow_down_percent * 10);
    if (r->set_paused)
        tw_source_pause(job->source, r->paused);
    return TW_OK;
}

enum tw_code tw_agent_adjust(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    (void)response;
    return tw_mailbox_call(agent->mailbox, adjust_on_data_thread, (void *)(uintptr_t)request,
                           call->deadline_ns, err);
}
