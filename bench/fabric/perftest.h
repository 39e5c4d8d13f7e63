/* perftest, the usual measure of a verbs path, run between the same two devices. Needs the machine
 * of tests/rdma (its wire, its helpers). */
#ifndef TOWLINE_BENCH_FABRIC_PERFTEST_H
#define TOWLINE_BENCH_FABRIC_PERFTEST_H

#include "base/error.h"

struct bench_perftest {
    const char *address;       /* of the server's device, numeric */
    const char *server_device; /* "rxe0" */
    const char *client_device; /* "rxe1" */
};

/* ib_write_bw: average bytes a second. */
enum tw_code bench_perftest_write(const struct bench_perftest *p, unsigned length, unsigned writes,
                                  double *bytes_per_s, struct tw_error *err);
/* ib_read_lat: typical (median) time in us. */
enum tw_code bench_perftest_read(const struct bench_perftest *p, unsigned length, unsigned reads,
                                 double *median_us, struct tw_error *err);

/* The number in a column (from 0) of the line that begins with `length` and `count`; NAN = there
 * is no such line. For both programs' output. */
double bench_perftest_column(const char *output, unsigned length, unsigned count, unsigned column);

#endif
