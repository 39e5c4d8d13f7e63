/* Threads in virtual time: fibers on one thread of the machine, one clock, one order of events.
 *
 * A fiber runs until it waits; then another one that is ready runs, chosen by the seed. When none
 * is ready the clock goes on to the next thing that happens. So a program with threads, timeouts
 * and sleeps becomes a function of its seed. What programs call for that (pthread_*, usleep, ppoll,
 * clock_gettime, getrandom) is led here by the linker: threads.c.
 *
 * A node is a simulated process. When it is killed its fibers still run to their end, so that their
 * memory is freed, but nothing that they do reaches anybody: disk, network and machines refuse them
 * (vt_dead), and their waits end at once. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_FIBER_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_FIBER_H

#include "base/clock.h"
#include "base/random.h"

#include <stdbool.h>
#include <stddef.h>

struct vt_fiber;
struct tw_fabric;
struct tw_sim;

/* What a node's disk does just now. */
struct vt_disk {
    bool full;
    uint64_t slow_ns;      /* a write takes up to so long; 0 = no time */
    unsigned long writes;  /* durable ones so far */
    unsigned long kill_at; /* the node dies at this one; 0 = never */
    bool kill_after;       /* ... once it is done, instead of before */
};

struct vt_node {
    char name[64];
    bool dead;           /* killed, and not started again */
    bool stopping;       /* told to end in order */
    bool off;            /* its host is, with all that ran there */
    bool for_good;       /* ... until the rest has come to an end */
    bool declared;       /* an operator's word was taken that it is lost */
    bool up;             /* it serves */
    uint64_t starts;     /* how often it was started */
    uint64_t restart_ns; /* when it is started again; TW_NEVER */
    struct vt_disk disk;
    struct tw_fabric *fabric; /* of an agent; NULL = none */
    struct vt_fiber *poller;  /* waits in ppoll for fabric, machines and letters */
    bool polling, poked;      /* it does so now; it has something to do */
};

/* The world's time and chance. */
struct vt_time {
    struct tw_sim *sim;
    struct tw_random random;
    uint64_t steps; /* fibers run so far */
};
extern struct vt_time vt_time;

void vt_open(uint64_t seed);
void vt_close(void);

static inline uint64_t vt_below(uint64_t bound)
{
    return tw_random_below(&vt_time.random, bound);
}

uint64_t vt_now(void);

struct vt_fiber *vt_spawn(struct vt_node *node, void *(*fn)(void *arg), void *arg);
/* A fiber that nobody joins. */
void vt_spawn_free(struct vt_node *node, void *(*fn)(void *arg), void *arg);
void *vt_join(struct vt_fiber *fiber);
/* Ends the fiber that calls it, wherever it stands: for what holds nothing on its stack. */
void vt_exit(void) __attribute__((noreturn));

/* The process that runs just now; NULL outside of fibers. */
struct vt_node *vt_here(void);
static inline bool vt_dead(void)
{
    return vt_here() && vt_here()->dead;
}
/* A fiber that carries a call from one process to another changes its process. */
void vt_enter(struct vt_node *node);

/* Waits for vt_wake(on) or the time; false: the time came. In a dead node: at once, after others.
 */
bool vt_wait(const void *on, uint64_t until_ns);
void vt_wake(const void *on, unsigned most);
static inline void vt_sleep(uint64_t ns)
{
    vt_wait(NULL, tw_after(vt_now(), ns));
}
/* The node's poller has something to do. */
void vt_poke(struct vt_node *node);
/* Everybody who waits in a node that has just died. */
void vt_rouse(struct vt_node *node);

/* Something that happens at a time, outside of any process; not later than the next step. */
void vt_at(uint64_t at_ns, void (*fn)(void *ctx), void *ctx);

/* Fibers that have not ended. */
unsigned vt_fibers_alive(void);

/* Runs until `done` (looked at between any two fibers) or the time. False: the time came. */
bool vt_run(bool (*done)(void *ctx), void *ctx, uint64_t until_ns);

#endif
