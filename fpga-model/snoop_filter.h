/* The snoop filter: what the device knows about the host's copies, 2 bits a line.
 *
 *   I  neither bit      S  `shared`      A  `owned` (exclusive or modified: it cannot tell which)
 *
 * Both bits of a page's lines lie side by side (16 bytes a page, 4 MiB for each GiB); the pages
 * that have any line in A are kept in a set, so that a sweep visits only those. */
#ifndef TOWLINE_FPGA_MODEL_SNOOP_FILTER_H
#define TOWLINE_FPGA_MODEL_SNOOP_FILTER_H

#include "fpga-model/device.h"
#include "fpga-model/page_set.h"

struct tw_filter_page {
    uint64_t shared; /* bitmaps of lines; a line is in at most one of them */
    uint64_t owned;
};

struct tw_snoop_filter {
    struct tw_filter_page *pages;
    uint64_t page_count;
    struct tw_page_set owned_pages; /* pages with owned != 0 */
};

/* False when there is no memory; the filter can then still be closed. */
bool tw_snoop_filter_open(struct tw_snoop_filter *filter, uint64_t pages);
void tw_snoop_filter_close(struct tw_snoop_filter *filter);

enum tw_line_state tw_snoop_filter_state(const struct tw_snoop_filter *filter, uint64_t page,
                                         uint64_t line_bit);

/* The host answered a BISnpData for these lines: it holds them shared at most. */
void tw_snoop_filter_downgrade(struct tw_snoop_filter *filter, uint64_t page, uint64_t lines);

/* The lines go into A. */
static inline void tw_snoop_filter_own(struct tw_snoop_filter *filter, uint64_t page,
                                       uint64_t lines)
{
    struct tw_filter_page *p = &filter->pages[page];
    p->shared &= ~lines;
    if (!p->owned)
        tw_page_set_add(&filter->owned_pages, page);
    p->owned |= lines;
}

/* The lines leave A; those of `keep` stay as shared copies. */
static inline void tw_snoop_filter_release(struct tw_snoop_filter *filter, uint64_t page,
                                           uint64_t lines, uint64_t keep)
{
    struct tw_filter_page *p = &filter->pages[page];
    p->shared = (p->shared & ~lines) | keep;
    if (p->owned) {
        p->owned &= ~lines;
        if (!p->owned)
            tw_page_set_remove(&filter->owned_pages, page);
    }
}

/* What a message says about the host's copies. A load miss never lowers an A: the device may only
 * forget ownership when the host gives it up. */
static inline void tw_snoop_filter_message(struct tw_snoop_filter *filter,
                                           enum tw_link_message message, uint64_t page,
                                           uint64_t lines)
{
    switch (message) {
    case TW_MEM_RD_DATA:
        filter->pages[page].shared |= lines & ~filter->pages[page].owned;
        break;
    case TW_MEM_RD_INV:
    case TW_MEM_INV:
        tw_snoop_filter_own(filter, page, lines);
        break;
    case TW_MEM_WR:
    case TW_MEM_CLN_EVCT:
        tw_snoop_filter_release(filter, page, lines, 0);
        break;
    case TW_MEM_WR_KEEP:
        tw_snoop_filter_release(filter, page, lines, lines);
        break;
    }
}

#endif
