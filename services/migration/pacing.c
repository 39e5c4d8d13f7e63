#include "services/migration/pacing.h"

#include "base/units.h"
#include "hosts/pace.h"

#include <stdio.h>

static bool shrank(const struct tw_convergence *c)
{
    return c->last_round == 0 || c->dirty_bytes < c->last_round - c->last_round / 8;
}

/* Time until the rounds have come to nothing, if each is to the one before as the last was. */
static uint64_t rounds_left_ns(const struct tw_convergence *c)
{
    const uint64_t before = c->last_round, now = c->dirty_bytes;
    const uint64_t once_ns = tw_send_ns(now, c->rate);
    if (before == 0)
        return once_ns;
    if (now >= before)
        return TW_NEVER;
    const unsigned __int128 all = (unsigned __int128)once_ns * before / (before - now);
    return all > TW_NEVER ? TW_NEVER : (uint64_t)all;
}

static bool is_late(const struct tw_convergence *c, uint64_t left_ns)
{
    return left_ns != TW_NEVER && c->rounds > 0 && rounds_left_ns(c) > left_ns;
}

static bool has_stalled(const struct tw_convergence *c)
{
    const uint32_t left = c->max_rounds - c->rounds;
    return c->stalled >= (left < TW_PACING_HURRY ? 1 : TW_PACING_PATIENCE);
}

static enum tw_pacing_step step_up(struct tw_pacing *p)
{
    p->calm = 0;
    p->spent = p->delay_ns == TW_PACE_DELAY_MAX_NS;
    if (p->spent)
        return TW_PACING_KEEP;
    p->delay_ns *= TW_PACING_STEP;
    if (p->delay_ns > TW_PACE_DELAY_MAX_NS)
        p->delay_ns = TW_PACE_DELAY_MAX_NS;
    return TW_PACING_UP;
}

static enum tw_pacing_step step_down(struct tw_pacing *p)
{
    p->spent = false;
    if (++p->calm < TW_PACING_CALM)
        return TW_PACING_KEEP;
    p->calm = 0;
    p->delay_ns /= 2;
    if (p->delay_ns >= TW_PACING_FIRST_NS)
        return TW_PACING_DOWN;
    p->delay_ns = 0;
    return TW_PACING_END;
}

enum tw_pacing_step tw_pacing_judge(struct tw_pacing *p, const struct tw_convergence *c,
                                    uint64_t left_ns)
{
    const uint64_t need_ns = tw_send_ns(c->dirty_bytes, c->rate);
    if (p->delay_ns == 0) {
        const bool needed = need_ns > c->budget_ns && (has_stalled(c) || is_late(c, left_ns));
        if (p->budget_permille == 0 || !needed || c->rounds >= c->max_rounds)
            return TW_PACING_KEEP;
        *p = (struct tw_pacing){.budget_permille = p->budget_permille,
                                .delay_ns = TW_PACING_FIRST_NS};
        return TW_PACING_BEGIN;
    }
    if (need_ns <= c->budget_ns / 2)
        return step_down(p);
    if (need_ns > c->budget_ns && (!shrank(c) || is_late(c, left_ns)))
        return step_up(p);
    p->calm = 0;
    p->spent = false;
    return TW_PACING_KEEP;
}

void tw_pacing_explain(const struct tw_pacing *p, const struct tw_convergence *c, uint64_t left_ns,
                       char text[TW_PACE_REASON_SIZE])
{
    char dirty[TW_SIZE_TEXT], rate[TW_SIZE_TEXT], need[TW_SIZE_TEXT], budget[TW_SIZE_TEXT],
        left[TW_SIZE_TEXT];
    int n = snprintf(text, TW_PACE_REASON_SIZE,
                     "behind round %u %s dirty take %s at %s/s where %s are left of the downtime",
                     c->rounds, tw_size_format(c->dirty_bytes, dirty),
                     tw_duration_format(tw_send_ns(c->dirty_bytes, c->rate), need),
                     tw_size_format(c->rate, rate), tw_duration_format(c->budget_ns, budget));
    if (n > 0 && (size_t)n < TW_PACE_REASON_SIZE) {
        const size_t room = TW_PACE_REASON_SIZE - (size_t)n;
        if (has_stalled(c))
            snprintf(text + n, room, ", and rounds do not shrink; budget of slow-down %u %%",
                     p->budget_permille / 10);
        else
            snprintf(text + n, room, ", and %s of the whole do not do; budget of slow-down %u %%",
                     tw_duration_format(left_ns, left), p->budget_permille / 10);
    }
}
