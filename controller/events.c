#include "controller/events.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct tw_events {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t revision;
    unsigned waiting, waiting_max;
    bool stopped;
};

enum tw_code tw_events_open(unsigned waiting_max, struct tw_events **out, struct tw_error *err)
{
    struct tw_events *e = calloc(1, sizeof *e);
    *out = e;
    if (!e)
        return tw_fail_errno(err, ENOMEM, "events", "cannot start");
    e->waiting_max = waiting_max;
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&e->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return TW_OK;
}

void tw_events_close(struct tw_events *e)
{
    if (!e)
        return;
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->changed);
    free(e);
}

void tw_events_note(void *ctx, uint64_t revision)
{
    struct tw_events *e = ctx;
    pthread_mutex_lock(&e->lock);
    if (revision > e->revision)
        e->revision = revision;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

void tw_events_stop(struct tw_events *e)
{
    pthread_mutex_lock(&e->lock);
    e->stopped = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

bool tw_events_wait(struct tw_events *e, uint64_t revision, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / TW_SEC),
                             .tv_nsec = (long)(deadline_ns % TW_SEC)};
    pthread_mutex_lock(&e->lock);
    bool may_wait = e->waiting < e->waiting_max;
    e->waiting += may_wait;
    while (may_wait && !e->stopped && e->revision <= revision &&
           tw_now(&tw_monotonic) < deadline_ns)
        pthread_cond_timedwait(&e->changed, &e->lock, &until);
    e->waiting -= may_wait;
    bool more = e->revision > revision && !e->stopped;
    pthread_mutex_unlock(&e->lock);
    return more;
}
