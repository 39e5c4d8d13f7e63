/* Inside the device: a tracker as the message path sees it. */
#ifndef TOWLINE_FPGA_MODEL_TRACKER_H
#define TOWLINE_FPGA_MODEL_TRACKER_H

#include "fpga-model/device.h"
#include "fpga-model/dirty_set.h"

#define TW_TRACKER_NAME_MAX 63u /* bytes */

struct tw_tracker {
    struct tw_device *device;
    struct tw_dirty_set dirty; /* pages numbered from first_page */
    uint64_t first_page;       /* the hull of the ranges: [first_page, first_page + span) */
    uint64_t span;
    uint64_t *watched; /* one bit a page of the hull; NULL when one range fills it */
    struct tw_range *ranges;
    size_t range_count;
    uint64_t epoch;
    bool accessed; /* told of requests, too */
    char name[TW_TRACKER_NAME_MAX + 1];
};

static inline bool tw_tracker_watches(const struct tw_tracker *tracker, uint64_t page)
{
    uint64_t at = page - tracker->first_page; /* wraps to something large below the hull */
    if (at >= tracker->span)
        return false;
    return !tracker->watched || ((tracker->watched[at / 64] >> (at % 64)) & 1);
}

/* Begins to fetch what a write-back of the page will touch. */
static inline void tw_tracker_fetch(const struct tw_tracker *tracker, uint64_t page)
{
    if (page - tracker->first_page < tracker->span)
        __builtin_prefetch(&tracker->dirty.open.lines[page - tracker->first_page], 1);
}

static inline void tw_tracker_write_back(struct tw_tracker *tracker, uint64_t page, uint64_t lines)
{
    if (tw_tracker_watches(tracker, page))
        tw_dirty_set_add(&tracker->dirty, (uint32_t)(page - tracker->first_page), lines);
}

static inline void tw_tracker_write_back_whole(struct tw_tracker *tracker, uint64_t page)
{
    if (tw_tracker_watches(tracker, page))
        tw_dirty_set_add_whole(&tracker->dirty, (uint32_t)(page - tracker->first_page));
}

#endif
