#include "hosts/qemu/guard_open.h"

#include "base/line.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <sys/ioctl.h>

/* A page that is a hole in the file: whoever waits for it gets zeros. */
static int open_hole(const struct tw_guarded *g, uint64_t address)
{
    struct uffdio_zeropage z = {.range = {address, TW_PAGE_SIZE}};
    return ioctl(g->fd, UFFDIO_ZEROPAGE, &z) == 0 || errno == EEXIST ? 0 : errno;
}

/* A page that is mapped already has nobody waiting but who came just before. */
static void wake(const struct tw_guarded *g, uint64_t address)
{
    struct uffdio_range range = {address, TW_PAGE_SIZE};
    ioctl(g->fd, UFFDIO_WAKE, &range);
}

/* Maps as much as goes from `address` on; returns the bytes, or 0 and *number. */
static uint64_t map_some(const struct tw_guarded *g, uint64_t address, uint64_t bytes, int *number)
{
    struct uffdio_continue c = {.range = {address, bytes}};
    if (ioctl(g->fd, UFFDIO_CONTINUE, &c) == 0)
        return bytes;
    *number = errno;
    return c.mapped > 0 && (uint64_t)c.mapped < bytes ? (uint64_t)c.mapped : 0;
}

enum tw_code tw_guard_open(const struct tw_guarded *g, uint64_t page, uint64_t pages,
                           struct tw_error *err)
{
    uint64_t at = g->base + page * TW_PAGE_SIZE;
    const uint64_t first = at, end = at + pages * TW_PAGE_SIZE;
    while (at < end && g->fd >= 0) {
        int number = 0;
        const uint64_t mapped = map_some(g, at, end - at, &number);
        at += mapped;
        if (mapped || number == EAGAIN || number == EINTR)
            continue;
        const bool hole = number == EFAULT || number == ENOENT;
        if (number == ESRCH || (hole && at != first))
            return TW_OK; /* the process has ended, or what follows can wait for its own touch */
        if (hole)
            number = open_hole(g, at);
        else if (number == EEXIST)
            number = (wake(g, at), 0);
        if (number)
            return tw_fail_errno(err, number, g->where, "cannot let the guest at page %llu",
                                 (unsigned long long)((at - g->base) / TW_PAGE_SIZE));
        at += TW_PAGE_SIZE;
    }
    return TW_OK;
}
