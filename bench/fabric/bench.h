/* The fabric benchmark: the same work done by each contender between two processes on loopback,
 * one that measures and one that serves, which are started anew for each measurement. Contenders
 * take turns; the figures are medians. */
#ifndef TOWLINE_BENCH_FABRIC_BENCH_H
#define TOWLINE_BENCH_FABRIC_BENCH_H

#include "base/clock.h"
#include "base/line.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- The data (memory.c) --------------------------------------------------------------------- */

#define MEMORY_BYTES (UINT64_C(64) << 20) /* of each side */
#define DIRTY_PAGES  8192u

/* What is dirty: pages in no order, `lines` lines of each. */
struct dirty {
    unsigned lines; /* of a page */
    struct {
        uint64_t page;   /* address */
        uint64_t bitmap; /* of its lines */
    } pages[DIRTY_PAGES];
};
struct dirty *dirty_new(unsigned lines);
uint8_t *memory_new(uint64_t bytes); /* present, not zero; free() it */

/* ---- Two processes (pair.c) ------------------------------------------------------------------ */

#define PAIR_LIMIT (120 * TW_SEC) /* of one measurement; then the program ends */

/* What the two share. */
struct shared {
    _Atomic bool ready, stop;
    char address[128];
    uint64_t key, base; /* of the server's memory */
};

struct pair {
    struct shared *shared;
    pid_t child; /* the one that serves */
};

/* Starts `serve` in a process of its own and waits until it has set `ready`. */
void pair_open(struct pair *pair, void (*serve)(struct shared *shared, void *ctx), void *ctx);
void pair_close(struct pair *pair); /* sets `stop`, waits for its end */

/* Ends the program: a benchmark that cannot measure has nothing to say. */
void bench_fail(const char *what, const char *why) __attribute__((noreturn));

/* ---- Contenders ------------------------------------------------------------------------------ */

enum { WRITE_LINES, WRITE_PAGES }; /* how dirty lines go: one by one, or the whole page */

struct latency {
    double p50_us, p99_us;
};

struct contender {
    const char *name;
    /* MB/s of a stream of blocks of one chunk's size. */
    double (*stream)(const struct contender *self);
    /* Dirty lines a second, from memory to memory. */
    double (*lines)(const struct contender *self, const struct dirty *dirty, int how);
    /* One-sided reads, one at a time; `busy`: while a stream keeps the same way full. */
    struct latency (*reads)(const struct contender *self, uint32_t size, bool busy);
    bool tls;
};
extern const struct contender contender_ours, contender_ours_tls, contender_socket,
    contender_libfabric;

/* ---- Figures (measure.c) --------------------------------------------------------------------- */

#define READS 4000u                                  /* latencies of one measurement */
struct latency latency_of(double *us, size_t count); /* sorts */
double bench_now_s(void);

#endif
