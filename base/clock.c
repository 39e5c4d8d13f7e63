#include "base/clock.h"

#include <stddef.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * TW_SEC + (uint64_t)t.tv_nsec;
}

static uint64_t monotonic_now(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_MONOTONIC);
}

const struct tw_clock tw_monotonic = {.now_ns = monotonic_now, .ctx = NULL};

uint64_t tw_wall_ms(void)
{
    return read_clock(CLOCK_REALTIME) / TW_MS;
}

uint64_t tw_wall_us(void)
{
    return read_clock(CLOCK_REALTIME) / TW_US;
}
