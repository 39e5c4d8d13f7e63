#include "services/migration/policy.h"

#include "base/units.h"
#include "services/migration/convergence.h"

#include <stdarg.h>
#include <stdio.h>

const char *tw_method_name(enum tw_migration_method method)
{
    static const char *const names[] = {[TW_METHOD_PRE_COPY] = "precopy",
                                        [TW_METHOD_POST_COPY] = "postcopy",
                                        [TW_METHOD_HYBRID] = "hybrid"};
    return names[method];
}

__attribute__((format(printf, 3, 4))) static void reason_add(struct tw_choice *c,
                                                             struct tw_reason reason,
                                                             const char *text, ...)
{
    if (c->reason_count == TW_REASONS_MAX)
        return;
    va_list list;
    va_start(list, text);
    vsnprintf(reason.text, sizeof reason.text, text, list);
    va_end(list);
    c->reasons[c->reason_count++] = reason;
}

/* How well a method does: what it misses, in parts of a thousand above its budget. */
struct score {
    bool impossible;
    uint64_t excess;
};

/* Above all that other budgets can be missed by: anything else that may end well comes first. */
#define LAST_RESORT (UINT64_C(1) << 40)

static uint64_t excess_of(uint64_t value, uint64_t limit)
{
    if (limit == 0 || value <= limit)
        return 0;
    unsigned __int128 part = (unsigned __int128)(value - limit) * 1000 / limit;
    return part > UINT32_MAX ? UINT32_MAX : (uint64_t)part + 1;
}

/* A time against a budget. */
static void judge_time(struct tw_choice *c, struct score *score, const char *about,
                       const char *rule, uint64_t value_ns, uint64_t limit_ns)
{
    char value[TW_SIZE_TEXT], limit[TW_SIZE_TEXT];
    bool fits = limit_ns == 0 || value_ns <= limit_ns;
    struct tw_reason r = {.about = about,
                          .rule = rule,
                          .verdict = fits ? TW_REASON_PASS : TW_REASON_WARN,
                          .value = value_ns / TW_US,
                          .limit = limit_ns / TW_US,
                          .unit = "us"};
    tw_duration_format(value_ns, value);
    tw_duration_format(limit_ns, limit);
    score->excess += excess_of(value_ns, limit_ns);
    if (limit_ns == 0)
        reason_add(c, r, "%s of about %s; no budget was set", rule, value);
    else
        reason_add(c, r, "%s of about %s %s the budget of %s", rule, value,
                   fits ? "is within" : "is above", limit);
}

static void judge_convergence(struct tw_choice *c, struct score *score, const char *about,
                              const struct tw_forecast *f, const struct tw_migration_limits *limits)
{
    bool stops = limits->on_no_convergence == TW_ON_NO_CONVERGENCE_STOP;
    bool paces = limits->slow_down_permille != 0;
    struct tw_reason r = {.about = about,
                          .rule = "converges",
                          .verdict = TW_REASON_PASS,
                          .value = f->rounds,
                          .limit = limits->max_rounds,
                          .unit = "count"};
    if (f->converges) {
        reason_add(c, r, "the dirty lines fit the downtime behind %u round%s", f->rounds,
                   f->rounds == 1 ? "" : "s");
        return;
    }
    r.verdict = stops || paces ? TW_REASON_WARN : TW_REASON_REFUSE;
    score->impossible = !stops && !paces;
    score->excess += paces ? LAST_RESORT : 1;
    if (paces) {
        reason_add(c, r,
                   "lines get dirty as fast as they are sent; as the last resort their writers are "
                   "slowed, for %u %% of their time at most",
                   limits->slow_down_permille / 10);
        return;
    }
    reason_add(c, r,
               stops ? "lines get dirty as fast as they are sent: stopped all the same, by policy"
                     : "lines get dirty as fast as they are sent: %u rounds would not do",
               limits->max_rounds);
}

static void judge_slow_down(struct tw_choice *c, struct score *score, const char *about,
                            const struct tw_forecast *f, uint32_t limit)
{
    bool fits = limit == 0 || f->slow_down_permille <= limit;
    struct tw_reason r = {.about = about,
                          .rule = "slow_down",
                          .verdict = fits ? TW_REASON_PASS : TW_REASON_WARN,
                          .value = f->slow_down_permille,
                          .limit = limit,
                          .unit = "permille"};
    score->excess += excess_of(f->slow_down_permille, limit);
    reason_add(
        c, r,
        "first writes wait for about %u.%u %% of the time while memory follows; reads come on top",
        f->slow_down_permille / 10, f->slow_down_permille % 10);
}

static void judge_risk(struct tw_choice *c, const char *about, const struct tw_forecast *f)
{
    char time[TW_SIZE_TEXT];
    if (f->method == TW_METHOD_PRE_COPY)
        return;
    const struct tw_reason r = {.about = about,
                                .rule = "risk",
                                .verdict = TW_REASON_PASS,
                                .value = f->fetch_ns / TW_US,
                                .unit = "us"};
    reason_add(c, r, "for about %s the VM needs both hosts", tw_duration_format(f->fetch_ns, time));
}

/* With one its time is part of the downtime, which was judged; here is whence it comes. */
static void judge_mirror(struct tw_choice *c, const char *about, const struct tw_forecast *f,
                         uint64_t downtime_ns)
{
    char time[TW_SIZE_TEXT];
    if (!f->mirror_ns)
        return;
    const bool much = f->mirror_ns > downtime_ns / 2;
    const struct tw_reason r = {.about = about,
                                .rule = "mirror",
                                .verdict = much ? TW_REASON_WARN : TW_REASON_PASS,
                                .value = f->mirror_ns / TW_US,
                                .limit = downtime_ns / TW_US,
                                .unit = "us"};
    tw_duration_format(f->mirror_ns, time);
    if (much && f->method == TW_METHOD_POST_COPY)
        reason_add(c, r,
                   "the VM stands still for about %s until the mirror has all of its memory: with "
                   "hybrid most of that goes before",
                   time);
    else
        reason_add(c, r, "the VM stands still for about %s until the mirror has what follows",
                   time);
}

static struct score judge(const struct tw_policy *p, const struct tw_migration_limits *limits,
                          const struct tw_forecast *f, struct tw_choice *c)
{
    struct score score = {0};
    const char *about = tw_method_name(f->method);
    if (f->method == TW_METHOD_PRE_COPY)
        judge_convergence(c, &score, about, f, limits);
    judge_time(c, &score, about, "downtime", f->downtime_ns, limits->downtime_ns);
    judge_time(c, &score, about, "total", f->total_ns, p->total_ns);
    if (f->total_ns > limits->timeout_ns) {
        judge_time(c, &score, about, "timeout", f->total_ns, limits->timeout_ns);
        c->reasons[c->reason_count - 1].verdict = TW_REASON_REFUSE;
        score.impossible = true;
    }
    if (f->method != TW_METHOD_PRE_COPY)
        judge_slow_down(c, &score, about, f, p->slow_down_permille);
    judge_risk(c, about, f);
    judge_mirror(c, about, f, limits->downtime_ns);
    return score;
}

static bool better(const struct score *a, const struct score *b)
{
    if (a->impossible != b->impossible)
        return !a->impossible;
    return a->excess < b->excess;
}

void tw_policy_choose(const struct tw_policy *policy,
                      const struct tw_forecast forecasts[TW_METHODS], struct tw_choice *out)
{
    struct tw_migration_limits limits = tw_limits_complete(policy->limits);
    struct score best = {0};
    *out = (struct tw_choice){.method = forecasts[0].method};
    for (unsigned i = 0; i < TW_METHODS; i++) {
        struct score score = judge(policy, &limits, &forecasts[i], out);
        if (i > 0 && !better(&score, &best))
            continue;
        best = score;
        out->method = forecasts[i].method;
    }
    out->fits = !best.impossible && best.excess == 0;
    const struct tw_reason r = {.about = "plan",
                                .rule = "choice",
                                .verdict = best.impossible ? TW_REASON_REFUSE
                                           : out->fits     ? TW_REASON_PASS
                                                           : TW_REASON_WARN,
                                .unit = ""};
    if (out->fits)
        reason_add(out, r, "%s: the method with the least risk that meets every budget",
                   tw_method_name(out->method));
    else
        reason_add(out, r, "%s: no method meets every budget, this one misses by the least",
                   tw_method_name(out->method));
}
