/* When the writers of hot lines are slowed, and how much: pure. The last resort of a pre-copy that
 * would not converge within its budgets, and only where a budget of the guest's slow-down was set.
 *
 *   off -> first delay     the dirty lines do not fit the downtime, and rounds no longer shrink, or
 *                          would shrink beyond the budget of the whole
 *   delay -> four times    still so, and the last round did not shrink; up to TW_PACE_DELAY_MAX_NS
 *   delay -> half          twice in a row what is dirty would fit into half of the time; below the
 *                          first delay it ends
 *
 * Between shrinking and fitting nothing changes: that is the hysteresis. */
#ifndef TOWLINE_SERVICES_MIGRATION_PACING_H
#define TOWLINE_SERVICES_MIGRATION_PACING_H

#include "services/migration/convergence.h"

#define TW_PACING_FIRST_NS  UINT64_C(2000) /* that making a line dirty costs at first */
#define TW_PACING_STEP      4u
#define TW_PACING_PATIENCE  2u  /* stalled rounds before it begins ... */
#define TW_PACING_HURRY     10u /* ... one, when fewer rounds than this are left */
#define TW_PACING_CALM      2u  /* roomy rounds before a step down */
#define TW_PACE_REASON_SIZE 200u

struct tw_pacing {
    uint32_t budget_permille; /* of its time that a vCPU may wait; 0 = no pacing */
    uint64_t delay_ns;        /* 0 = nobody is slowed */
    uint32_t calm;            /* roomy rounds in a row */
    bool spent;               /* at its strongest, and the last round did not shrink */
};

enum tw_pacing_step {
    TW_PACING_KEEP,
    TW_PACING_BEGIN,
    TW_PACING_UP,
    TW_PACING_DOWN,
    TW_PACING_END,
};

/* Between two rounds. `left_ns` is what is left of the budget of the whole; TW_NEVER = none was
 * set. */
enum tw_pacing_step tw_pacing_judge(struct tw_pacing *p, const struct tw_convergence *c,
                                    uint64_t left_ns);
/* Why it begins, for people. */
void tw_pacing_explain(const struct tw_pacing *p, const struct tw_convergence *c, uint64_t left_ns,
                       char text[TW_PACE_REASON_SIZE]);

#endif
