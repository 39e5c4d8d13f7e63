/* A small world for property tests: cores that load and store through the cache model, a device,
 * trackers that start and stop, consumers that copy what the trackers report, and an oracle that
 * knows every store. Everything follows from a seed.
 *
 * What the oracle holds against the trackers:
 *   - nothing missed: when a consumer has read all, every line stored to before the collect was
 *     reported, and after a final pass its copy equals memory;
 *   - nothing invented: a reported line was stored to (or put back) since the collect before, or
 *     since the start; a page reported whole has such a line, and the buffer could overflow;
 *   - once: no line is reported twice for the same stores; none outside the ranges;
 *   - the link is orderly: each message fits the state that the device holds the line in. */
#ifndef TOWLINE_TESTS_PROPERTY_WORLD_H
#define TOWLINE_TESTS_PROPERTY_WORLD_H

#include "fpga-model/device.h"

#include <stdbool.h>
#include <stdint.h>

struct world_failure {
    uint64_t seed;
    unsigned step;
    char what[160];
};

/* Runs a world of this seed. False when the oracle objects; `failure` then says to what. */
bool world_run(uint64_t seed, struct tw_device_mutations mutations, struct world_failure *failure);

#endif
