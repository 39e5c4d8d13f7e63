/* A Redis server of the benchmark's own: on a unix socket in a folder of its own, nothing on disk.
 * Its program is the one that Debian's redis-tools has. */
#ifndef TOWLINE_BENCH_TRACKING_REDIS_SERVER_H
#define TOWLINE_BENCH_TRACKING_REDIS_SERVER_H

#include "base/error.h"
#include "bench/tracking/child.h"

#include <stdint.h>

#define REDIS_VALUE_BYTES 100u

struct redis_server {
    struct child child;
    char folder[64];
    char socket[80];
    int fd; /* a connection, for redis_set */
};

/* Starts it, with `preload` (NULL or a library) loaded into it, and waits until it answers. */
enum tw_code redis_start(struct redis_server *server, const char *preload, struct tw_error *err);
void redis_end(struct redis_server *server); /* a zeroed one is fine */

/* Makes `count` SETs of keys "key:%012u" to values of REDIS_VALUE_BYTES made of the seed: of keys
 * below `random_below` at random, or, when that is 0, of the keys from `first` on. Returns when all
 * are acknowledged. */
enum tw_code redis_set(struct redis_server *server, uint32_t first, uint32_t count,
                       uint32_t random_below, uint64_t seed, struct tw_error *err);

#endif
