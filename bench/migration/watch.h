/* A look at a guest from outside, the same for every contender: a thread reads the control block
 * in both copies' memory files (or, of a Linux guest, the serial ports and the processor time of
 * the vCPU threads) twice a millisecond. It asks nothing of the contender and stops nothing. */
#ifndef TOWLINE_BENCH_MIGRATION_WATCH_H
#define TOWLINE_BENCH_MIGRATION_WATCH_H

#include "base/error.h"
#include "bench/migration/figures.h"
#include "bench/migration/guest.h"

struct bench_watch;

/* The folders hold (or will) the files `ram` and `serial.log`, and QEMU's command line names them.
 * `guest` outlives the watch. */
enum tw_code bench_watch_start(const struct bench_guest *guest, const char *source,
                               const char *destination, struct bench_watch **watch,
                               struct tw_error *err);
void bench_watch_stop(struct bench_watch *watch); /* NULL is fine */

enum tw_code bench_watch_await_ready(struct bench_watch *watch, struct tw_error *err);
/* True when the destination's copy has run, after at most that long. */
bool bench_watch_await_moved(struct bench_watch *watch, unsigned within_ms);
/* True when an operation was counted at or after the time. */
bool bench_watch_await_ops(struct bench_watch *watch, uint64_t t_ns, unsigned within_ms);

/* Operations per second in a span; NAN when the guest counts none. */
double bench_watch_rate(struct bench_watch *watch, uint64_t from_ns, uint64_t to_ns);
/* The longest time without an operation; NAN where it cannot be seen so finely. */
double bench_watch_stall_ms(struct bench_watch *watch, uint64_t from_ns, uint64_t to_ns);
/* From the source's last progress to the destination's first; NAN when it has not moved, or when
 * an idle guest's progress is too coarse. */
double bench_watch_pause_ms(struct bench_watch *watch);
/* From the source's last progress until the guest does 90 of 100 operations as fast as `before`,
 * for as long as the window; NAN when that was not seen. A Linux guest tells once a second. */
double bench_watch_recovered_ms(struct bench_watch *watch, double before, uint64_t window_ns);
/* When the destination's first progress was seen; 0 = not yet. */
uint64_t bench_watch_moved_ns(struct bench_watch *watch);
/* What the guest found wrong with its own memory. */
uint64_t bench_watch_errors(struct bench_watch *watch);

#endif
