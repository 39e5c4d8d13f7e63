/* The ways of tracking that a program runs under, each in a thread beside it. */
#include "bench/tracking/bench.h"
#include "hosts/process/compare.h"
#include "hosts/process/inject.h"
#include "hosts/process/kernel.h"
#include "hosts/process/process.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PERIOD    TW_SEC
#define READ_STEP (UINT64_C(1) << 20)

struct tracker_thread {
    pthread_t thread;
    atomic_bool stop;
    atomic_uint passes;
    struct tracked program;
    int userfaultfd;
};

static struct tracker_thread *start(const struct tracked *p, void *(*run)(void *), int userfaultfd)
{
    struct tracker_thread *t = calloc(1, sizeof *t);
    if (!t)
        bench_die("no memory");
    t->program = *p;
    t->userfaultfd = userfaultfd;
    if (pthread_create(&t->thread, NULL, run, t))
        bench_die("no thread");
    return t;
}

unsigned tracker_passes(const struct tracker_thread *t)
{
    return atomic_load(&t->passes);
}

void tracker_stop(struct tracker_thread *t)
{
    atomic_store(&t->stop, true);
    pthread_join(t->thread, NULL);
    if (t->userfaultfd >= 0)
        close(t->userfaultfd);
    free(t);
}

/* Sleeps in steps until `due_ns`; false when it is to stop. */
static bool sleep_until(struct tracker_thread *t, uint64_t due_ns)
{
    while (!atomic_load(&t->stop) && tw_now(&tw_monotonic) < due_ns)
        bench_sleep(5 * TW_MS);
    return !atomic_load(&t->stop);
}

/* ---- Ours ------------------------------------------------------------------------------------ */

static void *run_process(void *ctx)
{
    struct tracker_thread *t = ctx;
    const struct tracked *p = &t->program;
    struct tw_tracker_config config = {.name = "bench"};
    struct tw_process *process;
    struct tw_process_watch *watch;
    struct tw_tracker *tracker;
    struct tw_dirty_page pages[512];
    if (tw_process_attach(NULL, p->pid, &process, NULL) ||
        tw_process_watch(process, p->ranges, p->all ? 0 : p->count, &watch, NULL) ||
        tw_process_pass(process, TW_NEVER, NULL))
        bench_die("the program cannot be attached to");
    config.ranges = tw_process_watch_ranges(watch, &config.range_count);
    if (tw_tracker_start(tw_process_device(process), &config, &tracker, NULL))
        bench_die("no tracker");
    for (uint64_t due = 0;;) {
        const uint64_t second = tw_now(&tw_monotonic) + PERIOD;
        due = tw_process_due_ns(process);
        if (!sleep_until(t, due > second ? due : second))
            break;
        if (tw_process_pass(process, TW_NEVER, NULL))
            bench_die("a pass failed");
        atomic_fetch_add(&t->passes, 1);
        tw_tracker_collect(tracker);
        while (tw_tracker_read(tracker, pages, 512) > 0)
            ;
    }
    tw_process_detach(process);
    return NULL;
}

struct tracker_thread *tracker_process(const struct tracked *p)
{
    return start(p, run_process, -1);
}

/* ---- Synchronous write-protect: the first store to a page waits for us --------------------------
 */

static void unprotect(int fd, uint64_t address)
{
    struct uffdio_writeprotect wp = {
        .range = {address & ~(uint64_t)(TW_PAGE_SIZE - 1), TW_PAGE_SIZE}};
    while (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) && errno == EAGAIN)
        ;
}

static void *run_wp_sync(void *ctx)
{
    struct tracker_thread *t = ctx;
    uint64_t due = 0;
    while (!atomic_load(&t->stop)) {
        struct uffd_msg messages[16];
        struct pollfd poll_fd = {.fd = t->userfaultfd, .events = POLLIN};
        if (tw_now(&tw_monotonic) >= due) {
            for (size_t i = 0; i < t->program.count; i++) {
                if (tw_kernel_protect(t->userfaultfd, t->program.ranges[i]))
                    bench_die("memory cannot be protected");
            }
            due = tw_now(&tw_monotonic) + PERIOD;
        }
        if (poll(&poll_fd, 1, 5) <= 0)
            continue;
        const ssize_t got = read(t->userfaultfd, messages, sizeof messages);
        for (ssize_t i = 0; i < got / (ssize_t)sizeof messages[0]; i++)
            unprotect(t->userfaultfd, messages[i].arg.pagefault.address);
    }
    return NULL;
}

struct tracker_thread *tracker_wp_sync(const struct tracked *p)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    struct tw_inject *inject;
    uint64_t stop_ns;
    int fd;
    if (tw_inject_begin(p->pid, false, NULL, TW_SEC, &inject, NULL) ||
        tw_inject_finish(inject, TW_NEVER, &fd, &stop_ns, NULL) || ioctl(fd, UFFDIO_API, &api))
        bench_die("no synchronous write-protect");
    for (size_t i = 0; i < p->count; i++) {
        if (tw_kernel_register(fd, p->ranges[i]))
            bench_die("memory cannot be registered");
    }
    return start(p, run_wp_sync, fd);
}

/* ---- mprotect and SIGSEGV, inside the program -------------------------------------------------
 */

static void *run_sigsegv(void *ctx)
{
    struct tracker_thread *t = ctx;
    do {
        atomic_store(t->program.protect, 1);
    } while (sleep_until(t, tw_now(&tw_monotonic) + PERIOD));
    return NULL;
}

struct tracker_thread *tracker_sigsegv(const struct tracked *p)
{
    return start(p, run_sigsegv, -1);
}

/* ---- A compare of everything ------------------------------------------------------------------
 */

/* `step` is room for what is read at once. */
static void compare_range(pid_t pid, struct tw_range range, uint8_t *copy, uint8_t *step)
{
    const struct tw_compare *best = tw_compare_best();
    uint64_t changed = 0;
    for (uint64_t at = 0; at < range.length; at += READ_STEP) {
        const size_t bytes = range.length - at < READ_STEP ? range.length - at : READ_STEP;
        struct iovec local = {step, bytes};
        struct iovec remote = {(void *)(uintptr_t)(range.start + at), bytes};
        if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)bytes)
            bench_die("memory cannot be read");
        for (uint64_t page = 0; page < bytes; page += TW_PAGE_SIZE)
            best->update(step + page, copy + at + page, &changed);
    }
}

static void *run_full_compare(void *ctx)
{
    struct tracker_thread *t = ctx;
    const struct tracked *p = &t->program;
    uint64_t bytes = READ_STEP;
    for (size_t i = 0; i < p->count; i++)
        bytes += p->ranges[i].length;
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_die("no memory");
    do {
        uint8_t *copy = memory + READ_STEP;
        for (size_t i = 0; i < p->count; copy += p->ranges[i].length, i++)
            compare_range(p->pid, p->ranges[i], copy, memory);
    } while (sleep_until(t, tw_now(&tw_monotonic) + PERIOD));
    munmap(memory, bytes);
    return NULL;
}

struct tracker_thread *tracker_full_compare(const struct tracked *p)
{
    return start(p, run_full_compare, -1);
}
