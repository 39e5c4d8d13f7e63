/* The work of the Linux guest: a program that writes, knows what it wrote, and checks it.
 *
 *   load [workload=redis|sparse|dense|idle] [NAME=VALUE ...]
 *
 * Words that it does not know are passed over, so that /init can hand it the kernel's command line.
 * Everything is reported on standard output, a line at a time, beginning with READY. The times are
 * the guest's: its clock stands while it is stopped. */
#ifndef TOWLINE_GUESTS_LOAD_LOAD_H
#define TOWLINE_GUESTS_LOAD_LOAD_H

#include <stdint.h>

struct load_options {
    const char *workload;
    const char *socket;      /* redis: path of the server's unix socket */
    uint32_t keys;           /* redis */
    uint32_t value;          /* redis: bytes of a value, a multiple of 4, 16..4096 */
    uint32_t pipeline;       /* redis: operations under way at a time, 1..64 */
    uint32_t verify_every_s; /* redis: seconds between passes over all keys */
    uint32_t rate;           /* operations or pages a second; 0 = as fast as it can */
    uint32_t pages;          /* sparse, dense, idle: pages of 4096 bytes */
};

/* Each runs for ever; it returns (with a status for exit) only when it cannot go on. */
int load_redis(const struct load_options *options);
int load_pages(const struct load_options *options);

uint64_t load_now_ns(void);

/* Keeps a loop at `rate` steps a second: call it after each step with the number of things done.
 * It does not try to catch up with more than 100 ms. */
struct load_pace {
    uint32_t rate; /* 0 = no limit */
    uint64_t next_ns;
};
void load_pace(struct load_pace *pace, uint32_t done);

#endif
