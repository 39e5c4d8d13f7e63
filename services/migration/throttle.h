/* A bandwidth limit: a token bucket that may go into debt, so that a chunk is never cut up. Once in
 * debt it waits until half of a burst is saved: chunks go in groups, which costs fewer wake-ups and
 * lets the meter see how fast the link takes a group. */
#ifndef TOWLINE_SERVICES_MIGRATION_THROTTLE_H
#define TOWLINE_SERVICES_MIGRATION_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

struct tw_throttle {
    uint64_t bytes_per_s; /* 0 = unlimited */
    int64_t tokens;       /* bytes that may go now; negative = debt to wait off */
    uint64_t filled_ns;   /* when tokens were counted last */
    bool saving;          /* in debt, and half of a burst is not there yet */
};

/* Time that an idle bucket saves up for: what a pause between rounds leaves unused. */
#define TW_THROTTLE_BURST_NS UINT64_C(20000000)

void tw_throttle_init(struct tw_throttle *t, uint64_t bytes_per_s, uint64_t now_ns);
/* Takes effect at once, debts included. */
void tw_throttle_set(struct tw_throttle *t, uint64_t bytes_per_s, uint64_t now_ns);
/* When the next bytes may go: now_ns or earlier means now. */
uint64_t tw_throttle_ready_ns(struct tw_throttle *t, uint64_t now_ns);
void tw_throttle_spend(struct tw_throttle *t, uint64_t bytes);

#endif
