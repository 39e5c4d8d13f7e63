#include "bench/device/bench.h"

#include "bench/median.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double time_once(const struct bench_pair *pair, bench_work *work, uint64_t *pieces)
{
    if (pair->prepare)
        pair->prepare(pair->ctx);
    double start = now_s();
    *pieces = work(pair->ctx);
    return now_s() - start;
}

struct bench_result bench_measure(const struct bench_pair *pair, unsigned runs)
{
    double ours[BENCH_RUNS_MAX], ceiling[BENCH_RUNS_MAX];
    struct bench_result result = {0};
    uint64_t pieces;
    time_once(pair, pair->ours, &pieces);
    time_once(pair, pair->ceiling, &pieces);
    for (unsigned i = 0; i < runs; i++) {
        ours[i] = time_once(pair, pair->ours, &result.pieces);
        ceiling[i] = time_once(pair, pair->ceiling, &pieces);
    }
    result.ours_s = bench_median(ours, runs);
    result.ceiling_s = bench_median(ceiling, runs);
    return result;
}

struct bench_row bench_rate(const char *metric, const char *unit, struct bench_result result)
{
    double pieces = (double)result.pieces;
    return (struct bench_row){metric, unit, pieces / result.ours_s, pieces / result.ceiling_s,
                              result.ceiling_s / result.ours_s};
}

struct bench_row bench_time_ms(const char *metric, struct bench_result result)
{
    return (struct bench_row){metric, "ms", result.ours_s * 1e3, result.ceiling_s * 1e3,
                              result.ceiling_s / result.ours_s};
}

void *bench_alloc(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, bytes)) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    for (size_t i = 0; i < bytes; i += 4096) /* present before anything is timed */
        ((volatile uint8_t *)memory)[i] = 0;
    __builtin_memset(memory, 0, bytes);
    return memory;
}
