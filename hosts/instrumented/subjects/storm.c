/* Threads that store at random, stores that hesitate, and lines that are shared. */
#include "subject.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#define LINES   (REGION_BYTES / 64)
#define WRITERS 3
#define FIRST   64 /* lines of the first page are for signs between us and the test */

/* A macro: a function would be instrumented, and its end would end what was announced. */
#define word(line) ((volatile uint64_t *)(region + (size_t)(line)*64))

/* ---- a: random stores until the test says stop (line 0) -------------------------------------- */

static void *store_at_random(void *seed)
{
    uint64_t state = (uint64_t)(uintptr_t)seed * 2654435761u + 1;
    /* Mostly to a few lines, so that all meet there; to even lines only, so that the test knows
     * which are never stored to. */
    for (uint64_t i = 1; *word(0) != 1; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const size_t line = i & 7 ? FIRST + state % 200 : FIRST + state % (LINES - FIRST);
        *word(line & ~(size_t)1) = i << 8 | (uintptr_t)seed;
    }
    return NULL;
}

static void on_tick(int number)
{
    static uint64_t ticks;
    (void)number;
    ticks++;
    *word((FIRST + ticks % 200) & ~(size_t)1) = ticks << 8 | 0x80;
}

static void storm(void)
{
    pthread_t threads[WRITERS];
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    if (signal(SIGALRM, on_tick) == SIG_ERR)
        abort();
    for (size_t i = 0; i < WRITERS; i++) {
        if (pthread_create(&threads[i], NULL, store_at_random, (void *)(i + 1)))
            abort();
    }
    setitimer(ITIMER_REAL, &often, NULL);
    subject_answer(); /* begun */
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
}

/* ---- b: a thread that stops between its announcement and its store --------------------------- */

void __tsan_write8(void *address);

/* By hand, since nothing else can make the moment last: line 2 says "announced", line 1 "go on". */
__attribute__((no_sanitize_thread, noinline)) static void hesitate(size_t line)
{
    *word(1) = 0;
    __tsan_write8((void *)word(line));
    *word(2) = 1;
    while (*word(1) != 1)
        ; /* no system call: it would prove that the store is made */
    *word(line) = 4711;
    *word(2) = 2;
}

static void hesitant(void)
{
    hesitate(FIRST + 7);
}

/* ---- c: the same, and the announcement is interrupted by a signal handler that stores -------- */

static void on_interrupt(int number)
{
    (void)number;
    *word(FIRST + 9) = 1;
    *word(2) = 3; /* in the handler */
    while (*word(1) != 2)
        ;
}

__attribute__((no_sanitize_thread, noinline)) static void hesitate_interrupted(size_t line)
{
    __tsan_write8((void *)word(line));
    raise(SIGUSR1); /* between the announcement and the store */
    *word(2) = 4;
    while (*word(1) != 3)
        ;
    *word(line) = 4712;
    *word(2) = 5;
}

static void interrupted(void)
{
    if (signal(SIGUSR1, on_interrupt) == SIG_ERR)
        abort();
    hesitate_interrupted(FIRST + 8);
}

/* ---- d: who shares a line -------------------------------------------------------------------- */

static pthread_barrier_t both;

__attribute__((noinline)) static void bump_left(void)
{
    volatile uint32_t *p = (volatile uint32_t *)(region + 4096 * 100);
    for (int i = 0; i < 1000; i++)
        p[0]++;
}

__attribute__((noinline)) static void bump_right(void)
{
    volatile uint32_t *p = (volatile uint32_t *)(region + 4096 * 100);
    for (int i = 0; i < 1000; i++)
        p[8]++;
}

static void *share(void *side)
{
    volatile uint32_t *common = (volatile uint32_t *)(region + 4096 * 101);
    volatile uint32_t *own = (volatile uint32_t *)(region + 4096 * 102);
    pthread_barrier_wait(&both); /* each has a thread record of its own at the same time */
    if (side)
        bump_right();
    else
        bump_left();
    common[0]++;
    own[side ? 16 : 0]++;
    pthread_barrier_wait(&both);
    *word(2) = 6;
    while (*word(1) != 4)
        usleep(100);
    return NULL;
}

static void sharing(void)
{
    pthread_t left, right;
    pthread_barrier_init(&both, NULL, 2);
    if (pthread_create(&left, NULL, share, NULL) || pthread_create(&right, NULL, share, region))
        abort();
    pthread_join(left, NULL);
    pthread_join(right, NULL);
    pthread_barrier_destroy(&both);
}

/* ---- e: runs another program in its own place ------------------------------------------------ */

static void replaced(void)
{
    execl("/bin/sleep", "sleep", "60", (char *)NULL);
    abort();
}

int main(void)
{
    static void (*const scenarios[])(void) = {storm, hesitant, interrupted, sharing, replaced};
    return subject_main(scenarios, sizeof scenarios / sizeof scenarios[0]);
}
