/* Inside the hierarchy.
 *
 * Inclusion: a line in L1 is in L2, a line in L2 is in the last level (each where present).
 * Permission is eager: whoever may write a line is WRITABLE at every level that holds it, and the
 * last level is then WRITABLE too. So an eviction from an inner level has nothing to hand down,
 * and what the link sees depends on the outermost level alone:
 *
 *   core 0: L1 < L2 --+
 *   core 1: L1 < L2 --+-- home: the last level, or, without one, the cores' private caches
 *                     |         asking each other -- link
 */
#ifndef TOWLINE_HOSTS_CACHE_CACHE_IMPL_H
#define TOWLINE_HOSTS_CACHE_CACHE_IMPL_H

#include "hosts/cache/cache.h"
#include "hosts/cache/tags.h"

#define TW_CACHE_CORES_MAX 64u
#define TW_NO_LINE         UINT64_MAX

/* A core's private caches. */
struct tw_cache_core {
    uint64_t last_line; /* of the last access, if it hit or was filled; else TW_NO_LINE */
    bool last_writable;
    bool has_inner, has_outer; /* no outer without an inner */
    struct tw_tags inner;      /* L1, or L2 where there is no L1 */
    struct tw_tags outer;      /* L2 below an L1 */
};

struct tw_cache {
    struct tw_link_sink sink;
    unsigned core_count;
    bool has_private, has_last;
    uint64_t line_limit; /* lines from here on are not cached: no level could name them */
    uint64_t *inner_hits, *outer_hits; /* the counters of the levels that play these parts */
    struct tw_cache_counters counters;
    struct tw_tags last;
    uint64_t *present; /* for each entry of `last`: cores that may hold it; NULL with one core */
    struct tw_cache_core cores[];
};

/* Private caches of one core (private.c). */
enum tw_tag_state tw_private_state(const struct tw_cache_core *core, uint64_t line);
void tw_private_set(struct tw_cache_core *core, uint64_t line, enum tw_tag_state state);
/* Puts a line in that is in none of the core's levels. */
void tw_private_fill(struct tw_cache *cache, struct tw_cache_core *core, uint64_t line,
                     enum tw_tag_state state);
/* Puts a line of the outer level into the inner one. */
void tw_private_fill_inner(struct tw_cache_core *core, struct tw_tag_place place,
                           enum tw_tag_state state);

/* The level that faces the link (home.c): the last level or the private caches together. */

/* A core that holds nothing of the line loads it; returns the state it may hold it in. */
enum tw_tag_state tw_home_load(struct tw_cache *cache, unsigned core, uint64_t line);
/* A core wants to write; `held`: it has a shared copy. No other core has one afterwards. */
void tw_home_own(struct tw_cache *cache, unsigned core, uint64_t line, bool held);
/* Without a last level: a private cache has dropped the line, which was in `state`. */
void tw_home_dropped(struct tw_cache *cache, uint64_t line, enum tw_tag_state state);
/* Takes the line from every level; returns the state it was in. */
enum tw_tag_state tw_home_invalidate(struct tw_cache *cache, uint64_t line);
/* Leaves at most shared copies; returns the state it was in. */
enum tw_tag_state tw_home_downgrade(struct tw_cache *cache, uint64_t line);

static inline void tw_link_send(struct tw_cache *cache, enum tw_link_message message, uint64_t line)
{
    cache->sink.message(cache->sink.ctx, message, line << TW_LINE_SHIFT);
}

/* A line leaves the host. */
static inline void tw_link_evict(struct tw_cache *cache, uint64_t line, enum tw_tag_state state)
{
    if (state >= TW_TAG_DIRTY) {
        cache->counters.write_backs++;
        tw_link_send(cache, TW_MEM_WR, line);
    } else {
        cache->counters.clean_evictions++;
        tw_link_send(cache, TW_MEM_CLN_EVCT, line);
    }
}

#endif
