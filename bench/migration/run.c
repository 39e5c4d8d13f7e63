#include "bench/migration/run.h"

#include "base/clock.h"

#include <math.h>

#define BEFORE_NS       (1000 * TW_MS)
#define WINDOW_NS       (50 * TW_MS) /* of an operation rate */
#define WINDOW_LINUX_NS (1000 * TW_MS)
#define LONG_MS         3500u /* until a Linux guest has told of what came behind the move */

void bench_run_finish(struct bench_run *run, struct bench_watch *watch, uint64_t began_ns,
                      uint64_t ended_ns)
{
    double *v = run->sample.value;
    if (v[BENCH_CONVERGED] > 0 && bench_watch_await_moved(watch, 2 * BENCH_AFTER_MS)) {
        uint64_t moved = bench_watch_moved_ns(watch);
        ended_ns = moved > ended_ns ? moved : ended_ns;
        v[BENCH_PAUSE] = bench_watch_pause_ms(watch);
    }
    bench_sleep_ms(run->follow && run->guest->linux_guest ? LONG_MS : BENCH_AFTER_MS);
    bench_watch_await_ops(watch, ended_ns + BENCH_AFTER_MS / 2 * TW_MS, 2 * BENCH_AFTER_MS);
    /* A Linux guest reports once a second: its span before the migration is longer for that. */
    uint64_t before = run->guest->linux_guest ? 3 * BEFORE_NS : BEFORE_NS;
    v[BENCH_OPS_BEFORE] = bench_watch_rate(watch, began_ns - before, began_ns);
    v[BENCH_OPS] = bench_watch_rate(watch, began_ns, ended_ns);
    v[BENCH_LONGEST_STALL] =
        bench_watch_stall_ms(watch, began_ns, ended_ns + BENCH_AFTER_MS / 2 * TW_MS);
    run->following.recover90_ms = bench_watch_recovered_ms(
        watch, v[BENCH_OPS_BEFORE], run->guest->linux_guest ? WINDOW_LINUX_NS : WINDOW_NS);
    run->guest_errors = bench_watch_errors(watch);
}
