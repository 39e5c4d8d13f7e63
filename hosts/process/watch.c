#include "hosts/process/process_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* A watched range begins (+1) or ends (-1) here. */
struct edge {
    uint64_t at;
    int step;
    bool armed;
};

static int by_place(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static size_t count_edges(const struct tw_process *p)
{
    size_t edges = 0;
    for (unsigned i = 0; i < p->watch_count; i++)
        edges += 2 * p->watches[i]->range_count;
    return edges;
}

static void list_edges(const struct tw_process *p, struct edge *edges)
{
    for (unsigned i = 0; i < p->watch_count; i++) {
        const struct tw_process_watch *w = p->watches[i];
        for (size_t k = 0; k < w->range_count; k++) {
            const struct tw_range *range = &w->ranges[k];
            *edges++ = (struct edge){range->start, 1, w->armed};
            *edges++ = (struct edge){range->start + range->length, -1, w->armed};
        }
    }
}

/* Between two edges nothing changes; pieces that say the same are joined. */
static size_t join_edges(const struct edge *edges, size_t count, struct tw_piece *pieces)
{
    size_t made = 0;
    int watched = 0, armed = 0;
    for (size_t i = 0; i < count; i++) {
        watched += edges[i].step;
        armed += edges[i].armed ? edges[i].step : 0;
        if (i + 1 == count || edges[i + 1].at == edges[i].at || watched == 0)
            continue;
        struct tw_piece *last = made ? &pieces[made - 1] : NULL;
        if (last && last->end == edges[i].at && last->armed == (armed > 0))
            last->end = edges[i + 1].at;
        else
            pieces[made++] = (struct tw_piece){edges[i].at, edges[i + 1].at, armed > 0};
    }
    return made;
}

enum tw_code tw_pieces_update(struct tw_process *p, struct tw_error *err)
{
    const size_t count = count_edges(p);
    struct edge *edges = calloc(count + 1, sizeof *edges);
    struct tw_piece *pieces = calloc(count + 1, sizeof *pieces);
    if (!edges || !pieces) {
        free(edges);
        free(pieces);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
    }
    list_edges(p, edges);
    qsort(edges, count, sizeof *edges, by_place);
    free(p->pieces);
    p->pieces = pieces;
    p->piece_count = join_edges(edges, count, pieces);
    free(edges);
    return TW_OK;
}

size_t tw_piece_find(const struct tw_process *p, uint64_t address)
{
    size_t low = 0, high = p->piece_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (p->pieces[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b)
{
    const struct tw_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static enum tw_code check_shape(const struct tw_process *p, const struct tw_process_watch *w,
                                struct tw_error *err)
{
    for (size_t i = 0; i < w->range_count; i++) {
        const struct tw_range *range = &w->ranges[i];
        char given[64];
        snprintf(given, sizeof given, "0x%" PRIx64 " +0x%" PRIx64, range->start, range->length);
        if (range->length == 0 || (range->start | range->length) % TW_PAGE_SIZE)
            return tw_fail(err, TW_INVALID_ARGUMENT, p->where,
                           "start and length multiples of 4096, not 0", given,
                           "range is not of whole pages");
        if (!tw_range_fits(*range, TW_PROCESS_ADDRESS_LIMIT))
            return tw_fail(err, TW_OUT_OF_RANGE, p->where, "addresses below 2^47", given,
                           "range is not of a program's addresses");
        if (i > 0 && range->start < range[-1].start + range[-1].length)
            return tw_fail(err, TW_INVALID_ARGUMENT, p->where, "disjoint ranges", given,
                           "ranges overlap");
    }
    return TW_OK;
}

/* All of the range is mapped, and can be followed. */
static enum tw_code check_mapped(const struct tw_process *p, struct tw_range range,
                                 struct tw_error *err)
{
    const uint64_t end = range.start + range.length;
    uint64_t at = range.start;
    char given[160];
    for (size_t i = tw_maps_find(&p->maps, at); at < end; i++) {
        const struct tw_map_area *area = i < p->maps.count ? &p->maps.areas[i] : NULL;
        if (!area || area->start > at) {
            snprintf(given, sizeof given, "0x%" PRIx64, at);
            return tw_fail(err, TW_NOT_FOUND, p->where, "mapped addresses", given,
                           "nothing is mapped at an address of the range");
        }
        if (area->reason != TW_AREA_FOLLOWED) {
            snprintf(given, sizeof given, "0x%" PRIx64 " in %.80s: %s", at, area->name,
                     tw_area_reason_text(area->reason));
            return tw_fail(err, TW_FAILED_PRECONDITION, p->where, "memory that can be followed",
                           given, "an address of the range cannot be followed");
        }
        at = area->end;
    }
    return TW_OK;
}

/* ---- Device addresses ------------------------------------------------------------------------ */

static enum tw_code append_device(struct tw_process_watch *w, size_t capacity, struct tw_range part,
                                  struct tw_error *err)
{
    struct tw_range *last =
        w->device_range_count ? &w->device_ranges[w->device_range_count - 1] : NULL;
    if (last && last->start + last->length == part.start) {
        last->length += part.length;
        return TW_OK;
    }
    if (w->device_range_count == capacity)
        return tw_fail(err, TW_INTERNAL, w->process->where, NULL, NULL,
                       "more windows than counted");
    w->device_ranges[w->device_range_count++] = part;
    return TW_OK;
}

static enum tw_code place_range(struct tw_process_watch *w, size_t capacity, struct tw_range range,
                                struct tw_error *err)
{
    struct tw_process *p = w->process;
    const uint64_t end = range.start + range.length;
    for (uint64_t at = range.start; at < end;) {
        uint64_t next = (at / TW_PROCESS_WINDOW + 1) * TW_PROCESS_WINDOW;
        next = next < end ? next : end;
        const uint64_t device = tw_windows_place(&p->windows, at);
        if (device == TW_NEVER)
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL,
                           "the device's address space of %" PRIu64 " bytes is full",
                           p->config.device_bytes_max);
        const enum tw_code code =
            append_device(w, capacity, (struct tw_range){device, next - at}, err);
        if (code)
            return code;
        at = next;
    }
    return TW_OK;
}

/* A watch of everything has all of the device; one of ranges has their windows' parts. */
static enum tw_code place(struct tw_process_watch *w, bool whole, struct tw_error *err)
{
    struct tw_process *p = w->process;
    size_t capacity = 1;
    for (size_t i = 0; i < w->range_count && !whole; i++)
        capacity += w->ranges[i].length / TW_PROCESS_WINDOW + 2;
    if (capacity > w->range_count + 1 + 2 * (size_t)p->windows.max + w->range_count)
        capacity = 2 * w->range_count + 1 + 2 * (size_t)p->windows.max;
    w->device_ranges = calloc(capacity, sizeof *w->device_ranges);
    if (!w->device_ranges)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
    if (whole)
        return append_device(w, capacity, (struct tw_range){0, p->config.device_bytes_max}, err);
    enum tw_code code = TW_OK;
    for (size_t i = 0; i < w->range_count && !code; i++)
        code = place_range(w, capacity, w->ranges[i], err);
    return code;
}

/* ---- Watches --------------------------------------------------------------------------------- */

static void watch_free(struct tw_process_watch *w)
{
    free(w->ranges);
    free(w->device_ranges);
    free(w);
}

static enum tw_code fill(struct tw_process_watch *w, const struct tw_range *ranges, size_t count,
                         struct tw_error *err)
{
    struct tw_process *p = w->process;
    const struct tw_range everything = {0, TW_PROCESS_ADDRESS_LIMIT};
    enum tw_code code = TW_OK;
    w->range_count = count ? count : 1;
    w->ranges = calloc(w->range_count, sizeof *w->ranges);
    if (!w->ranges)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
    memcpy(w->ranges, count ? ranges : &everything, w->range_count * sizeof *w->ranges);
    qsort(w->ranges, w->range_count, sizeof *w->ranges, by_start);
    code = check_shape(p, w, err);
    for (size_t i = 0; i < count && !code; i++)
        code = check_mapped(p, w->ranges[i], err);
    return code ? code : place(w, count == 0, err);
}

enum tw_code tw_process_watch(struct tw_process *process, const struct tw_range *ranges,
                              size_t count, struct tw_process_watch **watch, struct tw_error *err)
{
    if (process->watch_count == TW_PROCESS_WATCHES_MAX || count > TW_PROCESS_RANGES_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, process->where, NULL, NULL,
                       "at most %u watches, of %u ranges each", TW_PROCESS_WATCHES_MAX,
                       TW_PROCESS_RANGES_MAX);
    enum tw_code code = tw_process_check(process, err);
    /* While a pass is under way its spans still point at what it has read. */
    if (!code && !process->pass.active)
        code = tw_maps_read(process->maps_fd, &process->maps, err);
    if (code)
        return code;
    struct tw_process_watch *w = calloc(1, sizeof *w);
    if (!w)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, process->where, NULL, NULL, "no memory");
    w->process = process;
    code = fill(w, ranges, count, err);
    if (code) {
        watch_free(w);
        return code;
    }
    process->watches[process->watch_count++] = w;
    *watch = w;
    return TW_OK;
}

void tw_process_unwatch(struct tw_process_watch *watch)
{
    if (!watch)
        return;
    struct tw_process *p = watch->process;
    for (unsigned i = 0; i < p->watch_count; i++) {
        if (p->watches[i] == watch) {
            p->watches[i] = p->watches[--p->watch_count];
            break;
        }
    }
    watch_free(watch);
}

bool tw_process_watch_armed(const struct tw_process_watch *watch)
{
    return watch->armed;
}

const struct tw_range *tw_process_watch_ranges(const struct tw_process_watch *watch, size_t *count)
{
    *count = watch->device_range_count;
    return watch->device_ranges;
}
