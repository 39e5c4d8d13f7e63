/* The destination's memory while it fills: which pages have room on the disk, which may hold
 * something, and their digest.
 *
 * A page that lines were written to is stale; stale pages are read again when there is time, so
 * that after the last line only a few are left. */
#ifndef TOWLINE_SERVICES_MIGRATION_RECEIVED_H
#define TOWLINE_SERVICES_MIGRATION_RECEIVED_H

#include "hosts/host.h"
#include "services/migration/control.h"

#include <stdbool.h>
#include <stdint.h>

struct tw_received {
    struct tw_host *host;
    uint64_t pages;
    uint64_t *reserved;  /* bitmap: writing cannot run out of space */
    uint64_t *touched;   /* bitmap: may hold something other than zeros */
    uint64_t *stale;     /* bitmap: digest_of does not hold */
    uint64_t *digest_of; /* each page's part of the digest */
    uint64_t digest;     /* sum of digest_of */
    uint64_t stale_pages;
    uint64_t cursor; /* where the search for stale pages goes on */
    struct tw_control_totals totals;
};

enum tw_code tw_received_open(struct tw_received *r, struct tw_host *host, struct tw_error *err);
void tw_received_close(struct tw_received *r);

/* Checks a chunk of lines as a whole and applies it. */
enum tw_code tw_received_apply(struct tw_received *r, const struct tw_chunk_header *header,
                               const uint8_t *payload, struct tw_error *err);

/* Makes sure that these pages can be written. */
enum tw_code tw_received_make_room(struct tw_received *r, uint64_t page, uint64_t end,
                                   struct tw_error *err);
/* A page was written by someone else than tw_received_apply. */
void tw_received_touch(struct tw_received *r, uint64_t page);
/* Whether a page may hold something other than zeros. Reading one that may not would fill its hole.
 */
bool tw_received_may_hold(const struct tw_received *r, uint64_t page);

/* Whether the last failure was for want of space here, not for what the peer has sent. */
bool tw_received_is_own_fault(enum tw_code code);

/* Reads stale pages again, at most `max_pages`; true when none is left. */
bool tw_received_refresh(struct tw_received *r, uint64_t max_pages);

#endif
