/* towline-bench-predictors: recorded streams of misses, played with each predictor. */
#include "bench/predictors/replay.h"
#include "bench/report.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (sizeof(struct tw_miss_header) + TW_MISSES_MAX * sizeof(struct tw_miss))

static const char *const names[] = {"none", "spatial", "stride", "sequence", "auto"};
static const struct bench_replay_link link_model = {UINT64_C(128) << 20, 100 * TW_US};

static const char usage[] = "usage: towline-bench-predictors --json FILE RECORDING...\n"
                            "  a recording is CASE.misses, as agents with miss_streams write it\n";

struct recording {
    char name[64];
    struct tw_miss_header header;
    struct tw_miss *misses;
};

static enum tw_code load_bytes(const char *path, uint8_t **bytes, size_t *size,
                               struct tw_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *bytes = NULL;
    enum tw_code code = TW_OK;
    if (fd < 0 || fstat(fd, &st) != 0)
        code = tw_fail_errno(err, errno, path, "cannot read the recording");
    else if ((uint64_t)st.st_size > FILE_MAX)
        code = tw_fail(err, TW_INVALID_ARGUMENT, path, NULL, NULL, "too long for a recording");
    else if (!(*bytes = malloc((size_t)st.st_size + 1)))
        code = tw_fail_errno(err, ENOMEM, path, "cannot read the recording");
    else if (read(fd, *bytes, (size_t)st.st_size) != st.st_size)
        code = tw_fail_errno(err, EIO, path, "cannot read the recording");
    else
        *size = (size_t)st.st_size;
    if (fd >= 0)
        close(fd);
    return code;
}

static enum tw_code load(const char *path, struct recording *r, struct tw_error *err)
{
    const char *base = strrchr(path, '/');
    uint8_t *bytes = NULL;
    size_t size = 0;
    snprintf(r->name, sizeof r->name, "%s", base ? base + 1 : path);
    r->name[strcspn(r->name, ".")] = 0;
    r->misses = calloc(TW_MISSES_MAX, sizeof *r->misses);
    enum tw_code code = r->misses ? load_bytes(path, &bytes, &size, err)
                                  : tw_fail_errno(err, ENOMEM, path, "no memory");
    if (code == TW_OK)
        code = tw_miss_stream_read(bytes, size, path, &r->header, r->misses, TW_MISSES_MAX, err);
    free(bytes);
    return code;
}

static void add_rows(json_t *rows, const char *name, const char *predictor,
                     const struct bench_replay *r, const struct bench_replay *none)
{
    const struct {
        const char *metric, *unit;
        double value;
    } figures[] = {{"accuracy", "%", bench_replay_accuracy(r)},
                   {"coverage", "%", bench_replay_coverage(r)},
                   {"timeliness", "%", bench_replay_timeliness(r)}};
    char metric[64];
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        snprintf(metric, sizeof metric, "%s_%s", predictor, figures[i].metric);
        json_array_append_new(rows, bench_row("predictors", name, metric, figures[i].unit,
                                              figures[i].value, NULL, NAN, NAN));
    }
    double mine = (double)r->wait_ns / 1e6, theirs = (double)none->wait_ns / 1e6;
    snprintf(metric, sizeof metric, "%s_wait_ms", predictor);
    json_array_append_new(rows, bench_row("predictors", name, metric, "ms", mine, "none", theirs,
                                          bench_ratio(mine, theirs, false)));
}

static enum tw_code compare(const struct recording *rec, json_t *rows, struct tw_error *err)
{
    struct bench_replay none;
    printf("\n%s: %llu waits of a guest with %llu MiB\n%-10s%10s%10s%10s%10s%10s%10s%10s%12s\n",
           rec->name, (unsigned long long)rec->header.count,
           (unsigned long long)(rec->header.pages / 256), "predictor", "touches", "misses", "late",
           "ahead", "accuracy", "coverage", "in time", "waits, ms");
    for (unsigned choice = 0; choice < sizeof names / sizeof *names; choice++) {
        struct bench_replay r;
        enum tw_code code = bench_replay_run(
            &rec->header, rec->misses, (enum tw_foresight_choice)choice, &link_model, &r, err);
        if (code != TW_OK)
            return code;
        if (choice == TW_FORESIGHT_NONE)
            none = r;
        printf("%-10s%10llu%10llu%10llu%10llu%9.0f%%%9.0f%%%9.0f%%%12.1f\n", names[choice],
               (unsigned long long)r.touches, (unsigned long long)r.misses,
               (unsigned long long)r.late, (unsigned long long)r.ahead, bench_replay_accuracy(&r),
               bench_replay_coverage(&r), bench_replay_timeliness(&r), (double)r.wait_ns / 1e6);
        if (choice != TW_FORESIGHT_NONE)
            add_rows(rows, rec->name, names[choice], &r, &none);
    }
    return TW_OK;
}

static enum tw_code run(const char *json, char **paths, int count, struct tw_error *err)
{
    json_t *rows = json_array();
    enum tw_code code = TW_OK;
    for (int i = 0; i < count && code == TW_OK; i++) {
        struct recording r = {0};
        code = load(paths[i], &r, err);
        if (code == TW_OK)
            code = compare(&r, rows, err);
        free(r.misses);
    }
    json_t *all = json_pack("{s:s, s:{s:I, s:I}, s:o}", "bench", "predictors", "settings",
                            "bytes_per_s", (json_int_t)link_model.bytes_per_s, "round_trip_ns",
                            (json_int_t)link_model.round_trip_ns, "rows", rows);
    if (code == TW_OK)
        code = bench_json_write(json, all, err);
    json_decref(all);
    return code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"json", required_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};
    const char *json = NULL;
    struct tw_error err = {0};
    char said[512];
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (letter == '?') {
            fputs(usage, stderr);
            return 2;
        }
        json = optarg;
    }
    if (!json || optind == argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (run(json, argv + optind, argc - optind, &err) == TW_OK)
        return 0;
    fprintf(stderr, "towline-bench-predictors: %s\n", tw_error_text(&err, said, sizeof said));
    return 1;
}
