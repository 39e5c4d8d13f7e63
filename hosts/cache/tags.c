#include "hosts/cache/tags.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static unsigned stride_for(uint32_t ways)
{
    unsigned stride = 4;
    while (stride < ways)
        stride *= 2;
    return stride;
}

uint32_t tw_tags_match_unusual(const uint32_t *row, unsigned stride, uint32_t key)
{
    if (stride == 4)
        return tw_tags_compare(row, 4, key);
    return tw_tags_compare(row, 16, key) | tw_tags_compare(row + 16, 16, key) << 16;
}

bool tw_tags_open(struct tw_tags *tags, const struct tw_cache_level_config *config)
{
    uint32_t sets = (uint32_t)(config->size_bytes / (config->ways * TW_LINE_SIZE));
    memset(tags, 0, sizeof *tags);
    tags->set_mask = sets - 1;
    tags->set_shift = (unsigned)__builtin_ctz(sets);
    tags->stride = stride_for(config->ways);
    tags->row_shift = (unsigned)__builtin_ctz(tags->stride);
    tags->all_ways = config->ways == 32 ? UINT32_MAX : (UINT32_C(1) << config->ways) - 1;
    size_t bytes = (size_t)sets * tags->stride * sizeof *tags->entries;
    const size_t unit = bytes < HUGE_PAGE ? TW_LINE_SIZE : HUGE_PAGE;
    bytes = (bytes + unit - 1) / unit * unit;
    tags->entries = aligned_alloc(unit, bytes);
    if (tags->entries && unit == HUGE_PAGE) /* sets are looked at in any order; only a wish */
        madvise(tags->entries, bytes, MADV_HUGEPAGE);
    tags->recent = calloc(sets, sizeof *tags->recent);
    if (!tags->entries || !tags->recent)
        return false;
    memset(tags->entries, 0, bytes);
    return true;
}

void tw_tags_close(struct tw_tags *tags)
{
    free(tags->entries);
    free(tags->recent);
    memset(tags, 0, sizeof *tags);
}
