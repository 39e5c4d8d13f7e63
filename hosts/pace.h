/* Slowing the writers of hot lines: how long a store waits. Pure arithmetic, shared by the plugin
 * inside QEMU and by hosts in virtual time; it runs at a store, so it stands here inline.
 *
 * A line that was clean and is made dirty costs its writer a fixed time, the delay. What is owed is
 * saved up to a grain that a sleep is worth, and waited off then, one wait never longer than
 * TW_PACE_WAIT_MAX_NS. A second bucket bounds the whole: waits are paid from an allowance that
 * grows by a share of the time that passes, so that no vCPU ever waits for more than that share of
 * its time, whatever the delay. What cannot be paid is not owed any longer than one wait's worth.
 *
 * One thread a bucket. Times are nanoseconds of one monotonic clock. */
#ifndef TOWLINE_HOSTS_PACE_H
#define TOWLINE_HOSTS_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define TW_PACE_WAIT_MAX_NS  UINT64_C(2000000)  /* of one store */
#define TW_PACE_DELAY_MAX_NS UINT64_C(1000000)  /* that one line may cost */
#define TW_PACE_GRAIN_NS     UINT64_C(200000)   /* less is not waited off, but saved */
#define TW_PACE_BURST_NS     UINT64_C(20000000) /* of time, whose share may be saved unwaited */
#define TW_PACE_COUNT_NS     UINT64_C(10000)    /* shorter times are counted together */
#define TW_PACE_SHARE_MIN    10u                /* parts of a thousand; with less nobody waits */
#define TW_PACE_SHARE_MAX    900u

struct tw_pace_rule {
    uint64_t delay_ns;       /* for each line made dirty; 0 = nobody waits */
    uint32_t share_permille; /* of its time that a vCPU may wait at most */
};

struct tw_pace_bucket {
    uint64_t counted_ns;  /* when the allowance was counted last; 0 = never */
    int64_t allowance_ns; /* that may be waited; negative after a sleep that was too long */
    uint64_t owed_ns;
};

/* A paced line was made dirty: true when it is time to ask for a wait. */
static inline bool tw_pace_owe(struct tw_pace_bucket *b, uint64_t delay_ns)
{
    delay_ns = delay_ns < TW_PACE_DELAY_MAX_NS ? delay_ns : TW_PACE_DELAY_MAX_NS;
    const uint64_t owed = b->owed_ns + delay_ns;
    b->owed_ns = owed < TW_PACE_WAIT_MAX_NS ? owed : TW_PACE_WAIT_MAX_NS;
    return b->owed_ns >= TW_PACE_GRAIN_NS;
}

/* How long to wait now; 0 = go on. */
static inline uint64_t tw_pace_wait(struct tw_pace_bucket *b, uint32_t share_permille,
                                    uint64_t now_ns)
{
    const uint32_t share = share_permille < TW_PACE_SHARE_MAX ? share_permille : TW_PACE_SHARE_MAX;
    uint64_t passed = b->counted_ns && now_ns > b->counted_ns ? now_ns - b->counted_ns : 0;
    if (passed > TW_PACE_BURST_NS)
        passed = TW_PACE_BURST_NS;
    if (passed >= TW_PACE_COUNT_NS || !b->counted_ns) {
        const int64_t most = (int64_t)(TW_PACE_BURST_NS * share / 1000);
        const int64_t saved = b->allowance_ns + (int64_t)(passed * share / 1000);
        b->counted_ns = now_ns;
        b->allowance_ns = saved < most ? saved : most;
    }
    if (b->owed_ns < TW_PACE_GRAIN_NS || b->allowance_ns < (int64_t)TW_PACE_GRAIN_NS)
        return 0;
    const uint64_t may = (uint64_t)b->allowance_ns;
    return b->owed_ns < may ? b->owed_ns : may;
}

/* So long it has been in truth. */
static inline void tw_pace_waited(struct tw_pace_bucket *b, uint64_t waited_ns)
{
    const uint64_t paid = waited_ns < TW_PACE_BURST_NS ? waited_ns : TW_PACE_BURST_NS;
    b->allowance_ns -= (int64_t)paid;
    b->owed_ns -= paid < b->owed_ns ? paid : b->owed_ns;
}

#endif
