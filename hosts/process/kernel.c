#include "hosts/process/kernel.h"

#include "base/clock.h"
#include "hosts/process/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FEATURE_WP_HUGETLBFS_SHMEM (UINT64_C(1) << 12)
#define FEATURE_WP_ASYNC           (UINT64_C(1) << 15)

#define PROBE_PAGES 64u

int tw_kernel_scan(int pagemap_fd, uint64_t flags, struct tw_range range, uint64_t all_of,
                   uint64_t any_of, uint64_t tell, struct tw_page_run *runs, size_t max,
                   uint64_t *reached)
{
    struct tw_scan scan = {
        .size = sizeof scan,
        .flags = flags,
        .start = range.start,
        .end = range.start + range.length,
        .runs = (uint64_t)(uintptr_t)runs,
        .runs_max = max,
        .any_of = any_of,
        .all_of = all_of,
        .tell = tell,
    };
    const int count = ioctl(pagemap_fd, TW_SCAN_IOCTL, &scan);
    *reached = scan.walk_end > range.start ? scan.walk_end : scan.end;
    return count;
}

int tw_kernel_unregistered(int pagemap_fd, struct tw_range range)
{
    struct tw_page_run run;
    struct tw_scan scan = {
        .size = sizeof scan,
        .start = range.start,
        .end = range.start + range.length,
        .runs = (uint64_t)(uintptr_t)&run,
        .runs_max = 1,
        .pages_max = 1,
        .inverted = TW_PAGE_WPALLOWED,
        .all_of = TW_PAGE_WPALLOWED,
        .tell = TW_PAGE_WPALLOWED,
    };
    return ioctl(pagemap_fd, TW_SCAN_IOCTL, &scan);
}

enum tw_code tw_kernel_greet(int userfaultfd, const char *where, struct tw_error *err)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = FEATURE_WP_ASYNC | FEATURE_WP_HUGETLBFS_SHMEM};
    if (ioctl(userfaultfd, UFFDIO_API, &api) == 0)
        return TW_OK;
    if (errno == EINVAL)
        return tw_fail(err, TW_UNIMPLEMENTED, where, "asynchronous write-protect (Linux 6.7)",
                       "a kernel without it", "pages cannot be protected");
    return tw_fail_errno(err, errno, where, "userfaultfd does not answer");
}

int tw_kernel_register(int userfaultfd, struct tw_range range)
{
    struct uffdio_register reg = {.range = {range.start, range.length},
                                  .mode = UFFDIO_REGISTER_MODE_WP};
    return ioctl(userfaultfd, UFFDIO_REGISTER, &reg) ? errno : 0;
}

int tw_kernel_protect(int userfaultfd, struct tw_range range)
{
    struct uffdio_writeprotect wp = {.range = {range.start, range.length},
                                     .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    /* EAGAIN: the program is forking or moving memory at this moment. */
    for (int tries = 0; tries < 1000; tries++) {
        if (ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &wp) == 0)
            return 0;
        if (errno != EAGAIN)
            return errno;
    }
    return EAGAIN;
}

static int own_userfaultfd(void)
{
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        close(device);
        if (fd >= 0)
            return fd;
    }
    const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return fd;
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
}

/* Nanoseconds of the slower half's middle would be noise: the median of single stores. */
static uint64_t time_faults(volatile uint8_t *memory)
{
    uint64_t took[PROBE_PAGES];
    for (unsigned i = 0; i < PROBE_PAGES; i++) {
        const uint64_t start = tw_now(&tw_monotonic);
        memory[i * TW_PAGE_SIZE] = 2;
        const uint64_t ns = tw_now(&tw_monotonic) - start;
        unsigned at = i; /* insertion, ascending */
        for (; at > 0 && took[at - 1] > ns; at--)
            took[at] = took[at - 1];
        took[at] = ns;
    }
    return took[PROBE_PAGES / 2];
}

/* Protects, writes, and looks whether that is told. */
static enum tw_code try_out(int fd, int pagemap, uint8_t *memory, uint64_t *fault_ns,
                            struct tw_error *err)
{
    const struct tw_range all = {(uint64_t)(uintptr_t)memory, PROBE_PAGES * TW_PAGE_SIZE};
    const uint64_t written = TW_PAGE_WPALLOWED | TW_PAGE_WRITTEN;
    struct tw_page_run runs[2];
    uint64_t reached;
    memset(memory, 1, all.length);
    const int number = tw_kernel_register(fd, all);
    if (number)
        return tw_fail_errno(err, number, "kernel", "memory cannot be registered");
    int count = tw_kernel_scan(pagemap, TW_SCAN_PROTECT, all, written, 0, 0, runs, 2, &reached);
    if (count < 0)
        return tw_fail(err, TW_UNIMPLEMENTED, "kernel", "PAGEMAP_SCAN (Linux 6.7)", strerror(errno),
                       "written pages cannot be asked for");
    if (count == 1)
        count = tw_kernel_scan(pagemap, 0, all, written, 0, 0, runs, 2, &reached) == 0;
    *fault_ns = time_faults(memory);
    if (count == 1)
        count = tw_kernel_scan(pagemap, 0, all, written, 0, 0, runs, 2, &reached);
    if (count != 1 || runs[0].end - runs[0].start != all.length)
        return tw_fail(err, TW_UNIMPLEMENTED, "kernel", NULL, NULL,
                       "written pages are not told as they should be");
    return TW_OK;
}

enum tw_code tw_kernel_probe(uint64_t *fault_ns, struct tw_error *err)
{
    const size_t bytes = PROBE_PAGES * TW_PAGE_SIZE;
    const int fd = own_userfaultfd();
    if (fd < 0)
        return tw_fail_errno(err, errno, "kernel", "no userfaultfd to be had");
    const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    enum tw_code code = TW_OK;
    if (pagemap < 0 || memory == MAP_FAILED)
        code = tw_fail_errno(err, errno, "kernel", "cannot look at memory of this process");
    if (!code)
        code = tw_kernel_greet(fd, "kernel", err);
    if (!code)
        code = try_out(fd, pagemap, memory, fault_ns, err);
    if (memory != MAP_FAILED)
        munmap(memory, bytes);
    if (pagemap >= 0)
        close(pagemap);
    close(fd);
    return code;
}

enum tw_code tw_process_probe(struct tw_error *err)
{
    uint64_t fault_ns;
    return tw_kernel_probe(&fault_ns, err);
}
