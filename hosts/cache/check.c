#include "hosts/cache/check.h"

#include "hosts/cache/cache_impl.h"

static const char *check_twice(const struct tw_tags *tags)
{
    for (uint32_t set = 0; set <= tags->set_mask; set++) {
        const uint32_t *row = tw_tags_row(tags, set);
        for (unsigned i = 0; i < tags->stride; i++) {
            if (row[i] && !((tags->all_ways >> i) & 1))
                return "a way is used that does not exist";
            for (unsigned j = 0; row[i] && j < i; j++) {
                if ((row[i] ^ row[j]) <= TW_TAG_STATE_MASK)
                    return "a line is twice in a level";
            }
        }
    }
    return NULL;
}

static enum tw_tag_state state_in(const struct tw_tags *tags, uint64_t line)
{
    struct tw_tag_place place = tw_tags_find(tags, line);
    return place.way < 0 ? TW_TAG_INVALID : tw_tags_state(tags, place);
}

static const struct tw_tags *outermost(const struct tw_cache_core *core)
{
    return core->has_outer ? &core->outer : &core->inner;
}

static const char *check_peers(const struct tw_cache *cache, unsigned core, uint64_t line,
                               enum tw_tag_state state)
{
    for (unsigned i = 0; i < cache->core_count; i++) {
        if (i != core && state == TW_TAG_WRITABLE &&
            state_in(outermost(&cache->cores[i]), line) != TW_TAG_INVALID)
            return "a core may write a line that another holds";
    }
    return NULL;
}

static const char *check_last(const struct tw_cache *cache, unsigned core, uint64_t line,
                              enum tw_tag_state state)
{
    struct tw_tag_place place = tw_tags_find(&cache->last, line);
    if (place.way < 0)
        return "a private line is not in the last level";
    if (state == TW_TAG_WRITABLE && tw_tags_state(&cache->last, place) != TW_TAG_WRITABLE)
        return "a line is writable above a last level where it is not";
    if (!cache->present)
        return NULL;
    size_t entry = (size_t)place.set * cache->last.stride + (size_t)place.way;
    return (cache->present[entry] >> core) & 1 ? NULL : "the last level does not know a holder";
}

/* Every line of a private level against the levels outside it. */
static const char *check_level(const struct tw_cache *cache, unsigned core,
                               const struct tw_tags *tags)
{
    const struct tw_tags *outer = outermost(&cache->cores[core]);
    const char *wrong = check_twice(tags);
    for (uint32_t set = 0; !wrong && set <= tags->set_mask; set++) {
        for (unsigned i = 0; !wrong && i < tags->stride; i++) {
            uint32_t entry = tw_tags_row(tags, set)[i];
            if (!entry)
                continue;
            uint64_t line = tw_tags_line(tags, set, entry);
            enum tw_tag_state state = (enum tw_tag_state)(entry & TW_TAG_STATE_MASK);
            if (state != TW_TAG_SHARED && state != TW_TAG_WRITABLE)
                return "a private line is neither shared nor writable";
            if (state_in(outer, line) != state)
                return "inner and outer level disagree about a line";
            wrong = check_peers(cache, core, line, state);
            if (!wrong && cache->has_last)
                wrong = check_last(cache, core, line, state);
        }
    }
    return wrong;
}

const char *tw_cache_check(const struct tw_cache *cache)
{
    const char *wrong = cache->has_last ? check_twice(&cache->last) : NULL;
    for (unsigned i = 0; !wrong && i < cache->core_count; i++) {
        const struct tw_cache_core *core = &cache->cores[i];
        if (core->has_inner)
            wrong = check_level(cache, i, &core->inner);
        if (!wrong && core->has_outer)
            wrong = check_level(cache, i, &core->outer);
    }
    return wrong;
}
