/* A second pair of hands for the pieces of a batch: one thread, which sleeps while there is nothing
 * to do.
 *
 * To read a scattered page of another program costs several times what comparing it costs, all of
 * it in the kernel, and two threads do it nearly twice as fast. Pieces are taken from one counter
 * by whoever is free, so that a helper that gets no processor holds nobody up but for the piece in
 * his hands. One owner thread. */
#ifndef TOWLINE_HOSTS_PROCESS_CREW_H
#define TOWLINE_HOSTS_PROCESS_CREW_H

#include <stdint.h>

struct tw_crew;

/* NULL when there is no thread to be had. */
struct tw_crew *tw_crew_open(void);
void tw_crew_close(struct tw_crew *crew); /* NULL is fine */

/* Calls `piece` for each number below `count`, from both threads; returns when all have returned.
 * With `crew` NULL all are called here. */
void tw_crew_run(struct tw_crew *crew, void (*piece)(void *ctx, unsigned number), void *ctx,
                 unsigned count);

/* Processor time of the helper since it began. */
uint64_t tw_crew_cpu_ns(const struct tw_crew *crew);

#endif
