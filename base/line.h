/* Lines and pages: the units in which everything else counts.
 *
 * A line is the unit of coherence (64 bytes), a page the unit of the page table (4096 bytes).
 * "Address" in this project is an offset into a memory region (guest RAM, a lease), never a host
 * pointer, unless a name says otherwise. */
#ifndef TOWLINE_BASE_LINE_H
#define TOWLINE_BASE_LINE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define TW_LINE_SHIFT     6u
#define TW_LINE_SIZE      64u
#define TW_PAGE_SHIFT     12u
#define TW_PAGE_SIZE      4096u
#define TW_LINES_PER_PAGE 64u
#define TW_ALL_LINES      UINT64_MAX /* the line bitmap of a whole page */

static_assert(TW_PAGE_SIZE / TW_LINE_SIZE == TW_LINES_PER_PAGE, "a page's bitmap is one word");

/* A half-open range of addresses [start, start + length). */
struct tw_range {
    uint64_t start;  /* bytes */
    uint64_t length; /* bytes */
};

static inline uint64_t tw_line_of(uint64_t address)
{
    return address >> TW_LINE_SHIFT;
}

static inline uint64_t tw_page_of(uint64_t address)
{
    return address >> TW_PAGE_SHIFT;
}

/* The bit of an address' line in the bitmap of its page. */
static inline uint64_t tw_line_bit(uint64_t address)
{
    return UINT64_C(1) << ((address >> TW_LINE_SHIFT) & (TW_LINES_PER_PAGE - 1));
}

static inline unsigned tw_popcount(uint64_t bits)
{
    return (unsigned)__builtin_popcountll(bits);
}

/* Overflow-safe: is `inner` wholly inside [0, size)? */
static inline bool tw_range_fits(struct tw_range inner, uint64_t size)
{
    return inner.start <= size && inner.length <= size - inner.start;
}

static inline bool tw_is_zero_line(const void *line)
{
    const uint64_t *w = line;
    return (w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) == 0;
}

#endif
