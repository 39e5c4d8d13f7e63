/* The dirty set of one tracker: an open half that fills, a closed half that is read.
 *
 *   add -> open --swap--> closed -> read          (R3: swapped before any data is read)
 *
 * Each half is a bounded buffer of pages, a line bitmap for each page of the tracker (zero: the
 * page is not in the buffer), and an overflow set of whole pages for what the buffer could not hold
 * (R4). So a write-back that finds its page dirty already touches one word. Reading takes the
 * bitmaps back to zero one by one; nothing is ever cleared by walking memory. Pages are numbered
 * from 0 within the tracker. */
#ifndef TOWLINE_FPGA_MODEL_DIRTY_SET_H
#define TOWLINE_FPGA_MODEL_DIRTY_SET_H

#include "fpga-model/device.h"
#include "fpga-model/page_set.h"

struct tw_dirty_half {
    uint64_t *lines;   /* a bitmap for each page */
    uint32_t *entries; /* the buffer: pages whose bitmap is not zero, in order of arrival */
    uint32_t count;    /* entries in use */
    uint32_t emptied;  /* of these, without lines: their page became dirty as a whole */
    uint64_t dirty;    /* bits set in the bitmaps */
    struct tw_page_set overflow; /* pages dirty as a whole; their bitmaps are zero */
    uint64_t overflow_count;
};

struct tw_dirty_set {
    struct tw_dirty_half open, closed;
    uint32_t capacity; /* entries of each half's buffer */
    uint64_t pages;
    uint64_t overflowed; /* pages degraded since the set was opened */
    uint32_t handed;     /* only under the mutation clear_after_read: entries given out, not yet
                            cleared */
    const struct tw_device_mutations *mutations;
};

/* False when there is no memory; the set can then still be closed. `capacity` is at least 1. */
bool tw_dirty_set_open(struct tw_dirty_set *set, uint64_t pages, uint32_t capacity,
                       const struct tw_device_mutations *mutations);
void tw_dirty_set_close(struct tw_dirty_set *set);

/* The page's bitmap is zero: it takes an entry, or overflows. */
void tw_dirty_set_add_page(struct tw_dirty_set *set, uint32_t page, uint64_t lines);

/* Most messages are about one line, for which counting bits would be the dearest part. */
static inline unsigned tw_count_lines(uint64_t lines)
{
    return lines & (lines - 1) ? tw_popcount(lines) : lines != 0;
}

/* The page becomes dirty as a whole, whatever is known of its lines. */
void tw_dirty_set_add_whole(struct tw_dirty_set *set, uint32_t page);

/* `lines` is not zero. */
static inline void tw_dirty_set_add(struct tw_dirty_set *set, uint32_t page, uint64_t lines)
{
    uint64_t before = set->open.lines[page];
    if (before) {
        set->open.dirty += tw_count_lines(lines & ~before);
        set->open.lines[page] = before | lines;
    } else {
        tw_dirty_set_add_page(set, page, lines);
    }
}

/* What the open half holds of a page. */
static inline uint64_t tw_dirty_set_lines(const struct tw_dirty_set *set, uint64_t page)
{
    const struct tw_dirty_half *open = &set->open;
    if (open->overflow_count && tw_page_set_has(&open->overflow, page))
        return TW_ALL_LINES;
    return open->lines[page];
}

/* Closes the epoch: merges what is still unread, swaps the halves. Returns the pages to read. */
uint64_t tw_dirty_set_swap(struct tw_dirty_set *set);

/* Takes up to `max` pages out of the closed half; page numbers are raised by `first_page`. */
size_t tw_dirty_set_read(struct tw_dirty_set *set, uint64_t first_page, struct tw_dirty_page *out,
                         size_t max);

#endif
