/* What the benchmark says of its cases: rows as JSON, a table for people. */
#ifndef TOWLINE_BENCH_MIGRATION_REPORT_H
#define TOWLINE_BENCH_MIGRATION_REPORT_H

#include "bench/migration/run.h"
#include "bench/report.h"

#include <stdio.h>

/* One run with everything that was measured. */
json_t *bench_run_json(const struct bench_run *run);

/* Samples of one case, by contender; `count` of each. */
struct bench_case_result {
    const struct bench_guest *guest;
    struct bench_sample samples[BENCH_CONTENDERS][BENCH_RUNS_MAX];
    size_t count[BENCH_CONTENDERS];
};
/* Appends a row for each metric and peer. */
void bench_case_rows(const struct bench_case_result *result, json_t *rows);
void bench_case_print(const struct bench_case_result *result, FILE *out);

#endif
