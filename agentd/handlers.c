/* AgentService and HealthService: each call becomes a command for the data thread. Runs on RPC
 * worker threads. */
#include "agentd/agent.h"

#include "rpc/rpc.h"
#include "towline/v1/health.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_US 5000u /* while a handler waits for a machine to come up */

/* ---- Describe ----------------------------------------------------------------------------------
 */

static enum tw_code describe_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    Towline__V1__DescribeResponse *out = arg;
    (void)err;
    out->host = tw_agent_description(agent);
    out->vms = calloc(agent->vm_count + 1, sizeof *out->vms);
    for (struct tw_vm *vm = agent->vms; out->vms && vm; vm = vm->next)
        if ((out->vms[out->n_vms] = tw_vm_report(vm)))
            out->n_vms++;
    return TW_OK;
}

static enum tw_code describe(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    (void)request;
    return tw_mailbox_call(agent->mailbox, describe_on_data_thread, response, call->deadline_ns,
                           err);
}

static enum tw_code diagnose(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err)
{
    const struct tw_agent *agent = ctx;
    (void)request;
    return tw_diagnose_call(agent->diagnose, call->deadline_ns,
                            (Towline__V1__DiagnoseResponse *)response, err);
}

/* ---- StartVm, RemoveVm -------------------------------------------------------------------------
 */

static enum tw_code start_vm_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    const Towline__V1__StartVmRequest *r = arg;
    struct tw_vm *vm = NULL;
    enum tw_code code = tw_spec_check(r->spec, err);
    if (code)
        return code;
    if ((vm = tw_vm_find(agent, r->spec->name))) {
        char given[32];
        snprintf(given, sizeof given, "epoch %llu", (unsigned long long)vm->record->epoch);
        if (vm->record->epoch == r->epoch)
            return TW_OK;
        return tw_fail(err, TW_ALREADY_EXISTS, r->spec->name, "no VM of this name", given,
                       "%s holds a VM of this name", agent->config.name);
    }
    Towline__V1__VmRecord record = TOWLINE__V1__VM_RECORD__INIT;
    record.spec = r->spec;
    record.epoch = r->epoch;
    record.ownership = TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED;
    record.hand_over = TW_HAND_OVER_UNKNOWN;
    return tw_vm_start(agent, &record, &vm, err);
}

struct report_query {
    const char *name;
    Towline__V1__VmReport *report;
    bool want_paused; /* an incoming machine is up when it is paused */
    bool up, ended;
};

static enum tw_code report_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct report_query *q = arg;
    struct tw_vm *vm = tw_vm_find(owner, q->name);
    if (!vm)
        return tw_fail(err, TW_NOT_FOUND, q->name, NULL, NULL, "the VM is gone");
    enum tw_qemu_status status = vm->qemu ? tw_qemu_status_get(vm->qemu) : TW_QEMU_EXITED;
    q->ended = status == TW_QEMU_EXITED;
    q->up = status == (q->want_paused ? TW_QEMU_PAUSED : TW_QEMU_RUNNING);
    if (q->report)
        towline__v1__vm_report__free_unpacked(q->report, NULL);
    q->report = tw_vm_report(vm);
    if (q->ended && vm->qemu && q->report) {
        free(q->report->reason);
        q->report->reason = strdup(tw_qemu_exit_reason(vm->qemu));
    }
    return q->report ? TW_OK : TW_RESOURCE_EXHAUSTED;
}

/* Follows a machine until it is up, has ended, or the call's time is over. */
static enum tw_code await_up(struct tw_agent *agent, const struct tw_rpc_call *call,
                             struct report_query *q, struct tw_error *err)
{
    for (;;) {
        enum tw_code code =
            tw_mailbox_call(agent->mailbox, report_on_data_thread, q, call->deadline_ns, err);
        if (code || q->up)
            return code;
        if (q->ended)
            return tw_fail(err, TW_FAILED_PRECONDITION, q->name, "a running process",
                           q->report->reason, "the VM's process ended");
        if (tw_now(&tw_monotonic) + 20 * TW_MS > call->deadline_ns)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, q->name, NULL, NULL,
                           "the VM was not up in time");
        usleep(POLL_US);
    }
}

struct remove_query {
    const char *name;
    uint64_t epoch;
};

static enum tw_code remove_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    const struct remove_query *q = arg;
    char given[32];
    struct tw_vm *vm = tw_vm_find(owner, q->name);
    if (!vm)
        return TW_OK;
    snprintf(given, sizeof given, "epoch %llu", (unsigned long long)vm->record->epoch);
    if (vm->record->epoch > q->epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->name, "an older copy", given,
                       "the copy here is newer than the one to remove");
    if (vm->job)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->name, "a VM in no migration",
                       vm->job->params.id, "the VM is being migrated");
    return tw_vm_remove(vm, err);
}

static enum tw_code start_vm(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    Towline__V1__StartVmResponse *out = (Towline__V1__StartVmResponse *)response;
    Towline__V1__StartVmRequest *r = (Towline__V1__StartVmRequest *)(uintptr_t)request;
    enum tw_code code =
        tw_mailbox_call(agent->mailbox, start_vm_on_data_thread, r, call->deadline_ns, err);
    if (code)
        return code;
    struct report_query q = {.name = r->spec->name};
    code = await_up(agent, call, &q, err);
    if (code == TW_FAILED_PRECONDITION) {
        /* It never ran: nothing of it stays. */
        struct remove_query gone = {r->spec->name, r->epoch};
        struct tw_error ignored;
        tw_mailbox_call(agent->mailbox, remove_on_data_thread, &gone, call->deadline_ns, &ignored);
    }
    out->vm = q.report;
    return code;
}

static enum tw_code remove_vm(void *ctx, const struct tw_rpc_call *call,
                              const ProtobufCMessage *request, ProtobufCMessage *response,
                              struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__RemoveVmRequest *r = (const Towline__V1__RemoveVmRequest *)request;
    struct remove_query q = {r->name, r->epoch};
    (void)response;
    return tw_mailbox_call(agent->mailbox, remove_on_data_thread, &q, call->deadline_ns, err);
}

/* ---- Migrations --------------------------------------------------------------------------------
 */

struct prepare_query {
    const Towline__V1__PrepareIncomingRequest *request;
    uint8_t token[TW_OWNER_SIZE];
    char address[256], verbs_address[256];
};

static enum tw_code prepare_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    struct prepare_query *q = arg;
    snprintf(q->address, sizeof q->address, "%s", tw_fabric_address(agent->paths.tcp));
    snprintf(q->verbs_address, sizeof q->verbs_address, "%s",
             tw_paths_verbs_address(&agent->paths));
    return tw_job_start_destination(agent, q->request, q->token, err);
}

struct decision_query {
    const char *migration;
    Towline__V1__Decision decision; /* UNSPECIFIED: cancel by the operator */
    uint64_t epoch;
    Towline__V1__HandOver hand_over;
};

static enum tw_code decide_on_data_thread(void *owner, void *arg, struct tw_error *err);

static enum tw_code prepare(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    Towline__V1__PrepareIncomingResponse *out = (Towline__V1__PrepareIncomingResponse *)response;
    struct prepare_query q = {.request = (const Towline__V1__PrepareIncomingRequest *)request};
    enum tw_code code =
        tw_mailbox_call(agent->mailbox, prepare_on_data_thread, &q, call->deadline_ns, err);
    if (code)
        return code;
    struct report_query up = {.name = q.request->spec->name, .want_paused = true};
    code = await_up(agent, call, &up, err);
    if (up.report)
        towline__v1__vm_report__free_unpacked(up.report, NULL);
    if (code == TW_DEADLINE_EXCEEDED)
        return code; /* who asks again finds it further on; who does not, lets its time run out */
    if (code) {
        struct decision_query abort = {q.request->migration, TOWLINE__V1__DECISION__DECISION_ABORT,
                                       0, 0};
        struct tw_error ignored;
        tw_mailbox_call(agent->mailbox, decide_on_data_thread, &abort,
                        tw_after(tw_now(&tw_monotonic), TW_SEC), &ignored);
        return code;
    }
    out->fabric_address = strdup(q.address);
    out->verbs_address = strdup(q.verbs_address);
    out->token.data = malloc(TW_OWNER_SIZE);
    if (!out->token.data)
        return TW_RESOURCE_EXHAUSTED;
    memcpy(out->token.data, q.token, TW_OWNER_SIZE);
    out->token.len = TW_OWNER_SIZE;
    return TW_OK;
}

static enum tw_code start_outgoing_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    return tw_job_start_source(owner, arg, err);
}

static enum tw_code start_outgoing(void *ctx, const struct tw_rpc_call *call,
                                   const ProtobufCMessage *request, ProtobufCMessage *response,
                                   struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    (void)response;
    return tw_mailbox_call(agent->mailbox, start_outgoing_on_data_thread,
                           (void *)(uintptr_t)request, call->deadline_ns, err);
}

/* What is known of a migration that no job runs for: its outcome, else what the VM's record says.
 */
static Towline__V1__HandOver recorded(struct tw_agent *agent, const char *id,
                                      Towline__V1__AgentGetMigrationResponse *out,
                                      struct tw_vm **vm)
{
    *vm = NULL;
    Towline__V1__MigrationRecord *r = tw_record_migration_load(agent->store, id);
    if (r) {
        Towline__V1__HandOver h = (Towline__V1__HandOver)r->hand_over;
        if (out) {
            out->source = r->source;
            out->progress = r->progress;
            out->error = r->error;
            r->progress = NULL;
            r->error = NULL;
        }
        towline__v1__migration_record__free_unpacked(r, NULL);
        return h;
    }
    for (struct tw_vm *v = agent->vms; v; v = v->next) {
        if (strcmp(v->record->migration, id) != 0)
            continue;
        *vm = v;
        if (out) {
            out->source = v->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP ||
                          v->record->hand_over == TW_HAND_OVER_ABORTED;
            out->peer_lost = true;
        }
        if (v->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP)
            return TOWLINE__V1__HAND_OVER__HAND_OVER_GIVEN_UP;
        if (v->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_PREPARED)
            return TOWLINE__V1__HAND_OVER__HAND_OVER_PREPARED;
        if (v->record->hand_over)
            return (Towline__V1__HandOver)v->record->hand_over;
    }
    return TOWLINE__V1__HAND_OVER__HAND_OVER_UNKNOWN;
}

struct get_query {
    const char *migration;
    Towline__V1__AgentGetMigrationResponse *out;
};

static enum tw_code get_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    struct get_query *q = arg;
    struct tw_job *job = tw_job_find(agent, q->migration);
    struct tw_vm *vm = NULL;
    (void)err;
    if (!job) {
        q->out->hand_over = recorded(agent, q->migration, q->out, &vm);
        return TW_OK;
    }
    struct tw_migration_progress progress;
    tw_job_progress(job, &progress);
    q->out->hand_over = (Towline__V1__HandOver)tw_job_hand_over(job);
    q->out->progress = tw_progress_to_proto(&progress, job);
    q->out->error = tw_error_to_proto(tw_job_error(job));
    q->out->peer_lost = tw_job_peer_lost(job);
    q->out->source = job->source != NULL;
    return TW_OK;
}

static enum tw_code get_migration(void *ctx, const struct tw_rpc_call *call,
                                  const ProtobufCMessage *request, ProtobufCMessage *response,
                                  struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__AgentGetMigrationRequest *r =
        (const Towline__V1__AgentGetMigrationRequest *)request;
    struct get_query q = {r->migration, (Towline__V1__AgentGetMigrationResponse *)response};
    return tw_mailbox_call(agent->mailbox, get_on_data_thread, &q, call->deadline_ns, err);
}

/* ---- Decisions ---------------------------------------------------------------------------------
 */

static enum tw_code wrong_side(const char *migration, const char *expected, struct tw_error *err)
{
    return tw_fail(err, TW_FAILED_PRECONDITION, migration, expected, NULL,
                   "this decision is not for this side");
}

static enum tw_code decide_job(struct tw_job *job, const struct decision_query *q,
                               struct tw_error *err)
{
    switch (q->decision) {
    case TOWLINE__V1__DECISION__DECISION_UNSPECIFIED:
        return job->source ? tw_source_cancel(job->source, err)
                           : wrong_side(q->migration, "the source", err);
    case TOWLINE__V1__DECISION__DECISION_COMMIT:
        return job->destination ? tw_destination_commit(job->destination, q->epoch, err)
                                : wrong_side(q->migration, "the destination", err);
    case TOWLINE__V1__DECISION__DECISION_ABORT:
        return job->destination ? tw_destination_abort(job->destination, err)
                                : wrong_side(q->migration, "the destination", err);
    case TOWLINE__V1__DECISION__DECISION_FINISH:
        return job->source ? tw_source_finish(job->source, err)
                           : wrong_side(q->migration, "the source", err);
    case TOWLINE__V1__DECISION__DECISION_RECLAIM:
        if (!job->source)
            return wrong_side(q->migration, "the source", err);
        job->reclaim_epoch = q->epoch;
        return tw_source_reclaim(job->source, err);
    case TOWLINE__V1__DECISION__DECISION_ABANDON:
        return job->destination ? tw_destination_abandon(job->destination, err)
                                : wrong_side(q->migration, "the destination", err);
    default:
        return tw_fail(err, TW_INVALID_ARGUMENT, q->migration, "a known decision", NULL,
                       "decision %d", (int)q->decision);
    }
}

/* No job runs: repeat what was decided before, close the door on what never began, or finish a
 * source copy whose process is gone. */
static enum tw_code decide_recorded(struct tw_agent *agent, struct decision_query *q,
                                    struct tw_error *err)
{
    static const Towline__V1__HandOver result[] = {
        [TOWLINE__V1__DECISION__DECISION_UNSPECIFIED] = TOWLINE__V1__HAND_OVER__HAND_OVER_ABORTED,
        [TOWLINE__V1__DECISION__DECISION_COMMIT] = TOWLINE__V1__HAND_OVER__HAND_OVER_COMMITTED,
        [TOWLINE__V1__DECISION__DECISION_ABORT] = TOWLINE__V1__HAND_OVER__HAND_OVER_ABORTED,
        [TOWLINE__V1__DECISION__DECISION_FINISH] = TOWLINE__V1__HAND_OVER__HAND_OVER_COMMITTED,
        [TOWLINE__V1__DECISION__DECISION_RECLAIM] = TOWLINE__V1__HAND_OVER__HAND_OVER_ABORTED,
        [TOWLINE__V1__DECISION__DECISION_ABANDON] = TOWLINE__V1__HAND_OVER__HAND_OVER_COMMITTED,
    };
    struct tw_vm *vm = NULL;
    if ((unsigned)q->decision >= sizeof result / sizeof *result)
        return tw_fail(err, TW_INVALID_ARGUMENT, q->migration, "a known decision", NULL,
                       "decision %d", (int)q->decision);
    q->hand_over = recorded(agent, q->migration, NULL, &vm);
    if (q->hand_over == result[q->decision])
        return TW_OK;
    bool ends = q->decision == TOWLINE__V1__DECISION__DECISION_ABORT ||
                q->decision == TOWLINE__V1__DECISION__DECISION_UNSPECIFIED;
    if (ends && q->hand_over == TOWLINE__V1__HAND_OVER__HAND_OVER_UNKNOWN) {
        q->hand_over = TOWLINE__V1__HAND_OVER__HAND_OVER_ABORTED;
        return tw_job_refuse(agent, q->migration, err);
    }
    if (vm && q->decision == TOWLINE__V1__DECISION__DECISION_FINISH &&
        q->hand_over == TOWLINE__V1__HAND_OVER__HAND_OVER_GIVEN_UP) {
        /* The outcome first: without it nobody would know of the migration once the record is gone,
         * and the controller would wait for it for ever. */
        enum tw_code code = tw_job_conclude(agent, q->migration, err);
        if (code)
            return code;
        vm->remove = true;
        q->hand_over = TOWLINE__V1__HAND_OVER__HAND_OVER_COMMITTED;
        return TW_OK;
    }
    return tw_fail(
        err, TW_FAILED_PRECONDITION, q->migration,
        protobuf_c_enum_descriptor_get_value(&towline__v1__hand_over__descriptor,
                                             (int)result[q->decision])
            ->name,
        protobuf_c_enum_descriptor_get_value(&towline__v1__hand_over__descriptor, (int)q->hand_over)
            ->name,
        "the migration has no live job on %s", agent->config.name);
}

static enum tw_code decide_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent *agent = owner;
    struct decision_query *q = arg;
    struct tw_job *job = tw_job_find(agent, q->migration);
    if (!job)
        return decide_recorded(agent, q, err);
    enum tw_code code = decide_job(job, q, err);
    q->hand_over = (Towline__V1__HandOver)tw_job_hand_over(job);
    return code;
}

static enum tw_code resolve(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__ResolveMigrationRequest *r =
        (const Towline__V1__ResolveMigrationRequest *)request;
    Towline__V1__ResolveMigrationResponse *out = (Towline__V1__ResolveMigrationResponse *)response;
    struct decision_query q = {r->migration, r->decision, r->epoch, 0};
    if (r->decision == TOWLINE__V1__DECISION__DECISION_UNSPECIFIED)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->migration, "commit, abort, finish or reclaim",
                       "none", "a decision is missing");
    enum tw_code code =
        tw_mailbox_call(agent->mailbox, decide_on_data_thread, &q, call->deadline_ns, err);
    out->hand_over = q.hand_over;
    return code;
}

static enum tw_code cancel(void *ctx, const struct tw_rpc_call *call,
                           const ProtobufCMessage *request, ProtobufCMessage *response,
                           struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__AgentCancelRequest *r = (const Towline__V1__AgentCancelRequest *)request;
    Towline__V1__AgentCancelResponse *out = (Towline__V1__AgentCancelResponse *)response;
    struct decision_query q = {r->migration, TOWLINE__V1__DECISION__DECISION_UNSPECIFIED, 0, 0};
    enum tw_code code =
        tw_mailbox_call(agent->mailbox, decide_on_data_thread, &q, call->deadline_ns, err);
    out->hand_over = q.hand_over;
    return code;
}

/* ---- Switch ------------------------------------------------------------------------------------
 */

static enum tw_code switch_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    const char *migration = arg;
    struct tw_job *job = tw_job_find(owner, migration);
    if (!job)
        return tw_fail(err, TW_NOT_FOUND, migration, NULL, NULL, "no such migration runs here");
    return job->source ? tw_source_switch(job->source, err)
                       : wrong_side(migration, "the source", err);
}

static enum tw_code switch_now(void *ctx, const struct tw_rpc_call *call,
                               const ProtobufCMessage *request, ProtobufCMessage *response,
                               struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    const Towline__V1__AgentSwitchRequest *r = (const Towline__V1__AgentSwitchRequest *)request;
    (void)response;
    return tw_mailbox_call(agent->mailbox, switch_on_data_thread, r->migration, call->deadline_ns,
                           err);
}

static enum tw_code reconnect_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    const Towline__V1__AgentReconnectRequest *r = arg;
    struct tw_job *job = tw_job_find(owner, r->migration);
    if (!job)
        return tw_fail(err, TW_NOT_FOUND, r->migration, NULL, NULL, "no such migration runs here");
    return tw_job_reconnect(job, r, err);
}

static enum tw_code reconnect(void *ctx, const struct tw_rpc_call *call,
                              const ProtobufCMessage *request, ProtobufCMessage *response,
                              struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    (void)response;
    return tw_mailbox_call(agent->mailbox, reconnect_on_data_thread, (void *)(uintptr_t)request,
                           call->deadline_ns, err);
}

/* ---- Health ------------------------------------------------------------------------------------
 */

static enum tw_code check(void *ctx, const struct tw_rpc_call *call,
                          const ProtobufCMessage *request, ProtobufCMessage *response,
                          struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    Towline__V1__HealthResponse *out = (Towline__V1__HealthResponse *)response;
    (void)request, (void)call, (void)err;
    out->ready = !atomic_load(&agent->stopping);
    out->component = strdup("agent");
    out->name = strdup(agent->config.name);
    out->version = strdup(TOWLINE_VERSION);
    out->protocol_version = TW_RPC_VERSION;
    out->protocol_version_min = TW_RPC_VERSION_MIN;
    out->uptime_ms = (tw_now(&tw_monotonic) - agent->started_ns) / TW_MS;
    return TW_OK;
}

static const struct tw_rpc_method agent_methods[] = {
    {"Describe", describe},
    {"Diagnose", diagnose},
    {"StartVm", start_vm},
    {"RemoveVm", remove_vm},
    {"PrepareIncoming", prepare},
    {"StartOutgoing", start_outgoing},
    {"GetMigration", get_migration},
    {"CancelMigration", cancel},
    {"SwitchMigration", switch_now},
    {"ResolveMigration", resolve},
    {"MeasureVm", tw_agent_measure_vm},
    {"AdjustMigration", tw_agent_adjust},
    {"ReconnectMigration", reconnect},
    {"HoldMirror", tw_agent_hold_mirror},
    {"GetMirror", tw_agent_get_mirror},
    {"ReleaseMirror", tw_agent_release_mirror},
};
static const struct tw_rpc_method health_methods[] = {{"Check", check}};

enum tw_code tw_agent_serve(struct tw_agent *agent, struct tw_rpc_server **server,
                            struct tw_error *err)
{
    const struct tw_rpc_server_config config = {
        .url = agent->config.listen, .tls = agent->tls, .insecure = agent->config.insecure};
    enum tw_code code = tw_rpc_server_open(&config, server, err);
    if (!code)
        code = tw_rpc_server_add(*server, &towline__v1__agent_service__descriptor, agent_methods,
                                 sizeof agent_methods / sizeof *agent_methods, agent, err);
    if (!code)
        code = tw_rpc_server_add(*server, &towline__v1__health_service__descriptor, health_methods,
                                 1, agent, err);
    if (!code)
        code = tw_agent_tracking_serve(agent->tracking, *server, err);
    if (!code)
        code = tw_rpc_server_start(*server, err);
    if (!code && !agent->config.advertise[0])
        snprintf(agent->config.advertise, sizeof agent->config.advertise, "%s",
                 tw_rpc_server_url(*server));
    return code;
}
