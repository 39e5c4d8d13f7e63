/* What every benchmark says in the same way: rows and facts about the machine, as JSON. */
#ifndef TOWLINE_BENCH_REPORT_H
#define TOWLINE_BENCH_REPORT_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* What is NAN or infinite becomes null; at most three digits behind the point. */
json_t *bench_number(double value);

/* How many times better `ours` is; NAN when that is no number (one is missing, or the better one
 * is zero). Two equal zeros are 1. */
double bench_ratio(double ours, double peer, bool more_is_better);

/* {bench, case, metric, unit, ours, peer, peer_value, ratio}; ratio = how many times better ours
 * is. `peer` is NULL where there is none, peer_value and ratio NAN then. */
json_t *bench_row(const char *bench, const char *case_name, const char *metric, const char *unit,
                  double ours, const char *peer, double peer_value, double ratio);

/* Processor, kernel, QEMU, date, load. */
json_t *bench_machine_json(const char *qemu);

/* Writes the document; replaces the file as a whole. */
enum tw_code bench_json_write(const char *path, const json_t *document, struct tw_error *err);
/* Adds rows to a document that is there: an object with `rows`, or an array of rows. */
enum tw_code bench_json_append(const char *path, json_t *rows, struct tw_error *err);

#endif
