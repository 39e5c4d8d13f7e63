#include "fpga-model/device.h"

#include "fpga-model/device_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum tw_code tw_device_open(const struct tw_device_config *config, struct tw_device **device,
                            struct tw_error *err)
{
    uint64_t bytes = config->memory_bytes;
    if (bytes == 0 || bytes % TW_PAGE_SIZE || bytes > TW_DEVICE_MEMORY_MAX) {
        char given[32];
        snprintf(given, sizeof given, "%" PRIu64, bytes);
        return tw_fail(err, TW_INVALID_ARGUMENT, "device",
                       "a multiple of 4096 bytes, from 1 page to 8 TiB", given,
                       "memory size is not usable");
    }
    struct tw_device *d = calloc(1, sizeof *d);
    if (!d)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "device", NULL, NULL, "no memory");
    d->page_count = bytes / TW_PAGE_SIZE;
    if (config->snoop) {
        d->snooping = true;
        d->snoop = *config->snoop;
        if (!tw_snoop_filter_open(&d->filter, d->page_count)) {
            tw_device_close(d);
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, "device", NULL, NULL,
                           "no memory for a snoop filter of %" PRIu64 " pages",
                           bytes / TW_PAGE_SIZE);
        }
    }
    *device = d;
    return TW_OK;
}

void tw_device_close(struct tw_device *device)
{
    if (!device)
        return;
    while (device->tracker_count)
        tw_tracker_stop(device->trackers[device->tracker_count - 1]);
    if (device->snooping)
        tw_snoop_filter_close(&device->filter);
    free(device);
}

static void write_back(struct tw_device *device, uint64_t page, uint64_t lines)
{
    for (unsigned i = 0; i < device->tracker_count; i++)
        tw_tracker_write_back(device->trackers[i], page, lines);
}

/* A line that was asked for. */
static void access(struct tw_device *device, uint64_t page, uint64_t lines)
{
    for (unsigned i = 0; i < device->tracker_count; i++) {
        if (device->trackers[i]->accessed)
            tw_tracker_write_back(device->trackers[i], page, lines);
    }
}

/* `page` is inside the device. */
static inline void deliver(struct tw_device *device, enum tw_link_message message, uint64_t page,
                           uint64_t lines, unsigned count)
{
    device->counters.messages[message] += count;
    if (device->snooping)
        tw_snoop_filter_message(&device->filter, message, page, lines);
    if (message == TW_MEM_WR || message == TW_MEM_WR_KEEP)
        write_back(device, page, lines);
    else if (device->accessed_count && message != TW_MEM_CLN_EVCT)
        access(device, page, lines);
}

void tw_device_settle(struct tw_device *device)
{
    for (unsigned i = 0; i < device->posted_count; i++) {
        const uint64_t place = device->posted[i];
        deliver(device, (enum tw_link_message)(place % TW_LINE_SIZE), tw_page_of(place),
                tw_line_bit(place), 1);
    }
    device->posted_count = 0;
}

/* Begins to fetch what a message about the page will touch; of the trackers, for the first. */
static inline void fetch(const struct tw_device *device, uint64_t page)
{
    __builtin_prefetch(&device->filter.pages[page], 1);
    if (device->tracker_count)
        tw_tracker_fetch(device->trackers[0], page);
}

void tw_device_message(struct tw_device *device, enum tw_link_message message, uint64_t address)
{
    const uint64_t page = tw_page_of(address);
    if (page >= device->page_count) {
        device->counters.out_of_range++;
        return;
    }
    if (!device->snooping) {
        deliver(device, message, page, tw_line_bit(address), 1);
        return;
    }
    fetch(device, page);
    device->posted[device->posted_count++] =
        (address & ~(uint64_t)(TW_LINE_SIZE - 1)) | (uint64_t)message;
    if (device->posted_count == TW_POSTED_MAX)
        tw_device_settle(device);
}

void tw_device_message_page(struct tw_device *device, enum tw_link_message message, uint64_t page,
                            uint64_t lines)
{
    if (page >= device->page_count) {
        device->counters.out_of_range += tw_count_lines(lines);
    } else if (lines) {
        tw_device_settle(device);
        deliver(device, message, page, lines, tw_count_lines(lines));
    }
}

void tw_device_message_whole(struct tw_device *device, uint64_t page)
{
    if (page >= device->page_count) {
        device->counters.out_of_range += TW_LINES_PER_PAGE;
        return;
    }
    tw_device_settle(device);
    device->counters.messages[TW_MEM_WR] += TW_LINES_PER_PAGE;
    if (device->snooping)
        tw_snoop_filter_message(&device->filter, TW_MEM_WR, page, TW_ALL_LINES);
    for (unsigned i = 0; i < device->tracker_count; i++)
        tw_tracker_write_back_whole(device->trackers[i], page);
}

enum tw_line_state tw_device_line_state(const struct tw_device *device, uint64_t address)
{
    uint64_t page = tw_page_of(address);
    if (!device->snooping || page >= device->page_count)
        return TW_LINE_I;
    tw_device_settle((struct tw_device *)device); /* as if it had been done before */
    return tw_snoop_filter_state(&device->filter, page, tw_line_bit(address));
}

static void sweep_page(struct tw_device *device, uint64_t page)
{
    uint64_t asked = device->filter.pages[page].owned;
    uint64_t modified = device->snoop.snoop(device->snoop.ctx, page, asked, TW_BI_SNP_DATA) & asked;
    device->counters.snooped_lines += tw_popcount(asked);
    device->counters.snoop_write_backs += tw_popcount(modified);
    tw_snoop_filter_downgrade(&device->filter, page, asked);
    if (modified)
        write_back(device, page, modified);
}

void tw_device_sweep(struct tw_device *device, const struct tw_range *ranges, size_t range_count)
{
    tw_device_settle(device);
    if (!device->snooping)
        return;
    const struct tw_page_set *owned = &device->filter.owned_pages;
    for (size_t i = 0; i < range_count; i++) {
        uint64_t end = tw_page_of(ranges[i].start + ranges[i].length);
        uint64_t page = tw_page_set_next(owned, tw_page_of(ranges[i].start), end);
        for (; page < end; page = tw_page_set_next(owned, page + 1, end))
            sweep_page(device, page);
    }
}

static void take_page(struct tw_device *device, uint64_t page, uint64_t held)
{
    uint64_t modified = device->snoop.snoop(device->snoop.ctx, page, held, TW_BI_SNP_INV) & held;
    device->counters.snooped_lines += tw_popcount(held);
    device->counters.snoop_write_backs += tw_popcount(modified);
    tw_snoop_filter_message(&device->filter, TW_MEM_CLN_EVCT, page, held);
    if (modified)
        write_back(device, page, modified);
}

/* Pages with shared lines are in no set: the filter is read as a whole, 4 MiB a GiB. */
void tw_device_take_all(struct tw_device *device, const struct tw_range *ranges, size_t range_count)
{
    tw_device_settle(device);
    if (!device->snooping)
        return;
    for (size_t i = 0; i < range_count; i++) {
        const uint64_t end = tw_page_of(ranges[i].start + ranges[i].length);
        for (uint64_t page = tw_page_of(ranges[i].start); page < end; page++) {
            const struct tw_filter_page *p = &device->filter.pages[page];
            if (p->shared | p->owned)
                take_page(device, page, p->shared | p->owned);
        }
    }
}

void tw_device_counters_get(const struct tw_device *device, struct tw_device_counters *out)
{
    tw_device_settle((struct tw_device *)device); /* as if it had been done before */
    *out = device->counters;
}

void tw_device_mutate(struct tw_device *device, struct tw_device_mutations mutations)
{
    tw_device_settle(device);
    device->mutations = mutations;
}
