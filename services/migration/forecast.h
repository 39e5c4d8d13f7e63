/* What a migration would come to, from what was measured of a running VM: the same judgement that
 * the source makes between its rounds (convergence.h), walked through in virtual time. Pure. */
#ifndef TOWLINE_SERVICES_MIGRATION_FORECAST_H
#define TOWLINE_SERVICES_MIGRATION_FORECAST_H

#include "services/migration/dirty_curve.h"
#include "services/migration/migration.h"

#define TW_METHODS 3u

/* Parts of the switch-over that differ by method: guard, map and a busy destination have theirs. */
struct tw_method_costs {
    uint64_t last_lines_ns; /* of the final pass, beside comparing and sending */
    uint64_t load_ns;       /* device state: send, load, verification */
    uint64_t hand_over_ns;  /* both journals, until the VM runs again */
};

/* Parts that do not depend on what the guest writes; none is zero in use. */
struct tw_fixed_costs {
    uint64_t start_ns; /* until the copy begins */
    uint64_t stop_ns;  /* until no vCPU runs */
    uint64_t save_ns;  /* from the stop until the device state is saved: beside the final pass */
    struct tw_method_costs of[TW_METHODS]; /* by enum tw_migration_method */
    uint64_t compare_bytes_per_s;
    uint64_t device_state_bytes;
};

struct tw_forecast_input {
    struct tw_dirty_curve curve;
    uint64_t memory_bytes;
    uint64_t data_bytes;      /* pages that are not holes */
    uint64_t full_copy_bytes; /* these as records on the wire */
    uint64_t link_bytes_per_s;
    bool sees_all_writers;
    bool mirrored; /* what follows goes to a mirror before the VM moves, by a path like this one */
    struct tw_fixed_costs fixed;
    struct tw_migration_limits limits; /* zeros = defaults; its method is not looked at */
};

struct tw_forecast {
    enum tw_migration_method method;
    bool converges;
    uint32_t rounds; /* behind the full copy, without the final pass */
    uint64_t bytes, total_ns, downtime_ns;
    uint64_t final_lines;             /* sent while the VM is stopped */
    uint64_t lines_to_come, fetch_ns; /* that follow the VM */
    uint64_t mirror_ns;               /* part of downtime: the switch waits for the mirror */
    uint32_t
        slow_down_permille; /* while they do; counts first writes of pages only, a lower bound */
};

/* Taken for a path of which nothing is known. */
#define TW_FORECAST_LINK_RATE (UINT64_C(512) << 20) /* bytes/s */

/* What is used where nothing was measured or is known from before: what two processors that do
 * little else took for a small machine with one disk. */
struct tw_fixed_costs tw_fixed_costs_default(void);

void tw_forecast_make(const struct tw_forecast_input *in, enum tw_migration_method method,
                      struct tw_forecast *out);

/* By how much `was` differs from `said`, in per cent of what was: 0 when both are 0. */
int64_t tw_forecast_error_percent(uint64_t said, uint64_t was);

#endif
