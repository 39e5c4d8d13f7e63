#include "fabric/memlock.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STATUS_MAX   8192u
#define CAP_IPC_LOCK 14u
#define KIB          UINT64_C(1024)

/* The number after `name` at the beginning of a line; 0 if there is none. */
static uint64_t field(const char *status, const char *name, int base)
{
    const size_t length = strlen(name);
    for (const char *line = status; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0)
            return strtoull(line + length, NULL, base);
    }
    return 0;
}

void tw_memlock_parse(const char *status, struct tw_memlock *out)
{
    const uint64_t kib = field(status, "VmPin:", 10);
    out->pinned_bytes = kib > UINT64_MAX / KIB ? UINT64_MAX : kib * KIB;
    out->exempt = field(status, "CapEff:", 16) >> CAP_IPC_LOCK & 1;
}

void tw_memlock_get(struct tw_memlock *out)
{
    char status[STATUS_MAX];
    struct rlimit limit;
    size_t size = 0;
    *out = (struct tw_memlock){.limit_bytes = TW_MEMLOCK_UNLIMITED};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        out->limit_bytes = limit.rlim_cur;
    const int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    for (ssize_t n;
         size < sizeof status - 1 && (n = read(fd, status + size, sizeof status - 1 - size)) > 0;)
        size += (size_t)n;
    close(fd);
    status[size] = '\0';
    tw_memlock_parse(status, out);
}

enum tw_code tw_memlock_check(const struct tw_memlock *m, bool strict, uint64_t bytes,
                              const char *where, struct tw_error *err)
{
    if (m->limit_bytes == TW_MEMLOCK_UNLIMITED || (m->exempt && !strict))
        return TW_OK;
    if (m->pinned_bytes <= m->limit_bytes && bytes <= m->limit_bytes - m->pinned_bytes)
        return TW_OK;
    char expected[128], given[128];
    snprintf(expected, sizeof expected, "%" PRIu64 " bytes to pin, %" PRIu64 " are pinned", bytes,
             m->pinned_bytes);
    snprintf(given, sizeof given, "a limit of %" PRIu64 " bytes", m->limit_bytes);
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, expected, given,
                   "the memlock limit is too small for RDMA: raise it with `ulimit -l unlimited` "
                   "or LimitMEMLOCK=infinity in the unit");
}
