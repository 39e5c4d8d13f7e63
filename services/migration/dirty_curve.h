/* How many distinct lines get dirty in a given time: averaged over several epochs that were sampled
 * at growing distances from their beginning. It says at once how fast a guest writes and how much
 * of that is rewriting: a set that is rewritten all the time stops growing. */
#ifndef TOWLINE_SERVICES_MIGRATION_DIRTY_CURVE_H
#define TOWLINE_SERVICES_MIGRATION_DIRTY_CURVE_H

#include <stdbool.h>
#include <stdint.h>

#define TW_CURVE_SAMPLES 48u /* a quarter further apart each time: from 2 ms to a minute */

struct tw_curve_sample {
    uint64_t after_ns, lines, pages; /* sums over `epochs` */
    uint32_t epochs;                 /* 0 = nothing was sampled at about this distance */
};

struct tw_dirty_curve {
    struct tw_curve_sample sample[TW_CURVE_SAMPLES];
};

struct tw_dirt {
    uint64_t lines, pages;
};

/* The distance at which sample `index` is due. */
uint64_t tw_dirty_curve_due_ns(unsigned index);
/* Adds what an epoch held `after_ns` from its beginning to the sample `index`. */
void tw_dirty_curve_add(struct tw_dirty_curve *curve, unsigned index, uint64_t after_ns,
                        uint64_t lines, uint64_t pages);
/* Distinct lines and pages that get dirty in `ns`: between the samples in proportion; beyond them
 * as fast as over the last half, and never more than `pages_max` pages. */
struct tw_dirt tw_dirty_curve_at(const struct tw_dirty_curve *curve, uint64_t ns,
                                 uint64_t pages_max);
/* The longest distance that was sampled; 0 = none. */
uint64_t tw_dirty_curve_end_ns(const struct tw_dirty_curve *curve);

#endif
