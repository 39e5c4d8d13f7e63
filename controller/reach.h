/* Calls to agents by host name, with plain arguments. Thread-safe. */
#ifndef TOWLINE_CONTROLLER_REACH_H
#define TOWLINE_CONTROLLER_REACH_H

#include "controller/agents.h"
#include "controller/catalogue.h"
#include "towline/v1/agent.pb-c.h"

struct tw_reach {
    struct tw_agents *agents;
    struct tw_catalogue *catalogue;
};

/* A host that the catalogue takes for dead is given at most TW_DEAD_MS. */
#define TW_DEAD_MS 300u

enum tw_code tw_reach_start_vm(const struct tw_reach *reach, const char *host,
                               const Towline__V1__VmSpec *spec, uint64_t epoch, unsigned timeout_ms,
                               struct tw_error *err);
enum tw_code tw_reach_remove_vm(const struct tw_reach *reach, const char *host, const char *vm,
                                uint64_t epoch, unsigned timeout_ms, struct tw_error *err);

/* The answer is freed by the caller with protobuf_c_message_free_unpacked. */
enum tw_code tw_reach_diagnose(const struct tw_reach *reach, const char *host, unsigned timeout_ms,
                               Towline__V1__DiagnoseResponse **answer, struct tw_error *err);

/* Both answers are freed by the caller with protobuf_c_message_free_unpacked. */
enum tw_code tw_reach_prepare(const struct tw_reach *reach, const char *host,
                              const Towline__V1__PrepareIncomingRequest *request,
                              unsigned timeout_ms, Towline__V1__PrepareIncomingResponse **answer,
                              struct tw_error *err);
enum tw_code tw_reach_migration(const struct tw_reach *reach, const char *host, const char *id,
                                unsigned timeout_ms,
                                Towline__V1__AgentGetMigrationResponse **answer,
                                struct tw_error *err);

enum tw_code tw_reach_start_outgoing(const struct tw_reach *reach, const char *host,
                                     const Towline__V1__StartOutgoingRequest *request,
                                     unsigned timeout_ms, struct tw_error *err);
enum tw_code tw_reach_switch(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, struct tw_error *err);
enum tw_code tw_reach_adjust(const struct tw_reach *reach, const char *host,
                             const Towline__V1__AgentAdjustRequest *request, unsigned timeout_ms,
                             struct tw_error *err);
/* The answer is freed by the caller with protobuf_c_message_free_unpacked. */
enum tw_code tw_reach_measure(const struct tw_reach *reach, const char *host,
                              const Towline__V1__MeasureVmRequest *request, unsigned timeout_ms,
                              Towline__V1__MeasureVmResponse **answer, struct tw_error *err);
/* `fabric` and `verbs`: where the source is; empty = as it was. */
enum tw_code tw_reach_reconnect(const struct tw_reach *reach, const char *host, const char *id,
                                const char *fabric, const char *verbs, bool again,
                                unsigned timeout_ms, struct tw_error *err);
enum tw_code tw_reach_cancel(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, struct tw_error *err);
enum tw_code tw_reach_resolve(const struct tw_reach *reach, const char *host, const char *id,
                              Towline__V1__Decision decision, uint64_t epoch, unsigned timeout_ms,
                              struct tw_error *err);

/* The VM as the agent sees it this moment; *found false: it holds no such VM. */
enum tw_code tw_reach_vm(const struct tw_reach *reach, const char *host, const char *vm,
                         unsigned timeout_ms, bool *found, struct tw_report *report,
                         struct tw_error *err);

/* Both answers are freed by the caller with protobuf_c_message_free_unpacked. */
enum tw_code tw_reach_hold_mirror(const struct tw_reach *reach, const char *host,
                                  const Towline__V1__HoldMirrorRequest *request,
                                  unsigned timeout_ms, Towline__V1__HoldMirrorResponse **answer,
                                  struct tw_error *err);
enum tw_code tw_reach_mirror(const struct tw_reach *reach, const char *host, const char *id,
                             unsigned timeout_ms, Towline__V1__GetMirrorResponse **answer,
                             struct tw_error *err);
enum tw_code tw_reach_release_mirror(const struct tw_reach *reach, const char *host, const char *id,
                                     unsigned timeout_ms, struct tw_error *err);
/* The destination goes on from the mirror. */
enum tw_code tw_reach_from_mirror(const struct tw_reach *reach, const char *host, const char *id,
                                  unsigned timeout_ms, struct tw_error *err);

#endif
