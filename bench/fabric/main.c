#include "bench/fabric/bench.h"

#include "base/log.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct report {
    json_t *rows;
    const char *name; /* of the case */
    unsigned runs;
};

static void say(const struct report *r, const char *metric, const char *unit, double ours,
                const char *peer, double theirs, bool more_is_better)
{
    const double ratio = bench_ratio(ours, theirs, more_is_better);
    printf("%-12s %-34s %12.1f %12.1f %-7s %7.2f  %s\n", r->name, metric, ours, theirs, unit, ratio,
           peer);
    fflush(stdout);
    json_array_append_new(r->rows,
                          bench_row("fabric", r->name, metric, unit, ours, peer, theirs, ratio));
}

/* ---- Cases ----------------------------------------------------------------------------------- */

/* Medians of what contenders do in turn. */
static void streams(const struct report *r, const struct contender *const *who, unsigned count,
                    double *mb_per_s)
{
    double values[3][BENCH_RUNS_MAX];
    for (unsigned run = 0; run < r->runs; run++)
        for (unsigned c = 0; c < count; c++)
            values[c][run] = who[c]->stream(who[c]);
    for (unsigned c = 0; c < count; c++)
        mb_per_s[c] = bench_median(values[c], r->runs);
}

static void run_stream(const struct report *r, unsigned number)
{
    const struct contender *who[] = {&contender_ours, &contender_socket, &contender_libfabric};
    double v[3];
    (void)number;
    streams(r, who, 3, v);
    say(r, "stream_mb_per_s", "MB/s", v[0], who[1]->name, v[1], true);
    say(r, "stream_mb_per_s", "MB/s", v[0], who[2]->name, v[2], true);
}

static void run_lines(const struct report *r, unsigned number)
{
    double ours[BENCH_RUNS_MAX], lines[BENCH_RUNS_MAX], pages[BENCH_RUNS_MAX];
    struct dirty *d = dirty_new(number);
    const struct contender *o = &contender_ours, *p = &contender_libfabric;
    for (unsigned run = 0; run < r->runs; run++) {
        ours[run] = o->lines(o, d, WRITE_LINES);
        lines[run] = number < TW_LINES_PER_PAGE ? p->lines(p, d, WRITE_LINES) : NAN;
        pages[run] = p->lines(p, d, WRITE_PAGES);
    }
    const double value = bench_median(ours, r->runs);
    if (number < TW_LINES_PER_PAGE) /* nobody would send a whole page so */
        say(r, "lines_per_s_beside_64_byte_writes", "1/s", value, p->name,
            bench_median(lines, r->runs), true);
    say(r, "lines_per_s_beside_page_writes", "1/s", value, p->name, bench_median(pages, r->runs),
        true);
    free(d);
}

struct latencies {
    double idle_p50, idle_p99, busy_p50, busy_p99;
};

static void latencies(const struct report *r, const struct contender *const *who, unsigned count,
                      uint32_t size, struct latencies *out)
{
    double v[2][4][BENCH_RUNS_MAX];
    for (unsigned run = 0; run < r->runs; run++)
        for (unsigned c = 0; c < count; c++) {
            const struct latency idle = who[c]->reads(who[c], size, false);
            const struct latency busy = who[c]->reads(who[c], size, true);
            v[c][0][run] = idle.p50_us;
            v[c][1][run] = idle.p99_us;
            v[c][2][run] = busy.p50_us;
            v[c][3][run] = busy.p99_us;
        }
    for (unsigned c = 0; c < count; c++)
        out[c] = (struct latencies){bench_median(v[c][0], r->runs), bench_median(v[c][1], r->runs),
                                    bench_median(v[c][2], r->runs), bench_median(v[c][3], r->runs)};
}

static void run_idle(const struct report *r, unsigned number)
{
    const struct contender *who[] = {&contender_ours, &contender_libfabric};
    static const uint32_t sizes[] = {64, 4096};
    (void)number;
    for (unsigned i = 0; i < 2; i++) {
        double v[2][2][BENCH_RUNS_MAX];
        char metric[64];
        for (unsigned run = 0; run < r->runs; run++)
            for (unsigned c = 0; c < 2; c++) {
                const struct latency l = who[c]->reads(who[c], sizes[i], false);
                v[c][0][run] = l.p50_us;
                v[c][1][run] = l.p99_us;
            }
        for (unsigned k = 0; k < 2; k++) {
            snprintf(metric, sizeof metric, "read_%u_p%s_us", sizes[i], k ? "99" : "50");
            say(r, metric, "us", bench_median(v[0][k], r->runs), who[1]->name,
                bench_median(v[1][k], r->runs), false);
        }
    }
}

static void run_busy(const struct report *r, unsigned number)
{
    const struct contender *who[] = {&contender_ours, &contender_libfabric};
    struct latencies l[2];
    (void)number;
    latencies(r, who, 2, 64, l);
    say(r, "read_64_p50_us", "us", l[0].busy_p50, who[1]->name, l[1].busy_p50, false);
    say(r, "read_64_p99_us", "us", l[0].busy_p99, who[1]->name, l[1].busy_p99, false);
    say(r, "read_64_p99_times_idle", "times", l[0].busy_p99 / l[0].idle_p99, who[1]->name,
        l[1].busy_p99 / l[1].idle_p99, false);
}

static void run_tls(const struct report *r, unsigned number)
{
    const struct contender *who[] = {&contender_ours_tls, &contender_ours, &contender_socket};
    double v[3], lines[2][BENCH_RUNS_MAX];
    struct latencies l[2];
    struct dirty *d = dirty_new(4);
    (void)number;
    streams(r, who, 3, v);
    say(r, "stream_mb_per_s", "MB/s", v[0], "towline-plain", v[1], true);
    say(r, "stream_mb_per_s", "MB/s", v[0], who[2]->name, v[2], true);
    for (unsigned run = 0; run < r->runs; run++)
        for (unsigned c = 0; c < 2; c++)
            lines[c][run] = who[c]->lines(who[c], d, WRITE_LINES);
    say(r, "lines_4_per_s", "1/s", bench_median(lines[0], r->runs), "towline-plain",
        bench_median(lines[1], r->runs), true);
    latencies(r, who, 2, 64, l);
    say(r, "read_64_idle_p50_us", "us", l[0].idle_p50, "towline-plain", l[1].idle_p50, false);
    say(r, "read_64_idle_p99_us", "us", l[0].idle_p99, "towline-plain", l[1].idle_p99, false);
    say(r, "read_64_busy_p99_us", "us", l[0].busy_p99, "towline-plain", l[1].busy_p99, false);
    free(d);
}

static const struct {
    const char *name;
    void (*run)(const struct report *report, unsigned number);
    unsigned number;
    const char *about;
} cases[] = {
    {"stream", run_stream, 0, "blocks of 128 KiB beside a plain socket and RMA writes"},
    {"lines_1", run_lines, 1, "1 dirty line of each page, from memory to memory"},
    {"lines_4", run_lines, 4, "4 lines"},
    {"lines_16", run_lines, 16, "16 lines"},
    {"lines_64", run_lines, 64, "whole pages"},
    {"urgent_idle", run_idle, 0, "one-sided reads of 64 bytes and 4 KiB"},
    {"urgent_busy", run_busy, 0, "the same while the bulk lane is full"},
    {"tls", run_tls, 0, "TLS 1.3 beside plain text"},
};
#define CASES (sizeof cases / sizeof cases[0])

static struct bench_choice choice(size_t index)
{
    return (struct bench_choice){cases[index].name, cases[index].about};
}

static const struct bench_suite suite = {.program = "towline-bench-fabric",
                                         .bench = "fabric",
                                         .runs_default = 5,
                                         .runs_min = 1,
                                         .case_count = CASES,
                                         .choice = choice};

int main(int argc, char **argv)
{
    struct bench_options o;
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    tw_log_configure(suite.program, TW_LOG_ERROR);
    json_t *rows = json_array();
    printf("%-12s %-34s %12s %12s %-7s %7s\n", "case", "metric", "ours", "peer", "", "ratio");
    for (size_t i = 0; i < CASES; i++)
        if (o.wanted[i])
            cases[i].run(&(struct report){rows, cases[i].name, o.runs}, cases[i].number);
    return bench_options_finish(&suite, &o, rows);
}
