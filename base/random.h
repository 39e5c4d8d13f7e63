/* A small seeded generator (splitmix64) for tests, simulations and jitter. Not for secrets. */
#ifndef TOWLINE_BASE_RANDOM_H
#define TOWLINE_BASE_RANDOM_H

#include <stdint.h>

struct tw_random {
    uint64_t state;
};

static inline uint64_t tw_random_next(struct tw_random *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [0, bound); bound > 0. The bias is below 2^-32 for the bounds used here. */
static inline uint64_t tw_random_below(struct tw_random *r, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)tw_random_next(r) * bound) >> 64);
}

#endif
