/* The tracking benchmark: a program of its own for each contender, and what tracking it costs.
 * Figures are medians over the runs; ours and its peers take turns in the same run. */
#ifndef TOWLINE_BENCH_TRACKING_BENCH_H
#define TOWLINE_BENCH_TRACKING_BENCH_H

#include "base/clock.h"
#include "base/line.h"
#include "bench/median.h"
#include "bench/options.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_PEERS_MAX 4u

/* ---- Results --------------------------------------------------------------------------------- */

struct bench_row {
    const char *metric, *unit;
    double ours;
    struct {
        const char *name;
        double value;
        double ratio; /* how many times better ours is */
    } peers[BENCH_PEERS_MAX];
    unsigned peer_count;
};

struct bench_case {
    const char *name;
    /* Fills the rows, returns how many. */
    unsigned (*run)(const struct bench_case *self, unsigned runs, struct bench_row *rows);
    double dirty; /* share of the pages */
    const char *about;
};
#define BENCH_ROWS_MAX 4u

unsigned bench_arm(const struct bench_case *self, unsigned runs, struct bench_row *rows);
unsigned bench_collect(const struct bench_case *self, unsigned runs, struct bench_row *rows);
unsigned bench_random_store(const struct bench_case *self, unsigned runs, struct bench_row *rows);
unsigned bench_redis(const struct bench_case *self, unsigned runs, struct bench_row *rows);

_Noreturn void bench_die(const char *what);
static inline double bench_ms(uint64_t ns)
{
    return (double)ns * 1e-6;
}
void bench_sleep(uint64_t ns);

/* ---- The program that is tracked (program.c) ------------------------------------------------- */

struct program_shared {
    atomic_uint asked, done;
    uint32_t command;
    uint64_t count, seed;
    _Atomic uint64_t stores; /* of the loop, told every 256 */
    atomic_uint protect;     /* asks the loop to protect its memory, by mprotect */
};

struct program {
    pid_t pid;
    uint8_t *memory; /* over there */
    uint64_t bytes;
    struct program_shared *shared;
};

/* Its memory is populated and holds data. `trap`: it catches the faults of its own mprotect. */
void program_start(struct program *p, uint64_t bytes, bool trap);
void program_end(struct program *p);
/* Stores to one line of each of `count` pages chosen by the seed; returns when that is done. */
void program_dirty(struct program *p, uint64_t count, uint64_t seed);
/* Stores at random until its end; the speed over `ns`. */
void program_loop(struct program *p);
double program_speed(const struct program *p, uint64_t ns);

/* ---- Ways of tracking a program (fault_peers.c) ---------------------------------------------- */

struct tracked {
    pid_t pid;
    const struct tw_range *ranges; /* of its memory; the caller's until the tracker is stopped */
    size_t count;
    bool all;             /* ours looks at all of its memory; the peers at the ranges */
    atomic_uint *protect; /* sigsegv: asks the program to protect the ranges */
};

/* Runs beside the program in a thread, a pass a second, until stopped. */
struct tracker_thread;
struct tracker_thread *tracker_wp_sync(const struct tracked *t);
struct tracker_thread *tracker_full_compare(const struct tracked *t);
struct tracker_thread *tracker_sigsegv(const struct tracked *t);
struct tracker_thread *tracker_process(const struct tracked *t);
unsigned tracker_passes(const struct tracker_thread *t); /* of ours */
void tracker_stop(struct tracker_thread *t);

#endif
