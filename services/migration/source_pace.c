/* Slowing the guest's writers of hot lines, as long as the VM runs here and pacing.h says so. */
#include "services/migration/source.h"

#include <stdio.h>

/* Said again well before the host ends it by itself, on a busy machine, too. */
#define RENEW_NS (TW_HOST_PACE_HOLDS_NS / 5)

static bool may_pace(const struct tw_source *s)
{
    return s->limits.method == TW_METHOD_PRE_COPY && s->host->pace &&
           s->pace.policy.budget_permille && !s->stop_asked;
}

static void note_stats(struct tw_source *s, uint64_t now_ns)
{
    struct tw_source_pace *p = &s->pace;
    struct tw_migration_progress *m = &s->meter.p;
    struct tw_host_paced stats;
    s->host->pace->stats(s->host->ctx, &stats);
    /* The counters live in memory that the guest's machine writes: they may make no sense. */
    const uint64_t waits = stats.waits - p->stats.waits;
    const uint64_t wait_ns = stats.wait_ns - p->stats.wait_ns;
    const uint64_t time_ns = now_ns - p->counted_ns;
    p->stats = stats;
    p->counted_ns = now_ns;
    m->pace_ns += time_ns;
    m->pace_wait_ns += wait_ns < time_ns ? wait_ns : time_ns;
    m->pace_waits += waits < time_ns ? waits : 0;
}

static void say_rule(struct tw_source *s, uint64_t now_ns)
{
    const struct tw_pacing *policy = &s->pace.policy;
    const struct tw_pace_rule rule = {.delay_ns = policy->delay_ns,
                                      .share_permille = policy->budget_permille};
    s->host->pace->rule(s->host->ctx, &rule);
    s->pace.said_ns = now_ns;
    s->meter.p.pace_delay_ns = rule.delay_ns;
}

void tw_source_pace_end(struct tw_source *s)
{
    struct tw_source_pace *p = &s->pace;
    const uint64_t now_ns = tw_now(s->env.clock);
    if (p->on) {
        note_stats(s, now_ns);
        p->policy.delay_ns = 0;
        say_rule(s, now_ns);
    }
    p->on = false;
    p->policy = (struct tw_pacing){.budget_permille = p->policy.budget_permille};
    s->meter.p.paced_lines = 0;
    tw_hot_lines_close(&p->hot);
}

void tw_source_set_slow_down(struct tw_source *s, uint32_t permille)
{
    const bool more = permille > s->pace.policy.budget_permille;
    s->limits.slow_down_permille = permille;
    s->pace.policy.budget_permille = permille;
    s->pace.policy.spent &= !more;
    if (permille == 0)
        tw_source_pace_end(s);
    else if (s->pace.on)
        say_rule(s, tw_now(s->env.clock));
}

void tw_source_pace_round(struct tw_source *s)
{
    struct tw_error err;
    if (!may_pace(s))
        return;
    if (!tw_hot_lines_is_open(&s->pace.hot) &&
        tw_hot_lines_open(&s->pace.hot, s->hashes.pages, &err) != TW_OK) {
        s->pace.policy.budget_permille = 0; /* a migration without is better than none */
        snprintf(s->meter.p.pace_reason, sizeof s->meter.p.pace_reason, "not possible: %s",
                 err.what);
        return;
    }
    tw_hot_lines_round(&s->pace.hot);
}

void tw_source_pace_add(struct tw_source *s, uint64_t page, uint64_t lines)
{
    struct tw_source_pace *p = &s->pace;
    if (!tw_hot_lines_is_open(&p->hot) || lines == 0)
        return;
    const uint64_t hot = tw_hot_lines_add(&p->hot, page, lines);
    const uint64_t before = p->hot.chosen;
    if (!p->on || hot == 0)
        return;
    const uint64_t chosen = tw_hot_lines_choose(&p->hot, page, hot);
    if (p->hot.chosen != before)
        s->host->pace->lines(s->host->ctx, page, chosen);
}

static uint64_t left_of_whole(const struct tw_source *s, uint64_t now_ns)
{
    if (s->limits.total_ns == 0)
        return TW_NEVER;
    const uint64_t end_ns = tw_after(s->meter.start_ns, s->limits.total_ns);
    return now_ns < end_ns ? end_ns - now_ns : 0;
}

static void begin(struct tw_source *s, const struct tw_convergence *c, uint64_t left_ns,
                  uint64_t now_ns)
{
    struct tw_source_pace *p = &s->pace;
    p->on = true;
    p->counted_ns = now_ns;
    s->host->pace->stats(s->host->ctx, &p->stats);
    tw_pacing_explain(&p->policy, c, left_ns, s->meter.p.pace_reason);
}

void tw_source_pace_judge(struct tw_source *s, struct tw_convergence *c, uint64_t now_ns)
{
    struct tw_source_pace *p = &s->pace;
    if (!may_pace(s))
        return;
    const uint64_t left_ns = left_of_whole(s, now_ns);
    const enum tw_pacing_step step = tw_pacing_judge(&p->policy, c, left_ns);
    if (step == TW_PACING_BEGIN)
        begin(s, c, left_ns, now_ns);
    if (step == TW_PACING_END)
        tw_source_pace_end(s);
    else if (step != TW_PACING_KEEP)
        say_rule(s, now_ns);
    if (p->on && !p->policy.spent)
        c->stalled = 0; /* the last resort is not used up */
}

uint64_t tw_source_pace_step(struct tw_source *s, uint64_t now_ns)
{
    struct tw_source_pace *p = &s->pace;
    if (!p->on)
        return TW_NEVER;
    s->meter.p.paced_lines = p->hot.chosen;
    if (p->hot.chosen > s->meter.p.paced_lines_most)
        s->meter.p.paced_lines_most = p->hot.chosen;
    if (now_ns >= tw_after(p->said_ns, RENEW_NS)) {
        note_stats(s, now_ns);
        say_rule(s, now_ns);
    }
    return tw_after(p->said_ns, RENEW_NS);
}
