/* How much memory this process may still pin for RDMA devices: RLIMIT_MEMLOCK against what the
 * kernel counts as pinned. The kernel asks only when memory is registered, and then says no more
 * than "cannot allocate memory"; so we ask before, and say how to mend it. */
#ifndef TOWLINE_FABRIC_MEMLOCK_H
#define TOWLINE_FABRIC_MEMLOCK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_MEMLOCK_UNLIMITED UINT64_MAX

struct tw_memlock {
    uint64_t limit_bytes;  /* soft limit; TW_MEMLOCK_UNLIMITED */
    uint64_t pinned_bytes; /* by this process now, in all */
    bool exempt;           /* CAP_IPC_LOCK: most devices do not look at the limit then */
};

/* Of the calling process, now. Without /proc: nothing pinned, not exempt. */
void tw_memlock_get(struct tw_memlock *out);

/* Fills pinned_bytes and exempt from the text of /proc/PID/status; lines that are missing or
 * malformed count as 0. */
void tw_memlock_parse(const char *status, struct tw_memlock *out);

/* TW_OK if `bytes` more may be pinned, else TW_RESOURCE_EXHAUSTED with what is needed, the limit
 * and how to raise it. `strict`: the device looks at the limit even of the exempt (Soft-iWARP). */
enum tw_code tw_memlock_check(const struct tw_memlock *memlock, bool strict, uint64_t bytes,
                              const char *where, struct tw_error *err);

#endif
