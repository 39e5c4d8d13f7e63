/* What the benchmark of post-copy compares, and how it says it. */
#ifndef TOWLINE_BENCH_MIGRATION_POSTCOPY_H
#define TOWLINE_BENCH_MIGRATION_POSTCOPY_H

#include "bench/migration/run.h"

#include <stdio.h>

enum bench_mover {
    BENCH_HYBRID,       /* ours: rounds, then post-copy; the predictor chosen by trial */
    BENCH_HYBRID_BLIND, /* the same without a predictor */
    BENCH_PURE,         /* ours: post-copy from the start */
    BENCH_PURE_BLIND,
    BENCH_PRECOPY, /* ours, for its forecast alone */
    BENCH_QEMU,    /* QEMU's own: one pass, then post-copy */
    BENCH_MOVERS,
};
extern const char *const bench_mover_names[BENCH_MOVERS];

enum bench_follow_metric {
    BENCH_F_DOWNTIME,
    BENCH_F_RECOVER90, /* ms from the stop until the guest does 90 of 100 operations again */
    BENCH_F_TOTAL,
    BENCH_F_BYTES,
    BENCH_F_BYTES_ON_DEMAND,
    BENCH_F_FAULTS,
    BENCH_F_P50,
    BENCH_F_P99,
    BENCH_F_ACCURACY,
    BENCH_F_COVERAGE,
    BENCH_F_FORECAST,       /* error of the plan's downtime, percent of what it came to */
    BENCH_F_FORECAST_BYTES, /* of its bytes */
    BENCH_F_METRICS,
};

struct bench_follow_result {
    const struct bench_guest *guest;
    double values[BENCH_MOVERS][BENCH_F_METRICS][BENCH_RUNS_MAX];
    size_t count[BENCH_MOVERS];
};

/* How the contract names what a mover does. */
void bench_mover_setup(enum bench_mover mover, struct bench_run *run);
void bench_follow_add(struct bench_follow_result *result, enum bench_mover mover,
                      const struct bench_run *run);
/* Median; NAN when nobody measured it. */
double bench_follow_median(const struct bench_follow_result *result, enum bench_mover mover,
                           enum bench_follow_metric metric);
/* Rows: hybrid beside all others; metrics that begin with "pure_" are pure post-copy's beside
 * QEMU's and its own without a predictor. bytes_on_demand has one more peer, page-fetches: what the
 * same waits would have fetched by pages of 4 KiB. The forecast's error has no peer; of pre-copy,
 * "precopy_", there is nothing else. */
void bench_follow_rows(const struct bench_follow_result *result, json_t *rows);
void bench_follow_print(const struct bench_follow_result *result, FILE *out);
json_t *bench_follow_run_json(enum bench_mover mover, const struct bench_run *run);

#endif
