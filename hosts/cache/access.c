#include "hosts/cache/home.h"

#include <assert.h>

#define RUN_AHEAD 8u /* events: how far ahead of its use a row of the last level is fetched */

static inline bool may(enum tw_tag_state state, bool store)
{
    return state == TW_TAG_WRITABLE || !store;
}

/* A shared copy becomes writable. Rare enough to stay out of the way of the rest. */
static __attribute__((noinline)) void upgrade(struct tw_cache *cache, unsigned core, uint64_t line)
{
    tw_home_ask(cache, core, line, true, true);
    tw_private_set(&cache->cores[core], line, TW_TAG_WRITABLE);
}

/* The inner level does not have the line; `inner` is where it would be there. */
static enum tw_tag_state inner_miss(struct tw_cache *cache, unsigned core, uint64_t line,
                                    struct tw_tag_place inner, bool store)
{
    struct tw_cache_core *c = &cache->cores[core];
    struct tw_private_place place = {.inner = inner};
    ++cache->inner_misses;
    if (c->has_outer) {
        place.outer = tw_tags_find(&c->outer, line);
        if (place.outer.way >= 0) {
            cache->counters.hits_l2++;
            tw_tags_touch(&c->outer, place.outer);
            enum tw_tag_state state = tw_tags_state(&c->outer, place.outer);
            if (!may(state, store)) {
                upgrade(cache, core, line);
                state = TW_TAG_WRITABLE;
            }
            tw_tags_victim(&c->inner, &inner); /* which the outer level still has */
            tw_tags_put(&c->inner, inner, state);
            return state;
        }
    }
    enum tw_tag_state state = tw_home_ask(cache, core, line, store, false);
    tw_private_fill(cache, c, place, state);
    return state;
}

/* Returns the state in which the inner level holds the line thereafter. `stride` is that level's.
 */
TW_INLINE enum tw_tag_state cached_access(struct tw_cache *cache, unsigned core, uint64_t line,
                                          bool store, unsigned stride)
{
    struct tw_cache_core *c = &cache->cores[core];
    struct tw_tag_place place = tw_tags_find_stride(&c->inner, line, stride);
    if (place.way < 0)
        return inner_miss(cache, core, line, place, store);
    tw_tags_touch(&c->inner, place);
    enum tw_tag_state state = tw_tags_state(&c->inner, place);
    if (may(state, store))
        return state;
    upgrade(cache, core, line);
    return TW_TAG_WRITABLE;
}

/* No private level, or a line that no level can name. */
static __attribute__((noinline)) void uncached_access(struct tw_cache *cache, unsigned core,
                                                      uint64_t line, bool store)
{
    cache->uncached++;
    if (line < cache->line_limit) {
        tw_home_ask(cache, core, line, store, false);
    } else if (store) {
        cache->counters.write_backs++;
        tw_link_send(cache, TW_MEM_WR, line);
    }
}

/* The last line that the core used is in its inner level: an access to it again, with no more
 * rights than it has, changes nothing anywhere. */
TW_INLINE void run(struct tw_cache *cache, unsigned core, const uint64_t *events, size_t count,
                   unsigned stride)
{
    struct tw_cache_core *c = &cache->cores[core];
    const uint64_t limit = cache->has_private ? cache->line_limit : 0;
    uint64_t last_line = c->last_line;
    bool last_writable = c->last_writable;
    uint64_t stores = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t line = events[i] >> 1;
        const bool store = events[i] & 1;
        stores += store;
        if (line == last_line && (last_writable | !store))
            continue;
        if (cache->has_last && i + RUN_AHEAD < count)
            tw_tags_prefetch(&cache->last, events[i + RUN_AHEAD] >> 1);
        if (line >= limit) {
            uncached_access(cache, core, line, store);
            last_line = TW_NO_LINE;
            continue;
        }
        last_line = line;
        last_writable = cached_access(cache, core, line, store, stride) == TW_TAG_WRITABLE;
    }
    c->last_line = last_line;
    c->last_writable = last_writable;
    cache->counters.stores += stores;
    cache->counters.loads += count - stores;
}

void tw_cache_run(struct tw_cache *cache, unsigned core, const uint64_t *events, size_t count)
{
    assert(core < cache->core_count);
    if (cache->cores[core].inner.stride == 8)
        run(cache, core, events, count, 8);
    else
        run(cache, core, events, count, cache->cores[core].inner.stride);
}

void tw_cache_load(struct tw_cache *cache, unsigned core, uint64_t address)
{
    const uint64_t event = tw_line_of(address) << 1;
    tw_cache_run(cache, core, &event, 1);
}

void tw_cache_store(struct tw_cache *cache, unsigned core, uint64_t address)
{
    const uint64_t event = tw_line_of(address) << 1 | 1;
    tw_cache_run(cache, core, &event, 1);
}
