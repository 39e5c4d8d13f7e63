/* What the benchmarks share: their command line, medians, rows, the document. */
#include "bench/options.h"

#include "bench/median.h"
#include "bench/report.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bench_choice choice(size_t index)
{
    static const struct bench_choice choices[] = {{"stream", "blocks"}, {"lines", "dirty lines"}};
    return choices[index];
}

static const struct bench_suite suite = {.program = "bench-test",
                                         .bench = "test",
                                         .runs_default = 9,
                                         .runs_min = 5,
                                         .case_count = 2,
                                         .choice = choice};
static struct bench_options options;

static int parse(const char *const *words)
{
    char copies[8][32], *argv[9] = {NULL};
    int argc = 0;
    for (; words[argc]; argc++) {
        snprintf(copies[argc], sizeof copies[0], "%s", words[argc]);
        argv[argc] = copies[argc];
    }
    static char kept[2][32]; /* options point into the command line */
    const int status = bench_options_parse(&suite, argc, argv, &options);
    const char **texts[] = {&options.json, &options.append};
    for (int i = 0; i < 2 && status < 0; i++) {
        if (*texts[i])
            *texts[i] = strcpy(kept[i], *texts[i]);
    }
    return status;
}
#define PARSE(...) parse((const char *const[]){"bench-test", __VA_ARGS__, NULL})

static void quiet(void)
{
    cr_redirect_stderr();
    cr_redirect_stdout();
}

TestSuite(options, .init = quiet);

Test(options, none_is_every_case_with_the_default)
{
    cr_assert_eq(parse((const char *const[]){"bench-test", NULL}), -1);
    cr_expect_eq(options.runs, 9);
    cr_expect(options.wanted[0] && options.wanted[1]);
    cr_expect_null(options.json);
    cr_expect_null(options.append);
}

Test(options, cases_and_runs)
{
    cr_assert_eq(PARSE("--runs", "11", "--case", "lines", "--json", "f.json"), -1);
    cr_expect_eq(options.runs, 11);
    cr_expect(!options.wanted[0] && options.wanted[1]);
    cr_expect_str_eq(options.json, "f.json");
    cr_assert_eq(PARSE("--append", "g.json", "--runs", "2"), -1, "a second command line");
    cr_expect_eq(options.runs, 5, "no fewer than the suite needs");
    cr_expect(options.wanted[0] && options.wanted[1]);
    cr_expect_str_eq(options.append, "g.json");
    cr_expect_null(options.json);
}

Test(options, what_is_refused)
{
    cr_expect_eq(PARSE("--runs", "0"), 2);
    cr_expect_eq(PARSE("--runs", ""), 2);
    cr_expect_eq(PARSE("--runs", "100"), 2);
    cr_expect_eq(PARSE("--runs", "3x"), 2);
    cr_expect_eq(PARSE("--case", "nothing"), 2);
    cr_expect_eq(PARSE("--json", "a", "--append", "b"), 2);
    cr_expect_eq(PARSE("--what"), 2);
    cr_expect_eq(PARSE("--case"), 2);
    cr_expect_eq(PARSE("stray"), 2);
    cr_expect_eq(PARSE("--help"), 0);
}

Test(median, of_odd_even_and_none)
{
    double values[] = {30, 10, 20, 40};
    cr_expect_eq(bench_median(values, 3), 20);
    cr_expect_eq(values[0], 10, "sorted");
    cr_expect_eq(bench_median(values, 4), 25);
    cr_expect_eq(bench_median(values, 1), 10);
    cr_expect(isnan(bench_median(values, 0)));
}

static json_t *one_row(const char *peer, double value, double ratio)
{
    json_t *rows = json_array();
    json_array_append_new(rows, bench_row("test", "lines", "rate", "1/s", 3, peer, value, ratio));
    return rows;
}

Test(save, a_document_and_rows_that_join_it)
{
    char path[] = "/tmp/bench-options.XXXXXX";
    struct bench_options o = {.json = path, .runs = 7};
    struct tw_error err = {0};
    const int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    json_t *rows = one_row("peer", 2, 1.5);
    cr_assert_eq(bench_options_save(&suite, &o, rows, &err), TW_OK, "%s", err.what);
    json_decref(rows);
    o = (struct bench_options){.append = path, .runs = 1};
    cr_assert_eq(bench_options_finish(&suite, &o, one_row(NULL, NAN, NAN)), 0);
    json_t *document = json_load_file(path, 0, NULL);
    const json_t *there = json_object_get(document, "rows");
    cr_assert_eq(json_array_size(there), 2);
    cr_expect_str_eq(json_string_value(json_object_get(document, "bench")), "test");
    cr_expect_eq(json_integer_value(json_object_get(document, "runs")), 7);
    const json_t *row = json_array_get(there, 0);
    cr_expect_str_eq(json_string_value(json_object_get(row, "peer")), "peer");
    cr_expect_eq(json_number_value(json_object_get(row, "ratio")), 1.5);
    row = json_array_get(there, 1);
    cr_expect_eq(json_object_size(row), 8);
    cr_expect(json_is_null(json_object_get(row, "peer")), "nobody to compare with");
    cr_expect(json_is_null(json_object_get(row, "peer_value")));
    cr_expect(json_is_null(json_object_get(row, "ratio")));
    json_decref(document);
    unlink(path);
}

Test(save, complains_where_it_cannot_write, .init = quiet)
{
    const struct bench_options o = {.json = "/nonexistent/rows.json", .runs = 1};
    cr_expect_eq(bench_options_finish(&suite, &o, json_array()), 1);
    const struct bench_options none = {.runs = 1};
    cr_expect_eq(bench_options_finish(&suite, &none, json_array()), 0, "nothing was asked for");
}
