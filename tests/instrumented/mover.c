/* A program with a region, as source or destination of its contents. Says where its control page
 * is, then does what it is told, a byte a scenario (work.h), and answers each with a '.'. */
#include "tests/instrumented/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <towline-region.h>
#include <unistd.h>

static uint8_t *region, *control;
static pthread_barrier_t together;
static unsigned scenario;

/* A macro: a function would be instrumented, and its end would end what was announced. */
#define sign(which) ((volatile uint64_t *)(void *)(control + (size_t)(which)*64))

static void must(int good)
{
    if (!good)
        abort();
}

static void *work(void *arg)
{
    const unsigned thread = (unsigned)(uintptr_t)arg;
    unsigned wrong = 0;
    pthread_barrier_wait(&together);
    if (scenario == TOUCH)
        wrong = work_touch(region, thread);
    else if (scenario == NEIGHBOURS)
        wrong = work_neighbours(region, thread);
    else if (scenario == MERGE)
        work_merge(region, thread);
    else if (scenario == COPY)
        wrong = work_copy(region, thread);
    __atomic_fetch_add(sign(SIGN_WRONG), wrong, __ATOMIC_SEQ_CST);
    return NULL;
}

static void all_together(void)
{
    pthread_t threads[THREADS];
    must(pthread_barrier_init(&together, NULL, THREADS) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&together);
}

/* The kernel writes to the region and reads from it. */
static void input(void)
{
    uint8_t bytes[INPUT_BYTES], back[128];
    int ends[2];
    must(pipe(ends) == 0);
    for (unsigned i = 0; i < INPUT_BYTES; i++)
        bytes[i] = (uint8_t)(i * 3 + 1);
    must(write(ends[1], bytes, INPUT_BYTES) == (ssize_t)INPUT_BYTES);
    must(read(ends[0], region + 620 * 4096 + 20, INPUT_BYTES) == (ssize_t)INPUT_BYTES);
    must(write(ends[1], region + 620 * 4096 + 10 * 64, 128) == 128); /* 2 lines */
    must(read(ends[0], back, 128) == 128);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t got;
        memcpy(&got, back + i * 8, sizeof got);
        *sign(SIGN_WRONG) += got != value_of(620, 10 + i / 8, i % 8);
    }
    const struct iovec part = {region + 621 * 4096, 64};
    must(write(ends[1], bytes, 1) == 1);
    must(readv(ends[0], &part, 1) < 0 && errno == EFAULT);
    close(ends[0]);
    close(ends[1]);
}

/* Stores all over until it is told to stop, or is stopped for good by the memory's leaving. */
static void *storm(void *arg)
{
    uint64_t state = (uint64_t)(uintptr_t)arg * 2654435761u + 88172645463325252u;
    while (*sign(SIGN_STOP) == 0) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const uint64_t page = state % 8 ? state / 64 % 40 : state / 64 % PAGES;
        word_of(region, page, state >> 40 & 63)[(uintptr_t)arg & 7] = state;
        if (state % 64 == 0)
            memset(region + page * 4096 + 1000, (int)state, 200);
        (*sign(SIGN_ROUNDS + 1 + (uintptr_t)arg))++;
    }
    return NULL;
}

static void begin_storm(void)
{
    pthread_t thread;
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&thread, NULL, storm, (void *)i) == 0 && pthread_detach(thread) == 0);
}

void __tsan_write8(void *address);

/* Between an announcement and its store, until the test says go on. */
__attribute__((no_sanitize_thread, noinline)) static void hesitate(void)
{
    volatile uint64_t *p = word_of(region, 3, 3);
    __tsan_write8((void *)(uintptr_t)p);
    *sign(SIGN_HERE) = 1;
    while (*sign(SIGN_GO) != 1)
        ; /* no system call: it would prove that the store is made */
    *p = 4711;
    *sign(SIGN_HERE) = 2;
}

/* A child has no region, and the parent keeps its own. */
static void fork_one(void)
{
    const pid_t child = fork();
    int status;
    if (child == 0)
        _exit(towline_region_destroy(region) == 0 || errno != EINVAL);
    must(child > 0 && waitpid(child, &status, 0) == child);
    *sign(SIGN_WRONG) += status != 0;
}

static void serve(void)
{
    if (scenario == FILL)
        work_fill(region);
    else if (scenario == INPUT)
        input();
    else if (scenario == STORM)
        begin_storm();
    else if (scenario == HESITATE)
        hesitate();
    else if (scenario == READ_ONE)
        *sign(SIGN_WRONG) += *word_of(region, 700, 1) != value_of(700, 1, 0);
    else if (scenario == FORK)
        fork_one();
    else
        all_together();
}

int main(void)
{
    char text[32];
    unsigned char byte;
    control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    region = towline_region_create(REGION_BYTES, (void *)(uintptr_t)REGION_AT);
    must(control != MAP_FAILED && region != NULL);
    must(towline_region_create(4097, NULL) == NULL && errno == EINVAL);
    must(towline_region_create(4096, region) == NULL && errno == EEXIST);
    void *another = towline_region_create(8192, NULL);
    must(another && towline_region_destroy(another) == 0 && towline_region_destroy(another) < 0);
    snprintf(text, sizeof text, "%016lx", (unsigned long)(uintptr_t)control);
    must(write(1, text, 16) == 16);
    while (read(0, &byte, 1) == 1) {
        scenario = byte;
        serve();
        must(write(1, ".", 1) == 1);
    }
    return 0;
}
