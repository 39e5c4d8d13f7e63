#include "bench/device/bench.h"
#include "bench/report.h"

#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static const struct bench_case cases[] = {
    {"seq", bench_events, 1024 * MIB, "word after word, 3 of 10 lines stored to"},
    {"zipf64m", bench_events, 64 * MIB, "zipf 0.99 over 64 MiB, 3 of 10 stores"},
    {"zipf1g", bench_events, 1024 * MIB, "zipf 0.99 over 1 GiB, 3 of 10 stores"},
    {"random", bench_events, 1024 * MIB, "uniform over 1 GiB, 3 of 10 stores"},
    {"gather", bench_gather, 256 * MIB, "4 lines of each of 16384 pages into chunks"},
    {"apply", bench_apply, 256 * MIB, "the same chunks, checked and applied"},
    {"collect256m", bench_collect, 256 * MIB, "1000 dirty pages of 256 MiB"},
    {"collect1g", bench_collect, 1024 * MIB, "1000 dirty pages of 1 GiB"},
    {"collect4g", bench_collect, 4096 * MIB, "1000 dirty pages of 4 GiB"},
};
#define CASES (sizeof cases / sizeof cases[0])

static struct bench_choice choice(size_t index)
{
    return (struct bench_choice){cases[index].name, cases[index].about};
}

static const struct bench_suite suite = {.program = "towline-bench-device",
                                         .bench = "device",
                                         .runs_default = 9,
                                         .runs_min = 5,
                                         .case_count = CASES,
                                         .choice = choice};

static json_t *row_json(const struct bench_case *c, const struct bench_row *row)
{
    return bench_row("device", c->name, row->metric, row->unit, row->ours, "ceiling", row->ceiling,
                     row->ratio);
}

static void print_row(const struct bench_case *c, const struct bench_row *row)
{
    bool rate = strcmp(row->unit, "ms") != 0;
    double scale = rate ? 1e-6 : 1;
    printf("%-12s %-13s %10.3f %10.3f %-4s %6.2f   %s\n", c->name, row->metric, row->ours * scale,
           row->ceiling * scale, rate ? "M/s" : "ms", row->ratio, c->about);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct bench_options o;
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    json_t *rows = json_array();
    printf("%-12s %-13s %10s %10s %-4s %6s\n", "case", "metric", "ours", "ceiling", "", "ratio");
    for (size_t i = 0; i < CASES; i++) {
        if (!o.wanted[i])
            continue;
        struct bench_row row = cases[i].run(&cases[i], o.runs);
        print_row(&cases[i], &row);
        json_array_append_new(rows, row_json(&cases[i], &row));
    }
    return bench_options_finish(&suite, &o, rows);
}
