/* What a run yields, and what several runs come to: pure arithmetic. */
#ifndef TOWLINE_BENCH_MIGRATION_FIGURES_H
#define TOWLINE_BENCH_MIGRATION_FIGURES_H

#include "bench/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_RUNS_MAX 25u

enum bench_contender {
    BENCH_OURS,
    BENCH_QEMU_PRECOPY,
    BENCH_QEMU_XBZRLE,
    BENCH_QEMU_POSTCOPY,
    BENCH_CONTENDERS,
};
extern const char *const bench_contender_names[BENCH_CONTENDERS];

enum bench_metric {
    BENCH_BYTES_TOTAL,   /* bytes of guest memory on the wire, headers included */
    BENCH_BYTES_RESENT,  /* of these, what the full copy did not need */
    BENCH_DOWNTIME,      /* ms from stop to resume as the system itself tells */
    BENCH_PAUSE,         /* ms without progress of the guest, seen from outside */
    BENCH_TOTAL,         /* ms from the start to the last byte */
    BENCH_CONVERGED,     /* 0 or 1 */
    BENCH_OPS_BEFORE,    /* guest operations per second before the migration */
    BENCH_OPS,           /* during it, its downtime included */
    BENCH_LONGEST_STALL, /* ms: the longest time without an operation, during and just after */
    BENCH_METRICS,
};

struct bench_metric_info {
    const char *name, *unit;
    bool more_is_better;
    bool needs_convergence; /* says nothing about a migration that was broken off */
};
extern const struct bench_metric_info bench_metrics[BENCH_METRICS];

/* NAN = not measured. */
struct bench_sample {
    double value[BENCH_METRICS];
};
void bench_sample_clear(struct bench_sample *sample);

/* Median of the values that are numbers; NAN when there is none. At most BENCH_RUNS_MAX. */
double bench_sample_median(const struct bench_sample *samples, size_t count,
                           enum bench_metric metric);

/* Median over the runs of one contender: a metric that needs convergence counts only when most runs
 * converged, and then only their values. */
double bench_result(const struct bench_sample *samples, size_t count, enum bench_metric metric);

/* What QEMU's counters say was needed for one copy of every page: RAM_SAVE headers are 8 bytes
 * within a block, a zero page is one byte more. */
uint64_t bench_qemu_full_copy_bytes(uint64_t pages, uint64_t zero_pages);

/* ---- A counter over time --------------------------------------------------------------------- */

#define BENCH_POINTS_MAX 65536u

struct bench_point {
    uint64_t t_ns;
    double value;
};

struct bench_series {
    struct bench_point points[BENCH_POINTS_MAX];
    size_t count;
};

/* Notes the counter; times and values must not fall, a full series takes no more. */
void bench_series_add(struct bench_series *series, uint64_t t_ns, double value);
/* Linear between points, NAN outside them. */
double bench_series_at(const struct bench_series *series, uint64_t t_ns);
/* Growth per second between two times; NAN when either is outside. */
double bench_series_rate(const struct bench_series *series, uint64_t from_ns, uint64_t to_ns);
/* The longest time between two points that overlaps [from, to], in ns. */
uint64_t bench_series_gap(const struct bench_series *series, uint64_t from_ns, uint64_t to_ns);

/* The first time at or after `from_ns` from which on the counter grows by `rate` a second for as
 * long as the window; 0 = not to be seen. */
uint64_t bench_series_reaches(const struct bench_series *series, uint64_t from_ns, double rate,
                              uint64_t window_ns);

/* ---- Waits for memory -------------------------------------------------------------------------
 */

#define BENCH_WAITS_MAX 65536u

struct bench_waits {
    double us[BENCH_WAITS_MAX];
    size_t count;
    /* Waits that have begun: pages of QEMU's address space. */
    struct {
        uint64_t page, began_us;
    } open[256];
    unsigned open_count;
};
/* A line of QEMU's log with the trace events postcopy_ram_fault_thread_request and
 * postcopy_place_page[_zero], each with its time; other lines are ignored. A page that is placed
 * ends the waits for it. */
void bench_waits_line(struct bench_waits *waits, const char *line);
/* What `percent` of them did not exceed; NAN when there are none. Sorts them. */
double bench_waits_us(struct bench_waits *waits, unsigned percent);

/* ---- When the guest stood ---------------------------------------------------------------------
 * Fed with looks at both copies: the pause lasts from the last progress of the source to the first
 * of the destination behind it. */

struct bench_pulse {
    uint64_t source_value, source_ns;
    uint64_t destination_base, destination_ns;
    bool seen;
};

/* `step`: the destination runs once its value has grown by that much since the source's last
 * progress. */
void bench_pulse_look(struct bench_pulse *pulse, uint64_t t_ns, uint64_t source,
                      uint64_t destination, uint64_t step);
/* 0 = the destination was not seen to run. */
uint64_t bench_pulse_pause_ns(const struct bench_pulse *pulse);

#endif
