#include "bench/options.h"

#include "bench/report.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int usage(const struct bench_suite *suite, FILE *out)
{
    size_t width = 0;
    for (size_t i = 0; i < suite->case_count; i++) {
        const size_t length = strlen(suite->choice(i).name);
        width = length > width ? length : width;
    }
    fprintf(out,
            "usage: %s [--json FILE | --append FILE] [--runs N] [--case NAME]...\n"
            "  --json FILE    rows {bench, case, metric, unit, ours, peer, peer_value, ratio}\n"
            "  --append FILE  adds the rows to a file that another benchmark wrote\n"
            "  --runs N       of each, %u to %u; the figures are medians [%u]\n"
            "  --case NAME    only this case; may be repeated:\n",
            suite->program, suite->runs_min, BENCH_RUNS_MAX, suite->runs_default);
    for (size_t i = 0; i < suite->case_count; i++)
        fprintf(out, "    %-*s %s\n", (int)width + 1, suite->choice(i).name,
                suite->choice(i).about);
    return out == stderr ? 2 : 0;
}

static bool choose_case(const struct bench_suite *suite, struct bench_options *o, const char *name)
{
    for (size_t i = 0; i < suite->case_count; i++) {
        if (strcmp(suite->choice(i).name, name) == 0)
            return o->wanted[i] = true;
    }
    fprintf(stderr, "--case: expected a case, given '%s'\n", name);
    return false;
}

static bool parse_runs(const struct bench_suite *suite, struct bench_options *o, const char *text)
{
    char *end;
    const unsigned long runs = strtoul(text, &end, 10);
    if (*text == 0 || *end || runs == 0 || runs > BENCH_RUNS_MAX) {
        fprintf(stderr, "--runs: expected a number up to %u, given '%s'\n", BENCH_RUNS_MAX, text);
        return false;
    }
    o->runs = runs < suite->runs_min ? suite->runs_min : (unsigned)runs;
    return true;
}

static bool option(const struct bench_suite *suite, struct bench_options *o, int letter)
{
    switch (letter) {
    case 'j':
        o->json = optarg;
        return true;
    case 'a':
        o->append = optarg;
        return true;
    case 'r':
        return parse_runs(suite, o, optarg);
    case 'c':
        return choose_case(suite, o, optarg);
    default:
        return false;
    }
}

int bench_options_parse(const struct bench_suite *suite, int argc, char **argv,
                        struct bench_options *out)
{
    static const struct option known[] = {
        {"json", required_argument, NULL, 'j'}, {"append", required_argument, NULL, 'a'},
        {"runs", required_argument, NULL, 'r'}, {"case", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    bool some = false;
    assert(suite->case_count <= BENCH_CASES_MAX);
    *out = (struct bench_options){.runs = suite->runs_default};
    optind = 0; /* glibc: from the beginning, also the second time */
    for (int letter; (letter = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        if (letter == 'h')
            return usage(suite, stdout);
        if (!option(suite, out, letter))
            return usage(suite, stderr);
        some = some || letter == 'c';
    }
    if (optind < argc || (out->json && out->append))
        return usage(suite, stderr);
    for (size_t i = 0; i < suite->case_count && !some; i++)
        out->wanted[i] = true;
    return -1;
}

enum tw_code bench_options_save(const struct bench_suite *suite,
                                const struct bench_options *options, json_t *rows,
                                struct tw_error *err)
{
    if (options->append)
        return bench_json_append(options->append, rows, err);
    if (!options->json)
        return TW_OK;
    json_t *document = json_pack("{s:s, s:i, s:O}", "bench", suite->bench, "runs",
                                 (int)options->runs, "rows", rows);
    if (!document)
        return tw_fail_errno(err, ENOMEM, options->json, "cannot write the figures");
    const enum tw_code code = bench_json_write(options->json, document, err);
    json_decref(document);
    return code;
}

int bench_options_finish(const struct bench_suite *suite, const struct bench_options *options,
                         json_t *rows)
{
    struct tw_error err = {0};
    char text[600];
    const enum tw_code code = bench_options_save(suite, options, rows, &err);
    if (code)
        fprintf(stderr, "%s: %s\n", suite->program, tw_error_text(&err, text, sizeof text));
    json_decref(rows);
    return code ? 1 : 0;
}
