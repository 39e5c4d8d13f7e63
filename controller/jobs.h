/* Things that have to be done again and again, each at its own time, by a few threads.
 *
 * A job is a function that does a bounded piece of work and says when it wants to be called next.
 * One job is never run by two threads at once; threads are made when jobs wait, up to a bound, so
 * that a job which waits for a dead peer holds up nobody else. */
#ifndef TOWLINE_CONTROLLER_JOBS_H
#define TOWLINE_CONTROLLER_JOBS_H

#include "base/clock.h"
#include "base/error.h"

#include <stdbool.h>

#define TW_JOBS_MAX 2048u

struct tw_jobs;

/* Returns when to be called next (tw_monotonic), or TW_NEVER: the job is over and freed. */
typedef uint64_t (*tw_job_fn)(void *ctx);

enum tw_code tw_jobs_open(unsigned threads_max, struct tw_jobs **jobs, struct tw_error *err);
/* No job is begun any more; waits for those that run. Then frees every job. */
void tw_jobs_close(struct tw_jobs *jobs);

/* Runs it soon. `free_fn` (may be NULL) gets `ctx` when the job is over or the jobs are closed.
 * RESOURCE_EXHAUSTED: there are TW_JOBS_MAX. */
enum tw_code tw_jobs_add(struct tw_jobs *jobs, tw_job_fn fn, void *ctx, void (*free_fn)(void *),
                         struct tw_error *err);

/* The job with that context is due now; if it is running, once more after that. */
void tw_jobs_wake(struct tw_jobs *jobs, const void *ctx);

/* True from the begin of tw_jobs_close: long jobs look at it. */
bool tw_jobs_closing(struct tw_jobs *jobs);

#endif
