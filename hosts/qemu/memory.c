/* Guest RAM as a file that the guest and the agent share. Its holes are pages of zeros that nobody
 * has touched; reading one through a mapping would fill it, so they are found by seeking. */
#include "hosts/qemu/qemu_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum tw_code open_file(const char *path, uint64_t size, bool create, int *fd,
                              struct tw_error *err)
{
    struct stat st;
    *fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (*fd < 0)
        return tw_fail_errno(err, errno, path, "cannot open RAM");
    if (create && ftruncate(*fd, (off_t)size) < 0)
        return tw_fail_errno(err, errno, path, "cannot size RAM");
    if (fstat(*fd, &st) < 0)
        return tw_fail_errno(err, errno, path, "cannot look at RAM");
    if ((uint64_t)st.st_size != size)
        return tw_fail(err, TW_FAILED_PRECONDITION, path, NULL, NULL,
                       "RAM of %lld bytes where the configuration says %llu", (long long)st.st_size,
                       (unsigned long long)size);
    return TW_OK;
}

enum tw_code tw_memory_open(const char *path, uint64_t size, bool create, struct tw_qemu_memory *m,
                            struct tw_error *err)
{
    *m = (struct tw_qemu_memory){.fd = -1, .size = size};
    const uint64_t steps = (size + TW_QEMU_RESERVE_STEP - 1) / TW_QEMU_RESERVE_STEP;
    enum tw_code code = open_file(path, size, create, &m->fd, err);
    if (code == TW_OK) {
        m->reserved = calloc((steps + 63) / 64, sizeof *m->reserved);
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
        m->bytes = at == MAP_FAILED ? NULL : at;
        if (!m->reserved || !m->bytes)
            code = tw_fail_errno(err, errno, path, "cannot map RAM");
    }
    if (code) {
        if (create && m->fd >= 0)
            unlink(path);
        tw_memory_close(m);
    }
    return code;
}

void tw_memory_close(struct tw_qemu_memory *m)
{
    if (m->bytes)
        munmap(m->bytes, m->size);
    if (m->fd >= 0)
        close(m->fd);
    free(m->reserved);
    *m = (struct tw_qemu_memory){.fd = -1};
}

struct tw_range tw_memory_next_data(const struct tw_qemu_memory *m, uint64_t address)
{
    const struct tw_range none = {.start = m->size, .length = 0};
    if (address >= m->size)
        return none;
    off_t start = lseek(m->fd, (off_t)address, SEEK_DATA);
    if (start < 0 && errno == ENXIO)
        return none;
    if (start < 0) /* a file system that knows no holes */
        return (struct tw_range){.start = address, .length = m->size - address};
    off_t end = lseek(m->fd, start, SEEK_HOLE);
    if (end < 0 || (uint64_t)end > m->size)
        end = (off_t)m->size;
    /* Whole pages, whatever the file system's blocks are. */
    uint64_t from = (uint64_t)start / TW_PAGE_SIZE * TW_PAGE_SIZE;
    uint64_t to = ((uint64_t)end + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE * TW_PAGE_SIZE;
    from = from < address ? address : from;
    to = to > m->size ? m->size : to;
    return (struct tw_range){.start = from, .length = to - from};
}

static bool is_reserved(const struct tw_qemu_memory *m, uint64_t step)
{
    return m->reserved[step / 64] >> (step % 64) & 1;
}

enum tw_code tw_memory_reserve(struct tw_qemu_memory *m, const char *where, struct tw_range range,
                               struct tw_error *err)
{
    if (!tw_range_fits(range, m->size))
        return tw_fail(err, TW_OUT_OF_RANGE, where, NULL, NULL,
                       "cannot reserve %llu bytes at %#llx of %llu",
                       (unsigned long long)range.length, (unsigned long long)range.start,
                       (unsigned long long)m->size);
    if (range.length == 0)
        return TW_OK;
    const uint64_t last = (range.start + range.length - 1) / TW_QEMU_RESERVE_STEP;
    for (uint64_t step = range.start / TW_QEMU_RESERVE_STEP; step <= last; step++) {
        if (is_reserved(m, step))
            continue;
        uint64_t end = step + 1;
        while (end <= last && !is_reserved(m, end))
            end++;
        const uint64_t from = step * TW_QEMU_RESERVE_STEP;
        uint64_t to = end * TW_QEMU_RESERVE_STEP;
        to = to > m->size ? m->size : to;
        int number;
        do
            number = posix_fallocate(m->fd, (off_t)from, (off_t)(to - from));
        while (number == EINTR);
        if (number)
            return tw_fail_errno(err, number, where, "no room for %llu bytes of its RAM at %#llx",
                                 (unsigned long long)(to - from), (unsigned long long)from);
        for (; step < end; step++)
            m->reserved[step / 64] |= UINT64_C(1) << (step % 64);
        step--;
    }
    return TW_OK;
}
