/* The ranges of a session: as the program gave them, in lines, and the pages around them that an
 * attachment watches. */
#ifndef TOWLINE_SERVICES_TRACKING_RANGES_H
#define TOWLINE_SERVICES_TRACKING_RANGES_H

#include "base/error.h"
#include "base/line.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_tracked_ranges {
    struct tw_range *lines; /* ascending, disjoint, of whole lines */
    struct tw_range *pages; /* the same in whole pages */
    size_t line_count, page_count;
};

/* Takes `count` ranges in any order, also overlapping ones. 0 ranges mean everything. */
enum tw_code tw_tracked_ranges_set(struct tw_tracked_ranges *r, const struct tw_range *ranges,
                                   size_t count, struct tw_error *err);
void tw_tracked_ranges_free(struct tw_tracked_ranges *r);

/* Whether some page is asked for in part only. */
bool tw_tracked_ranges_cut(const struct tw_tracked_ranges *r);

/* The lines of the page that were asked for. */
uint64_t tw_tracked_ranges_mask(const struct tw_tracked_ranges *r, uint64_t page_address);

#endif
