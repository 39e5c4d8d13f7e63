/* Memory of a program of towline-cc that can move to another host while the program uses it.
 *
 * A region is zeros at first. The agent can move its contents to the region of another program, at
 * the same address, line by line: once it has begun to, a touch of a line that is not there waits
 * until it has come. While memory is handed over, and for good where it was handed away, every
 * touch waits. Who has waited for as long as the agent allows gets SIGBUS.
 *
 * What counts as a touch is what the runtime sees (docs/instrumented.md): code without
 * instrumentation, and system calls other than those that the runtime stands in front of, must be
 * given other memory. readv, preadv and recvmsg into a region fail with EFAULT. A child after fork
 * has no regions.
 *
 * Any thread; not in a signal handler. */
#ifndef TOWLINE_REGION_H
#define TOWLINE_REGION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes a region of `bytes`, a multiple of 4096, at address `at`, a multiple of 64 MiB; NULL:
 * wherever there is room. NULL with errno: EINVAL, ENOMEM, EEXIST where something is mapped there,
 * ENOSPC where the program has as many regions as it may (8). */
void *towline_region_create(size_t bytes, void *at);

/* Gives it back. -1 with EINVAL where there is none, with EBUSY while it moves. */
int towline_region_destroy(void *region);

#ifdef __cplusplus
}
#endif

#endif
