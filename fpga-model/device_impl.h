/* Inside the device: what its message path and its trackers share. */
#ifndef TOWLINE_FPGA_MODEL_DEVICE_IMPL_H
#define TOWLINE_FPGA_MODEL_DEVICE_IMPL_H

#include "fpga-model/device.h"
#include "fpga-model/snoop_filter.h"
#include "fpga-model/tracker.h"

#define TW_POSTED_MAX 32u /* messages */

struct tw_device {
    uint64_t page_count;
    bool snooping; /* the host has caches: filter and snoop are in use */
    /* Single messages wait here, (address of the line) | message, while what they will touch is
     * being fetched: the lines of a cache's victims are anywhere in memory, and one by one each
     * would wait for the last. Nobody outside can tell: whoever looks delivers them first. */
    uint64_t posted[TW_POSTED_MAX];
    unsigned posted_count;
    struct tw_snoop_ops snoop;
    struct tw_snoop_filter filter;
    struct tw_tracker *trackers[TW_DEVICE_TRACKERS_MAX];
    unsigned tracker_count;
    unsigned accessed_count; /* of these, that are told of requests, too */
    struct tw_device_counters counters;
    struct tw_device_mutations mutations;
};

/* Delivers what is posted. Before anything that looks at the device's state, or changes it. */
void tw_device_settle(struct tw_device *device);

/* Snoops every line of the ranges that may be held A (BISnpData). The lines written back go to
 * every running tracker. */
void tw_device_sweep(struct tw_device *device, const struct tw_range *ranges, size_t range_count);
/* The same with every line that the host holds, which it holds no more afterwards (BISnpInv). */
void tw_device_take_all(struct tw_device *device, const struct tw_range *ranges,
                        size_t range_count);

#endif
