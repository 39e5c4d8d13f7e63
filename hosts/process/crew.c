#include "hosts/process/crew.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* Looks before it sleeps: to be woken takes longer than the next batch is away. */
#define SPIN 2000u

struct tw_crew {
    pthread_t thread;
    sem_t begin, end;
    bool quit;
    void (*piece)(void *ctx, unsigned number);
    void *ctx;
    unsigned count;
    atomic_uint next;
};

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static void await(sem_t *semaphore)
{
    for (unsigned i = 0; i < SPIN; i++) {
        if (sem_trywait(semaphore) == 0)
            return;
        relax();
    }
    while (sem_wait(semaphore) < 0 && errno == EINTR)
        ;
}

static void work(struct tw_crew *c)
{
    for (unsigned i; (i = atomic_fetch_add(&c->next, 1)) < c->count;)
        c->piece(c->ctx, i);
}

static void *help(void *crew)
{
    struct tw_crew *c = crew;
    for (;;) {
        await(&c->begin);
        if (c->quit)
            return NULL;
        work(c);
        sem_post(&c->end);
    }
}

struct tw_crew *tw_crew_open(void)
{
    struct tw_crew *c = calloc(1, sizeof *c);
    sigset_t all, old;
    if (!c)
        return NULL;
    sem_init(&c->begin, 0, 0);
    sem_init(&c->end, 0, 0);
    sigfillset(&all); /* signals are the owner's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int number = pthread_create(&c->thread, NULL, help, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (number == 0)
        return c;
    sem_destroy(&c->begin);
    sem_destroy(&c->end);
    free(c);
    return NULL;
}

void tw_crew_close(struct tw_crew *c)
{
    if (!c)
        return;
    c->quit = true;
    sem_post(&c->begin);
    pthread_join(c->thread, NULL);
    sem_destroy(&c->begin);
    sem_destroy(&c->end);
    free(c);
}

void tw_crew_run(struct tw_crew *c, void (*piece)(void *ctx, unsigned number), void *ctx,
                 unsigned count)
{
    if (!c) {
        for (unsigned i = 0; i < count; i++)
            piece(ctx, i);
        return;
    }
    c->piece = piece;
    c->ctx = ctx;
    c->count = count;
    atomic_store(&c->next, 0);
    sem_post(&c->begin);
    work(c);
    await(&c->end);
}

uint64_t tw_crew_cpu_ns(const struct tw_crew *c)
{
    clockid_t clock;
    struct timespec t;
    if (!c || pthread_getcpuclockid(c->thread, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec * TW_SEC + (uint64_t)t.tv_nsec;
}
