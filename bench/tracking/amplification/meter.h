/* How many bytes a program changed, and in how many lines, pages and big pages they lie.
 *
 * The program is tracked as any other (hosts/process, `exact`), and stands still while an interval
 * is closed: then the pages that the tracker tells are read once more and compared, byte by byte,
 * with what they held at the interval before. What is counted is what a comparison can see: a byte
 * that was rewritten with the value it had, or changed and changed back, is no changed byte (R7).
 */
#ifndef TOWLINE_BENCH_TRACKING_AMPLIFICATION_METER_H
#define TOWLINE_BENCH_TRACKING_AMPLIFICATION_METER_H

#include "base/error.h"
#include "base/line.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define METER_BIG_PAGE (UINT64_C(2) << 20) /* bytes */

struct meter_count {
    uint64_t intervals;
    uint64_t bytes;         /* that differ from the interval before */
    uint64_t lines;         /* of 64 bytes, with such a byte */
    uint64_t pages;         /* of 4 KiB */
    uint64_t big_pages;     /* of 2 MiB */
    uint64_t same_pages;    /* of 4 KiB, stored to and equal in every byte; not in `pages` */
    uint64_t unknown_pages; /* mapped from a file since the beginning: not in the other figures */
};

/* How many bytes are sent for a byte that changed, when `units` of so many bytes are sent; NAN when
 * none has changed. */
double meter_amplification(const struct meter_count *count, uint64_t units, uint64_t unit_bytes);

struct meter;

/* Attaches, copies what is there, and begins the first interval. `count` 0: all of the program's
 * writable memory; else ranges as for tw_process_watch(). What the program does meanwhile is in the
 * first interval or in none. */
enum tw_code meter_open(pid_t pid, const struct tw_range *ranges, size_t count, struct meter **out,
                        struct tw_error *err);
void meter_close(struct meter *meter); /* NULL is fine */

/* Ends an interval and adds it to *sum; the program must stand still. INTERNAL: a line differs that
 * the tracker did not tell. */
enum tw_code meter_interval(struct meter *meter, struct meter_count *sum, struct tw_error *err);

#endif
