/* The amplification meter's arithmetic: what an epoch's dirty pages come to in lines, pages of
 * 4 KiB and regions of 2 MiB, and where they are. One thread. */
#ifndef TOWLINE_SERVICES_TRACKING_FIGURES_H
#define TOWLINE_SERVICES_TRACKING_FIGURES_H

#include "base/line.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_REGION_SHIFT 21u /* a region is what one big page would be: 2 MiB */
#define TW_REGION_SIZE  (UINT64_C(1) << TW_REGION_SHIFT)
#define TW_REGIONS_MAX  65536u /* told apart in one epoch; 128 GiB of regions with dirty lines */

/* Of one epoch, or summed over several. Bytes are these times TW_LINE_SIZE and so on. */
struct tw_figures {
    uint64_t epochs;
    uint64_t lines; /* a page known only as a whole counts all its watched lines */
    uint64_t pages;
    uint64_t whole_pages; /* of these, where lines were not known */
    uint64_t regions;
    uint64_t regions_lost; /* pages whose region could not be told apart (TW_REGIONS_MAX) */
    uint64_t duration_ns;  /* from the epoch's beginning to its end */
    /* Where the attachment compares contents; else 0. */
    uint64_t known_lines;   /* of `lines`, those whose bytes were compared */
    uint64_t changed_bytes; /* of these. One that changed in two passes counts twice */
    uint64_t clean_pages;   /* written, and equal in every byte; not in `pages` */
    uint64_t same_lines; /* of known_lines, stored to and equal; where each store is seen, else 0 */
    /* Where a session wants loads; else 0. */
    uint64_t accessed_lines; /* loaded or stored to */
    uint64_t accessed_pages; /* with such a line */
};

void tw_figures_add(struct tw_figures *sum, const struct tw_figures *one);

/* Where the lines are. */
struct tw_region {
    uint64_t address; /* of its first byte */
    uint32_t lines, pages;
    uint64_t bytes; /* that changed, as tw_figures.changed_bytes */
};

struct tw_regions {
    struct tw_region *slots; /* open addressing; pages 0 = free */
    uint32_t count, capacity;
};

void tw_regions_free(struct tw_regions *r);
void tw_regions_clear(struct tw_regions *r);
/* A page. False when its region is new and there is no room for it. */
bool tw_regions_add(struct tw_regions *r, uint64_t page_address, unsigned lines, uint64_t bytes);
/* NULL: no page of it was added. */
const struct tw_region *tw_regions_find(const struct tw_regions *r, uint64_t address);
/* The hottest first, by lines, then by address; returns how many, at most `max`. */
size_t tw_regions_hottest(const struct tw_regions *r, struct tw_region *out, size_t max);

#endif
