#include "bench/tracking/bench.h"

#include "bench/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const struct bench_case cases[] = {
    {"arm_1g", bench_arm, 0, "1 GiB of data is armed"},
    {"collect_1g_01", bench_collect, 0.001, "1 GiB, a line in 0.1 % of the pages"},
    {"collect_1g_1", bench_collect, 0.01, "1 GiB, a line in 1 % of the pages"},
    {"collect_1g_10", bench_collect, 0.1, "1 GiB, a line in 10 % of the pages"},
    {"random_store", bench_random_store, 0, "stores at random over 256 MiB, a pass a second"},
    {"redis", bench_redis, 0, "SETs of redis-benchmark over 200000 keys, a pass a second"},
};
#define CASES (sizeof cases / sizeof cases[0])

static struct bench_choice choice(size_t index)
{
    return (struct bench_choice){cases[index].name, cases[index].about};
}

static const struct bench_suite suite = {.program = "towline-bench-tracking",
                                         .bench = "tracking",
                                         .runs_default = 3,
                                         .runs_min = 1,
                                         .case_count = CASES,
                                         .choice = choice};

_Noreturn void bench_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", suite.program, what);
    exit(1);
}

void bench_sleep(uint64_t ns)
{
    nanosleep(&(struct timespec){(time_t)(ns / TW_SEC), (long)(ns % TW_SEC)}, NULL);
}

static void add(json_t *out, const struct bench_case *c, const struct bench_row *row,
                const char *peer, double value, double ratio)
{
    json_array_append_new(out, bench_row(suite.bench, c->name, row->metric, row->unit, row->ours,
                                         peer, value, ratio));
}

static void tell(json_t *out, const struct bench_case *c, const struct bench_row *row)
{
    if (row->peer_count == 0) {
        printf("%-14s %-13s %12.4g %-4s\n", c->name, row->metric, row->ours, row->unit);
        add(out, c, row, NULL, NAN, NAN);
    }
    for (unsigned i = 0; i < row->peer_count; i++) {
        printf("%-14s %-13s %12.4g %-4s %-13s %12.4g %7.2f\n", c->name, row->metric, row->ours,
               row->unit, row->peers[i].name, row->peers[i].value, row->peers[i].ratio);
        add(out, c, row, row->peers[i].name, row->peers[i].value, row->peers[i].ratio);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct bench_options o;
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    json_t *out = json_array();
    printf("%-14s %-13s %12s %-4s %-13s %12s %7s\n", "case", "metric", "ours", "", "peer", "",
           "ratio");
    fflush(stdout);
    for (size_t i = 0; i < CASES; i++) {
        struct bench_row rows[BENCH_ROWS_MAX];
        const unsigned count = o.wanted[i] ? cases[i].run(&cases[i], o.runs, rows) : 0;
        for (unsigned k = 0; k < count; k++)
            tell(out, &cases[i], &rows[k]);
    }
    return bench_options_finish(&suite, &o, out);
}
