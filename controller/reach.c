#include "controller/reach.h"

#include <stdio.h>
#include <string.h>

/* Protobuf fields are not const; requests are only read. */
static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static enum tw_code call(const struct tw_reach *reach, const char *host, const char *method,
                         const ProtobufCMessage *request, unsigned timeout_ms,
                         ProtobufCMessage **answer, struct tw_error *err)
{
    char url[TW_URL_SIZE], where[80];
    bool alive;
    *answer = NULL;
    snprintf(where, sizeof where, "host %.63s", host);
    if (!tw_catalogue_locate(reach->catalogue, host, url, &alive))
        return tw_fail(err, TW_UNAVAILABLE, where, NULL, NULL, "the host is not known");
    if (!alive && timeout_ms > TW_DEAD_MS)
        timeout_ms = TW_DEAD_MS;
    return tw_agents_call(reach->agents, host, url, method, request, timeout_ms, answer, err);
}

static enum tw_code call_only(const struct tw_reach *reach, const char *host, const char *method,
                              const ProtobufCMessage *request, unsigned timeout_ms,
                              struct tw_error *err)
{
    ProtobufCMessage *answer;
    enum tw_code code = call(reach, host, method, request, timeout_ms, &answer, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(answer, NULL);
    return code;
}

enum tw_code tw_reach_start_vm(const struct tw_reach *reach, const char *host,
                               const Towline__V1__VmSpec *spec, uint64_t epoch, unsigned timeout_ms,
                               struct tw_error *err)
{
    Towline__V1__StartVmRequest r = TOWLINE__V1__START_VM_REQUEST__INIT;
    r.spec = (Towline__V1__VmSpec *)(uintptr_t)spec;
    r.epoch = epoch;
    return call_only(reach, host, "StartVm", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_remove_vm(const struct tw_reach *reach, const char *host, const char *vm,
                                uint64_t epoch, unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__RemoveVmRequest r = TOWLINE__V1__REMOVE_VM_REQUEST__INIT;
    r.name = text(vm);
    r.epoch = epoch;
    return call_only(reach, host, "RemoveVm", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_prepare(const struct tw_reach *reach, const char *host,
                              const Towline__V1__PrepareIncomingRequest *request,
                              unsigned timeout_ms, Towline__V1__PrepareIncomingResponse **answer,
                              struct tw_error *err)
{
    return call(reach, host, "PrepareIncoming", &request->base, timeout_ms,
                (ProtobufCMessage **)answer, err);
}

enum tw_code tw_reach_migration(const struct tw_reach *reach, const char *host, const char *id,
                                unsigned timeout_ms,
                                Towline__V1__AgentGetMigrationResponse **answer,
                                struct tw_error *err)
{
    Towline__V1__AgentGetMigrationRequest r = TOWLINE__V1__AGENT_GET_MIGRATION_REQUEST__INIT;
    r.migration = text(id);
    return call(reach, host, "GetMigration", &r.base, timeout_ms, (ProtobufCMessage **)answer, err);
}

enum tw_code tw_reach_diagnose(const struct tw_reach *reach, const char *host, unsigned timeout_ms,
                               Towline__V1__DiagnoseResponse **answer, struct tw_error *err)
{
    Towline__V1__DiagnoseRequest r = TOWLINE__V1__DIAGNOSE_REQUEST__INIT;
    return call(reach, host, "Diagnose", &r.base, timeout_ms, (ProtobufCMessage **)answer, err);
}

enum tw_code tw_reach_start_outgoing(const struct tw_reach *reach, const char *host,
                                     const Towline__V1__StartOutgoingRequest *request,
                                     unsigned timeout_ms, struct tw_error *err)
{
    return call_only(reach, host, "StartOutgoing", &request->base, timeout_ms, err);
}

enum tw_code tw_reach_cancel(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__AgentCancelRequest r = TOWLINE__V1__AGENT_CANCEL_REQUEST__INIT;
    r.migration = text(id);
    return call_only(reach, host, "CancelMigration", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_adjust(const struct tw_reach *reach, const char *host,
                             const Towline__V1__AgentAdjustRequest *request, unsigned timeout_ms,
                             struct tw_error *err)
{
    return call_only(reach, host, "AdjustMigration", &request->base, timeout_ms, err);
}

enum tw_code tw_reach_measure(const struct tw_reach *reach, const char *host,
                              const Towline__V1__MeasureVmRequest *request, unsigned timeout_ms,
                              Towline__V1__MeasureVmResponse **answer, struct tw_error *err)
{
    return call(reach, host, "MeasureVm", &request->base, timeout_ms, (ProtobufCMessage **)answer,
                err);
}

enum tw_code tw_reach_switch(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__AgentSwitchRequest r = TOWLINE__V1__AGENT_SWITCH_REQUEST__INIT;
    r.migration = text(id);
    return call_only(reach, host, "SwitchMigration", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_reconnect(const struct tw_reach *reach, const char *host, const char *id,
                                const char *fabric, const char *verbs, bool again,
                                unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__AgentReconnectRequest r = TOWLINE__V1__AGENT_RECONNECT_REQUEST__INIT;
    r.migration = text(id);
    r.source_fabric_address = text(fabric);
    r.source_verbs_address = text(verbs);
    r.again = again;
    return call_only(reach, host, "ReconnectMigration", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_resolve(const struct tw_reach *reach, const char *host, const char *id,
                              Towline__V1__Decision decision, uint64_t epoch, unsigned timeout_ms,
                              struct tw_error *err)
{
    Towline__V1__ResolveMigrationRequest r = TOWLINE__V1__RESOLVE_MIGRATION_REQUEST__INIT;
    r.migration = text(id);
    r.decision = decision;
    r.epoch = epoch;
    return call_only(reach, host, "ResolveMigration", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_vm(const struct tw_reach *reach, const char *host, const char *vm,
                         unsigned timeout_ms, bool *found, struct tw_report *report,
                         struct tw_error *err)
{
    Towline__V1__DescribeRequest r = TOWLINE__V1__DESCRIBE_REQUEST__INIT;
    ProtobufCMessage *answer;
    *found = false;
    memset(report, 0, sizeof *report);
    enum tw_code code = call(reach, host, "Describe", &r.base, timeout_ms, &answer, err);
    if (code != TW_OK)
        return code;
    const Towline__V1__DescribeResponse *d = (const Towline__V1__DescribeResponse *)answer;
    for (size_t i = 0; i < d->n_vms && !*found; i++) {
        const Towline__V1__VmReport *v = d->vms[i];
        if (strcmp(v->name, vm) != 0)
            continue;
        *found = true;
        snprintf(report->name, sizeof report->name, "%s", v->name);
        snprintf(report->migration, sizeof report->migration, "%s", v->migration);
        snprintf(report->reason, sizeof report->reason, "%s", v->reason);
        report->epoch = v->epoch;
        report->state = (enum tw_vm_state)v->state;
        report->memory_bytes = v->memory_bytes;
        report->pid = v->pid;
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    return TW_OK;
}

enum tw_code tw_reach_hold_mirror(const struct tw_reach *reach, const char *host,
                                  const Towline__V1__HoldMirrorRequest *request,
                                  unsigned timeout_ms, Towline__V1__HoldMirrorResponse **answer,
                                  struct tw_error *err)
{
    return call(reach, host, "HoldMirror", &request->base, timeout_ms, (ProtobufCMessage **)answer,
                err);
}

enum tw_code tw_reach_mirror(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, Towline__V1__GetMirrorResponse **answer,
                             struct tw_error *err)
{
    Towline__V1__GetMirrorRequest r = TOWLINE__V1__GET_MIRROR_REQUEST__INIT;
    r.migration = text(id);
    return call(reach, host, "GetMirror", &r.base, timeout_ms, (ProtobufCMessage **)answer, err);
}

enum tw_code tw_reach_release_mirror(const struct tw_reach *reach, const char *host, const char *id,
                                     unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__ReleaseMirrorRequest r = TOWLINE__V1__RELEASE_MIRROR_REQUEST__INIT;
    r.migration = text(id);
    return call_only(reach, host, "ReleaseMirror", &r.base, timeout_ms, err);
}

enum tw_code tw_reach_from_mirror(const struct tw_reach *reach, const char *host, const char *id,
                                  unsigned timeout_ms, struct tw_error *err)
{
    Towline__V1__AgentReconnectRequest r = TOWLINE__V1__AGENT_RECONNECT_REQUEST__INIT;
    r.migration = text(id);
    r.again = r.from_mirror = true;
    return call_only(reach, host, "ReconnectMigration", &r.base, timeout_ms, err);
}
