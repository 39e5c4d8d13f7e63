/* What the meter has last seen of each page: pages by their address. */
#ifndef TOWLINE_BENCH_TRACKING_AMPLIFICATION_COPIES_H
#define TOWLINE_BENCH_TRACKING_AMPLIFICATION_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page_copy {
    uint64_t address; /* 0: a free place of the table */
    uint8_t *bytes;   /* TW_PAGE_SIZE, aligned to a line */
};

struct page_copies {
    struct page_copy *table;
    size_t size, used; /* `size` is a power of two, or 0 */
};

/* The copy of the page; a new one is of zeros, and *fresh. NULL: no memory. */
uint8_t *page_copies_get(struct page_copies *copies, uint64_t address, bool *fresh);
void page_copies_free(struct page_copies *copies);

#endif
