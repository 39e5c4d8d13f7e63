#include "services/migration/convergence.h"

#include "fabric/record.h"

struct tw_migration_limits tw_limits_complete(struct tw_migration_limits limits)
{
    if (limits.downtime_ns == 0)
        limits.downtime_ns = TW_DEFAULT_DOWNTIME_NS;
    if (limits.max_rounds == 0)
        limits.max_rounds = TW_DEFAULT_MAX_ROUNDS;
    if (limits.timeout_ns == 0)
        limits.timeout_ns = TW_DEFAULT_TIMEOUT_NS;
    return limits;
}

uint64_t tw_dirty_cost(uint64_t pages, uint64_t lines)
{
    return pages * sizeof(struct tw_record_header) + lines * TW_LINE_SIZE;
}

uint64_t tw_send_ns(uint64_t bytes, uint64_t rate)
{
    unsigned __int128 ns = (unsigned __int128)bytes * TW_SEC / (rate ? rate : 1);
    return ns > TW_NEVER ? TW_NEVER : (uint64_t)ns;
}

uint64_t tw_fixed_downtime_ns(uint64_t data_bytes, uint64_t compare_ns, bool compares)
{
    uint64_t compare = compare_ns ? compare_ns : tw_send_ns(data_bytes, TW_COMPARE_RATE);
    return TW_DEVICE_STATE_ESTIMATE_NS + (compares ? compare : 0);
}

uint64_t tw_budget_for_lines_ns(uint64_t downtime_ns, uint64_t fixed_ns)
{
    uint64_t least = downtime_ns / 4;
    uint64_t rest = downtime_ns > fixed_ns ? downtime_ns - fixed_ns : 0;
    return rest > least ? rest : least;
}

/* Is the next round likely to be a good deal cheaper than the last? */
static bool still_shrinks(const struct tw_convergence *c)
{
    if (c->rounds == 0)
        return !c->forecast_known || c->forecast < c->dirty_bytes - c->dirty_bytes / 4;
    return c->dirty_bytes < c->last_round - c->last_round / 4 ||
           (c->round_before && c->last_round < c->round_before - c->round_before / 4);
}

enum tw_verdict tw_converge(const struct tw_convergence *c)
{
    uint64_t need_ns = tw_send_ns(c->dirty_bytes, c->rate);
    bool fits = need_ns <= c->budget_ns;
    bool cheap = need_ns <= c->budget_ns / 32; /* another round could gain next to nothing */
    bool last = c->rounds >= c->max_rounds;
    if (fits && (cheap || last || !still_shrinks(c)))
        return TW_VERDICT_STOP;
    if (!fits && last)
        return c->policy == TW_ON_NO_CONVERGENCE_STOP ? TW_VERDICT_FORCE
                                                      : TW_VERDICT_NO_CONVERGENCE;
    if (!fits && c->policy == TW_ON_NO_CONVERGENCE_STOP && c->stalled >= TW_STALLED_ROUNDS)
        return TW_VERDICT_FORCE;
    return TW_VERDICT_ROUND;
}

enum tw_verdict tw_converge_hybrid(const struct tw_convergence *c, bool asked)
{
    bool least = c->rounds >= c->max_rounds || (c->rounds > 0 && !still_shrinks(c));
    if (asked || least)
        return TW_VERDICT_SWITCH;
    enum tw_verdict verdict = tw_converge(c);
    return verdict == TW_VERDICT_STOP ? verdict : TW_VERDICT_ROUND;
}

uint64_t tw_estimate_ns(uint64_t bytes_left, uint64_t rate, uint64_t dirty_rate)
{
    return rate > dirty_rate ? tw_send_ns(bytes_left, rate - dirty_rate) : 0;
}
