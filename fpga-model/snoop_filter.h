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

/* What a message makes of the bits of its lines, as masks of all or nothing. */
struct tw_filter_move {
    uint64_t clear_owned, set_owned, set_shared;
};

extern const struct tw_filter_move tw_filter_moves[TW_MEM_CLN_EVCT + 1];

/* What a message says about the host's copies. Loads and stores, clean and dirty evictions come in
 * an order that no branch predictor knows, so there is no branch here. */
static inline void tw_snoop_filter_message(struct tw_snoop_filter *filter,
                                           enum tw_link_message message, uint64_t page,
                                           uint64_t lines)
{
    const struct tw_filter_move *move = &tw_filter_moves[message];
    struct tw_filter_page *p = &filter->pages[page];
    uint64_t owned = (p->owned & ~(lines & move->clear_owned)) | (lines & move->set_owned);
    uint64_t shared = (p->shared & ~lines) | (lines & move->set_shared);
    p->owned = owned;
    p->shared = shared & ~owned;
    tw_page_set_assign(&filter->owned_pages, page, owned != 0);
}

#endif
