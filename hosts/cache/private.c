#include "hosts/cache/cache_impl.h"

enum tw_tag_state tw_private_state(const struct tw_cache_core *core, uint64_t line)
{
    const struct tw_tags *tags = core->has_outer ? &core->outer : &core->inner;
    struct tw_tag_place place = tw_tags_find(tags, line);
    return place.way < 0 ? TW_TAG_INVALID : tw_tags_state(tags, place);
}

static bool set_in(struct tw_tags *tags, uint64_t line, enum tw_tag_state state)
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

void tw_private_set(struct tw_cache_core *core, uint64_t line, enum tw_tag_state state)
{
    core->last_line = TW_NO_LINE;
    if (core->has_outer && !set_in(&core->outer, line, state))
        return; /* inclusive: nor is it in the inner level */
    set_in(&core->inner, line, state);
}

void tw_private_fill_inner(struct tw_cache_core *core, struct tw_tag_place place,
                           enum tw_tag_state state)
{
    tw_tags_victim(&core->inner, &place); /* the outer level still has the victim */
    tw_tags_put(&core->inner, place, state);
}

/* Puts the line into the level that faces home; what it displaces leaves the core. */
static void fill_outermost(struct tw_cache *cache, struct tw_cache_core *core, struct tw_tags *tags,
                           uint64_t line, enum tw_tag_state state)
{
    struct tw_tag_place place = tw_tags_find(tags, line);
    uint32_t victim = tw_tags_victim(tags, &place);
    uint64_t victim_line = victim ? tw_tags_line(tags, place.set, victim) : TW_NO_LINE;
    tw_tags_put(tags, place, state);
    if (!victim)
        return;
    if (core->has_outer)
        set_in(&core->inner, victim_line, TW_TAG_INVALID);
    if (!cache->has_last)
        tw_home_dropped(cache, victim_line, (enum tw_tag_state)(victim & TW_TAG_STATE_MASK));
}

void tw_private_fill(struct tw_cache *cache, struct tw_cache_core *core, uint64_t line,
                     enum tw_tag_state state)
{
    if (!core->has_outer) {
        fill_outermost(cache, core, &core->inner, line, state);
        return;
    }
    fill_outermost(cache, core, &core->outer, line, state);
    tw_private_fill_inner(core, tw_tags_find(&core->inner, line), state);
}
