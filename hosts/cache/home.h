/* The level that faces the link: the shared last level or, without one, the private caches of all
 * cores together. Inline, since every miss passes through here. */
#ifndef TOWLINE_HOSTS_CACHE_HOME_H
#define TOWLINE_HOSTS_CACHE_HOME_H

#include "hosts/cache/private.h"

/* ---- With a shared last level: it knows which cores may hold a line. ------------------------- */

static inline uint64_t *tw_home_present_at(struct tw_cache *cache, struct tw_tag_place place)
{
    return &cache->present[(size_t)place.set * cache->last.stride + (size_t)place.way];
}

/* Cores that may hold a line of the last level in their private caches. */
static inline uint64_t tw_home_holders(struct tw_cache *cache, struct tw_tag_place place)
{
    return cache->present ? *tw_home_present_at(cache, place) : 1;
}

static inline void tw_home_set_holders(struct tw_cache *cache, struct tw_tag_place place,
                                       uint64_t cores)
{
    if (cache->present)
        *tw_home_present_at(cache, place) = cores;
}

static inline void tw_home_private_set_all(struct tw_cache *cache, uint64_t cores, uint64_t line,
                                           enum tw_tag_state state)
{
    if (!cache->has_private)
        return;
    for (; cores; cores &= cores - 1)
        tw_private_set(&cache->cores[__builtin_ctzll(cores)], line, state);
}

static inline void tw_home_last_fill(struct tw_cache *cache, unsigned core,
                                     struct tw_tag_place place, enum tw_tag_state state)
{
    uint32_t victim = tw_tags_victim(&cache->last, &place);
    if (victim) {
        uint64_t victim_line = tw_tags_line(&cache->last, place.set, victim);
        tw_home_private_set_all(cache, tw_home_holders(cache, place), victim_line, TW_TAG_INVALID);
        tw_link_evict(cache, victim_line, (enum tw_tag_state)(victim & TW_TAG_STATE_MASK));
    }
    tw_tags_put(&cache->last, place, state);
    tw_home_set_holders(cache, place, UINT64_C(1) << core);
}

/* Other cores may hold the line: a store takes their copies, a load leaves them shared. Returns the
 * state of the last level's entry thereafter, as far as the other cores decide it. */
static inline enum tw_tag_state tw_home_settle_others(struct tw_cache *cache, uint64_t line,
                                                      uint64_t others, bool store,
                                                      enum tw_tag_state state)
{
    if (store) {
        tw_home_private_set_all(cache, others, line, TW_TAG_INVALID);
    } else if (state == TW_TAG_WRITABLE) {
        tw_home_private_set_all(cache, others, line, TW_TAG_SHARED);
        return TW_TAG_DIRTY;
    }
    return state;
}

static inline enum tw_tag_state tw_home_last_hit(struct tw_cache *cache, unsigned core,
                                                 uint64_t line, struct tw_tag_place place,
                                                 bool store)
{
    uint64_t self = UINT64_C(1) << core;
    uint64_t others = tw_home_holders(cache, place) & ~self;
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    tw_tags_touch(&cache->last, place);
    if (store && state == TW_TAG_SHARED) {
        cache->counters.upgrades++;
        tw_link_send(cache, TW_MEM_INV, line);
    }
    if (others) {
        state = tw_home_settle_others(cache, line, others, store, state);
        if (!store) {
            tw_home_set_holders(cache, place, others | self);
            tw_tags_set_state(&cache->last, place, state);
            return TW_TAG_SHARED;
        }
    }
    /* Nobody else has it: if the host owns the line, this core may write it. */
    state = store || state >= TW_TAG_DIRTY ? TW_TAG_WRITABLE : TW_TAG_SHARED;
    tw_home_set_holders(cache, place, self);
    tw_tags_set_state(&cache->last, place, state);
    return state;
}

static inline enum tw_tag_state tw_home_last_ask(struct tw_cache *cache, unsigned core,
                                                 uint64_t line, bool store, bool held)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way >= 0) {
        cache->counters.hits_last += !held;
        return tw_home_last_hit(cache, core, line, place, store);
    }
    enum tw_tag_state state = store ? TW_TAG_WRITABLE : TW_TAG_SHARED;
    tw_home_last_fill(cache, core, place, state);
    tw_link_send(cache, store ? TW_MEM_RD_INV : TW_MEM_RD_DATA, line);
    return state;
}

static inline enum tw_tag_state tw_home_last_invalidate(struct tw_cache *cache, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way < 0)
        return TW_TAG_INVALID;
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    tw_home_private_set_all(cache, tw_home_holders(cache, place), line, TW_TAG_INVALID);
    tw_tags_remove(&cache->last, place);
    return state;
}

static inline enum tw_tag_state tw_home_last_downgrade(struct tw_cache *cache, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way < 0)
        return TW_TAG_INVALID;
    enum tw_tag_state state = tw_tags_state(&cache->last, place);
    if (state == TW_TAG_WRITABLE)
        tw_home_private_set_all(cache, tw_home_holders(cache, place), line, TW_TAG_SHARED);
    tw_tags_set_state(&cache->last, place, TW_TAG_SHARED);
    return state;
}

/* ---- Without one: the private caches ask each other. ----------------------------------------- */

/* Brings every core's copy but `except`'s down to `state`; returns the highest state there was. */
static inline enum tw_tag_state tw_home_peers_lower(struct tw_cache *cache, unsigned except,
                                                    uint64_t line, enum tw_tag_state state)
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

static inline enum tw_tag_state tw_home_peers_load(struct tw_cache *cache, unsigned core,
                                                   uint64_t line)
{
    enum tw_tag_state was = tw_home_peers_lower(cache, core, line, TW_TAG_SHARED);
    if (was == TW_TAG_WRITABLE) {
        cache->counters.write_backs++;
        tw_link_send(cache, TW_MEM_WR_KEEP, line);
    } else if (was == TW_TAG_INVALID) {
        tw_link_send(cache, TW_MEM_RD_DATA, line);
    }
    return TW_TAG_SHARED;
}

static inline enum tw_tag_state tw_home_peers_own(struct tw_cache *cache, unsigned core,
                                                  uint64_t line, bool held)
{
    enum tw_tag_state was = tw_home_peers_lower(cache, core, line, TW_TAG_INVALID);
    if (was == TW_TAG_SHARED || (was == TW_TAG_INVALID && held)) {
        cache->counters.upgrades++;
        tw_link_send(cache, TW_MEM_INV, line);
    } else if (was == TW_TAG_INVALID) {
        tw_link_send(cache, TW_MEM_RD_INV, line);
    } /* else ownership changes hands within the host */
    return TW_TAG_WRITABLE;
}

/* ---- Either way. ----------------------------------------------------------------------------- */

/* A core asks for a line: to read one that it does not hold, or to write (`store`) one that it
 * does not hold or holds shared (`held`). Returns the state that it now may hold it in. */
TW_INLINE enum tw_tag_state tw_home_ask(struct tw_cache *cache, unsigned core, uint64_t line,
                                        bool store, bool held)
{
    if (cache->has_last)
        return tw_home_last_ask(cache, core, line, store, held);
    return store ? tw_home_peers_own(cache, core, line, held)
                 : tw_home_peers_load(cache, core, line);
}

/* Takes the line from every level; returns the state it was in. */
static inline enum tw_tag_state tw_home_invalidate(struct tw_cache *cache, uint64_t line)
{
    return cache->has_last ? tw_home_last_invalidate(cache, line)
                           : tw_home_peers_lower(cache, TW_CACHE_CORES_MAX, line, TW_TAG_INVALID);
}

/* Leaves at most shared copies; returns the state it was in. */
static inline enum tw_tag_state tw_home_downgrade(struct tw_cache *cache, uint64_t line)
{
    return cache->has_last ? tw_home_last_downgrade(cache, line)
                           : tw_home_peers_lower(cache, TW_CACHE_CORES_MAX, line, TW_TAG_SHARED);
}

#endif
