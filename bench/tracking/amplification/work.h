/* The programs that are looked at, each doing its work in steps: an interval is a step. */
#ifndef TOWLINE_BENCH_TRACKING_AMPLIFICATION_WORK_H
#define TOWLINE_BENCH_TRACKING_AMPLIFICATION_WORK_H

#include "base/error.h"
#include "bench/tracking/amplification/meter.h"

#include <stdint.h>

struct work {
    const char *name; /* "redis_random", "redis_sequential", or a subject's */
    uint64_t size;    /* keys, rows, numbers, vertices: the subject says which */
    unsigned steps;   /* Redis: each sets a 100th of the keys */
};

/* Runs the program from its beginning to its end; counts[i] is of step i. DATA_LOSS: the program
 * found that its own result is wrong. */
enum tw_code work_measure(const struct work *work, struct meter_count *counts,
                          struct tw_error *err);

#endif
