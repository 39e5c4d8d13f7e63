#include "fpga-model/tracker.h"

#include "fpga-model/device_impl.h"
#include "fpga-model/lazy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tw_code check_name(const struct tw_device *device, const char *name,
                               struct tw_error *err)
{
    size_t length = name ? strlen(name) : 0;
    if (length == 0 || length > TW_TRACKER_NAME_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "tracker", "a name of 1 to 63 bytes",
                       length ? name : "none", "name is not usable");
    for (unsigned i = 0; i < device->tracker_count; i++) {
        if (strcmp(device->trackers[i]->name, name) == 0)
            return tw_fail(err, TW_ALREADY_EXISTS, name, NULL, NULL,
                           "a tracker of this name is running");
    }
    if (device->tracker_count == TW_DEVICE_TRACKERS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL,
                       "the device runs its most of %u trackers", TW_DEVICE_TRACKERS_MAX);
    return TW_OK;
}

static enum tw_code check_range(const struct tw_device *device, const char *name,
                                const struct tw_range *range, struct tw_error *err)
{
    char given[64];
    snprintf(given, sizeof given, "start 0x%" PRIx64 " length 0x%" PRIx64, range->start,
             range->length);
    if (range->length == 0 || (range->start | range->length) % TW_PAGE_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, name, "start and length multiples of 4096, not 0",
                       given, "range is not of whole pages");
    if (!tw_range_fits(*range, device->page_count * TW_PAGE_SIZE)) {
        char expected[64];
        snprintf(expected, sizeof expected, "inside [0, 0x%" PRIx64 ")",
                 device->page_count * TW_PAGE_SIZE);
        return tw_fail(err, TW_OUT_OF_RANGE, name, expected, given,
                       "range is not inside the device");
    }
    return TW_OK;
}

static int by_start(const void *a, const void *b)
{
    uint64_t x = ((const struct tw_range *)a)->start;
    uint64_t y = ((const struct tw_range *)b)->start;
    return (x > y) - (x < y);
}

/* `ranges` sorted, each checked by itself. */
static enum tw_code check_disjoint(const char *name, const struct tw_range *ranges, size_t count,
                                   struct tw_error *err)
{
    for (size_t i = 1; i < count; i++) {
        if (ranges[i].start < ranges[i - 1].start + ranges[i - 1].length) {
            char given[64];
            snprintf(given, sizeof given, "two that share 0x%" PRIx64, ranges[i].start);
            return tw_fail(err, TW_INVALID_ARGUMENT, name, "disjoint ranges", given,
                           "ranges overlap");
        }
    }
    return TW_OK;
}

static enum tw_code copy_ranges(struct tw_tracker *t, const struct tw_tracker_config *config,
                                struct tw_error *err)
{
    if (config->range_count == 0 || !config->ranges)
        return tw_fail(err, TW_INVALID_ARGUMENT, config->name, "at least one range", "none",
                       "nothing to track");
    for (size_t i = 0; i < config->range_count; i++) {
        enum tw_code code = check_range(t->device, config->name, &config->ranges[i], err);
        if (code)
            return code;
    }
    t->ranges = calloc(config->range_count, sizeof *t->ranges);
    if (!t->ranges)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->name, NULL, NULL, "no memory");
    t->range_count = config->range_count;
    memcpy(t->ranges, config->ranges, t->range_count * sizeof *t->ranges);
    qsort(t->ranges, t->range_count, sizeof *t->ranges, by_start);
    return check_disjoint(config->name, t->ranges, t->range_count, err);
}

static size_t watched_bytes(const struct tw_tracker *t)
{
    return (t->span + 63) / 64 * sizeof *t->watched;
}

static void set_bits(uint64_t *words, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to;) {
        if (at % 64 == 0 && to - at >= 64) {
            words[at / 64] = UINT64_MAX;
            at += 64;
        } else {
            words[at / 64] |= UINT64_C(1) << (at % 64);
            at++;
        }
    }
}

/* Finds the hull and, where the ranges leave holes in it, marks the pages that are meant. Returns
 * the number of pages tracked, 0 when there is no memory. */
static uint64_t lay_out(struct tw_tracker *t)
{
    const struct tw_range *last = &t->ranges[t->range_count - 1];
    uint64_t tracked = 0;
    t->first_page = tw_page_of(t->ranges[0].start);
    t->span = tw_page_of(last->start + last->length) - t->first_page;
    for (size_t i = 0; i < t->range_count; i++)
        tracked += tw_page_of(t->ranges[i].length);
    if (tracked == t->span)
        return tracked;
    t->watched = tw_lazy_alloc(watched_bytes(t));
    if (!t->watched)
        return 0;
    for (size_t i = 0; i < t->range_count; i++) {
        uint64_t from = tw_page_of(t->ranges[i].start) - t->first_page;
        set_bits(t->watched, from, from + tw_page_of(t->ranges[i].length));
    }
    return tracked;
}

static void tracker_free(struct tw_tracker *t)
{
    if (t->dirty.pages)
        tw_dirty_set_close(&t->dirty);
    tw_lazy_free(t->watched, watched_bytes(t));
    free(t->ranges);
    free(t);
}

static enum tw_code tracker_open(struct tw_tracker *t, const struct tw_tracker_config *config,
                                 struct tw_error *err)
{
    enum tw_code code = copy_ranges(t, config, err);
    if (code)
        return code;
    uint64_t tracked = lay_out(t);
    uint64_t capacity = config->buffer_pages;
    if (capacity == 0 || capacity > tracked)
        capacity = tracked;
    if (!tracked ||
        !tw_dirty_set_open(&t->dirty, t->span, (uint32_t)capacity, &t->device->mutations))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->name, NULL, NULL,
                       "no memory for a dirty set of %" PRIu64 " pages", t->span);
    return TW_OK;
}

static void sweep(const struct tw_tracker *t)
{
    if (t->accessed)
        tw_device_take_all(t->device, t->ranges, t->range_count);
    else
        tw_device_sweep(t->device, t->ranges, t->range_count);
}

enum tw_code tw_tracker_start(struct tw_device *device, const struct tw_tracker_config *config,
                              struct tw_tracker **tracker, struct tw_error *err)
{
    enum tw_code code = check_name(device, config->name, err);
    if (code)
        return code;
    struct tw_tracker *t = calloc(1, sizeof *t);
    if (!t)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->name, NULL, NULL, "no memory");
    t->device = device;
    t->accessed = config->accessed;
    strcpy(t->name, config->name);
    code = tracker_open(t, config, err);
    if (code) {
        tracker_free(t);
        return code;
    }
    /* R1: swept before it joins the running trackers, so these write-backs are not its own. */
    if (!device->mutations.skip_start_sweep)
        sweep(t);
    tw_device_settle(device);
    device->trackers[device->tracker_count++] = t;
    device->accessed_count += t->accessed;
    *tracker = t;
    return TW_OK;
}

void tw_tracker_stop(struct tw_tracker *tracker)
{
    if (!tracker)
        return;
    struct tw_device *device = tracker->device;
    tw_device_settle(device);
    for (unsigned i = 0; i < device->tracker_count; i++) {
        if (device->trackers[i] == tracker) {
            device->trackers[i] = device->trackers[--device->tracker_count];
            device->accessed_count -= tracker->accessed;
            break;
        }
    }
    tracker_free(tracker);
}

struct tw_tracker *tw_tracker_find(struct tw_device *device, const char *name)
{
    for (unsigned i = 0; i < device->tracker_count; i++) {
        if (strcmp(device->trackers[i]->name, name) == 0)
            return device->trackers[i];
    }
    return NULL;
}

void tw_tracker_sweep(struct tw_tracker *tracker)
{
    struct tw_device *device = tracker->device;
    if (!device->mutations.skip_collect_sweep)
        sweep(tracker);
    tw_device_settle(device);
}

size_t tw_tracker_collect(struct tw_tracker *tracker)
{
    tw_tracker_sweep(tracker);
    tracker->epoch++;
    return tw_dirty_set_swap(&tracker->dirty);
}

size_t tw_tracker_read(struct tw_tracker *tracker, struct tw_dirty_page *out, size_t max)
{
    tw_device_settle(tracker->device);
    return tw_dirty_set_read(&tracker->dirty, tracker->first_page, out, max);
}

uint64_t tw_tracker_lines(const struct tw_tracker *tracker, uint64_t page)
{
    tw_device_settle(tracker->device);
    if (!tw_tracker_watches(tracker, page))
        return 0;
    return tw_dirty_set_lines(&tracker->dirty, page - tracker->first_page);
}

void tw_tracker_put_back(struct tw_tracker *tracker, uint64_t page, uint64_t lines)
{
    tw_device_settle(tracker->device);
    if (lines)
        tw_tracker_write_back(tracker, page, lines);
}

void tw_tracker_stats_get(const struct tw_tracker *tracker, struct tw_tracker_stats *out)
{
    const struct tw_dirty_half *open = &tracker->dirty.open;
    tw_device_settle(tracker->device);
    *out = (struct tw_tracker_stats){
        .epoch = tracker->epoch,
        .dirty_pages = open->count - open->emptied + open->overflow_count,
        .dirty_lines = open->dirty + open->overflow_count * TW_LINES_PER_PAGE,
        .overflowed_pages = tracker->dirty.overflowed,
    };
}
