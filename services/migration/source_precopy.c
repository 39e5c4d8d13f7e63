#include "services/migration/source.h"

#include "base/units.h"

#include <stdio.h>

/* ---- Connecting ------------------------------------------------------------------------------ */

uint64_t tw_source_step_connecting(struct tw_source *s, uint64_t now_ns)
{
    char name[TW_ID_SIZE + 16];
    struct tw_error err;
    if (!s->up)
        return TW_NEVER; /* the fabric ends it, well or badly */
    s->meter.p.start_ns = now_ns - s->meter.start_ns;
    if (s->limits.method == TW_METHOD_POST_COPY) {
        tw_source_move(s, TW_SOURCE_ANNOUNCING, "connected");
        return now_ns;
    }
    snprintf(name, sizeof name, "migration-%s", s->params.id);
    struct tw_range all = {0, s->host->memory_bytes};
    struct tw_tracker_config config = {.name = name, .ranges = &all, .range_count = 1};
    s->host->ops->sync(
        s->host->ctx); /* what was written before is none of the tracker's business */
    if (tw_tracker_start(s->host->device, &config, &s->tracker, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return now_ns;
    }
    tw_source_move(s, TW_SOURCE_FULL_COPY, "connected, lines are tracked");
    s->collected_ns = now_ns;
    tw_growth_begin(&s->growth, now_ns);
    tw_source_walk_begin(s);
    tw_source_round_begin(s, 0, false, now_ns);
    return now_ns;
}

/* ---- What is dirty ----------------------------------------------------------------------------
 */

/* With `sweep` it is complete: caches hide nothing. That costs nothing where a round follows, whose
 * own sweep then finds nothing to do. */
static uint64_t dirty_now(struct tw_source *s, bool sweep)
{
    struct tw_tracker_stats stats;
    s->host->ops->sync(s->host->ctx);
    if (sweep)
        tw_tracker_sweep(s->tracker);
    tw_tracker_stats_get(s->tracker, &stats);
    s->dirty_lines = stats.dirty_lines;
    return tw_dirty_cost(stats.dirty_pages, s->dirty_lines);
}

/* ---- Full copy ------------------------------------------------------------------------------- */

static bool copy_all(struct tw_source *s, uint64_t now_ns)
{
    uint64_t page;
    for (;;) {
        if (!tw_source_pump(s, now_ns))
            return false;
        if (s->copy.slice == 0) {
            s->copy.retry_ns = now_ns;
            return false;
        }
        if (!tw_source_walk_next(s, &page))
            return true;
        s->data_bytes += TW_PAGE_SIZE;
        tw_source_put(s, page, TW_ALL_LINES);
    }
}

uint64_t tw_source_step_full_copy(struct tw_source *s, uint64_t now_ns)
{
    union tw_control begin = {.begin = {.memory_bytes = s->host->memory_bytes,
                                        .epoch = s->params.epoch,
                                        .verify = !s->limits.skip_verify,
                                        .method = (uint32_t)s->limits.method}};
    if (!tw_source_say(s, TW_CONTROL_BEGIN, &begin, &s->begin_said, now_ns))
        return s->copy.retry_ns;
    if (tw_growth_due(&s->growth, now_ns))
        tw_growth_add(&s->growth, now_ns, dirty_now(s, false));
    s->copy.slice = TW_SLICE_BYTES;
    bool done = copy_all(s, now_ns);
    s->meter.p.full_copy_bytes_done = s->copy.walk.page * TW_PAGE_SIZE;
    if (!done || !tw_source_round_end(s, now_ns))
        return s->copy.retry_ns;
    tw_source_move(s, TW_SOURCE_WAITING, "every page was sent once");
    return now_ns;
}

/* ---- Between rounds: is it time to stop the VM? ------------------------------------------------
 */

bool tw_source_compares(const struct tw_source *s)
{
    return !s->limits.skip_verify || !s->host->sees_all_writers;
}

static uint64_t link_rate(const struct tw_source *s)
{
    uint64_t limit = s->throttle.bytes_per_s;
    if (s->meter.link_rate)
        return s->meter.link_rate;
    return limit && limit < TW_DEFAULT_RATE ? limit : TW_DEFAULT_RATE;
}

static void fail_to_converge(struct tw_source *s, const struct tw_convergence *c)
{
    struct tw_error err;
    char where[TW_WHERE_SIZE], expected[96], given[64], size[TW_SIZE_TEXT], rate[TW_SIZE_TEXT],
        time[TW_SIZE_TEXT];
    snprintf(expected, sizeof expected, "what fits in %s at %s/s",
             tw_duration_format(c->budget_ns, time), tw_size_format(c->rate, rate));
    snprintf(given, sizeof given, "%s dirty", tw_size_format(c->dirty_bytes, size));
    tw_fail(&err, TW_FAILED_PRECONDITION, tw_migration_where(&s->params, where), expected, given,
            "no convergence after %u rounds", c->rounds);
    tw_source_abort(s, &err);
}

uint64_t tw_source_step_waiting(struct tw_source *s, uint64_t now_ns)
{
    uint64_t due_ns = tw_after(s->collected_ns, TW_ROUND_INTERVAL_NS);
    if (now_ns < due_ns)
        return due_ns;
    if (!tw_source_mirror_there(s))
        return TW_NEVER; /* its connection has a deadline */
    uint64_t fixed_ns = tw_fixed_downtime_ns(s->data_bytes, s->pass_ns, tw_source_compares(s));
    struct tw_convergence c = {
        .dirty_bytes = dirty_now(s, true),
        .rate = link_rate(s),
        .budget_ns = tw_budget_for_lines_ns(s->limits.downtime_ns, fixed_ns),
        .last_round = s->last_cost,
        .round_before = s->cost_before,
        .rounds = s->round,
        .stalled = s->stalled,
        .max_rounds = s->limits.max_rounds,
        .policy = s->limits.on_no_convergence,
    };
    c.forecast_known = tw_growth_after(&s->growth, tw_send_ns(c.dirty_bytes, c.rate), &c.forecast);
    tw_source_pace_judge(s, &c, now_ns);
    enum tw_verdict verdict = s->limits.method == TW_METHOD_HYBRID
                                  ? tw_converge_hybrid(&c, s->switch_asked)
                                  : tw_converge(&c);
    if (verdict == TW_VERDICT_NO_CONVERGENCE) {
        fail_to_converge(s, &c);
    } else if (verdict == TW_VERDICT_ROUND) {
        tw_source_move(s, TW_SOURCE_ROUND, "too much is dirty");
        tw_source_round_begin(s, s->round + 1, false, now_ns);
        tw_source_collect(s, now_ns);
    } else if (!s->host->sees_all_writers && !s->precompared && !s->switch_asked) {
        tw_source_move(s, TW_SOURCE_PRECOMPARE, "what is dirty fits; now what nobody reported");
        tw_source_walk_begin(s);
    } else {
        const char *why = verdict == TW_VERDICT_STOP ? "what is dirty fits" : "forced by policy";
        if (verdict == TW_VERDICT_SWITCH)
            why = s->switch_asked ? "told to switch" : "the dirty lines do not get fewer";
        tw_source_stop(s, why, now_ns);
    }
    return now_ns;
}

/* ---- A round --------------------------------------------------------------------------------- */

static void judge_round(struct tw_source *s)
{
    uint64_t cost = s->copy.round_cost;
    s->stalled = s->last_cost && cost >= s->last_cost - s->last_cost / 8 ? s->stalled + 1 : 0;
    s->cost_before = s->last_cost;
    s->last_cost = cost;
    if (s->interval_ns)
        s->meter.p.dirty_bytes_per_s =
            (uint64_t)((unsigned __int128)s->seen_lines * TW_LINE_SIZE * TW_SEC / s->interval_ns);
}

uint64_t tw_source_step_round(struct tw_source *s, uint64_t now_ns)
{
    s->copy.slice = TW_SLICE_BYTES;
    if (!tw_source_gather_dirty(s, now_ns) || !tw_source_round_end(s, now_ns))
        return s->copy.retry_ns;
    judge_round(s);
    tw_source_move(s, TW_SOURCE_WAITING, "the round was sent");
    return now_ns;
}

/* ---- The compare in the background ------------------------------------------------------------
 */

/* What differs from what was sent and is not known to be dirty either: perhaps nobody will ever
 * report it. What was written since the link was read last may be among it, and is taken out when
 * the round finds it reported. */
static uint64_t unreported(struct tw_source *s, uint64_t page)
{
    uint64_t digest = 0;
    uint64_t lines =
        tw_line_hashes_compare(&s->hashes, page, s->host->memory + page * TW_PAGE_SIZE, &digest);
    return lines ? lines & ~tw_tracker_lines(s->tracker, page) : 0;
}

static bool compare_slice(struct tw_source *s)
{
    uint64_t page;
    s->host->ops->sync(s->host->ctx);
    for (uint64_t done = 0; done < TW_SLICE_BYTES; done += TW_PAGE_SIZE) {
        if (!tw_source_walk_next(s, &page))
            return false;
        uint64_t lines = unreported(s, page);
        if (lines && !tw_found_put(&s->found, page, lines))
            return false; /* that many: the compare after the stop will have to find the rest */
    }
    return true;
}

uint64_t tw_source_step_precompare(struct tw_source *s, uint64_t now_ns)
{
    bool more = compare_slice(s);
    s->pass_spent_ns += tw_now(s->env.clock) - now_ns;
    if (more)
        return now_ns;
    s->pass_ns = s->pass_spent_ns;
    s->precompared = true;
    if (s->found.count == 0) {
        tw_source_move(s, TW_SOURCE_WAITING, "nothing but what is known to be dirty differs");
        return now_ns;
    }
    tw_source_move(s, TW_SOURCE_ROUND, "something differs that nobody reported");
    tw_source_round_begin(s, s->round + 1, false, now_ns);
    tw_source_collect(s, now_ns);
    return now_ns;
}
