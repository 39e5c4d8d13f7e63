#include "fpga-model/snoop_filter.h"

#include "fpga-model/lazy.h"

#include <string.h>

/* A load miss never lowers an A: the device may forget ownership only when the host gives it up. */
const struct tw_filter_move tw_filter_moves[TW_MEM_CLN_EVCT + 1] = {
    [TW_MEM_RD_DATA] = {.set_shared = TW_ALL_LINES},
    [TW_MEM_RD_INV] = {.set_owned = TW_ALL_LINES},
    [TW_MEM_INV] = {.set_owned = TW_ALL_LINES},
    [TW_MEM_WR] = {.clear_owned = TW_ALL_LINES},
    [TW_MEM_WR_KEEP] = {.clear_owned = TW_ALL_LINES, .set_shared = TW_ALL_LINES},
    [TW_MEM_CLN_EVCT] = {.clear_owned = TW_ALL_LINES},
};

bool tw_snoop_filter_open(struct tw_snoop_filter *filter, uint64_t pages)
{
    memset(filter, 0, sizeof *filter);
    filter->page_count = pages;
    filter->pages = tw_lazy_alloc(pages * sizeof *filter->pages);
    return tw_page_set_open(&filter->owned_pages, pages) && filter->pages;
}

void tw_snoop_filter_close(struct tw_snoop_filter *filter)
{
    tw_lazy_free(filter->pages, filter->page_count * sizeof *filter->pages);
    tw_page_set_close(&filter->owned_pages);
    memset(filter, 0, sizeof *filter);
}

enum tw_line_state tw_snoop_filter_state(const struct tw_snoop_filter *filter, uint64_t page,
                                         uint64_t line_bit)
{
    if (filter->pages[page].owned & line_bit)
        return TW_LINE_A;
    return filter->pages[page].shared & line_bit ? TW_LINE_S : TW_LINE_I;
}

void tw_snoop_filter_downgrade(struct tw_snoop_filter *filter, uint64_t page, uint64_t lines)
{
    tw_snoop_filter_message(filter, TW_MEM_WR_KEEP, page, lines);
}
