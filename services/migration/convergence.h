/* When to stop the VM: judged in bytes, by pure functions of what was measured. */
#ifndef TOWLINE_SERVICES_MIGRATION_CONVERGENCE_H
#define TOWLINE_SERVICES_MIGRATION_CONVERGENCE_H

#include "services/migration/migration.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_DEFAULT_DOWNTIME_NS      (300 * TW_MS)
#define TW_DEFAULT_MAX_ROUNDS       30u
#define TW_DEFAULT_TIMEOUT_NS       (600 * TW_SEC)
/* Taken for the link before enough was sent to measure it. */
#define TW_DEFAULT_RATE             (UINT64_C(128) << 20)
/* Stop, save, load and continue of a machine whose device state was not saved before. */
#define TW_DEVICE_STATE_ESTIMATE_NS (50 * TW_MS)
#define TW_COMPARE_RATE             UINT64_C(10000000000) /* bytes/s, until a pass was measured */

/* Fills defaults in for what is zero. */
struct tw_migration_limits tw_limits_complete(struct tw_migration_limits limits);

/* Bytes on the wire of `lines` dirty lines in `pages` pages, if none of them is zero. */
uint64_t tw_dirty_cost(uint64_t pages, uint64_t lines);

/* Time that a link of `rate` bytes/s takes for `bytes`; TW_NEVER when that is beyond counting. */
uint64_t tw_send_ns(uint64_t bytes, uint64_t rate);

/* Time of the switch-over that does not depend on what is dirty. `compare_ns` is the length of a
 * measured pass over the memory; 0 = none yet, then it is estimated from data_bytes. */
uint64_t tw_fixed_downtime_ns(uint64_t data_bytes, uint64_t compare_ns, bool compares);

/* The part of the downtime budget that the last lines may take. When the fixed part alone is more
 * than three quarters of the budget a quarter remains: that budget may be missed, but a greater
 * number of rounds could not save it either. */
uint64_t tw_budget_for_lines_ns(uint64_t downtime_ns, uint64_t fixed_ns);

struct tw_convergence {
    uint64_t dirty_bytes;  /* cost of what is dirty now */
    uint64_t rate;         /* bytes/s that the link takes; the last lines know no other limit */
    uint64_t budget_ns;    /* for the last lines */
    uint64_t last_round;   /* cost of what the last round sent; the full copy is no round */
    uint64_t round_before; /* ... and the one before; 0 = there was none */
    bool forecast_known;   /* used before the first round, when there is no other to judge by */
    uint64_t forecast;     /* cost of what gets dirty while dirty_bytes are sent */
    uint32_t rounds;       /* done after the full copy */
    uint32_t stalled;      /* rounds in a row that were no cheaper than the one before */
    uint32_t max_rounds;
    enum tw_convergence_policy policy;
};

enum tw_verdict {
    TW_VERDICT_ROUND, /* another round pays */
    TW_VERDICT_STOP,  /* the rest fits the budget */
    TW_VERDICT_FORCE, /* it does not, and by policy the VM stops all the same */
    TW_VERDICT_NO_CONVERGENCE,
    TW_VERDICT_SWITCH, /* hybrid: the rest may as well follow the VM */
};

/* Rounds that do not shrink, in a row, after which more of them are pointless. */
#define TW_STALLED_ROUNDS 4u

enum tw_verdict tw_converge(const struct tw_convergence *c);

/* The same where what is dirty follows the VM: no set is too large, but fewer lines mean fewer
 * waits behind the switch. So rounds go on while they shrink, and end at the first that does not.
 */
enum tw_verdict tw_converge_hybrid(const struct tw_convergence *c, bool asked);

/* Time until switch-over: what is left of the copy and what is dirty, sent while new lines get
 * dirty. 0 = not known (lines get dirty as fast as they are sent). */
uint64_t tw_estimate_ns(uint64_t bytes_left, uint64_t rate, uint64_t dirty_rate);

#endif
