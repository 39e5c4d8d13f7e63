/* The device benchmark: each case runs ours and a plain single-purpose loop, the ceiling, on the
 * same data, one after the other, again and again; the figures are medians.
 *
 * Time is the thread's processor time, so that a machine shared with others disturbs less. */
#ifndef TOWLINE_BENCH_DEVICE_BENCH_H
#define TOWLINE_BENCH_DEVICE_BENCH_H

#include "bench/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One way of doing the work: does it once over, and says how many pieces that were. */
typedef uint64_t bench_work(void *ctx);

struct bench_pair {
    bench_work *ours;
    bench_work *ceiling;
    void (*prepare)(void *ctx); /* before each of the two, not timed; may be NULL */
    void *ctx;
};

/* Medians over `runs` runs, after one that does not count; seconds of one run, and its pieces. */
struct bench_result {
    double ours_s, ceiling_s;
    uint64_t pieces;
};
struct bench_result bench_measure(const struct bench_pair *pair, unsigned runs);

/* What a case says: ours and the ceiling, either as a rate or as a time. */
struct bench_row {
    const char *metric;
    const char *unit;
    double ours, ceiling;
    double ratio; /* how many times better ours is */
};
struct bench_row bench_rate(const char *metric, const char *unit, struct bench_result result);
struct bench_row bench_time_ms(const char *metric, struct bench_result result);

/* The cases; each makes its data, measures, and frees. `memory_bytes` is what they work in. */
struct bench_case {
    const char *name;
    struct bench_row (*run)(const struct bench_case *self, unsigned runs);
    uint64_t memory_bytes;
    const char *about;
};

struct bench_row bench_events(const struct bench_case *self, unsigned runs);  /* events.c */
struct bench_row bench_gather(const struct bench_case *self, unsigned runs);  /* lines.c */
struct bench_row bench_apply(const struct bench_case *self, unsigned runs);   /* lines.c */
struct bench_row bench_collect(const struct bench_case *self, unsigned runs); /* collect.c */

/* Zeroed memory, or the end of the program. */
void *bench_alloc(size_t bytes);

#endif
