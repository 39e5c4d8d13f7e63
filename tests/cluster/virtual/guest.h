/* Guests without machines, and what must hold of them.
 *
 * A guest does one operation after the other: it looks at a line, which must hold what was last
 * written to it anywhere, and writes to it. The *life* of a VM is its memory as the world has seen
 * it and how many operations there were; a *machine* is one copy, a process that outlives its
 * agent. How many operations a copy has done is its CPU state: it travels with the device state. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_GUEST_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_GUEST_H

#include "base/line.h"
#include "hosts/pace.h"
#include "hosts/qemu/qemu.h"
#include "tests/cluster/virtual/world.h"

#define VT_VCPUS   3u
#define VT_WAITERS (VT_VCPUS + 1) /* the last is the machine itself while it loads */

struct vt_life {
    char vm[64];
    uint8_t *image; /* what its memory has to hold */
    uint64_t bytes, pages;
    uint64_t span; /* bytes that a guest ever stores to */
    uint64_t operations;
    struct vt_machine *runner;
    bool acknowledged, deleting, killed;
    bool with_host;             /* a copy went with its host */
    bool follows;               /* its memory follows it in post-copy, or is about to */
    unsigned slow_most_percent; /* of its time that it may be made to wait, as it was asked for */
    int mirror;                 /* node that was asked last to keep what follows; -1 = none */
    uint64_t mirror_starts;     /* ... in this life of it */
    char mirror_migration[64];
    bool on_mirror; /* what follows is nowhere else */
};

struct vt_waiter {
    bool waits, told;
    uint64_t address;
};

struct vt_pace {
    struct tw_pace_rule rule;
    uint64_t until_ns; /* it holds, unless it is said again */
    uint64_t starts;   /* life of the agent that said it */
    uint64_t *lines;   /* that cost their writers time, a bitmap a page */
    struct tw_pace_bucket buckets[VT_VCPUS];
    uint64_t sleeps_ns[VT_VCPUS]; /* until then */
    uint64_t wait_ns[VT_VCPUS], waits;
};

struct vt_machine {
    struct vt_machine *next;
    struct vt_life *life;
    unsigned host;
    char run_dir[512];
    pid_t pid;
    bool alive, running, incoming, loaded;
    uint64_t up_ns; /* when it has started */
    uint64_t operations;
    uint8_t *memory;
    uint64_t *marks; /* the link: lines stored to and not yet delivered, a bitmap a page */
    bool *data;      /* pages that are not holes */
    bool *opened;    /* pages that may be touched under guard */
    bool guarded;
    struct vt_waiter waiters[VT_WAITERS];
    uint64_t ran_ns, synced_ns;
    bool ticking;
    struct tw_qemu *handle;         /* of the agent that has it; NULL = none */
    struct tw_host_fault_view view; /* complete pages of it are opened at a touch; 0 = none */
    struct vt_pace pace;
};

struct vt_machine *vt_machine_new(struct vt_life *life, const char *run_dir, bool incoming);
struct vt_machine *vt_machine_by_pid(pid_t pid);
struct vt_life *vt_life_of(const char *vm, uint64_t bytes);
/* The process ends; checks that nothing is lost by it. */
void vt_machine_end(struct vt_machine *m, const char *why);
void vt_machine_continue(struct vt_machine *m);
/* What followed it is there. */
void vt_guest_whole(struct vt_life *life);
void vt_machine_ready(struct vt_machine *m, uint64_t page, uint64_t pages);
bool vt_machine_may_touch(struct vt_machine *m, struct vt_waiter *w);
struct vt_machine *vt_machine_of(void *host); /* of a host interface's context */
extern struct vt_machine *vt_machines;

/* ---- pace.c ---------------------------------------------------------------------------------- */

extern const struct tw_host_pace_ops vt_pace_ops;
void vt_pace_begin(struct vt_machine *m);
void vt_pace_end(struct vt_machine *m);
/* Another agent has it now: nobody is slowed. */
void vt_pace_adopted(struct vt_machine *m);
bool vt_pace_on(struct vt_machine *m);
bool vt_pace_sleeps(struct vt_machine *m, unsigned vcpu);
/* A line that was clean has become dirty. */
void vt_pace_store(struct vt_machine *m, unsigned vcpu, uint64_t address);

#endif
