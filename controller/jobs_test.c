/* Jobs under real threads, with a main of its own so that the thread sanitizer can watch. */
#include "controller/jobs.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct work {
    _Atomic unsigned runs, inside, freed;
    unsigned until;     /* over after that many runs */
    _Atomic bool *gate; /* waits until it is open; may be NULL */
    uint64_t period_ns;
};

static uint64_t run(void *ctx)
{
    struct work *w = ctx;
    CHECK(atomic_fetch_add(&w->inside, 1) == 0);
    for (unsigned ms = 0; w->gate && ms < 30000 && !atomic_load(w->gate); ms++)
        usleep(1000);
    atomic_fetch_sub(&w->inside, 1);
    unsigned n = atomic_fetch_add(&w->runs, 1) + 1;
    return w->until && n >= w->until ? TW_NEVER : tw_now(&tw_monotonic) + w->period_ns;
}

static void freed(void *ctx)
{
    struct work *w = ctx;
    atomic_fetch_add(&w->freed, 1);
}

static bool await(_Atomic unsigned *value, unsigned least, unsigned within_ms)
{
    for (unsigned ms = 0; ms < within_ms; ms += 2) {
        if (atomic_load(value) >= least)
            return true;
        usleep(2000);
    }
    return false;
}

/* Jobs that block do not hold up one that is quick. */
static void slow_ones_hold_up_nobody(void)
{
    struct tw_jobs *jobs;
    struct tw_error err;
    _Atomic bool gate = false;
    struct work slow[6] = {{0}}, quick = {.period_ns = TW_MS};
    CHECK(tw_jobs_open(8, &jobs, &err) == TW_OK);
    for (unsigned i = 0; i < 6; i++) {
        slow[i].gate = &gate;
        slow[i].until = 1;
        CHECK(tw_jobs_add(jobs, run, &slow[i], freed, &err) == TW_OK);
    }
    CHECK(tw_jobs_add(jobs, run, &quick, freed, &err) == TW_OK);
    CHECK(await(&quick.runs, 20, 20000));
    for (unsigned i = 0; i < 6; i++)
        CHECK(slow[i].runs == 0);
    atomic_store(&gate, true);
    tw_jobs_close(jobs);
    for (unsigned i = 0; i < 6; i++)
        CHECK(slow[i].freed == 1 && slow[i].runs == 1);
    CHECK(quick.freed == 1);
}

static void over_is_over_and_wake_is_soon(void)
{
    struct tw_jobs *jobs;
    struct tw_error err;
    struct work three = {.until = 3}, sleeper = {.period_ns = 3600 * TW_SEC};
    CHECK(tw_jobs_open(2, &jobs, &err) == TW_OK);
    CHECK(tw_jobs_add(jobs, run, &three, freed, &err) == TW_OK);
    CHECK(tw_jobs_add(jobs, run, &sleeper, freed, &err) == TW_OK);
    CHECK(await(&three.freed, 1, 20000) && three.runs == 3);
    CHECK(await(&sleeper.runs, 1, 20000));
    tw_jobs_wake(jobs, &sleeper);
    CHECK(await(&sleeper.runs, 2, 20000));
    tw_jobs_wake(jobs, &three); /* gone: nothing happens */
    CHECK(sleeper.freed == 0);
    tw_jobs_close(jobs);
    CHECK(sleeper.freed == 1 && three.freed == 1 && three.runs == 3);
}

/* Many short jobs, woken from outside all the while; never two threads in one. */
static void storm(void)
{
    enum { N = 100 };
    struct tw_jobs *jobs;
    struct tw_error err;
    static struct work works[N];
    CHECK(tw_jobs_open(4, &jobs, &err) == TW_OK);
    for (unsigned i = 0; i < N; i++) {
        works[i].until = 20;
        works[i].period_ns = (i % 5) * TW_MS;
        CHECK(tw_jobs_add(jobs, run, &works[i], freed, &err) == TW_OK);
    }
    for (unsigned i = 0; i < 2000; i++)
        tw_jobs_wake(jobs, &works[i % N]);
    for (unsigned i = 0; i < N; i++)
        CHECK(await(&works[i].freed, 1, 20000));
    tw_jobs_close(jobs);
    for (unsigned i = 0; i < N; i++)
        CHECK(works[i].runs >= 20 && works[i].freed == 1);
}

int main(void)
{
    slow_ones_hold_up_nobody();
    over_is_over_and_wake_is_soon();
    storm();
    return 0;
}
