/* Lines that a compare in the background found to differ: candidates for "written by someone whom
 * no event reported". Whatever the tracker reports in the next collection was reported after all
 * and is taken out; the rest is counted and sent. Bounded: what does not fit is found again when
 * the VM is stopped. */
#ifndef TOWLINE_SERVICES_MIGRATION_FOUND_H
#define TOWLINE_SERVICES_MIGRATION_FOUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_FOUND_PAGES_MAX 65536u

struct tw_found_page {
    uint64_t page, lines;
};

struct tw_found {
    struct tw_found_page *pages; /* in order of page number */
    size_t count, room;
    size_t next; /* of tw_found_next */
};

/* Pages come in ascending order. False when there is no room. */
bool tw_found_put(struct tw_found *f, uint64_t page, uint64_t lines);
/* The lines found in a page, which are thereby taken out. */
uint64_t tw_found_take(struct tw_found *f, uint64_t page);
/* The next page that still has lines; false = no more, and the list is empty again. */
bool tw_found_next(struct tw_found *f, struct tw_found_page *out);
void tw_found_close(struct tw_found *f);

#endif
