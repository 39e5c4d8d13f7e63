/* The agent: one data thread that owns machines, fabric and migrations (loop.c), a mailbox through
 * which the RPC and HTTP threads ask it for things, and a heartbeat thread.
 *
 * Everything in struct tw_agent below the mailbox belongs to the data thread. */
#ifndef TOWLINE_AGENTD_AGENT_H
#define TOWLINE_AGENTD_AGENT_H

#include "agentd/config.h"
#include "agentd/diagnose.h"
#include "agentd/guests.h"
#include "agentd/hook.h"
#include "agentd/mailbox.h"
#include "agentd/miss_recording.h"
#include "agentd/paths.h"
#include "agentd/record.h"
#include "agentd/tracking.h"
#include "fabric/fabric.h"
#include "hosts/qemu/qemu.h"
#include "services/migration/migration.h"
#include "towline/v1/agent.pb-c.h"
#include "towline/v1/state.pb-c.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TW_AGENT_VMS_MAX 256u

struct tw_agent;
struct tw_rpc_call;

/* One side of one migration in this agent. */
struct tw_job {
    struct tw_agent *agent;
    struct tw_vm *vm;
    struct tw_migration_env env;
    struct tw_migration_params params;
    char peer[TW_ID_SIZE]; /* host name of the other side */
    char path[8];          /* fabric to it: "tcp", "verbs"; empty = none yet */
    char path_reason[TW_PATH_REASON_SIZE];
    struct tw_source *source; /* exactly one of these two */
    struct tw_destination *destination;
    int keep_fd;    /* destination of a post-copy: the file of what is missing; -1 = none */
    uint64_t *kept; /* ... mapped */
    size_t kept_bytes;
    struct tw_miss_recording *recording; /* NULL: none */
    struct tw_hook *hook;                /* while the switch-over hook runs */
    uint64_t reclaim_epoch;              /* epoch to own with when the VM is taken back; 0 = keep */
    bool saved;                          /* the outcome is on disk */
    struct tw_job *next;
};

/* One VM copy in this agent: the durable record and the process. */
struct tw_vm {
    struct tw_agent *agent;
    Towline__V1__VmRecord *record;
    struct tw_qemu *qemu;         /* NULL: there is no process (failed) */
    struct tw_job *job;           /* NULL: not being migrated */
    char reason[256];             /* why there is no process */
    bool remove;                  /* destroy at the next turn: its migration has moved it away */
    bool continuing;              /* a CONTINUE of our own is under way */
    uint64_t retry_ns;            /* not before, for the next CONTINUE */
    struct tw_guest_meter *meter; /* NULL: nobody wants to know */
    uint64_t bytes_sent;          /* by finished outgoing migrations, for the metrics */
    struct tw_vm *next;
};

struct tw_agent_totals {
    uint64_t outgoing_completed, outgoing_aborted, incoming_completed, incoming_aborted;
    uint64_t bytes_sent, bytes_if_pages, lines_sent, lines_compare_only;
    uint64_t last_downtime_ns;
    uint64_t reconnects, path_waited_ns;   /* of finished migrations */
    uint64_t faults;                       /* waits of guests that ran here before their memory */
    struct tw_foresight_figures foresight; /* of finished outgoing migrations */
    uint64_t mirrors_held;                 /* that came to hold all that followed a VM */
    uint64_t turns, longest_turn_ns;
};

struct tw_agent {
    struct tw_agent_config config;
    uint64_t instance; /* random, of this start */
    uint64_t started_ns;
    struct tw_mailbox *mailbox;
    struct tw_diagnose *diagnose;
    struct tw_agent_tracking *tracking; /* a thread of its own */
    struct tw_guests *guests;           /* what the VMs write */
    struct tw_tls *tls;                 /* NULL: plain text on loopback */
    _Atomic bool stopping;
    _Atomic bool changed;                /* something a controller wants to know soon */
    _Atomic uint64_t controller_seen_ms; /* wall clock of the last answered heartbeat; 0 = never */

    /* Data thread only. */
    struct tw_paths paths;
    struct tw_record_store *store;
    struct tw_vm *vms;
    unsigned vm_count;
    struct tw_job *jobs;
    struct tw_mirror_job *mirrors; /* what is kept for migrations between others */
    struct tw_plan *plans;         /* VMs being measured, or measured lately */
    struct tw_agent_totals totals;
};

/* ---- loop.c ---------------------------------------------------------------------------------- */

enum tw_code tw_agent_open(const struct tw_agent_config *config, struct tw_agent **agent,
                           struct tw_error *err);
/* Runs the data thread's loop until agent->stopping. Machines run on afterwards. */
void tw_agent_run(struct tw_agent *agent);
void tw_agent_close(struct tw_agent *agent);

/* ---- vm.c ------------------------------------------------------------------------------------ */

struct tw_vm *tw_vm_find(struct tw_agent *agent, const char *name);
/* Checks room, writes the record, starts the process. */
enum tw_code tw_vm_start(struct tw_agent *agent, const Towline__V1__VmRecord *record,
                         struct tw_vm **vm, struct tw_error *err);
/* After a restart of the agent: attaches to what the record says. */
void tw_vm_adopt(struct tw_agent *agent, const Towline__V1__VmRecord *record);
/* At the start: ends what was being started or removed when an agent before this one was killed,
 * and has no record. Records that could not be read keep their VM's folder (see loop.c). */
void tw_vm_sweep(struct tw_agent *agent);
enum tw_code tw_vm_save(struct tw_vm *vm, struct tw_error *err);
void tw_vm_step(struct tw_vm *vm);
/* Ends the process, removes files and record. Its job must be gone. */
enum tw_code tw_vm_remove(struct tw_vm *vm, struct tw_error *err);
/* Ends a process whose memory will never be whole; the record stays, and says so. */
void tw_vm_strand(struct tw_vm *vm, const char *why);
/* Lets go of the process and frees (agent stop). */
void tw_vm_release(struct tw_vm *vm);
bool tw_vm_busy(const struct tw_vm *vm); /* needs a turn soon */
uint64_t tw_agent_memory_used(const struct tw_agent *agent);

/* ---- job.c, job_adopt.c, job_path.c, job_write.c
 * ----------------------------------------------------------------------------------- */

struct tw_job *tw_job_find(struct tw_agent *agent, const char *migration);
enum tw_code tw_job_start_source(struct tw_agent *agent,
                                 const Towline__V1__StartOutgoingRequest *request,
                                 struct tw_error *err);
enum tw_code tw_job_start_destination(struct tw_agent *agent,
                                      const Towline__V1__PrepareIncomingRequest *request,
                                      uint8_t token[TW_OWNER_SIZE], struct tw_error *err);
void tw_job_adopt(struct tw_vm *vm);
/* Advances; returns when it wants to be called again. Frees itself when it has ended. */
uint64_t tw_job_step(struct tw_job *job);
enum tw_hand_over tw_job_hand_over(const struct tw_job *job);
void tw_job_progress(const struct tw_job *job, struct tw_migration_progress *out);
const struct tw_error *tw_job_error(const struct tw_job *job);
bool tw_job_peer_lost(const struct tw_job *job);
/* Destination: where the source is now; `again` = whatever has become of earlier attempts. */
enum tw_code tw_job_reconnect(struct tw_job *job, const Towline__V1__AgentReconnectRequest *request,
                              struct tw_error *err);
void tw_job_free(struct tw_job *job);
/* Remembers for good that this agent has no part in a migration that it does not know. */
enum tw_code tw_job_refuse(struct tw_agent *agent, const char *migration, struct tw_error *err);
/* The same of one whose VM has moved away, for a copy here that no job can finish any more. */
enum tw_code tw_job_conclude(struct tw_agent *agent, const char *migration, struct tw_error *err);
extern const struct tw_fabric_events tw_job_fabric_events;

/* ---- mirrors.c: what is kept for migrations between others ------------------------------------
 */

struct tw_mirror_job;
/* Fills `target`, whose fields are then the caller's. */
enum tw_code tw_mirrors_hold(struct tw_agent *agent, const Towline__V1__HoldMirrorRequest *request,
                             Towline__V1__MirrorTarget *target, struct tw_error *err);
void tw_mirrors_get(struct tw_agent *agent, const char *migration,
                    Towline__V1__GetMirrorResponse *out);
void tw_mirrors_release(struct tw_agent *agent, const char *migration);
/* Whose token it is; NULL = nobody's here. */
struct tw_mirror_job *tw_mirrors_of_token(struct tw_agent *agent,
                                          const uint8_t token[TW_OWNER_SIZE]);
enum tw_code tw_mirrors_accept(struct tw_mirror_job *job, struct tw_conn *conn,
                               const struct tw_hello *hello, void **conn_ctx, struct tw_error *err);
/* Advances all of them; returns when it wants to be called again. */
uint64_t tw_mirrors_step(struct tw_agent *agent);
uint64_t tw_mirrors_reserved(const struct tw_agent *agent); /* bytes */
void tw_mirrors_free(struct tw_agent *agent);

/* ---- plan.c: VMs that are measured, and what their migration would come to
 * -----------------------
 */

struct tw_plan;
/* Begins, or tells how far it is. */
enum tw_code tw_plan_ask(struct tw_agent *agent, const Towline__V1__MeasureVmRequest *request,
                         Towline__V1__MeasureVmResponse *response, struct tw_error *err);
/* Advances all of them; returns when it wants to be called again. */
uint64_t tw_plans_step(struct tw_agent *agent);
void tw_plans_free(struct tw_agent *agent);

/* ---- convert.c ------------------------------------------------------------------------------- */

/* malloc'ed; freed with the message that holds them. */
Towline__V1__VmSpec *tw_spec_copy(const Towline__V1__VmSpec *spec);
Towline__V1__VmReport *tw_vm_report(const struct tw_vm *vm);
/* `job` adds the path that it takes; NULL = none. */
Towline__V1__MigrationProgress *tw_progress_to_proto(const struct tw_migration_progress *progress,
                                                     const struct tw_job *job);
Towline__V1__MigrationMethod tw_method_to_proto(enum tw_migration_method method);
Towline__V1__HostDescription *tw_agent_description(const struct tw_agent *agent);
/* `predictor`: enum tw_foresight_choice where the limits name none. */
void tw_limits_from_proto(const Towline__V1__MigrationLimits *limits, unsigned predictor,
                          struct tw_migration_limits *out);
enum tw_code tw_spec_check(const Towline__V1__VmSpec *spec, struct tw_error *err);

/* ---- handlers.c, heartbeat.c, metrics.c --------------------------------------------------------
 */

/* mirror_handlers.c */
enum tw_code tw_agent_hold_mirror(void *ctx, const struct tw_rpc_call *call,
                                  const ProtobufCMessage *request, ProtobufCMessage *response,
                                  struct tw_error *err);
enum tw_code tw_agent_get_mirror(void *ctx, const struct tw_rpc_call *call,
                                 const ProtobufCMessage *request, ProtobufCMessage *response,
                                 struct tw_error *err);
enum tw_code tw_agent_release_mirror(void *ctx, const struct tw_rpc_call *call,
                                     const ProtobufCMessage *request, ProtobufCMessage *response,
                                     struct tw_error *err);
/* plan_handlers.c */
enum tw_code tw_agent_measure_vm(void *ctx, const struct tw_rpc_call *call,
                                 const ProtobufCMessage *request, ProtobufCMessage *response,
                                 struct tw_error *err);
enum tw_code tw_agent_adjust(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err);
struct tw_rpc_server;
enum tw_code tw_agent_serve(struct tw_agent *agent, struct tw_rpc_server **server,
                            struct tw_error *err);
struct tw_heartbeat;
enum tw_code tw_heartbeat_start(struct tw_agent *agent, struct tw_heartbeat **heartbeat,
                                struct tw_error *err);
void tw_heartbeat_stop(struct tw_heartbeat *heartbeat);
struct tw_http_server;
enum tw_code tw_agent_http(struct tw_agent *agent, struct tw_http_server **server,
                           struct tw_error *err);

#endif
