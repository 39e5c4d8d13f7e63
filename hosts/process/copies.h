/* What the attachment knows of the content of each page: the copies that pages are compared with.
 *
 *   nothing --> (unknown) --> a copy      nothing: of anonymous memory, the page was absent and
 *      \----> zeros ----------^           therefore zeros when it was armed
 *
 * Only pages that were written get a copy. The store is bounded: when it is full, a page without a
 * copy stays unknown, and each report of it is the whole page (R4). Pages of zeros cost no room.
 * Pages are device page numbers. One thread. */
#ifndef TOWLINE_HOSTS_PROCESS_COPIES_H
#define TOWLINE_HOSTS_PROCESS_COPIES_H

#include "hosts/process/compare.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_copies {
    const struct tw_compare *compare;
    uint64_t pages;
    uint32_t *known; /* by page; see copies.c */
    uint8_t *store;
    uint32_t *spare; /* places in the store that were given back */
    uint32_t spare_count;
    uint32_t used; /* places in use or spare: [0, used) */
    uint32_t max;
    uint64_t refused; /* copies that found no place */
};

/* False when there is no memory; can then still be closed. */
bool tw_copies_open(struct tw_copies *c, uint64_t pages, uint64_t bytes_max);
void tw_copies_close(struct tw_copies *c);

struct tw_page_report {
    uint64_t lines; /* that changed; not valid when whole */
    uint64_t bytes; /* of them, that changed; the same */
    bool whole;     /* there was nothing to compare with */
};

/* The page was written and is now `now` (4096 bytes, aligned to 64). `absent_is_zero`: of anonymous
 * memory, where a page that was never met was one of zeros. */
struct tw_page_report tw_copies_report(struct tw_copies *c, uint64_t page, bool absent_is_zero,
                                       const uint8_t *now);

/* The part of a report that several threads may do at the same time, of different pages, while
 * nothing else is done to the copies: where there is a copy, what differs from it, and it is
 * brought up to date. False where there is none. */
bool tw_copies_compare(struct tw_copies *c, uint64_t page, const uint8_t *now,
                       struct tw_page_report *report);

/* The same for some lines of the page only: the others are neither compared nor brought up to date.
 */
bool tw_copies_compare_lines(struct tw_copies *c, uint64_t page, uint64_t lines, const uint8_t *now,
                             struct tw_page_report *report);

/* The page's content at the start, as far as it is known: `now`, or NULL for "some content". */
void tw_copies_start(struct tw_copies *c, uint64_t page, const uint8_t *now);

/* The page may have become anything. */
void tw_copies_forget(struct tw_copies *c, uint64_t page);
/* The same for what was copied only: other memory stands there now, or none. */
void tw_copies_drop(struct tw_copies *c, uint64_t page);

uint64_t tw_copies_bytes(const struct tw_copies *c);

#endif
