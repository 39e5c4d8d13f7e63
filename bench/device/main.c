#include "bench/device/bench.h"
#include "bench/report.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB          (UINT64_C(1) << 20)
#define RUNS_DEFAULT 9u
#define RUNS_MIN     5u

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

struct options {
    const char *json;
    unsigned runs;
    bool wanted[CASES];
};

static int usage(FILE *out)
{
    fprintf(out,
            "usage: towline-bench-device [--json FILE] [--runs N] [--case NAME]...\n"
            "  --json FILE  rows {bench, case, metric, unit, ours, peer, peer_value, ratio}\n"
            "  --runs N     of each, %u to %u; the figures are medians [%u]\n"
            "  --case NAME  only this case; may be repeated:\n",
            RUNS_MIN, BENCH_RUNS_MAX, RUNS_DEFAULT);
    for (size_t i = 0; i < CASES; i++)
        fprintf(out, "    %-12s %s\n", cases[i].name, cases[i].about);
    return out == stderr ? 2 : 0;
}

static bool want(struct options *o, const char *name)
{
    for (size_t i = 0; i < CASES; i++) {
        if (strcmp(cases[i].name, name) == 0)
            return o->wanted[i] = true;
    }
    fprintf(stderr, "--case: expected a case, given '%s'\n", name);
    return false;
}

static bool parse_runs(struct options *o, const char *text)
{
    char *end;
    unsigned long runs = strtoul(text, &end, 10);
    if (*text == 0 || *end || runs == 0 || runs > BENCH_RUNS_MAX) {
        fprintf(stderr, "--runs: expected a number up to %u, given '%s'\n", BENCH_RUNS_MAX, text);
        return false;
    }
    o->runs = runs < RUNS_MIN ? RUNS_MIN : (unsigned)runs;
    return true;
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"json", required_argument, NULL, 'j'},
        {"runs", required_argument, NULL, 'r'},
        {"case", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool some = false;
    *o = (struct options){.runs = RUNS_DEFAULT};
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        if (c == 'h')
            return usage(stdout);
        if (c == 'j')
            o->json = optarg;
        else if (c == 'c')
            some = true;
        if ((c == 'c' && !want(o, optarg)) || (c == 'r' && !parse_runs(o, optarg)) || c == '?')
            return usage(stderr);
    }
    if (optind < argc)
        return usage(stderr);
    for (size_t i = 0; i < CASES && !some; i++)
        o->wanted[i] = true;
    return -1;
}

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
    struct options o;
    int status = parse(&o, argc, argv);
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
    json_t *document =
        json_pack("{s:s, s:i, s:o}", "bench", "device", "runs", (int)o.runs, "rows", rows);
    struct tw_error err = {0};
    if (o.json && bench_json_write(o.json, document, &err)) {
        fprintf(stderr, "%s: %s\n", o.json, err.what);
        status = 1;
    }
    json_decref(document);
    return status > 0 ? status : 0;
}
