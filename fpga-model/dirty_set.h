/* The dirty set of one tracker: an open half that fills, a closed half that is read.
 *
 *   add -> open --swap--> closed -> read          (R3: swapped before any data is read)
 *
 * Each half is a bounded buffer of {page, line bitmap} and an overflow set of whole pages for what
 * the buffer could not hold (R4). A page finds its entry through a slot index; a slot is believed
 * only if the entry it names is of that page, so the index never has to be cleared and a swap
 * costs nothing. Pages are numbered from 0 within the tracker. */
#ifndef TOWLINE_FPGA_MODEL_DIRTY_SET_H
#define TOWLINE_FPGA_MODEL_DIRTY_SET_H

#include "fpga-model/device.h"
#include "fpga-model/page_set.h"

struct tw_dirty_entry {
    uint64_t lines;
    uint32_t page;
    uint32_t whole; /* the lines are not known exactly: this page overflowed once */
};

struct tw_dirty_half {
    struct tw_dirty_entry *entries;
    uint32_t count;
    uint64_t lines;              /* bits set in the entries */
    struct tw_page_set overflow; /* pages dirty as a whole; none of them has an entry */
};

struct tw_dirty_set {
    struct tw_dirty_half open, closed;
    uint32_t *slots;   /* page -> index in open.entries, if that entry is of the page */
    uint32_t capacity; /* entries of each half */
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

/* The first time in this epoch that the page is dirty: takes an entry, or overflows. */
void tw_dirty_set_add_page(struct tw_dirty_set *set, uint32_t page, uint64_t lines);

static inline void tw_dirty_set_add(struct tw_dirty_set *set, uint32_t page, uint64_t lines)
{
    uint32_t slot = set->slots[page];
    if (slot < set->open.count && set->open.entries[slot].page == page) {
        struct tw_dirty_entry *entry = &set->open.entries[slot];
        uint64_t added = lines & ~entry->lines;
        if (added) {
            entry->lines |= added;
            set->open.lines += tw_popcount(added);
        }
    } else {
        tw_dirty_set_add_page(set, page, lines);
    }
}

/* Closes the epoch: merges what is still unread, swaps the halves. Returns the pages to read. */
uint64_t tw_dirty_set_swap(struct tw_dirty_set *set);

/* Takes up to `max` pages out of the closed half; page numbers are raised by `first_page`. */
size_t tw_dirty_set_read(struct tw_dirty_set *set, uint64_t first_page, struct tw_dirty_page *out,
                         size_t max);

#endif
