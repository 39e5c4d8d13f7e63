/* A cluster in virtual time: one controller, three agents, their disks, their network and their
 * guests, all in this process, all a function of a seed and a list of things that go wrong. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_WORLD_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_WORLD_H

#include "tests/cluster/virtual/fiber.h"

#include <stdio.h>
#include <sys/types.h>

#define VT_AGENTS     3u
#define VT_CONTROLLER VT_AGENTS       /* index of its node */
#define VT_OPERATOR   (VT_AGENTS + 1) /* who asks for things; never fails */
#define VT_NODES      (VT_AGENTS + 2)
#define VT_VMS_MAX    2u
#define VT_MOVES_MAX  3u
#define VT_FAULTS_MAX 12u

enum vt_method { VT_PRECOPY, VT_POSTCOPY, VT_HYBRID, VT_METHODS };
extern const char *const vt_method_names[VT_METHODS];

/* ---- What goes wrong ------------------------------------------------------------------------- */

enum vt_fault_kind {
    VT_KILL,          /* `node` dies and starts again `lasts_ns` later */
    VT_KILL_AT_WRITE, /* ... before or after (amount & 1) its next durable writes (amount / 2) */
    VT_CUT,           /* between `node` and `other`; `amount`: its end ends every cut of these */
    VT_ISOLATE,       /* between `node` and everybody */
    VT_LOSS,          /* `amount` percent of what RPC carries */
    VT_DELAY,         /* RPC takes up to `amount` ms one way */
    VT_TWINS,         /* `amount` percent of RPC requests arrive twice */
    VT_DROP,          /* the next `amount` chunks of the fabric vanish */
    VT_DISK_FULL,     /* of `node` */
    VT_DISK_SLOW,     /* of `node`: up to `amount` ms a write */
    VT_KILL_GUEST,    /* the process of a copy on `node`, or of the copy that runs */
    VT_HOST_OFF,      /* `node` has no power, its guests with it; 0 ns = for good */
    VT_STOP,          /* `node` is told to end, ends in order and starts again */
    /* Orders of an operator to whatever migration there is. */
    VT_CANCEL,
    VT_SWITCH,
    VT_PAUSE, /* for `lasts_ns` */
    VT_SET,   /* the bandwidth: `amount` KiB/s */
    VT_RECONNECT,
    VT_SLOW, /* the budget of the guest's slow-down: `amount` percent */
    VT_FAULT_KINDS,
};
extern const char *const vt_fault_names[VT_FAULT_KINDS];

struct vt_fault {
    enum vt_fault_kind kind;
    /* When: at a time, or when a node comes to a named point (base/fault.h) for the n-th time. */
    uint64_t at_ns; /* after the beginning, or after the point */
    char point[40]; /* "source.final_pass"; "" = by time */
    unsigned nth;   /* 1 = the first time */
    unsigned node, other;
    uint64_t lasts_ns;
    unsigned amount;
};

enum vt_plan {
    VT_PLAN_NONE,
    VT_PLAN_FRESH,   /* each move runs a plan that was just made */
    VT_PLAN_STALE,   /* a plan that was made before the VM moved is tried again behind it */
    VT_PLAN_EXPIRED, /* ... and one that is too old */
    VT_PLANS,
};

/* What a seed stands for. Everything else follows from it. */
struct vt_scenario {
    uint64_t seed;
    unsigned vms, moves;
    enum vt_method method[VT_VMS_MAX][VT_MOVES_MAX];
    unsigned data_pages; /* of each VM that are not holes at first */
    uint64_t stores_per_s;
    uint64_t bandwidth;
    bool all_writers_seen;
    bool hook;         /* a switch-over hook is configured */
    bool mirror;       /* the third agent keeps what follows the VM */
    bool mirror_named; /* it insists on it; else the VM may move without */
    uint64_t
        mirror_after_ns;  /* it is asked when the source has been silent so long; 0 = as usual */
    unsigned slow_down;   /* percent of its time that pre-copy may make a guest wait */
    unsigned downtime_ms; /* 0 = as usual */
    bool deletes;         /* the operator deletes the first VM at the end */
    enum vt_plan plan;    /* whether the first VM's moves follow plans */
    uint64_t recover_ns;  /* how long a lost path is tried again; 0 = as usual */
    uint64_t wrong_ns;    /* for how long things may go wrong; 0 = as usual */
    struct vt_fault faults[VT_FAULTS_MAX];
    unsigned fault_count;
    uint64_t keep;           /* bits of the faults that happen */
    const char *method_name; /* that was asked for; NULL = by the seed */
    const char *mutation;    /* the rule that is broken on purpose; NULL = none */
};

/* ---- The world ------------------------------------------------------------------------------- */

struct vt_network {
    uint64_t delay_ns; /* one way, at most; 0 = as usual */
    unsigned loss_percent, twin_percent;
    unsigned cuts[VT_NODES][VT_NODES]; /* how many reasons there are for a cut */
};

struct vt_world {
    const struct vt_scenario *scenario;
    char dir[64];
    struct vt_node nodes[VT_NODES];
    struct vt_network network;
    uint64_t began_ns;
    bool healing;                       /* nothing goes wrong any more */
    bool ending;                        /* every process is to end */
    unsigned point_seen[VT_FAULTS_MAX]; /* how often a fault's point was passed */
    bool struck[VT_FAULTS_MAX];
    bool guest_killed;
    bool trace;
    char problem[400]; /* the first broken rule; "" = none */
    uint64_t problem_ns;
    unsigned reached[2][64]; /* states of source and destination that were entered */
    unsigned reconnects;     /* orders to connect again that were taken */
    /* What chance does not come to by itself, counted. */
    unsigned paced;    /* stores that waited */
    unsigned mirrored; /* mirrors that came to hold everything */
    unsigned served;   /* ... and that a destination went on from */
    unsigned saved;    /* VMs that outlived their source's host by that */
};
extern struct vt_world vt_world;

/* Plays it to the end; true when no rule was broken. */
bool vt_play(const struct vt_scenario *scenario, bool trace);

/* Removes the files of a process that was ended while it played. */
void vt_folder_remove(pid_t pid);

/* The first broken rule stands. */
void vt_problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vt_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline bool vt_mutated(const char *rule);

/* ---- nodes.c --------------------------------------------------------------------------------- */

void vt_node_start(struct vt_node *node);
/* At once; what it still does reaches nobody. */
void vt_kill(struct vt_node *node);
void vt_kill_for(struct vt_node *node, uint64_t down_ns);
void vt_stop_for(struct vt_node *node, uint64_t down_ns);
/* 0 = until vt_hosts_on(). */
void vt_host_off(struct vt_node *node, uint64_t down_ns);
void vt_hosts_on(void);
struct vt_node *vt_node_of(const char *url);
unsigned vt_index(const struct vt_node *node);
unsigned vt_connections(const struct vt_node *node); /* of its fabric */
bool vt_is_cut(const struct vt_node *a, const struct vt_node *b);
void vt_cut(unsigned a, unsigned b);
void vt_mend(unsigned a, unsigned b);

/* What the nodes do; each in a file of its own, since agent and controller use the same names. */
void *vt_agent_main(void *node);
void *vt_controller_main(void *node);

/* ---- agent_node.c ---------------------------------------------------------------------------- */

/* Whether an agent's record on disk says that it owns the VM, and that at most one does. */
bool vt_owns_on_disk(unsigned index, const char *vm);
void vt_check_owners(const char *vm);
/* ... and no older copy waits on a host that was declared lost to be removed. */
void vt_check_owners_end(const char *vm);
/* Whether an agent keeps all that followed the VM of a migration. */
bool vt_mirror_complete(unsigned index, const char *migration);
bool vt_agents_idle(void); /* all are up, none moves anything */
void vt_agent_check_end(unsigned index);

/* ---- faults.c -------------------------------------------------------------------------------- */

#define VT_WHOEVER VT_NODES /* as a fault's node: who passes the point */
void vt_faults_begin(void);
void vt_heal(void);
void vt_scenario_of_seed(struct vt_scenario *scenario, uint64_t seed, int method);
void vt_fault_print(const struct vt_fault *fault, FILE *out);

/* ---- operator.c ------------------------------------------------------------------------------ */

void vt_operator_begin(void);
bool vt_operator_done(void);
bool vt_operator_settled(void); /* everything that was asked for has come to an end */
void vt_operator_check(void);
void vt_operator_order(enum vt_fault_kind order, unsigned amount);
void vt_operator_resume(void);
void vt_operator_end(void);

/* ---- guest.c --------------------------------------------------------------------------------- */

void vt_guests_begin(void);
void vt_guests_end(void);
/* The VM was acknowledged to run: from here on nothing of it may be lost. */
void vt_guest_acknowledged(const char *vm);
void vt_guest_deleting(const char *vm);
/* It may be made to wait for so much of its time. What was asked for before may still arrive. */
void vt_guest_slow_down(const char *vm, unsigned percent);
/* This node has been asked to keep what follows it. */
void vt_guest_mirrored(const char *vm, const char *migration, const struct vt_node *node);
bool vt_guest_slowed(const char *vm);
void vt_guests_kill(int host);
/* All of that host, which is off. */
void vt_guests_end_with_host(unsigned host);
/* Which agent runs it; -1 = nobody. */
int vt_guest_runs_on(const char *vm);
bool vt_guest_lost(const char *vm);
unsigned vt_guest_copies(const char *vm);
/* At the end: the one copy that there is is whole, and nothing else is left. */
void vt_guest_check_end(const char *vm, bool gone);

static inline bool vt_mutated(const char *rule)
{
    const char *m = vt_world.scenario ? vt_world.scenario->mutation : NULL;
    return m && __builtin_strcmp(m, rule) == 0;
}

#endif
