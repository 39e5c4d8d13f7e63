/* The command line that benchmarks share, and the document that they leave behind:
 *   PROGRAM [--json FILE | --append FILE] [--runs N] [--case NAME]... */
#ifndef TOWLINE_BENCH_OPTIONS_H
#define TOWLINE_BENCH_OPTIONS_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define BENCH_RUNS_MAX  99u
#define BENCH_CASES_MAX 16u

struct bench_choice {
    const char *name, *about;
};

/* What a benchmark offers. */
struct bench_suite {
    const char *program;
    const char *bench;     /* as rows and documents name it */
    unsigned runs_default; /* at most BENCH_RUNS_MAX */
    unsigned runs_min;     /* fewer are asked for: that many, silently */
    size_t case_count;     /* at most BENCH_CASES_MAX */
    struct bench_choice (*choice)(size_t index);
};

/* What the user wants. Texts are those of the command line. */
struct bench_options {
    const char *json;   /* file to write, may be NULL */
    const char *append; /* file whose rows are extended, may be NULL */
    unsigned runs;
    bool wanted[BENCH_CASES_MAX]; /* by case; all when none was named */
};

/* -1: go on; else the program's exit status: help or a complaint has been printed. */
int bench_options_parse(const struct bench_suite *suite, int argc, char **argv,
                        struct bench_options *out);

/* Writes {bench, runs, rows}, or appends the rows, where the options want it. The rows remain the
 * caller's. */
enum tw_code bench_options_save(const struct bench_suite *suite,
                                const struct bench_options *options, json_t *rows,
                                struct tw_error *err);

/* The end of a main: saves, releases the rows, complains; the exit status. */
int bench_options_finish(const struct bench_suite *suite, const struct bench_options *options,
                         json_t *rows);

#endif
