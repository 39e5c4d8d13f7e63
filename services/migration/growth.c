#include "services/migration/growth.h"

#include "base/clock.h"

#define FIRST_NS (2 * TW_MS)

void tw_growth_begin(struct tw_growth *g, uint64_t now_ns)
{
    g->start_ns = now_ns;
    g->next_ns = tw_after(now_ns, FIRST_NS);
    g->count = 0;
}

bool tw_growth_due(const struct tw_growth *g, uint64_t now_ns)
{
    return now_ns >= g->next_ns && g->count < TW_GROWTH_SAMPLES;
}

void tw_growth_add(struct tw_growth *g, uint64_t now_ns, uint64_t bytes)
{
    uint64_t after_ns = now_ns - g->start_ns;
    if (g->count == TW_GROWTH_SAMPLES)
        return;
    g->sample[g->count].after_ns = after_ns;
    g->sample[g->count++].bytes = bytes;
    g->next_ns = tw_after(now_ns, after_ns / 4 > FIRST_NS ? after_ns / 4 : FIRST_NS);
}

bool tw_growth_after(const struct tw_growth *g, uint64_t ns, uint64_t *bytes)
{
    uint64_t before_ns = 0, before = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        uint64_t at_ns = g->sample[i].after_ns, at = g->sample[i].bytes;
        if (at < before)
            at = before; /* a set only grows; what was counted twice does not matter */
        if (ns < at_ns) {
            unsigned __int128 part = (unsigned __int128)(at - before) * (ns - before_ns);
            *bytes = before + (uint64_t)(part / (at_ns - before_ns));
            return true;
        }
        before_ns = at_ns;
        before = at;
    }
    *bytes = before;
    return g->count > 0;
}
