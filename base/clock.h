/* Time as a table of functions, so that services run on a virtual clock in tests.
 *
 * Times are nanoseconds of a monotonic clock; a deadline is such a time; UINT64_MAX means never. */
#ifndef TOWLINE_BASE_CLOCK_H
#define TOWLINE_BASE_CLOCK_H

#include <stdint.h>

#define TW_NEVER UINT64_MAX
#define TW_US    UINT64_C(1000)       /* nanoseconds */
#define TW_MS    UINT64_C(1000000)    /* nanoseconds */
#define TW_SEC   UINT64_C(1000000000) /* nanoseconds */

struct tw_clock {
    uint64_t (*now_ns)(void *ctx);
    void *ctx;
};

static inline uint64_t tw_now(const struct tw_clock *clock)
{
    return clock->now_ns(clock->ctx);
}

/* Saturating: never wraps into the past. */
static inline uint64_t tw_after(uint64_t now_ns, uint64_t delay_ns)
{
    return now_ns > TW_NEVER - delay_ns ? TW_NEVER : now_ns + delay_ns;
}

/* The machine's monotonic clock. Thread-safe. */
extern const struct tw_clock tw_monotonic;

/* Wall clock, milliseconds since 1970, for records that people read. */
uint64_t tw_wall_ms(void);
/* The same in microseconds, for comparing clocks. */
uint64_t tw_wall_us(void);

#endif
