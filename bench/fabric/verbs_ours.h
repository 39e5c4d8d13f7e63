/* Our side of the verbs benchmark: two processes, as perftest has them, one a device. */
#ifndef TOWLINE_BENCH_FABRIC_VERBS_OURS_H
#define TOWLINE_BENCH_FABRIC_VERBS_OURS_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* A process that listens on `address` (numeric, without port), consumes chunks and exposes memory
 * for reading. Forked before anything else touches the devices. */
struct bench_server {
    pid_t pid;
    char address[128]; /* where it listens */
    uint32_t key;      /* of its memory */
};
enum tw_code bench_server_start(const char *address, struct bench_server *server,
                                struct tw_error *err);
void bench_server_stop(struct bench_server *server);

/* Bytes of payload a second, `chunks` full chunks written one behind the other until the server has
 * consumed the last. `source` is the numeric address to connect from. */
enum tw_code bench_ours_write(const struct bench_server *server, const char *source,
                              unsigned chunks, double *bytes_per_s, struct tw_error *err);

/* Median time of a one-sided read of `length` bytes, in us; one at a time. */
enum tw_code bench_ours_read(const struct bench_server *server, const char *source, unsigned reads,
                             uint32_t length, double *median_us, struct tw_error *err);

#endif
