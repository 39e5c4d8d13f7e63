/* Lines that one side still owes the other in post-copy: a bitmap a page and their number.
 *
 * Both sides hold one. The source takes lines out as it sends them, so none is sent twice; the
 * destination takes them out as they arrive, so what was not in the set any more is late and
 * touches nothing (R6). Storage appears as it is written.
 *
 * Not thread-safe, but other threads may look at a page's word (acquire): what its owner wrote
 * before it took lines out is there for whoever sees them gone. */
#ifndef TOWLINE_SERVICES_MIGRATION_LINE_SET_H
#define TOWLINE_SERVICES_MIGRATION_LINE_SET_H

#include "base/error.h"
#include "fabric/record.h"

#include <stdbool.h>
#include <stdint.h>

struct tw_line_set {
    uint64_t *of_page; /* bitmap of lines; NULL = not open */
    uint64_t pages;
    uint64_t count; /* lines in all */
    bool lent;      /* the bitmaps are somebody else's */
};

enum tw_code tw_line_set_open(struct tw_line_set *s, uint64_t pages, struct tw_error *err);
void tw_line_set_close(struct tw_line_set *s); /* of a zeroed structure too */
/* In memory of the caller's, a word a page, which may hold a set already. It stays the caller's. */
void tw_line_set_open_in(struct tw_line_set *s, uint64_t pages, uint64_t *of_page);

/* Return those of `lines` that were not in the set before, or were in it. */
uint64_t tw_line_set_add(struct tw_line_set *s, uint64_t page, uint64_t lines);
uint64_t tw_line_set_take(struct tw_line_set *s, uint64_t page, uint64_t lines);

/* The first page at or after `page` that has lines; `pages` when there is none. */
uint64_t tw_line_set_next(const struct tw_line_set *s, uint64_t page);

/* The set as it travels: records without data, ZERO_PAGES for runs of whole pages and ZERO_LINES
 * for others. Packs from *page on into a payload of TW_CHUNK_PAYLOAD bytes as much as fits, and
 * moves *page behind it; *page == pages when that was all. */
void tw_line_set_pack(const struct tw_line_set *s, uint64_t *page, struct tw_chunk_writer *writer);

/* Adds what a stranger's payload names. Refuses what is malformed, carries data, or names a line
 * twice, which would have to arrive twice; the set is of no use then. */
enum tw_code tw_line_set_unpack(struct tw_line_set *s, const uint8_t *payload, uint32_t length,
                                struct tw_error *err);

#endif
