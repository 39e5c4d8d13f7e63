#include "bench/migration/report.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bench_case_result result; /* too big for a stack */

static void sample(enum bench_contender who, double converged, double bytes, double total)
{
    struct bench_sample *s = &result.samples[who][result.count[who]++];
    bench_sample_clear(s);
    s->value[BENCH_CONVERGED] = converged;
    s->value[BENCH_BYTES_RESENT] = bytes;
    s->value[BENCH_TOTAL] = total;
}

static const json_t *row_of(const json_t *rows, const char *metric, const char *peer)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (strcmp(json_string_value(json_object_get(row, "metric")), metric) == 0 &&
            strcmp(json_string_value(json_object_get(row, "peer")), peer) == 0)
            return row;
    }
    return NULL;
}

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

Test(report, rows_of_a_case)
{
    result = (struct bench_case_result){.guest = bench_guest_find("sparse")};
    sample(BENCH_OURS, 1, 1000, 600);
    sample(BENCH_OURS, 1, 3000, 800);
    sample(BENCH_OURS, 1, 2000, 700);
    sample(BENCH_QEMU_PRECOPY, 0, 80000, NAN);
    sample(BENCH_QEMU_POSTCOPY, 1, 1000, 1400);
    json_t *rows = json_array();
    bench_case_rows(&result, rows);
    cr_assert_eq(json_array_size(rows), 6, "3 metrics were measured of 2 peers, given %zu",
                 json_array_size(rows));
    const json_t *row = row_of(rows, "bytes_resent", "qemu-precopy");
    cr_assert(row);
    cr_assert_str_eq(json_string_value(json_object_get(row, "bench")), "migration");
    cr_assert_str_eq(json_string_value(json_object_get(row, "case")), "sparse");
    cr_assert_str_eq(json_string_value(json_object_get(row, "unit")), "bytes");
    cr_assert_eq(number(row, "ours"), 2000);
    cr_assert_eq(number(row, "peer_value"), 80000);
    cr_assert_eq(number(row, "ratio"), 40);
    row = row_of(rows, "total_ms", "qemu-precopy");
    cr_assert(row && json_is_null(json_object_get(row, "peer_value")));
    cr_assert(json_is_null(json_object_get(row, "ratio")), "it never ended");
    cr_assert_eq(number(row_of(rows, "converged", "qemu-precopy"), "peer_value"), 0);
    cr_assert_eq(number(row_of(rows, "converged", "qemu-precopy"), "ours"), 1);
    cr_assert_eq(number(row_of(rows, "total_ms", "qemu-postcopy"), "ratio"), 2);
    cr_assert_eq(number(row_of(rows, "bytes_resent", "qemu-postcopy"), "ratio"), 0.5);
    cr_assert_null(row_of(rows, "total_ms", "qemu-xbzrle"), "it did not take part");
    json_decref(rows);
}

Test(report, rows_join_a_file_of_another_benchmark)
{
    char path[] = "/tmp/bench-report.XXXXXX";
    int fd = mkstemp(path);
    struct tw_error err = {0};
    cr_assert(fd >= 0);
    close(fd);
    json_t *rows = json_array();
    json_array_append_new(rows, bench_row("device", "guest_slowdown", "redis", "1/s", 9, "ceiling",
                                          10, bench_ratio(9, 10, true)));
    cr_assert_neq(bench_json_append(path, rows, &err), TW_OK, "an empty file is no JSON");
    json_t *first = json_pack("{s:s, s:[{s:i}]}", "bench", "device", "rows", "ours", 1);
    cr_assert_eq(bench_json_write(path, first, &err), TW_OK);
    cr_assert_eq(bench_json_append(path, rows, &err), TW_OK);
    json_t *both = json_load_file(path, 0, NULL);
    const json_t *there = json_object_get(both, "rows");
    cr_assert_eq(json_array_size(there), 2);
    cr_assert_eq(number(json_array_get(there, 1), "ratio"), 0.9);
    cr_assert_str_eq(json_string_value(json_object_get(both, "bench")), "device");
    json_decref(both);
    json_decref(first);
    json_decref(rows);
    unlink(path);
}
