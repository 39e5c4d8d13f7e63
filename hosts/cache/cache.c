#include "hosts/cache/cache.h"

#include "hosts/cache/cache_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define LEVEL_SIZE_MAX (UINT64_C(4) << 30) /* bytes */
#define WAYS_MAX       32u

static enum tw_code check_level(const char *where, const struct tw_cache_level_config *level,
                                struct tw_error *err)
{
    char given[64];
    if (level->size_bytes == 0)
        return TW_OK;
    snprintf(given, sizeof given, "%" PRIu64 " bytes, %u ways", level->size_bytes, level->ways);
    if (level->ways == 0 || level->ways > WAYS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "1 to 32 ways", given,
                       "number of ways is not usable");
    uint64_t row = (uint64_t)level->ways * TW_LINE_SIZE;
    uint64_t sets = level->size_bytes / row;
    if (level->size_bytes > LEVEL_SIZE_MAX || level->size_bytes % row || (sets & (sets - 1)))
        return tw_fail(err, TW_INVALID_ARGUMENT, where,
                       "ways * 64 bytes times a power of two, at most 4 GiB", given,
                       "size is not usable");
    return TW_OK;
}

enum tw_code tw_cache_config_check(const struct tw_cache_config *config, struct tw_error *err)
{
    if (config->cores == 0 || config->cores > TW_CACHE_CORES_MAX) {
        char given[16];
        snprintf(given, sizeof given, "%u", config->cores);
        return tw_fail(err, TW_INVALID_ARGUMENT, "cache", "1 to 64 cores", given,
                       "number of cores is not usable");
    }
    enum tw_code code = check_level("cache l1", &config->l1, err);
    if (!code)
        code = check_level("cache l2", &config->l2, err);
    if (!code)
        code = check_level("cache last level", &config->last, err);
    return code;
}

static bool core_open(struct tw_cache_core *core, const struct tw_cache_config *config)
{
    bool l1 = config->l1.size_bytes != 0;
    bool l2 = config->l2.size_bytes != 0;
    core->last_line = TW_NO_LINE;
    core->has_inner = l1 || l2;
    core->has_outer = l1 && l2;
    if (core->has_inner && !tw_tags_open(&core->inner, l1 ? &config->l1 : &config->l2))
        return false;
    if (core->has_outer && !tw_tags_open(&core->outer, &config->l2))
        return false;
    return true;
}

static bool last_open(struct tw_cache *cache, const struct tw_cache_config *config)
{
    cache->has_last = config->last.size_bytes != 0;
    if (!cache->has_last)
        return true;
    if (!tw_tags_open(&cache->last, &config->last))
        return false;
    if (cache->core_count == 1)
        return true;
    size_t entries = ((size_t)cache->last.set_mask + 1) * cache->last.stride;
    cache->present = calloc(entries, sizeof *cache->present);
    return cache->present != NULL;
}

/* The first line that some level could not name; 0 when there is no level at all. */
static uint64_t line_limit(const struct tw_cache *cache)
{
    const struct tw_cache_core *core = &cache->cores[0];
    if (!cache->has_private && !cache->has_last)
        return 0;
    uint64_t limit = UINT64_MAX;
    if (core->has_inner && tw_tags_line_limit(&core->inner) < limit)
        limit = tw_tags_line_limit(&core->inner);
    if (core->has_outer && tw_tags_line_limit(&core->outer) < limit)
        limit = tw_tags_line_limit(&core->outer);
    if (cache->has_last && tw_tags_line_limit(&cache->last) < limit)
        limit = tw_tags_line_limit(&cache->last);
    return limit;
}

enum tw_code tw_cache_open(const struct tw_cache_config *config, const struct tw_link_sink *sink,
                           struct tw_cache **cache, struct tw_error *err)
{
    enum tw_code code = tw_cache_config_check(config, err);
    if (code)
        return code;
    struct tw_cache *c = calloc(1, sizeof *c + config->cores * sizeof c->cores[0]);
    if (!c)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "cache", NULL, NULL, "no memory");
    c->sink = *sink;
    c->core_count = config->cores;
    c->l1_is_inner = config->l1.size_bytes != 0;
    c->has_private = config->l1.size_bytes || config->l2.size_bytes;
    bool opened = last_open(c, config);
    for (unsigned i = 0; opened && i < c->core_count; i++)
        opened = core_open(&c->cores[i], config);
    if (!opened) {
        tw_cache_close(c);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "cache", NULL, NULL, "no memory for the tags");
    }
    c->line_limit = line_limit(c);
    *cache = c;
    return TW_OK;
}

void tw_cache_close(struct tw_cache *cache)
{
    if (!cache)
        return;
    for (unsigned i = 0; i < cache->core_count; i++) {
        tw_tags_close(&cache->cores[i].inner);
        tw_tags_close(&cache->cores[i].outer);
    }
    tw_tags_close(&cache->last);
    free(cache->present);
    free(cache);
}

void tw_cache_counters_get(const struct tw_cache *cache, struct tw_cache_counters *out)
{
    /* What did not miss the inner level hit it: cheaper than counting every hit. Stores past the
     * caches (non-temporal) are in `stores` and in `uncached`. */
    const struct tw_cache_counters *c = &cache->counters;
    uint64_t inner_hits = c->loads + c->stores - cache->uncached - cache->inner_misses;
    *out = *c;
    if (cache->l1_is_inner)
        out->hits_l1 = inner_hits;
    else if (cache->has_private)
        out->hits_l2 = inner_hits;
}
