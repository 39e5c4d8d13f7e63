/* A set of pages: one bit a page under a summary of one bit per 64 pages, so that walking the set
 * costs what is in it, plus one word for each 4096 pages. */
#ifndef TOWLINE_FPGA_MODEL_PAGE_SET_H
#define TOWLINE_FPGA_MODEL_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

struct tw_page_set {
    uint64_t *bits;    /* 64 pages a word */
    uint64_t *summary; /* bit w: bits[w] is not zero */
    uint64_t pages;    /* members are in [0, pages) */
    uint64_t count;    /* members */
};

/* False when there is no memory; the set can then still be closed. */
bool tw_page_set_open(struct tw_page_set *set, uint64_t pages);
void tw_page_set_close(struct tw_page_set *set);

/* The first member in [from, end), or `end`. */
uint64_t tw_page_set_next(const struct tw_page_set *set, uint64_t from, uint64_t end);

static inline bool tw_page_set_has(const struct tw_page_set *set, uint64_t page)
{
    return (set->bits[page / 64] >> (page % 64)) & 1;
}

/* True when the page was not a member before. */
static inline bool tw_page_set_add(struct tw_page_set *set, uint64_t page)
{
    uint64_t word = page / 64;
    uint64_t bit = UINT64_C(1) << (page % 64);
    if (set->bits[word] & bit)
        return false;
    set->bits[word] |= bit;
    set->summary[word / 64] |= UINT64_C(1) << (word % 64);
    set->count++;
    return true;
}

static inline void tw_page_set_remove(struct tw_page_set *set, uint64_t page)
{
    uint64_t word = page / 64;
    uint64_t bit = UINT64_C(1) << (page % 64);
    if (!(set->bits[word] & bit))
        return;
    set->bits[word] &= ~bit;
    if (!set->bits[word])
        set->summary[word / 64] &= ~(UINT64_C(1) << (word % 64));
    set->count--;
}

#endif
