#include "bench/tracking/bench.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS_DEFAULT 3u

static const struct bench_case cases[] = {
    {"arm_1g", bench_arm, 0, "1 GiB of data is armed"},
    {"collect_1g_01", bench_collect, 0.001, "1 GiB, a line in 0.1 % of the pages"},
    {"collect_1g_1", bench_collect, 0.01, "1 GiB, a line in 1 % of the pages"},
    {"collect_1g_10", bench_collect, 0.1, "1 GiB, a line in 10 % of the pages"},
    {"random_store", bench_random_store, 0, "stores at random over 256 MiB, a pass a second"},
};
#define CASES (sizeof cases / sizeof cases[0])

struct options {
    const char *json;
    unsigned runs;
    bool wanted[CASES];
};

_Noreturn void bench_die(const char *what)
{
    fprintf(stderr, "towline-bench-tracking: %s\n", what);
    exit(1);
}

void bench_sleep(uint64_t ns)
{
    nanosleep(&(struct timespec){(time_t)(ns / TW_SEC), (long)(ns % TW_SEC)}, NULL);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static int usage(FILE *out)
{
    fprintf(out,
            "usage: towline-bench-tracking [--json FILE] [--runs N] [--case NAME]...\n"
            "  --json FILE  rows {bench, case, metric, unit, ours, peer, peer_value, ratio}\n"
            "  --runs N     of each, 1 to %u; the figures are medians [%u]\n"
            "  --case NAME  only this case; may be repeated:\n",
            BENCH_RUNS_MAX, RUNS_DEFAULT);
    for (size_t i = 0; i < CASES; i++)
        fprintf(out, "    %-14s %s\n", cases[i].name, cases[i].about);
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
    const unsigned long runs = strtoul(text, &end, 10);
    if (*text == 0 || *end || runs == 0 || runs > BENCH_RUNS_MAX) {
        fprintf(stderr, "--runs: expected 1 to %u, given '%s'\n", BENCH_RUNS_MAX, text);
        return false;
    }
    o->runs = (unsigned)runs;
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

static void tell(json_t *out, const struct bench_case *c, const struct bench_row *row)
{
    if (row->peer_count == 0) {
        printf("%-14s %-13s %12.4g %-4s\n", c->name, row->metric, row->ours, row->unit);
        json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:s, s:f, s:n, s:n, s:n}", "bench",
                                             "tracking", "case", c->name, "metric", row->metric,
                                             "unit", row->unit, "ours", row->ours, "peer",
                                             "peer_value", "ratio"));
    }
    for (unsigned i = 0; i < row->peer_count; i++) {
        printf("%-14s %-13s %12.4g %-4s %-13s %12.4g %7.2f\n", c->name, row->metric, row->ours,
               row->unit, row->peers[i].name, row->peers[i].value, row->peers[i].ratio);
        json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:s, s:f, s:s, s:f, s:f}", "bench",
                                             "tracking", "case", c->name, "metric", row->metric,
                                             "unit", row->unit, "ours", row->ours, "peer",
                                             row->peers[i].name, "peer_value", row->peers[i].value,
                                             "ratio", row->peers[i].ratio));
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct options o;
    int status = parse(&o, argc, argv);
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
    json_t *document =
        json_pack("{s:s, s:i, s:o}", "bench", "tracking", "runs", (int)o.runs, "rows", out);
    status = 0;
    if (o.json && json_dump_file(document, o.json, JSON_INDENT(2) | JSON_REAL_PRECISION(6))) {
        fprintf(stderr, "%s: cannot be written\n", o.json);
        status = 1;
    }
    json_decref(document);
    return status;
}
