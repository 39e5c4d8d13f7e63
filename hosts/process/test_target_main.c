#include "hosts/process/test_target.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE         64u
#define PAGE         4096u
#define STACK_MAX    (4u << 20)
#define BIG_PAGE     (2u << 20)
#define HUGETLB_SIZE (2u << 20)

static struct target_control *control;
static char *memory_argument;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void nap_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void *map_file(uint64_t length, int protection, int flags)
{
    char path[] = "/tmp/towline-target-XXXXXX";
    const int fd = mkstemp(path);
    char page[PAGE];
    memset(page, 7, sizeof page);
    unlink(path);
    for (uint64_t at = 0; at < length; at += PAGE) {
        if (write(fd, page, PAGE) != PAGE)
            return MAP_FAILED;
    }
    void *memory = mmap(NULL, length, protection, flags, fd, 0);
    close(fd);
    return memory;
}

static void *map_big(uint64_t length)
{
    uint8_t *memory =
        mmap(NULL, length + BIG_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return MAP_FAILED;
    memory += (BIG_PAGE - (uintptr_t)memory % BIG_PAGE) % BIG_PAGE;
    madvise(memory, length, MADV_HUGEPAGE);
    return memory;
}

static uint64_t map(enum target_kind kind, uint64_t length)
{
    const int both = PROT_READ | PROT_WRITE;
    void *memory = MAP_FAILED;
    switch (kind) {
    case TARGET_ANONYMOUS:
        memory = mmap(NULL, length, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case TARGET_BIG:
        memory = map_big(length);
        break;
    case TARGET_SHARED:
        memory = mmap(NULL, length, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        break;
    case TARGET_FILE_SHARED:
        memory = map_file(length, both, MAP_SHARED);
        break;
    case TARGET_FILE_PRIVATE:
        memory = map_file(length, both, MAP_PRIVATE);
        break;
    case TARGET_READ_ONLY:
        memory = map_file(length, PROT_READ, MAP_PRIVATE);
        break;
    case TARGET_RESERVED:
        memory = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case TARGET_HUGETLB:
        memory = mmap(NULL, length, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        break;
    }
    return memory == MAP_FAILED ? 0 : (uint64_t)(uintptr_t)memory;
}

/* Moved to a place that is surely another. */
static uint64_t remap(uint64_t address, uint64_t length)
{
    void *place = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *moved =
        mremap((void *)(uintptr_t)address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return moved == MAP_FAILED ? 0 : (uint64_t)(uintptr_t)moved;
}

__attribute__((noinline)) static uint64_t deep(uint64_t length)
{
    volatile uint8_t *low = __builtin_alloca(length < STACK_MAX ? length : STACK_MAX);
    low[0] = 0x5a;
    return (uint64_t)(uintptr_t)low;
}

/* ---- Threads that write at random ------------------------------------------------------------ */

struct worker {
    pthread_t thread;
    uint64_t random;
    uint64_t stores; /* UINT64_MAX: until stop */
};

/* Each thread has words of its own in every line, so that no value is ever written back twice. */
static void *work(void *ctx)
{
    struct worker *w = ctx;
    const uint64_t id = w->random % TARGET_THREADS_MAX;
    uint64_t count = 1;
    for (; w->stores > 0 && !atomic_load_explicit(&control->stop, memory_order_relaxed);
         w->stores--) {
        const uint64_t line = next_random(&w->random) % (control->length * 64);
        volatile uint64_t *word =
            (volatile uint64_t *)(uintptr_t)(control->address + line * LINE + id * 8);
        atomic_fetch_or(&control->written[line / 64], UINT64_C(1) << line % 64);
        *word = *word + count++; /* differs from what was there */
    }
    return NULL;
}

static void run_threads(bool endless)
{
    struct worker workers[TARGET_THREADS_MAX];
    for (unsigned i = 0; i < control->threads; i++) {
        workers[i] = (struct worker){.random = control->value * TARGET_THREADS_MAX + i,
                                     .stores = endless ? UINT64_MAX : control->stores};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            abort();
    }
    for (unsigned i = 0; i < control->threads; i++)
        pthread_join(workers[i].thread, NULL);
}

/* ---- Commands -------------------------------------------------------------------------------- */

static uint64_t fork_and_store(void)
{
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        *(volatile uint64_t *)(uintptr_t)control->address = control->value;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return (uint64_t)status;
}

static uint64_t read_file(void)
{
    const int fd = open("/proc/self/exe", O_RDONLY);
    const ssize_t got = read(fd, (void *)(uintptr_t)control->address, control->length);
    close(fd);
    return (uint64_t)got;
}

static uint64_t sleep_ms(uint64_t ms)
{
    struct timespec a, b;
    const struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (nanosleep(&pause, NULL))
        return 0; /* interrupted: somebody outside was noticed */
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (uint64_t)(b.tv_sec - a.tv_sec) * 1000000 + (uint64_t)(b.tv_nsec / 1000) -
           (uint64_t)(a.tv_nsec / 1000);
}

static uint64_t obey(void)
{
    void *const memory = (void *)(uintptr_t)control->address;
    volatile uint64_t *const word = memory;
    switch ((enum target_command)control->command) {
    case TARGET_NONE:
        break;
    case TARGET_MAP:
        return map((enum target_kind)control->kind, control->length);
    case TARGET_STORE:
        *word = control->value;
        break;
    case TARGET_LOAD:
        return *word;
    case TARGET_UNMAP:
        return (uint64_t)munmap(memory, control->length);
    case TARGET_REMAP:
        return remap(control->address, control->length);
    case TARGET_PROTECT:
        return (uint64_t)mprotect(memory, control->length, (int)control->value);
    case TARGET_GIVE_BACK:
        return (uint64_t)madvise(memory, control->length, MADV_DONTNEED);
    case TARGET_BREAK:
        return (uint64_t)(uintptr_t)sbrk((intptr_t)control->length);
    case TARGET_DEEP:
        return deep(control->length);
    case TARGET_FORK:
        return fork_and_store();
    case TARGET_EXEC:
        atomic_fetch_add(&control->done, 1);
        execl("/proc/self/exe", "target", memory_argument, NULL);
        abort();
    case TARGET_EXIT:
        _exit(0);
    case TARGET_READ:
        return read_file();
    case TARGET_THREADS:
        run_threads(true);
        break;
    case TARGET_ROUND:
        run_threads(false);
        break;
    case TARGET_SLEEP:
        return sleep_ms(control->value);
    }
    return 0;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 2)
        return 2;
    memory_argument = argv[1];
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    if (control == MAP_FAILED)
        return 2;
    for (;;) {
        while (atomic_load(&control->asked) == atomic_load(&control->done)) {
            if (getppid() == 1)
                return 0;
            nap_us(20);
        }
        control->result = obey();
        atomic_fetch_add(&control->done, 1);
    }
}
