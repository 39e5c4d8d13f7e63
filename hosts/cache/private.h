/* The private caches of one core: L1, L2, or both, the outer inclusive of the inner. Inline, since
 * every miss passes through here. */
#ifndef TOWLINE_HOSTS_CACHE_PRIVATE_H
#define TOWLINE_HOSTS_CACHE_PRIVATE_H

#include "hosts/cache/cache_impl.h"

/* Where a line is, or would be, in the private levels of a core. */
struct tw_private_place {
    struct tw_tag_place inner, outer;
};

/* What the core may do with the line. */
static inline enum tw_tag_state tw_private_state(const struct tw_cache_core *core, uint64_t line)
{
    const struct tw_tags *tags = core->has_outer ? &core->outer : &core->inner;
    struct tw_tag_place place = tw_tags_find(tags, line);
    return place.way < 0 ? TW_TAG_INVALID : tw_tags_state(tags, place);
}

static inline bool tw_private_set_in(struct tw_tags *tags, uint64_t line, enum tw_tag_state state)
{
    struct tw_tag_place place = tw_tags_find(tags, line);
    if (place.way < 0)
        return false;
    if (state == TW_TAG_INVALID)
        tw_tags_remove(tags, place);
    else
        tw_tags_set_state(tags, place, state);
    return true;
}

/* Changes the state of a line wherever the core holds it; INVALID removes it. */
static inline void tw_private_set(struct tw_cache_core *core, uint64_t line,
                                  enum tw_tag_state state)
{
    core->last_line = TW_NO_LINE;
    if (core->has_outer && !tw_private_set_in(&core->outer, line, state))
        return; /* inclusive: nor is it in the inner level */
    tw_private_set_in(&core->inner, line, state);
}

/* Without a last level: a private cache has dropped the line, which was in `state`. */
static inline void tw_private_dropped(struct tw_cache *cache, uint64_t line,
                                      enum tw_tag_state state)
{
    for (unsigned i = 0; i < cache->core_count; i++) {
        if (tw_private_state(&cache->cores[i], line) != TW_TAG_INVALID)
            return; /* shared, and still held by another core */
    }
    tw_link_evict(cache, line, state);
}

/* Puts the line into the level that faces home; what it displaces leaves the core. */
TW_INLINE void tw_private_fill_outermost(struct tw_cache *cache, struct tw_cache_core *core,
                                         struct tw_tags *tags, struct tw_tag_place place,
                                         enum tw_tag_state state)
{
    uint32_t victim = tw_tags_victim(tags, &place);
    tw_tags_put(tags, place, state);
    if (!victim)
        return;
    uint64_t victim_line = tw_tags_line(tags, place.set, victim);
    if (core->has_outer)
        tw_private_set_in(&core->inner, victim_line, TW_TAG_INVALID);
    if (!cache->has_last)
        tw_private_dropped(cache, victim_line, (enum tw_tag_state)(victim & TW_TAG_STATE_MASK));
}

/* Puts in a line that is in none of the core's levels. */
TW_INLINE void tw_private_fill(struct tw_cache *cache, struct tw_cache_core *core,
                               struct tw_private_place place, enum tw_tag_state state)
{
    if (!core->has_outer) {
        tw_private_fill_outermost(cache, core, &core->inner, place.inner, state);
        return;
    }
    tw_private_fill_outermost(cache, core, &core->outer, place.outer, state);
    tw_tags_victim(&core->inner, &place.inner); /* which the outer level still has */
    tw_tags_put(&core->inner, place.inner, state);
}

#endif
