#include "bench/migration/figures.h"

#include "bench/median.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const bench_contender_names[BENCH_CONTENDERS] = {
    [BENCH_OURS] = "towline",
    [BENCH_QEMU_PRECOPY] = "qemu-precopy",
    [BENCH_QEMU_XBZRLE] = "qemu-xbzrle",
    [BENCH_QEMU_POSTCOPY] = "qemu-postcopy",
};

const struct bench_metric_info bench_metrics[BENCH_METRICS] = {
    [BENCH_BYTES_TOTAL] = {"bytes_total", "bytes", false, false},
    [BENCH_BYTES_RESENT] = {"bytes_resent", "bytes", false, false},
    [BENCH_DOWNTIME] = {"downtime_ms", "ms", false, true},
    [BENCH_PAUSE] = {"guest_pause_ms", "ms", false, true},
    [BENCH_TOTAL] = {"total_ms", "ms", false, true},
    [BENCH_CONVERGED] = {"converged", "0|1", true, false},
    [BENCH_OPS_BEFORE] = {"guest_ops_per_s_before", "1/s", true, false},
    [BENCH_OPS] = {"guest_ops_per_s", "1/s", true, false},
    [BENCH_LONGEST_STALL] = {"guest_longest_stall_ms", "ms", false, false},
};

void bench_sample_clear(struct bench_sample *sample)
{
    for (unsigned m = 0; m < BENCH_METRICS; m++)
        sample->value[m] = NAN;
}

double bench_sample_median(const struct bench_sample *samples, size_t count,
                           enum bench_metric metric)
{
    double values[BENCH_RUNS_MAX];
    size_t n = 0;
    assert(count <= BENCH_RUNS_MAX);
    for (size_t i = 0; i < count; i++)
        if (!isnan(samples[i].value[metric]))
            values[n++] = samples[i].value[metric];
    return bench_median(values, n);
}

double bench_result(const struct bench_sample *samples, size_t count, enum bench_metric metric)
{
    struct bench_sample converged[BENCH_RUNS_MAX];
    size_t n = 0;
    assert(count <= BENCH_RUNS_MAX);
    if (!bench_metrics[metric].needs_convergence)
        return bench_sample_median(samples, count, metric);
    for (size_t i = 0; i < count; i++)
        if (samples[i].value[BENCH_CONVERGED] > 0)
            converged[n++] = samples[i];
    return 2 * n > count ? bench_sample_median(converged, n, metric) : NAN;
}

uint64_t bench_qemu_full_copy_bytes(uint64_t pages, uint64_t zero_pages)
{
    uint64_t zero = zero_pages < pages ? zero_pages : pages;
    return (pages - zero) * (4096 + 8) + zero * (8 + 1);
}

/* ---- A counter over time --------------------------------------------------------------------- */

void bench_series_add(struct bench_series *series, uint64_t t_ns, double value)
{
    size_t n = series->count;
    if (n > 0 && (t_ns < series->points[n - 1].t_ns || value < series->points[n - 1].value))
        return;
    if (n < BENCH_POINTS_MAX)
        series->points[series->count++] = (struct bench_point){t_ns, value};
}

/* The first point at or after the time; series->count when there is none. */
static size_t point_from(const struct bench_series *series, uint64_t t_ns)
{
    size_t low = 0, high = series->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (series->points[middle].t_ns < t_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

double bench_series_at(const struct bench_series *series, uint64_t t_ns)
{
    size_t i = point_from(series, t_ns);
    if (i == series->count || (i == 0 && series->points[0].t_ns != t_ns))
        return NAN;
    const struct bench_point *b = &series->points[i];
    if (b->t_ns == t_ns)
        return b->value;
    const struct bench_point *a = b - 1;
    double part = (double)(t_ns - a->t_ns) / (double)(b->t_ns - a->t_ns);
    return a->value + part * (b->value - a->value);
}

double bench_series_rate(const struct bench_series *series, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns <= from_ns)
        return NAN;
    double growth = bench_series_at(series, to_ns) - bench_series_at(series, from_ns);
    return growth * 1e9 / (double)(to_ns - from_ns);
}

uint64_t bench_series_gap(const struct bench_series *series, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t longest = 0;
    size_t i = point_from(series, from_ns);
    for (i = i > 0 ? i : 1; i < series->count && series->points[i - 1].t_ns < to_ns; i++) {
        uint64_t gap = series->points[i].t_ns - series->points[i - 1].t_ns;
        longest = gap > longest ? gap : longest;
    }
    return longest;
}

uint64_t bench_series_reaches(const struct bench_series *series, uint64_t from_ns, double rate,
                              uint64_t window_ns)
{
    for (size_t i = point_from(series, from_ns); i < series->count; i++) {
        uint64_t t_ns = series->points[i].t_ns;
        double seen = bench_series_rate(series, t_ns, t_ns + window_ns);
        if (isnan(seen)) /* the series ends before the window does */
            return 0;
        if (seen >= rate)
            return t_ns;
    }
    return 0;
}

/* ---- Waits for memory -------------------------------------------------------------------------
 */

static bool number_behind(const char *line, const char *name, int base, uint64_t *out)
{
    const char *at = strstr(line, name);
    char *end;
    if (!at)
        return false;
    *out = strtoull(at + strlen(name), &end, base);
    return end != at + strlen(name);
}

/* "14290@1795750514.174742:event ...": the number of the process, then seconds. */
static bool time_of(const char *line, uint64_t *us)
{
    const char *at = strchr(line, '@');
    unsigned long long s, part;
    if (!at || sscanf(at + 1, "%llu.%6llu:", &s, &part) != 2)
        return false;
    *us = s * 1000000 + part;
    return true;
}

static void end_waits(struct bench_waits *w, uint64_t page, uint64_t us)
{
    for (unsigned i = 0; i < w->open_count;) {
        if (w->open[i].page != page) {
            i++;
            continue;
        }
        if (w->count < BENCH_WAITS_MAX && us >= w->open[i].began_us)
            w->us[w->count++] = (double)(us - w->open[i].began_us);
        w->open[i] = w->open[--w->open_count];
    }
}

void bench_waits_line(struct bench_waits *waits, const char *line)
{
    uint64_t us, address;
    if (!time_of(line, &us))
        return;
    if (strstr(line, "postcopy_ram_fault_thread_request")) {
        if (number_behind(line, "HVA=", 16, &address) &&
            waits->open_count < sizeof waits->open / sizeof *waits->open) {
            waits->open[waits->open_count].page = address / 4096;
            waits->open[waits->open_count++].began_us = us;
        }
    } else if (strstr(line, "postcopy_place_page") && number_behind(line, "host=", 16, &address)) {
        end_waits(waits, address / 4096, us);
    }
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double bench_waits_us(struct bench_waits *waits, unsigned percent)
{
    if (waits->count == 0)
        return NAN;
    qsort(waits->us, waits->count, sizeof *waits->us, by_size);
    size_t rank = (waits->count * percent + 99) / 100;
    return waits->us[rank ? rank - 1 : 0];
}

/* ---- When the guest stood -------------------------------------------------------------------- */

void bench_pulse_look(struct bench_pulse *pulse, uint64_t t_ns, uint64_t source,
                      uint64_t destination, uint64_t step)
{
    if (!pulse->seen || source != pulse->source_value) {
        *pulse = (struct bench_pulse){.source_value = source,
                                      .source_ns = t_ns,
                                      .destination_base = destination,
                                      .seen = true};
        return;
    }
    if (pulse->destination_ns == 0 && destination >= pulse->destination_base + step)
        pulse->destination_ns = t_ns;
}

uint64_t bench_pulse_pause_ns(const struct bench_pulse *pulse)
{
    return pulse->destination_ns ? pulse->destination_ns - pulse->source_ns : 0;
}
