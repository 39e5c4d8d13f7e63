#include "services/tracking/ranges.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ADDRESS_MAX (UINT64_C(1) << 47) /* user addresses of the programs that we track */

static int by_start(const void *a, const void *b)
{
    const struct tw_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Rounds outwards to `unit`, joins what touches. `in` is ascending. Returns the number. */
static size_t join(const struct tw_range *in, size_t count, uint64_t unit, struct tw_range *out)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t start = in[i].start & ~(unit - 1);
        uint64_t end = (in[i].start + in[i].length + unit - 1) & ~(unit - 1);
        if (n > 0 && start <= out[n - 1].start + out[n - 1].length) {
            if (end > out[n - 1].start + out[n - 1].length)
                out[n - 1].length = end - out[n - 1].start;
        } else {
            out[n++] = (struct tw_range){start, end - start};
        }
    }
    return n;
}

enum tw_code tw_tracked_ranges_set(struct tw_tracked_ranges *r, const struct tw_range *ranges,
                                   size_t count, struct tw_error *err)
{
    *r = (struct tw_tracked_ranges){0};
    for (size_t i = 0; i < count; i++) {
        char given[64];
        snprintf(given, sizeof given, "0x%llx, %llu bytes", (unsigned long long)ranges[i].start,
                 (unsigned long long)ranges[i].length);
        if (ranges[i].length == 0 || !tw_range_fits(ranges[i], ADDRESS_MAX))
            return tw_fail(err, TW_INVALID_ARGUMENT, "ranges", "user addresses, at least one byte",
                           given, "range %zu is not usable", i);
    }
    if (count == 0)
        return TW_OK;
    struct tw_range *sorted = calloc(3 * count, sizeof *sorted);
    if (!sorted)
        return tw_fail_errno(err, ENOMEM, "ranges", "cannot keep %zu", count);
    for (size_t i = 0; i < count; i++)
        sorted[i] = ranges[i];
    qsort(sorted, count, sizeof *sorted, by_start);
    r->lines = sorted;
    r->pages = sorted + 2 * count;
    r->page_count = join(sorted, count, TW_PAGE_SIZE, r->pages);
    r->line_count = join(sorted, count, TW_LINE_SIZE, sorted + count);
    for (size_t i = 0; i < r->line_count; i++)
        sorted[i] = sorted[count + i];
    return TW_OK;
}

void tw_tracked_ranges_free(struct tw_tracked_ranges *r)
{
    free(r->lines);
    *r = (struct tw_tracked_ranges){0};
}

bool tw_tracked_ranges_cut(const struct tw_tracked_ranges *r)
{
    uint64_t lines = 0, pages = 0;
    for (size_t i = 0; i < r->line_count; i++)
        lines += r->lines[i].length;
    for (size_t i = 0; i < r->page_count; i++)
        pages += r->pages[i].length;
    return lines != pages;
}

uint64_t tw_tracked_ranges_mask(const struct tw_tracked_ranges *r, uint64_t page_address)
{
    if (r->line_count == 0)
        return TW_ALL_LINES;
    size_t low = 0, high = r->line_count; /* the first range that ends beyond the page's start */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->lines[middle].start + r->lines[middle].length > page_address)
            high = middle;
        else
            low = middle + 1;
    }
    uint64_t mask = 0, page_end = page_address + TW_PAGE_SIZE;
    for (; low < r->line_count && r->lines[low].start < page_end; low++) {
        uint64_t start = r->lines[low].start, end = start + r->lines[low].length;
        unsigned first = start > page_address ? (unsigned)((start - page_address) / 64) : 0;
        unsigned last = end < page_end ? (unsigned)((end - page_address) / 64) : 64; /* beyond */
        mask |=
            (last - first == 64 ? TW_ALL_LINES : ((UINT64_C(1) << (last - first)) - 1) << first);
    }
    return mask;
}
