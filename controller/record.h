/* What the controller keeps of hosts, VMs and migrations: plain values, copied freely. */
#ifndef TOWLINE_CONTROLLER_RECORD_H
#define TOWLINE_CONTROLLER_RECORD_H

#include "base/error.h"
#include "controller/resolve.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_NAME_SIZE     64u   /* names of hosts and VMs, ids, with the final zero */
#define TW_URL_SIZE      256u  /* with the final zero */
#define TW_REASON_SIZE   192u  /* with the final zero */
#define TW_SPEC_BYTES    8192u /* a packed VmSpec */
#define TW_LIMITS_BYTES  256u  /* packed MigrationLimits */
#define TW_PROGRESS_SIZE 8192u /* packed MigrationProgress */

#define TW_HOST_PATHS_MAX 16u /* of one host; more are left out */

/* How a host reaches another one. */
struct tw_path_record {
    char peer[TW_NAME_SIZE], migration[TW_NAME_SIZE];
    char fabric[16], reason[TW_REASON_SIZE];
};

struct tw_host_record {
    char name[TW_NAME_SIZE], rpc_url[TW_URL_SIZE], fabric_address[TW_URL_SIZE];
    char fabric[16], version[32];
    /* As last reported; not stored: a controller that was restarted is soon told again. */
    char verbs_address[TW_URL_SIZE], fabric_reason[TW_REASON_SIZE];
    struct tw_path_record paths[TW_HOST_PATHS_MAX];
    unsigned path_count;
    uint64_t capacity_bytes, used_bytes, instance;
    uint32_t cpus;
    bool clock_known; /* the agent says what time it is; as last reported, not stored */
    int64_t clock_ahead_ms;
    bool alive;
    uint64_t last_seen_unix_ms;
};

/* Numbers as VmState in vm.proto. */
enum tw_vm_state {
    TW_VM_STARTING = 1,
    TW_VM_RUNNING = 2,
    TW_VM_PAUSED = 3,
    TW_VM_STOPPED = 4,
    TW_VM_FAILED = 5,
    TW_VM_UNKNOWN = 6,
    TW_VM_INCOMING = 7,
    TW_VM_GIVEN_UP = 8,
};

/* What the operator asked for last; the settler brings the agents there. */
enum tw_wanted { TW_WANTED_RUNNING = 1, TW_WANTED_STOPPED = 2, TW_WANTED_GONE = 3 };

struct tw_vm_record {
    char name[TW_NAME_SIZE], host[TW_NAME_SIZE], migration[TW_NAME_SIZE];
    uint8_t spec[TW_SPEC_BYTES];
    size_t spec_size;
    uint64_t memory_bytes;
    uint64_t epoch;        /* of the owner's copy */
    uint64_t epoch_issued; /* greatest ever given out for this name */
    enum tw_vm_state state;
    enum tw_wanted wanted;
    char reason[TW_REASON_SIZE];
    uint64_t created_unix_ms, changed_unix_ms;
};

/* Deleted, and nothing of it is left anywhere: only its name's epochs are remembered. */
static inline bool tw_vm_forgotten(const struct tw_vm_record *vm)
{
    return vm->wanted == TW_WANTED_GONE && !vm->host[0];
}

/* Numbers as MigrationState in migration.proto, less one: state 0 is where a machine begins. */
enum tw_migration_state {
    TW_MIGRATION_PENDING,
    TW_MIGRATION_PREPARING,
    TW_MIGRATION_COPYING,
    TW_MIGRATION_SWITCHING,
    TW_MIGRATION_RESOLVING,
    TW_MIGRATION_COMPLETED,
    TW_MIGRATION_CANCELLED,
    TW_MIGRATION_FAILED,
    TW_MIGRATION_LOST,
    TW_MIGRATION_STATES,
};

/* What a host still has to be told after the migration's end. */
enum tw_owed {
    TW_OWED_NOTHING = 0,
    TW_OWED_SOURCE_FINISH = 1,
    TW_OWED_DESTINATION_ABORT = 2,
    TW_OWED_MIRROR_RELEASE = 4,
};

struct tw_migration_record {
    uint64_t number; /* id is "m-" and this */
    char id[TW_NAME_SIZE], vm[TW_NAME_SIZE], source[TW_NAME_SIZE], destination[TW_NAME_SIZE];
    enum tw_migration_state state;
    uint8_t limits[TW_LIMITS_BYTES];
    size_t limits_size;
    uint8_t progress[TW_PROGRESS_SIZE];
    size_t progress_size;
    struct tw_error error;
    uint64_t epoch;         /* that the destination gets */
    uint64_t source_epoch;  /* of the source's copy when it began */
    uint64_t reclaim_epoch; /* that the source gets with RECLAIM; 0 = not decided */
    enum tw_known source_known, destination_known;
    enum tw_decided decision;
    enum tw_fenced fenced;
    unsigned owed; /* enum tw_owed, combined */
    bool cancel_requested;
    uint64_t created_unix_ms, ended_unix_ms;
};

static inline bool tw_migration_ended(const struct tw_migration_record *m)
{
    return m->state >= TW_MIGRATION_COMPLETED;
}

#endif
