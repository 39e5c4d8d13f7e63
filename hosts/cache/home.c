#include "hosts/cache/cache_impl.h"

/* ---- With a shared last level: it knows which cores may hold a line. ------------------------- */

static uint64_t *present_at(struct tw_cache *cache, struct tw_tag_place place)
{
    return &cache->present[(size_t)place.set * cache->last.stride + (size_t)place.way];
}

/* Cores that may hold a line of the last level in their private caches. */
static uint64_t holders(struct tw_cache *cache, struct tw_tag_place place)
{
    return cache->present ? *present_at(cache, place) : 1;
}

static void set_holders(struct tw_cache *cache, struct tw_tag_place place, uint64_t cores)
{
    if (cache->present)
        *present_at(cache, place) = cores;
}

static void private_set_all(struct tw_cache *cache, uint64_t cores, uint64_t line,
                            enum tw_tag_state state)
{
    if (!cache->has_private)
        return;
    for (; cores; cores &= cores - 1)
        tw_private_set(&cache->cores[__builtin_ctzll(cores)], line, state);
}

static void last_fill(struct tw_cache *cache, unsigned core, struct tw_tag_place place,
                      enum tw_tag_state state)
{
    uint32_t victim = tw_tags_victim(&cache->last, &place);
    if (victim) {
        uint64_t victim_line = tw_tags_line(&cache->last, place.set, victim);
        private_set_all(cache, holders(cache, place), victim_line, TW_TAG_INVALID);
        tw_link_evict(cache, victim_line, (enum tw_tag_state)(victim & TW_TAG_STATE_MASK));
    }
    tw_tags_put(&cache->last, place, state);
    set_holders(cache, place, UINT64_C(1) << core);
}

static enum tw_tag_state last_load(struct tw_cache *cache, unsigned core, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    uint64_t self = UINT64_C(1) << core;
    if (place.way < 0) {
        last_fill(cache, core, place, TW_TAG_SHARED);
        tw_link_send(cache, TW_MEM_RD_DATA, line);
        return TW_TAG_SHARED;
    }
    cache->counters.hits_last++;
    tw_tags_touch(&cache->last, place);
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    uint64_t others = holders(cache, place) & ~self;
    if (!others) {
        set_holders(cache, place, self);
        if (state == TW_TAG_SHARED)
            return TW_TAG_SHARED;
        tw_tags_set_state(&cache->last, place, TW_TAG_WRITABLE);
        return TW_TAG_WRITABLE; /* the host owns the line and nobody else has it */
    }
    if (state == TW_TAG_WRITABLE) {
        private_set_all(cache, others, line, TW_TAG_SHARED);
        tw_tags_set_state(&cache->last, place, TW_TAG_DIRTY);
    }
    set_holders(cache, place, others | self);
    return TW_TAG_SHARED;
}

static void last_own(struct tw_cache *cache, unsigned core, uint64_t line, bool held)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    uint64_t self = UINT64_C(1) << core;
    if (place.way < 0) {
        last_fill(cache, core, place, TW_TAG_WRITABLE);
        tw_link_send(cache, TW_MEM_RD_INV, line);
        return;
    }
    if (!held)
        cache->counters.hits_last++;
    tw_tags_touch(&cache->last, place);
    private_set_all(cache, holders(cache, place) & ~self, line, TW_TAG_INVALID);
    set_holders(cache, place, self);
    if (tw_tags_state(&cache->last, place) == TW_TAG_SHARED) {
        cache->counters.upgrades++;
        tw_link_send(cache, TW_MEM_INV, line);
    }
    tw_tags_set_state(&cache->last, place, TW_TAG_WRITABLE);
}

static enum tw_tag_state last_invalidate(struct tw_cache *cache, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way < 0)
        return TW_TAG_INVALID;
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    private_set_all(cache, holders(cache, place), line, TW_TAG_INVALID);
    tw_tags_remove(&cache->last, place);
    return state;
}

static enum tw_tag_state last_downgrade(struct tw_cache *cache, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way < 0)
        return TW_TAG_INVALID;
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    if (state == TW_TAG_WRITABLE)
        private_set_all(cache, holders(cache, place), line, TW_TAG_SHARED);
    tw_tags_set_state(&cache->last, place, TW_TAG_SHARED);
    return state;
}

/* ---- Without one: the private caches ask each other. ----------------------------------------- */

/* Brings every core's copy but `except`'s down to `state`; returns the highest state there was. */
static enum tw_tag_state peers_lower(struct tw_cache *cache, unsigned except, uint64_t line,
                                     enum tw_tag_state state)
{
    enum tw_tag_state highest = TW_TAG_INVALID;
    for (unsigned i = 0; i < cache->core_count; i++) {
        if (i == except)
            continue;
        enum tw_tag_state was = tw_private_state(&cache->cores[i], line);
        if (was > highest)
            highest = was;
        if (was > state)
            tw_private_set(&cache->cores[i], line, state);
    }
    return highest;
}

static enum tw_tag_state peers_load(struct tw_cache *cache, unsigned core, uint64_t line)
{
    enum tw_tag_state was = peers_lower(cache, core, line, TW_TAG_SHARED);
    if (was == TW_TAG_WRITABLE) {
        cache->counters.write_backs++;
        tw_link_send(cache, TW_MEM_WR_KEEP, line);
    } else if (was == TW_TAG_INVALID) {
        tw_link_send(cache, TW_MEM_RD_DATA, line);
    }
    return TW_TAG_SHARED;
}

static void peers_own(struct tw_cache *cache, unsigned core, uint64_t line, bool held)
{
    enum tw_tag_state was = peers_lower(cache, core, line, TW_TAG_INVALID);
    if (was == TW_TAG_WRITABLE)
        return; /* ownership changes hands within the host */
    if (was == TW_TAG_SHARED || held) {
        cache->counters.upgrades++;
        tw_link_send(cache, TW_MEM_INV, line);
    } else {
        tw_link_send(cache, TW_MEM_RD_INV, line);
    }
}

void tw_home_dropped(struct tw_cache *cache, uint64_t line, enum tw_tag_state state)
{
    for (unsigned i = 0; i < cache->core_count; i++) {
        if (tw_private_state(&cache->cores[i], line) != TW_TAG_INVALID)
            return; /* shared, and still held by another core */
    }
    tw_link_evict(cache, line, state);
}

/* ---- Either way. ----------------------------------------------------------------------------- */

enum tw_tag_state tw_home_load(struct tw_cache *cache, unsigned core, uint64_t line)
{
    return cache->has_last ? last_load(cache, core, line) : peers_load(cache, core, line);
}

void tw_home_own(struct tw_cache *cache, unsigned core, uint64_t line, bool held)
{
    if (cache->has_last)
        last_own(cache, core, line, held);
    else
        peers_own(cache, core, line, held);
}

enum tw_tag_state tw_home_invalidate(struct tw_cache *cache, uint64_t line)
{
    return cache->has_last ? last_invalidate(cache, line)
                           : peers_lower(cache, TW_CACHE_CORES_MAX, line, TW_TAG_INVALID);
}

enum tw_tag_state tw_home_downgrade(struct tw_cache *cache, uint64_t line)
{
    return cache->has_last ? last_downgrade(cache, line)
                           : peers_lower(cache, TW_CACHE_CORES_MAX, line, TW_TAG_SHARED);
}
