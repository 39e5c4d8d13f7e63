#include "hosts/process/copies.h"

#include "base/line.h"
#include "fpga-model/lazy.h"

#include <string.h>

/* Values of `known`; above them the place of a copy. */
enum { NOTHING, UNKNOWN, ZEROS, FIRST_COPY };

bool tw_copies_open(struct tw_copies *c, uint64_t pages, uint64_t bytes_max)
{
    const uint64_t places = bytes_max / TW_PAGE_SIZE;
    memset(c, 0, sizeof *c);
    c->compare = tw_compare_best();
    c->pages = pages;
    c->max = (uint32_t)(places < pages ? places : pages);
    c->known = tw_lazy_alloc(pages * sizeof *c->known);
    /* A page of room more, so that the store can begin where a page does. */
    c->store = tw_lazy_alloc(((size_t)c->max + 1) * TW_PAGE_SIZE);
    c->spare = tw_lazy_alloc(c->max * sizeof *c->spare);
    return c->known && c->store && c->spare;
}

void tw_copies_close(struct tw_copies *c)
{
    tw_lazy_free(c->known, c->pages * sizeof *c->known);
    tw_lazy_free(c->store, ((size_t)c->max + 1) * TW_PAGE_SIZE);
    tw_lazy_free(c->spare, c->max * sizeof *c->spare);
    memset(c, 0, sizeof *c);
}

static uint8_t *copy_at(const struct tw_copies *c, uint32_t known)
{
    const uintptr_t base =
        ((uintptr_t)c->store + TW_PAGE_SIZE - 1) & ~(uintptr_t)(TW_PAGE_SIZE - 1);
    return (uint8_t *)base + (uint64_t)(known - FIRST_COPY) * TW_PAGE_SIZE;
}

static uint64_t count_nonzero(const uint8_t *now)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < TW_PAGE_SIZE; i++)
        bytes += now[i] != 0;
    return bytes;
}

/* The page has no copy; afterwards it has one of `now`, or is unknown. */
static void take_copy(struct tw_copies *c, uint64_t page, const uint8_t *now)
{
    uint32_t place;
    if (c->spare_count) {
        place = c->spare[--c->spare_count];
    } else if (c->used < c->max) {
        place = c->used++;
    } else {
        c->refused++;
        c->known[page] = UNKNOWN;
        return;
    }
    c->known[page] = FIRST_COPY + place;
    memcpy(copy_at(c, c->known[page]), now, TW_PAGE_SIZE);
}

bool tw_copies_compare(struct tw_copies *c, uint64_t page, const uint8_t *now,
                       struct tw_page_report *report)
{
    const uint32_t known = c->known[page];
    if (known < FIRST_COPY)
        return false;
    *report = (struct tw_page_report){0};
    report->lines = c->compare->update(now, copy_at(c, known), &report->bytes);
    return true;
}

static unsigned differing_bytes(const uint8_t *a, const uint8_t *b)
{
    unsigned bytes = 0;
    for (unsigned i = 0; i < TW_LINE_SIZE; i++)
        bytes += a[i] != b[i];
    return bytes;
}

/* Not much of a page usually, so that its reading counts, not this. */
bool tw_copies_compare_lines(struct tw_copies *c, uint64_t page, uint64_t lines, const uint8_t *now,
                             struct tw_page_report *report)
{
    static const uint8_t zeros[TW_PAGE_SIZE];
    if (c->known[page] == ZEROS)
        take_copy(c, page, zeros);
    const uint32_t known = c->known[page];
    *report = (struct tw_page_report){0};
    if (known < FIRST_COPY)
        return false;
    for (; lines; lines &= lines - 1) {
        const unsigned line = (unsigned)__builtin_ctzll(lines);
        const size_t at = (size_t)line * TW_LINE_SIZE;
        uint8_t *copy = copy_at(c, known) + at;
        const unsigned bytes = differing_bytes(now + at, copy);
        report->lines |= (uint64_t)(bytes != 0) << line;
        report->bytes += bytes;
        if (bytes)
            memcpy(copy, now + at, TW_LINE_SIZE);
    }
    return true;
}

struct tw_page_report tw_copies_report(struct tw_copies *c, uint64_t page, bool absent_is_zero,
                                       const uint8_t *now)
{
    const uint32_t known = c->known[page];
    struct tw_page_report report = {0};
    if (tw_copies_compare(c, page, now, &report))
        return report;
    const uint64_t nonzero = c->compare->nonzero(now);
    const bool was_zero = known == ZEROS || (known == NOTHING && absent_is_zero);
    if (nonzero)
        take_copy(c, page, now);
    else
        c->known[page] = ZEROS;
    return (struct tw_page_report){
        .lines = nonzero, .bytes = count_nonzero(now), .whole = !was_zero};
}

void tw_copies_start(struct tw_copies *c, uint64_t page, const uint8_t *now)
{
    tw_copies_forget(c, page);
    if (!now)
        return;
    if (c->compare->nonzero(now))
        take_copy(c, page, now);
    else
        c->known[page] = ZEROS;
}

void tw_copies_forget(struct tw_copies *c, uint64_t page)
{
    if (c->known[page] >= FIRST_COPY)
        c->spare[c->spare_count++] = c->known[page] - FIRST_COPY;
    c->known[page] = UNKNOWN;
}

void tw_copies_drop(struct tw_copies *c, uint64_t page)
{
    if (c->known[page] >= FIRST_COPY)
        tw_copies_forget(c, page);
}

uint64_t tw_copies_bytes(const struct tw_copies *c)
{
    return (uint64_t)(c->used - c->spare_count) * TW_PAGE_SIZE;
}
