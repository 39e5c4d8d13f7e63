#include "services/migration/throttle.h"

#include "base/clock.h"

#define MAX_RATE                                                                                   \
    (UINT64_C(1) << 40) /* bytes/s; above it a limit is none, and nothing overflows                \
                         */

static uint64_t bytes_in(uint64_t bytes_per_s, uint64_t ns)
{
    return (uint64_t)((unsigned __int128)bytes_per_s * ns / TW_SEC);
}

void tw_throttle_init(struct tw_throttle *t, uint64_t bytes_per_s, uint64_t now_ns)
{
    *t = (struct tw_throttle){.bytes_per_s = bytes_per_s > MAX_RATE ? 0 : bytes_per_s,
                              .filled_ns = now_ns};
}

static void fill(struct tw_throttle *t, uint64_t now_ns)
{
    if (now_ns <= t->filled_ns || t->bytes_per_s == 0)
        return;
    uint64_t earned = bytes_in(t->bytes_per_s, now_ns - t->filled_ns);
    if (earned == 0)
        return; /* too short a time to count: let it add up */
    int64_t most = (int64_t)bytes_in(t->bytes_per_s, TW_THROTTLE_BURST_NS);
    if (earned >= (uint64_t)(most - t->tokens)) {
        t->tokens = most;
        t->filled_ns = now_ns;
        return;
    }
    t->tokens += (int64_t)earned;
    /* Only the time that whole bytes stand for: the rest is not lost. */
    t->filled_ns += (uint64_t)((unsigned __int128)earned * TW_SEC / t->bytes_per_s);
}

void tw_throttle_set(struct tw_throttle *t, uint64_t bytes_per_s, uint64_t now_ns)
{
    fill(t, now_ns);
    if (bytes_per_s > MAX_RATE)
        bytes_per_s = 0;
    int64_t most = (int64_t)bytes_in(bytes_per_s, TW_THROTTLE_BURST_NS);
    if (t->tokens > most)
        t->tokens = most;
    if (bytes_per_s == 0)
        t->tokens = 0;
    t->saving = false;
    t->bytes_per_s = bytes_per_s;
    t->filled_ns = now_ns;
}

uint64_t tw_throttle_ready_ns(struct tw_throttle *t, uint64_t now_ns)
{
    if (t->bytes_per_s == 0)
        return now_ns;
    fill(t, now_ns);
    int64_t wanted = 0;
    if (t->tokens < 0)
        t->saving = true;
    if (t->saving)
        wanted = (int64_t)bytes_in(t->bytes_per_s, TW_THROTTLE_BURST_NS / 2);
    if (t->tokens >= wanted) {
        t->saving = false;
        return now_ns;
    }
    unsigned __int128 lacking = (unsigned __int128)((__int128)wanted - t->tokens);
    unsigned __int128 wait = lacking * TW_SEC / t->bytes_per_s + 1;
    return wait > TW_NEVER ? TW_NEVER : tw_after(t->filled_ns, (uint64_t)wait);
}

void tw_throttle_spend(struct tw_throttle *t, uint64_t bytes)
{
    if (t->bytes_per_s)
        t->tokens -= (int64_t)bytes;
}
