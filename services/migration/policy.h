/* Which method fits the budgets best, and why: pure. Every rule that was looked at is a reason with
 * the value that was forecast and the limit that it was held against. */
#ifndef TOWLINE_SERVICES_MIGRATION_POLICY_H
#define TOWLINE_SERVICES_MIGRATION_POLICY_H

#include "services/migration/forecast.h"

enum tw_reason_verdict { TW_REASON_PASS, TW_REASON_WARN, TW_REASON_REFUSE };

struct tw_reason {
    const char *about; /* "precopy", "hybrid", "postcopy", "plan" */
    const char *rule; /* "converges", "downtime", "total", "slow_down", "timeout", "risk", "mirror",
                         "choice" */
    enum tw_reason_verdict verdict;
    uint64_t value, limit; /* limit 0 = none was set */
    const char *unit;      /* "us", "permille", "count", "" */
    char text[160];
};
#define TW_REASONS_MAX 24u

struct tw_policy {
    struct tw_migration_limits limits;
    uint64_t total_ns;           /* budget of the whole; 0 = none */
    uint32_t slow_down_permille; /* 0 = none */
};

struct tw_choice {
    enum tw_migration_method method;
    bool fits; /* no budget is missed */
    struct tw_reason reasons[TW_REASONS_MAX];
    unsigned reason_count;
};

const char *tw_method_name(enum tw_migration_method method); /* "precopy", ... */

/* `forecasts`: one of each method, in the order precopy, hybrid, postcopy, which is that of the
 * risk: the first that fits is chosen. When none does, the one that misses its budgets by the
 * least; one that would never end well is not chosen while there is another. */
void tw_policy_choose(const struct tw_policy *policy,
                      const struct tw_forecast forecasts[TW_METHODS], struct tw_choice *out);

#endif
