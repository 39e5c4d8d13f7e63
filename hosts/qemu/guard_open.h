/* Letting a guest at pages of its guarded memory. */
#ifndef TOWLINE_HOSTS_QEMU_GUARD_OPEN_H
#define TOWLINE_HOSTS_QEMU_GUARD_OPEN_H

#include "base/error.h"

#include <stdint.h>

/* A userfaultfd and where the memory is in the process that has it; any thread may use it. */
struct tw_guarded {
    int fd;
    uint64_t base, size; /* address of offset 0 there; bytes */
    const char *where;   /* "vm NAME", for errors */
};

/* Whoever waits for the first of these pages goes on; the others are mapped as far as that goes on
 * without a hole. Pages that were opened before do no harm, also when another thread does it at
 * the same time. */
enum tw_code tw_guard_open(const struct tw_guarded *g, uint64_t page, uint64_t pages,
                           struct tw_error *err);

#endif
