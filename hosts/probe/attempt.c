#include "hosts/probe/attempt.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEVICE   "/dev/userfaultfd"
#define PAGE     4096u
#define CHILD_MS 2000u
#define SECCOMP  2u /* /proc/self/status: a filter */

/* Newer than the headers of Debian 12. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* <linux/fs.h> of 6.7: PAGEMAP_SCAN. */
struct scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
    uint64_t start, end, categories;
};
#define SCAN_IOCTL      _IOWR('f', 16, struct scan_argument)
#define SCAN_IS_PRESENT (UINT64_C(1) << 3)
_Static_assert(sizeof(struct scan_argument) == 96, "as the kernel reads it");

static int closed(int fd)
{
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* ---- One call each: 0 or an errno ---------------------------------------------------------------
 */

static int uffd_by_device(void)
{
    int device = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK), number = errno;
    close(device);
    errno = number;
    return fd;
}

static int uffd_by_call(int flags)
{
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
}

static int read_own_memory(void)
{
    int from = 4711, to = 0;
    struct iovec local = {&to, sizeof to}, remote = {&from, sizeof from};
    if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != (ssize_t)sizeof to)
        return errno;
    return to == from ? 0 : EIO;
}

static int take_own_descriptor(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0)
        return errno;
    int outcome = closed((int)syscall(SYS_pidfd_getfd, pidfd, pidfd, 0));
    close(pidfd);
    return outcome;
}

static int attach_to_child(void)
{
    pid_t pid = fork();
    int status, outcome = 0;
    if (pid < 0)
        return errno;
    if (pid == 0)
        for (;;)
            pause();
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0)
        outcome = errno;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return outcome;
}

/* A shared mapping of one page of a memfd; NULL: errno says why. */
static uint8_t *memfd_map(void)
{
    int fd = memfd_create("towline-probe", MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *page = ftruncate(fd, PAGE) == 0
                     ? mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                     : MAP_FAILED;
    int number = errno;
    close(fd);
    errno = number;
    return page == MAP_FAILED ? NULL : page;
}

static int use_memfd(void)
{
    uint8_t *page = memfd_map();
    if (!page)
        return errno;
    page[0] = 1;
    munmap(page, PAGE);
    return 0;
}

/* The page just written must be reported, and nothing else. */
static int scan_pagemap(void)
{
    uint8_t *page = memfd_map();
    if (!page)
        return errno;
    page[0] = 1;
    struct scan_region region = {0};
    struct scan_argument a = {.size = sizeof a,
                              .start = (uintptr_t)page,
                              .end = (uintptr_t)page + PAGE,
                              .vec = (uintptr_t)&region,
                              .vec_len = 1,
                              .category_mask = SCAN_IS_PRESENT,
                              .return_mask = SCAN_IS_PRESENT};
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), outcome = 0;
    int found = fd < 0 ? -1 : ioctl(fd, SCAN_IOCTL, &a);
    if (found < 0)
        outcome = errno;
    else if (found != 1 || region.start != a.start || region.end != a.end)
        outcome = EIO;
    if (fd >= 0)
        close(fd);
    munmap(page, PAGE);
    return outcome;
}

static int direct(enum tw_probe_call call)
{
    switch (call) {
    case TW_PROBE_UFFD_DEVICE:
        return closed(uffd_by_device());
    case TW_PROBE_UFFD_CALL:
        return closed(uffd_by_call(0));
    case TW_PROBE_UFFD_USER:
        return closed(uffd_by_call(UFFD_USER_MODE_ONLY));
    case TW_PROBE_VM_READ:
        return read_own_memory();
    case TW_PROBE_PIDFD_GETFD:
        return take_own_descriptor();
    case TW_PROBE_PTRACE:
        return attach_to_child();
    case TW_PROBE_MEMFD:
        return use_memfd();
    case TW_PROBE_PAGEMAP_SCAN:
        return scan_pagemap();
    default:
        return EINVAL;
    }
}

/* ---- Behind a filter
 * ----------------------------------------------------------------------------- */

static bool filtered(void)
{
    uint64_t mode;
    return tw_probe_number(&tw_probe_machine, "/proc/self/status", "Seccomp:", 10, &mode) &&
           mode >= SECCOMP;
}

/* A filter may kill for a call that it refuses; then only the child dies. */
int tw_attempt(void *ctx, enum tw_probe_call call)
{
    int status;
    (void)ctx;
    if (!filtered())
        return direct(call);
    pid_t pid = fork();
    if (pid < 0)
        return errno;
    if (pid == 0)
        _exit(direct(call));
    if (!tw_attempt_reap(pid, tw_now(&tw_monotonic) + CHILD_MS * TW_MS, &status))
        return ETIMEDOUT;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* ---- Features
 * ------------------------------------------------------------------------------------ */

static int uffd_open(void)
{
    int fd = uffd_by_device();
    if (fd < 0)
        fd = uffd_by_call(0);
    return fd < 0 ? uffd_by_call(UFFD_USER_MODE_ONLY) : fd;
}

/* The handshake can be done once a descriptor: *fd is a new one, to be closed by the caller. */
static int handshake(uint64_t features, uint64_t *offered, int *fd)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    *fd = uffd_open();
    if (*fd < 0)
        return errno;
    if (ioctl(*fd, UFFDIO_API, &api) == 0) {
        *offered = api.features;
        return 0;
    }
    int number = errno;
    close(*fd);
    *fd = -1;
    return number;
}

static uint64_t modes_of(int fd)
{
    static const uint64_t modes[] = {TW_UFFD_MODE_MISSING, TW_UFFD_MODE_MINOR, TW_UFFD_MODE_WP};
    uint64_t taken = 0;
    uint8_t *page = memfd_map();
    for (unsigned i = 0; page && i < sizeof modes / sizeof *modes; i++) {
        struct uffdio_register r = {.range = {(uintptr_t)page, PAGE}, .mode = modes[i]};
        if (ioctl(fd, UFFDIO_REGISTER, &r) != 0)
            continue;
        taken |= modes[i];
        ioctl(fd, UFFDIO_UNREGISTER, &r.range);
    }
    if (page)
        munmap(page, PAGE);
    return taken;
}

int tw_attempt_uffd(void *ctx, struct tw_probe_uffd *out)
{
    static const uint64_t wanted[] = {TW_UFFD_MISSING_SHMEM, TW_UFFD_MINOR_SHMEM, TW_UFFD_WP_SHMEM,
                                      TW_UFFD_POISON,        TW_UFFD_WP_ASYNC,    TW_UFFD_MOVE};
    uint64_t ignored;
    int fd, outcome;
    *out = (struct tw_probe_uffd){0};
    /* Where the filter kills for it, opening must not be tried here. */
    int device = tw_attempt(ctx, TW_PROBE_UFFD_DEVICE), call = tw_attempt(ctx, TW_PROBE_UFFD_USER);
    if (device && call)
        return device > 0 ? device : EPERM;
    if ((outcome = handshake(0, &out->offered, &fd)) != 0)
        return outcome;
    close(fd);
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (handshake(wanted[i], &ignored, &fd) != 0)
            continue;
        out->accepted |= wanted[i];
        close(fd);
    }
    if ((outcome = handshake(out->accepted, &ignored, &fd)) != 0)
        return outcome;
    out->modes = modes_of(fd);
    close(fd);
    return 0;
}
