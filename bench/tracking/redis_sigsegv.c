/* Loaded into Redis, tracks its pages by mprotect and SIGSEGV, which only the program itself can
 * do.
 *
 * From SIGUSR1 on, the event loop protects the memory of the large anonymous mappings that there
 * are then, once a second; the first store to a page faults, and the handler lets it be written.
 * The kernel's own stores into protected memory fail with EFAULT instead of faulting, so before the
 * two calls by which this server has the kernel store into its heap, its pages are stored to here.
 * Threads that block the signal must not store to the heap (jemalloc's own does: it is off).
 * What it leaves out: stacks, the main thread's own area, small and later mappings, and what other
 * system calls store. */
#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE       UINT64_C(4096)
#define LARGE      (UINT64_C(1) << 20) /* bytes */
#define RANGES_MAX 512u

static struct {
    uint64_t start, end;
} ranges[RANGES_MAX];
static unsigned range_count;
static volatile sig_atomic_t asked;
static time_t protected_at;

static void on_fault(int number, siginfo_t *info, void *context)
{
    const uint64_t at = (uint64_t)(uintptr_t)info->si_addr & ~(PAGE - 1);
    (void)context;
    for (unsigned i = 0; i < range_count; i++) {
        if (at >= ranges[i].start && at < ranges[i].end &&
            mprotect((void *)(uintptr_t)at, PAGE, PROT_READ | PROT_WRITE) == 0)
            return;
    }
    signal(number, SIG_DFL); /* not one of ours, or it cannot be helped: the next one ends it */
}

static void on_request(int number)
{
    (void)number;
    asked = 1;
}

static void add_range(uint64_t start, uint64_t end)
{
    if (start < end && range_count < RANGES_MAX) {
        ranges[range_count].start = start;
        ranges[range_count++].end = end;
    }
}

/* The kernel writes into the thread's own area whenever it goes to another processor (rseq), and
 * ends a program where it cannot. The other threads' areas are in their stacks. */
static void add_around_own_area(uint64_t start, uint64_t end)
{
    const uint64_t own = (uint64_t)(uintptr_t)__builtin_thread_pointer() & ~(PAGE - 1);
    if (own < start || own >= end) {
        add_range(start, end);
        return;
    }
    add_range(start, own - PAGE);
    add_range(own + 2 * PAGE, end);
}

static void find_ranges(void)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        _exit(1);
    while (fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        unsigned long inode;
        int name = 0;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " rw-p %*s %*s %lu %n", &start, &end, &inode,
                   &name) < 3 ||
            inode != 0 || line[name] != 0 || end - start < LARGE)
            continue;
        add_around_own_area(start, end);
    }
    fclose(maps);
}

/* A fault cannot be handled on a stack that is protected. */
static void leave_out(uint64_t stack)
{
    for (unsigned i = 0; i < range_count; i++) {
        if (stack >= ranges[i].start && stack < ranges[i].end) {
            ranges[i] = ranges[--range_count];
            return;
        }
    }
}

static void leave_out_stacks(void)
{
    DIR *tasks = opendir("/proc/self/task");
    for (const struct dirent *task; tasks && (task = readdir(tasks)) != NULL;) {
        char path[300];
        uint64_t stack;
        snprintf(path, sizeof path, "/proc/self/task/%s/syscall", task->d_name);
        /* A thread that runs just now does not tell; at the latest it waits for this one. */
        for (unsigned i = 0; i < 2000; i++) {
            FILE *file = fopen(path, "re");
            if (file == NULL)
                break;
            const int told = fscanf(file, "%*d %*s %*s %*s %*s %*s %*s %" SCNx64, &stack);
            fclose(file);
            if (told == 1) {
                leave_out(stack);
                break;
            }
            usleep(500);
        }
    }
    if (tasks)
        closedir(tasks);
}

static void protect_when_due(void)
{
    struct timespec now;
    if (!asked)
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (now.tv_sec == protected_at)
        return;
    protected_at = now.tv_sec;
    if (range_count == 0) { /* now, as Redis installed a handler of its own when it started */
        struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESTART};
        sigaction(SIGSEGV, &fault, NULL);
        find_ranges();
        leave_out_stacks();
    }
    for (unsigned i = 0; i < range_count; i++) {
        if (mprotect((void *)(uintptr_t)ranges[i].start, ranges[i].end - ranges[i].start,
                     PROT_READ))
            _exit(1);
    }
}

static void store_first(void *buffer, size_t size)
{
    volatile char *bytes = buffer;
    for (size_t at = 0; at < size; at += PAGE)
        bytes[at] = bytes[at];
    if (size > 0)
        bytes[size - 1] = bytes[size - 1];
}

/* In front of libc's, as this library is loaded first. */
__attribute__((visibility("default"))) int epoll_wait(int fd, struct epoll_event *events, int max,
                                                      int timeout_ms)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (real == NULL)
        *(void **)(&real) = dlsym(RTLD_NEXT, "epoll_wait");
    protect_when_due();
    store_first(events, max > 0 ? (size_t)max * sizeof *events : 0);
    return real(fd, events, max, timeout_ms);
}

__attribute__((visibility("default"))) ssize_t read(int fd, void *buffer, size_t size)
{
    static ssize_t (*real)(int, void *, size_t);
    if (real == NULL)
        *(void **)(&real) = dlsym(RTLD_NEXT, "read");
    store_first(buffer, size);
    return real(fd, buffer, size);
}

__attribute__((constructor)) static void begin(void)
{
    struct sigaction request = {.sa_handler = on_request, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &request, NULL);
}
