#include "hosts/cache/home.h"

#include <assert.h>

/* A write that goes past the caches: no copy stays, and the device hears of it. */
static void write_around(struct tw_cache *cache, uint64_t line)
{
    if (line < cache->line_limit)
        tw_home_invalidate(cache, line);
    cache->counters.write_backs++;
    tw_link_send(cache, TW_MEM_WR, line);
}

void tw_cache_store_nontemporal(struct tw_cache *cache, unsigned core, uint64_t address)
{
    assert(core < cache->core_count);
    cache->counters.stores++;
    cache->uncached++;
    write_around(cache, tw_line_of(address));
}

void tw_cache_dma_write(struct tw_cache *cache, uint64_t address)
{
    write_around(cache, tw_line_of(address));
}

void tw_cache_flush(struct tw_cache *cache, uint64_t address)
{
    uint64_t line = tw_line_of(address);
    if (line >= cache->line_limit)
        return;
    enum tw_tag_state state = tw_home_invalidate(cache, line);
    if (state != TW_TAG_INVALID)
        tw_link_evict(cache, line, state);
}

uint64_t tw_cache_snoop(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct tw_cache *cache = ctx;
    uint64_t modified = 0;
    for (; lines; lines &= lines - 1) {
        unsigned index = (unsigned)__builtin_ctzll(lines);
        uint64_t line = page * TW_LINES_PER_PAGE + index;
        if (line >= cache->line_limit)
            break;
        enum tw_tag_state state = kind == TW_BI_SNP_INV ? tw_home_invalidate(cache, line)
                                                        : tw_home_downgrade(cache, line);
        modified |= (uint64_t)(state >= TW_TAG_DIRTY) << index;
    }
    return modified;
}
