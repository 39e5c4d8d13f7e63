#include "rpc/bounded.h"

#include "rpc/transport.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>

struct job {
    void (*work)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    bool abandoned;
};

static void job_free(struct job *job)
{
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->done_cond);
    free(job);
}

static void *job_main(void *arg)
{
    struct job *job = arg;
    job->work(job->arg);
    pthread_mutex_lock(&job->lock);
    job->done = true;
    bool abandoned = job->abandoned;
    pthread_cond_signal(&job->done_cond);
    pthread_mutex_unlock(&job->lock);
    if (abandoned)
        job_free(job);
    return NULL;
}

bool tw_bounded_run(void (*work)(void *arg), void *arg, unsigned ms)
{
    struct job *job = calloc(1, sizeof *job);
    pthread_t thread;
    if (!job) {
        work(arg);
        return true;
    }
    job->work = work;
    job->arg = arg;
    pthread_mutex_init(&job->lock, NULL);
    tw_cond_init(&job->done_cond);
    if (tw_thread_start(&thread, "rpc-close", job_main, job) != 0) {
        job_free(job);
        work(arg);
        return true;
    }
    uint64_t deadline_ns = tw_now(&tw_monotonic) + ms * TW_MS;
    pthread_mutex_lock(&job->lock);
    while (!job->done && tw_cond_wait_until(&job->done_cond, &job->lock, deadline_ns))
        continue;
    bool done = job->done;
    job->abandoned = !done;
    pthread_mutex_unlock(&job->lock);
    if (!done) {
        pthread_detach(thread);
        return false;
    }
    pthread_join(thread, NULL);
    job_free(job);
    return true;
}
