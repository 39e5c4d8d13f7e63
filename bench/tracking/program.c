#include "bench/tracking/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE (120 * TW_SEC)

enum { COMMAND_DIRTY, COMMAND_LOOP };

static uint64_t scramble(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- Over there ------------------------------------------------------------------------------ */

static struct program here;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    const uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(TW_PAGE_SIZE - 1);
    if (page - (uintptr_t)here.memory >= here.bytes ||
        mprotect((void *)page, TW_PAGE_SIZE, PROT_READ | PROT_WRITE))
        _exit(1);
}

static void dirty(uint64_t count, uint64_t seed)
{
    const uint64_t pages = here.bytes / TW_PAGE_SIZE;
    for (uint64_t i = 0; i < count; i++) { /* each page once */
        const uint64_t page = (seed + i * UINT64_C(0x9e3779b97f4a7c15)) % pages;
        const uint64_t line = scramble(seed + i) % TW_LINES_PER_PAGE;
        volatile uint64_t *word =
            (volatile uint64_t *)(void *)(here.memory + page * TW_PAGE_SIZE + line * TW_LINE_SIZE);
        *word = *word + 1;
    }
}

static _Noreturn void loop(void)
{
    const uint64_t lines = here.bytes / TW_LINE_SIZE;
    uint64_t state = 1;
    for (;;) {
        for (unsigned i = 0; i < 256; i++) {
            state += UINT64_C(0x9e3779b97f4a7c15);
            const uint64_t line = scramble(state) % lines;
            *(volatile uint64_t *)(void *)(here.memory + line * TW_LINE_SIZE) = state;
        }
        atomic_fetch_add_explicit(&here.shared->stores, 256, memory_order_relaxed);
        if (atomic_exchange(&here.shared->protect, 0) &&
            mprotect(here.memory, here.bytes, PROT_READ))
            _exit(1);
    }
}

static _Noreturn void program_main(bool trap)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (trap) {
        struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
        sigaction(SIGSEGV, &action, NULL);
    }
    for (uint64_t at = 0; at < here.bytes; at += sizeof(uint64_t))
        *(uint64_t *)(void *)(here.memory + at) = scramble(at + 1);
    for (;;) {
        atomic_fetch_add(&here.shared->done, 1);
        while (atomic_load(&here.shared->asked) != atomic_load(&here.shared->done))
            bench_sleep(50 * TW_US);
        if (here.shared->command == COMMAND_LOOP)
            loop();
        dirty(here.shared->count, here.shared->seed);
    }
}

/* ---- Here ------------------------------------------------------------------------------------ */

static void ask(struct program *p, uint32_t command)
{
    p->shared->command = command;
    atomic_fetch_add(&p->shared->asked, 1);
}

/* `done` runs one ahead of `asked` while it waits for a command. */
static void await(const struct program *p)
{
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), PATIENCE);
    while (atomic_load(&p->shared->done) != atomic_load(&p->shared->asked) + 1) {
        if (tw_now(&tw_monotonic) > deadline || waitpid(p->pid, NULL, WNOHANG) != 0)
            bench_die("the tracked program does not answer");
        bench_sleep(50 * TW_US);
    }
}

void program_start(struct program *p, uint64_t bytes, bool trap)
{
    void *shared =
        mmap(NULL, sizeof *p->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || memory == MAP_FAILED)
        bench_die("no memory");
    *p = (struct program){.memory = memory, .bytes = bytes, .shared = shared};
    here = *p;
    p->pid = fork();
    if (p->pid == 0)
        program_main(trap);
    munmap(memory, bytes); /* of use over there only */
    if (p->pid < 0)
        bench_die("fork");
    await(p);
}

void program_end(struct program *p)
{
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    munmap(p->shared, sizeof *p->shared);
}

void program_dirty(struct program *p, uint64_t count, uint64_t seed)
{
    p->shared->count = count;
    p->shared->seed = seed;
    ask(p, COMMAND_DIRTY);
    await(p);
}

void program_loop(struct program *p)
{
    ask(p, COMMAND_LOOP);
}

double program_speed(const struct program *p, uint64_t ns)
{
    const uint64_t start = tw_now(&tw_monotonic), stores = atomic_load(&p->shared->stores);
    bench_sleep(ns);
    const uint64_t did = atomic_load(&p->shared->stores) - stores;
    if (did == 0)
        bench_die("the tracked program stands still");
    return (double)did * 1e9 / (double)(tw_now(&tw_monotonic) - start);
}
