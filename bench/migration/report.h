/* What the benchmark says: rows as JSON, a table for people, facts about the machine. */
#ifndef TOWLINE_BENCH_MIGRATION_REPORT_H
#define TOWLINE_BENCH_MIGRATION_REPORT_H

#include "base/error.h"
#include "bench/migration/run.h"

#include <jansson.h>
#include <stdio.h>

/* {bench, case, metric, unit, ours, peer, peer_value, ratio}; what is NAN becomes null. */
json_t *bench_row(const char *bench, const char *case_name, const char *metric, const char *unit,
                  double ours, const char *peer, double peer_value, double ratio);

/* One run with everything that was measured. */
json_t *bench_run_json(const struct bench_run *run);

/* Processor, kernel, QEMU, date, load. */
json_t *bench_machine_json(const char *qemu);

/* Samples of one case, by contender; `count` of each. */
struct bench_case_result {
    const struct bench_guest *guest;
    struct bench_sample samples[BENCH_CONTENDERS][BENCH_RUNS_MAX];
    size_t count[BENCH_CONTENDERS];
};
/* Appends a row for each metric and peer. */
void bench_case_rows(const struct bench_case_result *result, json_t *rows);
void bench_case_print(const struct bench_case_result *result, FILE *out);

/* Writes the document; replaces the file as a whole. */
enum tw_code bench_json_write(const char *path, const json_t *document, struct tw_error *err);
/* Adds rows to a document that is there: an object with `rows`, or an array of rows. */
enum tw_code bench_json_append(const char *path, json_t *rows, struct tw_error *err);

#endif
