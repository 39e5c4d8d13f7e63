/* A set of pages: one bit a page under a summary of one bit per 64 pages, so that walking the set
 * costs what is in it, plus one word for each 4096 pages. A summary bit may outlive its members. */
#ifndef TOWLINE_FPGA_MODEL_PAGE_SET_H
#define TOWLINE_FPGA_MODEL_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

struct tw_page_set {
    uint64_t *bits;    /* 64 pages a word */
    uint64_t *summary; /* bit w: bits[w] may be other than zero */
    uint64_t pages;    /* members are in [0, pages) */
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

/* The page becomes a member or ceases to be one. Without branches: on the message path nobody can
 * predict which. */
static inline void tw_page_set_assign(struct tw_page_set *set, uint64_t page, bool member)
{
    uint64_t word = page / 64;
    uint64_t place = page % 64;
    set->bits[word] = (set->bits[word] & ~(UINT64_C(1) << place)) | (uint64_t)member << place;
    set->summary[word / 64] |= (uint64_t)member << (word % 64);
}

#endif
