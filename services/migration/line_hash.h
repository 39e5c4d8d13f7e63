/* What the destination holds, as 8 bytes a line: the hash of each line as it was sent.
 *
 * A line of memory whose hash differs has been written by someone whom no event reported (device
 * DMA, firmware, page walkers: R5). The digest of a whole memory is the sum of its lines' hashes,
 * each weighted by its place, so that both sides can build it in any order and repair it page by
 * page. A zero line hashes to 0 and weighs nothing: memory never touched costs neither storage
 * nor time. Not a defence against somebody who forges collisions: he could only spoil his own
 * guest. */
#ifndef TOWLINE_SERVICES_MIGRATION_LINE_HASH_H
#define TOWLINE_SERVICES_MIGRATION_LINE_HASH_H

#include "base/error.h"
#include "fabric/record.h"

#include <stdbool.h>
#include <stdint.h>

/* XXH3 of a line, 0 for a line of zeros. */
uint64_t tw_line_hash(const uint8_t line[TW_LINE_SIZE]);

/* XXH3 of a byte string (device state). */
uint64_t tw_bytes_hash(const void *bytes, uint64_t size);

/* Sum of the weighted hashes of a page's lines. */
uint64_t tw_page_digest(uint64_t page, const uint8_t *bytes);

/* The same of some of its lines. */
uint64_t tw_lines_digest(uint64_t page, const uint8_t *bytes, uint64_t lines);

struct tw_line_hashes {
    uint64_t *of_line; /* storage appears as it is written */
    uint64_t *sent;    /* bitmap: pages of which a line that is not zero was ever sent */
    uint64_t *settled; /* bitmap: pages recorded whole since memory stands still */
    uint64_t pages;
    bool settling;
};

enum tw_code tw_line_hashes_open(struct tw_line_hashes *h, uint64_t memory_bytes,
                                 struct tw_error *err);
void tw_line_hashes_close(struct tw_line_hashes *h); /* of a zeroed structure too */

/* Notes what a record carries, read out of the payload that is sent. */
void tw_line_hashes_record(struct tw_line_hashes *h, const struct tw_record *record);

/* Memory stands still from now on. A page that is recorded whole after this holds what was sent:
 * its part of the digest needs no look at the memory. */
void tw_line_hashes_settle(struct tw_line_hashes *h);
bool tw_line_hashes_is_settled(const struct tw_line_hashes *h, uint64_t page);
uint64_t tw_line_hashes_digest(const struct tw_line_hashes *h, uint64_t page);

/* Those of `lines` whose bytes differ from what was sent. */
uint64_t tw_line_hashes_differ(const struct tw_line_hashes *h, uint64_t page, const uint8_t *bytes,
                               uint64_t lines);

/* All lines of a page: the bitmap of those that differ; adds the page to *digest. */
uint64_t tw_line_hashes_compare(const struct tw_line_hashes *h, uint64_t page, const uint8_t *bytes,
                                uint64_t *digest);

/* The first page at or after `page` and before `end` of which something not zero was sent; `end`
 * if there is none. */
uint64_t tw_line_hashes_next_sent(const struct tw_line_hashes *h, uint64_t page, uint64_t end);

#endif
