#include "hosts/cache/cache_impl.h"

#include <assert.h>

/* The line is in the core's inner level now. */
static inline void remember(struct tw_cache_core *core, uint64_t line, enum tw_tag_state state)
{
    core->last_line = line;
    core->last_writable = state == TW_TAG_WRITABLE;
}

/* A shared copy becomes writable. */
static void upgrade(struct tw_cache *cache, unsigned core, uint64_t line)
{
    tw_home_own(cache, core, line, true);
    tw_private_set(&cache->cores[core], line, TW_TAG_WRITABLE);
}

/* Neither private level has the line. */
static enum tw_tag_state miss(struct tw_cache *cache, unsigned core, uint64_t line, bool store)
{
    enum tw_tag_state state = TW_TAG_WRITABLE;
    if (store)
        tw_home_own(cache, core, line, false);
    else
        state = tw_home_load(cache, core, line);
    if (cache->has_private)
        tw_private_fill(cache, &cache->cores[core], line, state);
    return state;
}

/* The inner level does not have the line; `place` is where it would be there. */
static enum tw_tag_state inner_miss(struct tw_cache *cache, unsigned core, uint64_t line,
                                    struct tw_tag_place place, bool store)
{
    struct tw_cache_core *c = &cache->cores[core];
    if (!c->has_outer)
        return miss(cache, core, line, store);
    struct tw_tag_place outer = tw_tags_find(&c->outer, line);
    if (outer.way < 0)
        return miss(cache, core, line, store);
    ++*cache->outer_hits;
    tw_tags_touch(&c->outer, outer);
    enum tw_tag_state state = tw_tags_state(&c->outer, outer);
    if (store && state != TW_TAG_WRITABLE) {
        upgrade(cache, core, line);
        state = TW_TAG_WRITABLE;
    }
    tw_private_fill_inner(c, place, state);
    return state;
}

static inline void cached_access(struct tw_cache *cache, unsigned core, uint64_t line, bool store)
{
    struct tw_cache_core *c = &cache->cores[core];
    if (line == c->last_line && (!store || c->last_writable)) {
        ++*cache->inner_hits;
        return;
    }
    struct tw_tag_place place = tw_tags_find(&c->inner, line);
    enum tw_tag_state state;
    if (place.way < 0) {
        state = inner_miss(cache, core, line, place, store);
    } else {
        ++*cache->inner_hits;
        tw_tags_touch(&c->inner, place);
        state = tw_tags_state(&c->inner, place);
        if (store && state != TW_TAG_WRITABLE) {
            upgrade(cache, core, line);
            state = TW_TAG_WRITABLE;
        }
    }
    remember(c, line, state);
}

static inline void access_line(struct tw_cache *cache, unsigned core, uint64_t line, bool store)
{
    assert(core < cache->core_count);
    if (line >= cache->line_limit) {
        if (store) {
            cache->counters.write_backs++;
            tw_link_send(cache, TW_MEM_WR, line);
        }
    } else if (cache->has_private) {
        cached_access(cache, core, line, store);
    } else {
        miss(cache, core, line, store);
    }
}

void tw_cache_load(struct tw_cache *cache, unsigned core, uint64_t address)
{
    cache->counters.loads++;
    access_line(cache, core, tw_line_of(address), false);
}

void tw_cache_store(struct tw_cache *cache, unsigned core, uint64_t address)
{
    cache->counters.stores++;
    access_line(cache, core, tw_line_of(address), true);
}

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
