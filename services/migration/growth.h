/* How fast the set of dirty lines grows from nothing: sampled during the full copy, which is one
 * long epoch. It tells what a round would buy before one was made: while a set is sent, about as
 * much gets dirty again as got dirty in the same time at the beginning. A working set that is
 * rewritten all the time has grown to its size long before, and rounds gain nothing. */
#ifndef TOWLINE_SERVICES_MIGRATION_GROWTH_H
#define TOWLINE_SERVICES_MIGRATION_GROWTH_H

#include <stdbool.h>
#include <stdint.h>

#define TW_GROWTH_SAMPLES 64u /* a quarter further apart each time: from 2 ms to hours */

struct tw_growth {
    uint64_t start_ns;
    uint64_t next_ns; /* when the next sample is due */
    uint32_t count;
    struct {
        uint64_t after_ns, bytes;
    } sample[TW_GROWTH_SAMPLES]; /* in order of time */
};

void tw_growth_begin(struct tw_growth *g, uint64_t now_ns);
bool tw_growth_due(const struct tw_growth *g, uint64_t now_ns);
/* `bytes` to send, were the set sent now. */
void tw_growth_add(struct tw_growth *g, uint64_t now_ns, uint64_t bytes);
/* The size that the set reaches in `ns`, between the samples in proportion, and the last sample
 * beyond them. False when nothing was sampled. */
bool tw_growth_after(const struct tw_growth *g, uint64_t ns, uint64_t *bytes);

#endif
