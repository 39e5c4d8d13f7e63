/* Agents for the controller's tests: real RPC servers with played VMs and played migrations.
 *
 * They keep the promises of agent.proto: what is durable survives fake_kill() and fake_start(), an
 * incoming copy does not; a source that was not given up takes its VM back when the link is cut. A
 * pump moves every migration a step each few milliseconds, up to the step at which a test holds
 * it. The world watches that never two copies of a VM run at once. */
#ifndef TOWLINE_CONTROLLER_FAKE_AGENT_H
#define TOWLINE_CONTROLLER_FAKE_AGENT_H

#include "controller/resolve.h"
#include "rpc/rpc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_AGENTS 4u
#define FAKE_VMS    64u
#define FAKE_SIDES  256u

enum fake_step {
    FAKE_CONNECTING,
    FAKE_FULL_COPY,
    FAKE_ROUND,
    FAKE_STOPPING,  /* the VM stops */
    FAKE_PREPARED,  /* the destination is durably prepared */
    FAKE_GIVEN_UP,  /* the source has durably given up */
    FAKE_COMMITTED, /* the destination runs */
    FAKE_FINISHED,  /* the source knows and has removed its copy */
    FAKE_STEPS,
};

enum fake_copy { FAKE_OWNED, FAKE_OUTGOING, FAKE_GAVE, FAKE_INCOMING, FAKE_READY };

struct fake_vm {
    char name[64], migration[64];
    uint64_t epoch, memory_bytes;
    enum fake_copy copy;
    bool runs; /* its vCPUs do */
    bool dead; /* its process is gone */
};

/* One side of a migration; hand_over is durable. */
struct fake_side {
    char id[64], vm[64];
    enum tw_known hand_over;
    bool source, peer_lost;
    bool follows;        /* destination: when it runs, its memory is still at the source */
    enum fake_step step; /* source */
    struct fake_agent *peer;
    uint64_t epoch, bandwidth;
    uint32_t downtime_ms;
    bool paused;
    uint32_t slow_down_percent;
    char error[64];
    uint64_t lines_left; /* destination: that it misses */
    bool abandoned;
};

struct fake_world;
struct fake_agent {
    struct fake_world *world;
    char name[16], url[64];
    bool up;
    struct tw_rpc_server *server;
    pthread_t heart;
    _Atomic bool heart_stop;
    uint64_t instance;
    _Atomic uint64_t capacity_bytes;
    struct fake_vm vms[FAKE_VMS];
    struct fake_side sides[FAKE_SIDES];
    unsigned vm_count, side_count;
    /* How it misbehaves. */
    _Atomic unsigned refuse_prepare, refuse_start_vm; /* enum tw_code */
    uint64_t clock_ahead_us;                          /* its wall clock */
    _Atomic unsigned slow_ms;                         /* every call takes that long */
    _Atomic unsigned prepares;                        /* calls of PrepareIncoming */
    char mirrors[64];                                 /* migration that it keeps lines for */
    _Atomic unsigned refuse_mirror;                   /* enum tw_code */
    _Atomic bool mirror_fills;                        /* it does not hold all */
    _Atomic unsigned from_mirror;                     /* orders to go on from one */
    char measured[64];                                /* the last plan that was asked for */
    _Atomic bool refuse_choice;
    _Atomic uint64_t dirty_lines; /* that it measures */
};

struct fake_world {
    pthread_mutex_t lock;
    char dir[64], controller_url[64];
    struct fake_agent agents[FAKE_AGENTS];
    enum fake_step hold; /* migrations stand still before this step; FAKE_STEPS = none */
    pthread_t pump;
    _Atomic bool pump_stop;
    unsigned two_running; /* how often two copies of a VM ran */
};

/* A folder of its own and agents "node-a" .. "node-d", none started. */
void fake_world_open(struct fake_world *world);
void fake_world_close(struct fake_world *world);
/* Only removes the folder. */
void fake_world_unlink(struct fake_world *world);

void fake_start(struct fake_world *world, unsigned agent);
/* As SIGKILL: calls are not answered, links are cut, VMs run on. (The server itself stays: closing
 * and opening servers in one process is beyond what nng 1.5 does reliably.) */
void fake_kill(struct fake_world *world, unsigned agent);
/* The disk of a dead agent is wiped and its VMs are gone. */
void fake_wipe(struct fake_world *world, unsigned agent);
/* The data connections of all migrations. */
void fake_cut(struct fake_world *world);
void fake_hold(struct fake_world *world, enum fake_step step);
/* The VM's process on that agent is killed. */
void fake_vm_die(struct fake_world *world, unsigned agent, const char *vm);

/* A destination that does not run yet: when it does, its memory is still at the source. */
void fake_memory_follows(struct fake_world *world, unsigned agent, const char *id);
/* Memory is missing there, whether it runs or not. */
void fake_misses(struct fake_world *world, unsigned agent, const char *id);
/* What its disk says is something else now. */
void fake_decided(struct fake_world *world, unsigned agent, const char *id, enum tw_known known);

/* A copy of what the agent holds; false: nothing. */
bool fake_vm_get(struct fake_world *world, unsigned agent, const char *vm, struct fake_vm *out);
enum tw_known fake_hand_over(struct fake_world *world, unsigned agent, const char *id);
/* How far the source of that migration is; FAKE_STEPS: it knows nothing of it. */
enum fake_step fake_step_of(struct fake_world *world, unsigned agent, const char *id);

#endif
