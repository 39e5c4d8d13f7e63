#include "controller/jobs.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define THREADS_MAX 64u

struct job {
    tw_job_fn fn;
    void *ctx;
    void (*free_fn)(void *);
    uint64_t due_ns;
    bool running, again;
    struct job *next;
};

struct tw_jobs {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *list;
    unsigned count, idle, threads_max, thread_count;
    pthread_t threads[THREADS_MAX];
    bool closing;
};

static void *thread_main(void *arg);

enum tw_code tw_jobs_open(unsigned threads_max, struct tw_jobs **out, struct tw_error *err)
{
    struct tw_jobs *jobs = calloc(1, sizeof *jobs);
    *out = jobs;
    if (!jobs)
        return tw_fail_errno(err, ENOMEM, "jobs", "cannot start");
    jobs->threads_max = threads_max < THREADS_MAX ? threads_max : THREADS_MAX;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return TW_OK;
}

static struct job *job_due(const struct tw_jobs *jobs, uint64_t now, uint64_t *next)
{
    struct job *best = NULL;
    *next = TW_NEVER;
    for (struct job *j = jobs->list; j; j = j->next) {
        if (j->running)
            continue;
        if (j->due_ns <= now && (!best || j->due_ns < best->due_ns))
            best = j;
        if (j->due_ns < *next)
            *next = j->due_ns;
    }
    return best;
}

/* Somebody has to watch the time: a waiting thread, who looks again, or else a new one. A failure
 * to make one is no harm as long as there is another. */
static void watcher_call(struct tw_jobs *jobs)
{
    if (jobs->idle > 0) {
        pthread_cond_signal(&jobs->changed);
        return;
    }
    if (jobs->thread_count == jobs->threads_max || jobs->closing)
        return;
    if (pthread_create(&jobs->threads[jobs->thread_count], NULL, thread_main, jobs) == 0)
        jobs->thread_count++;
}

static void job_drop(struct tw_jobs *jobs, struct job *job)
{
    for (struct job **p = &jobs->list; *p; p = &(*p)->next) {
        if (*p == job) {
            *p = job->next;
            jobs->count--;
            break;
        }
    }
}

static void job_free(struct job *job)
{
    if (job->free_fn)
        job->free_fn(job->ctx);
    free(job);
}

/* Called and returns with the lock held. */
static void job_run(struct tw_jobs *jobs, struct job *job)
{
    uint64_t next;
    job->running = true;
    job->again = false;
    job_due(jobs, 0, &next);
    if (next != TW_NEVER)
        watcher_call(jobs);
    pthread_mutex_unlock(&jobs->lock);
    uint64_t due = job->fn(job->ctx);
    pthread_mutex_lock(&jobs->lock);
    job->running = false;
    job->due_ns = job->again ? 0 : due;
    if (due == TW_NEVER) {
        job_drop(jobs, job);
        pthread_mutex_unlock(&jobs->lock);
        job_free(job);
        pthread_mutex_lock(&jobs->lock);
    }
}

static void wait_until(struct tw_jobs *jobs, uint64_t when)
{
    struct timespec t = {.tv_sec = (time_t)(when / TW_SEC), .tv_nsec = (long)(when % TW_SEC)};
    jobs->idle++;
    if (when == TW_NEVER)
        pthread_cond_wait(&jobs->changed, &jobs->lock);
    else
        pthread_cond_timedwait(&jobs->changed, &jobs->lock, &t);
    jobs->idle--;
}

static void *thread_main(void *arg)
{
    struct tw_jobs *jobs = arg;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->closing) {
        uint64_t next;
        struct job *job = job_due(jobs, tw_now(&tw_monotonic), &next);
        if (job)
            job_run(jobs, job);
        else
            wait_until(jobs, next);
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

enum tw_code tw_jobs_add(struct tw_jobs *jobs, tw_job_fn fn, void *ctx, void (*free_fn)(void *),
                         struct tw_error *err)
{
    struct job *job = malloc(sizeof *job);
    if (!job)
        return tw_fail_errno(err, ENOMEM, "jobs", "cannot add");
    *job = (struct job){.fn = fn, .ctx = ctx, .free_fn = free_fn};
    pthread_mutex_lock(&jobs->lock);
    bool room = jobs->count < TW_JOBS_MAX && !jobs->closing;
    if (room) {
        job->next = jobs->list;
        jobs->list = job;
        jobs->count++;
        watcher_call(jobs);
        room = jobs->thread_count > 0;
        if (!room)
            job_drop(jobs, job);
    }
    pthread_mutex_unlock(&jobs->lock);
    if (room)
        return TW_OK;
    free(job);
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, "jobs", NULL, NULL, "no room for another job");
}

void tw_jobs_wake(struct tw_jobs *jobs, const void *ctx)
{
    pthread_mutex_lock(&jobs->lock);
    for (struct job *j = jobs->list; j; j = j->next) {
        if (j->ctx == ctx) {
            j->due_ns = 0;
            j->again = j->running;
            watcher_call(jobs);
        }
    }
    pthread_mutex_unlock(&jobs->lock);
}

bool tw_jobs_closing(struct tw_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    bool closing = jobs->closing;
    pthread_mutex_unlock(&jobs->lock);
    return closing;
}

void tw_jobs_close(struct tw_jobs *jobs)
{
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->lock);
    jobs->closing = true;
    unsigned threads = jobs->thread_count;
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(jobs->threads[i], NULL);
    while (jobs->list) {
        struct job *job = jobs->list;
        jobs->list = job->next;
        job_free(job);
    }
    pthread_mutex_destroy(&jobs->lock);
    pthread_cond_destroy(&jobs->changed);
    free(jobs);
}
