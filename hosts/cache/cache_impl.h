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
    bool has_private, l1_is_inner, has_last;
    uint64_t line_limit;   /* lines from here on are not cached: no level could name them */
    uint64_t inner_misses; /* accesses that the inner level did not have */
    uint64_t uncached;     /* accesses that passed the private levels by */
    struct tw_cache_counters counters;
    struct tw_tags last;
    uint64_t *present; /* for each entry of `last`: cores that may hold it; NULL with one core */
    struct tw_cache_core cores[];
};

static inline void tw_link_send(struct tw_cache *cache, enum tw_link_message message, uint64_t line)
{
    cache->sink.message(cache->sink.ctx, message, line << TW_LINE_SHIFT);
}

/* A line leaves the host. */
static inline void tw_link_evict(struct tw_cache *cache, uint64_t line, enum tw_tag_state state)
{
    bool modified = state >= TW_TAG_DIRTY;
    cache->counters.write_backs += modified;
    cache->counters.clean_evictions += !modified;
    tw_link_send(cache, modified ? TW_MEM_WR : TW_MEM_CLN_EVCT, line);
}

#endif
