/* The table of dirty data amplification: how many bytes are sent for a byte that changed, when
 * lines of 64 bytes, pages of 4 KiB or big pages of 2 MiB are sent. */
#include "bench/options.h"
#include "bench/report.h"
#include "bench/tracking/amplification/work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define STEPS_MAX 64u

static const struct {
    struct work work;
    const char *about;
} cases[] = {
    {{"redis_random", 1000000, 10}, "1000000 keys; an interval sets 10000 of them at random"},
    {{"redis_sequential", 1000000, 10}, "1000000 keys; an interval sets the next 10000"},
    {{"sqlite", 500000, 10}, "500000 rows in memory; an interval updates 10000 at random"},
    {{"btree", 2000000, 10}, "2000000 keys; an interval sets 40000, a quarter of them new"},
    {{"sort", 8000000, 12}, "quicksort of 8000000 numbers; an interval is a twelfth of it"},
    {{"pagerank", 262144, 12}, "R-MAT graph of 262144 vertices; an interval is a round"},
    {{"labels", 262144, 8}, "label propagation in the same graph; an interval is a round"},
};
#define CASES (sizeof cases / sizeof cases[0])

static struct bench_choice choice(size_t index)
{
    return (struct bench_choice){cases[index].work.name, cases[index].about};
}

static const struct bench_suite suite = {.program = "towline-bench-amplification",
                                         .bench = "amplification",
                                         .runs_default = 1,
                                         .runs_min = 1,
                                         .case_count = CASES,
                                         .choice = choice};

static void add(json_t *out, const struct work *work, const char *metric, const char *unit,
                double value)
{
    json_array_append_new(out,
                          bench_row(suite.bench, work->name, metric, unit, value, NULL, NAN, NAN));
}

static void tell(json_t *out, const struct work *work, const struct meter_count *c)
{
    const double lines = meter_amplification(c, c->lines, TW_LINE_SIZE);
    const double pages = meter_amplification(c, c->pages, TW_PAGE_SIZE);
    const double stored = meter_amplification(c, c->pages + c->same_pages, TW_PAGE_SIZE);
    const double big = meter_amplification(c, c->big_pages, METER_BIG_PAGE);
    printf("%-17s %9llu %11.0f %9.0f %9.0f %9.0f %8.2f %8.2f %8.2f %9.2f\n", work->name,
           (unsigned long long)c->intervals, (double)c->bytes / (double)c->intervals,
           (double)c->lines / (double)c->intervals, (double)c->pages / (double)c->intervals,
           (double)c->big_pages / (double)c->intervals, lines, pages, stored, big);
    fflush(stdout);
    add(out, work, "intervals", "", (double)c->intervals);
    add(out, work, "changed_bytes", "bytes", (double)c->bytes);
    add(out, work, "lines", "64 B", (double)c->lines);
    add(out, work, "pages", "4 KiB", (double)c->pages);
    add(out, work, "same_pages", "4 KiB", (double)c->same_pages);
    add(out, work, "unknown_pages", "4 KiB", (double)c->unknown_pages);
    add(out, work, "big_pages", "2 MiB", (double)c->big_pages);
    add(out, work, "amplification_64", "times", lines);
    add(out, work, "amplification_4k", "times", pages);
    add(out, work, "amplification_4k_stored", "times", stored);
    add(out, work, "amplification_2m", "times", big);
}

/* All runs and intervals of the work together. */
static void measure(const struct work *work, unsigned runs, json_t *out)
{
    struct meter_count sum = {0};
    struct tw_error err;
    for (unsigned run = 0; run < runs; run++) {
        struct meter_count counts[STEPS_MAX] = {0};
        if (work_measure(work, counts, &err)) {
            fprintf(stderr, "%s: %s: %s\n", suite.program, work->name,
                    tw_error_text(&err, (char[600]){0}, 600));
            exit(1);
        }
        for (unsigned i = 0; i < work->steps; i++) {
            sum.intervals += counts[i].intervals;
            sum.bytes += counts[i].bytes;
            sum.lines += counts[i].lines;
            sum.pages += counts[i].pages;
            sum.big_pages += counts[i].big_pages;
            sum.same_pages += counts[i].same_pages;
            sum.unknown_pages += counts[i].unknown_pages;
        }
    }
    tell(out, work, &sum);
}

int main(int argc, char **argv)
{
    struct bench_options o;
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    json_t *out = json_array();
    printf("%-17s %9s %42s %35s\n%-17s %9s %11s %9s %9s %9s %8s %8s %8s %9s\n", "", "",
           "---------- changed, an interval ----------", "-- bytes sent for a changed byte --",
           "case", "intervals", "bytes", "64 B", "4 KiB", "2 MiB", "64 B", "4 KiB", "stored",
           "2 MiB");
    fflush(stdout);
    for (size_t i = 0; i < CASES; i++) {
        if (o.wanted[i])
            measure(&cases[i].work, o.runs, out);
    }
    return bench_options_finish(&suite, &o, out);
}
