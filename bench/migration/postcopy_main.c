/* towline-bench-postcopy: VMs that run before their memory is there, ours beside QEMU's own, on the
 * same guests, in the same run. */
#include "base/log.h"
#include "bench/migration/postcopy.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* So slow that most of what the guest touches has not come yet; who waits knows no limit. */
#define RECORD_BANDWIDTH (UINT64_C(16) << 20)
#define FAILURES_MAX     3u /* runs that may go wrong before the benchmark gives up */

static const char *const cases[] = {"sparse", "redis", "dense"};
#define CASES (sizeof cases / sizeof *cases)

struct state {
    const char *json, *record;
    unsigned runs;
    bool wanted[CASES];
    struct bench_setting setting;
    struct bench_cluster *cluster;
    json_t *rows, *details;
    unsigned failures;
};

static const char usage[] =
    "usage: towline-bench-postcopy --json FILE [--runs N] [--case NAME]...\n"
    "       towline-bench-postcopy --record FOLDER [--case NAME]...\n"
    "  --case    sparse, redis, dense; default all\n"
    "  --record  writes down what the guests wait for, as FOLDER/CASE.misses, and measures "
    "nothing\n";

/* ---- Command line ---------------------------------------------------------------------------- */

static bool choose_case(struct state *s, const char *name)
{
    for (size_t i = 0; i < CASES; i++)
        if (strcmp(name, cases[i]) == 0)
            return s->wanted[i] = true;
    fprintf(stderr, "--case: expected sparse, redis or dense, given %s\n", name);
    return false;
}

static bool choose_runs(struct state *s, const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    s->runs = (unsigned)n;
    if (!*end && n >= 1 && n <= BENCH_RUNS_MAX)
        return true;
    fprintf(stderr, "--runs: expected 1 to %u, given %s\n", BENCH_RUNS_MAX, text);
    return false;
}

static bool parse(struct state *s, int argc, char **argv)
{
    static const struct option options[] = {{"json", required_argument, NULL, 'j'},
                                            {"record", required_argument, NULL, 'r'},
                                            {"runs", required_argument, NULL, 'n'},
                                            {"case", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    bool any = false;
    s->runs = 3;
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (letter == 'j')
            s->json = optarg;
        else if (letter == 'r')
            s->setting.miss_streams = s->record = optarg;
        else if (letter == '?' ||
                 !(letter == 'n' ? choose_runs(s, optarg) : choose_case(s, optarg)))
            return false;
    }
    for (size_t i = 0; i < CASES; i++)
        any |= s->wanted[i];
    for (size_t i = 0; i < CASES && !any; i++)
        s->wanted[i] = true;
    return optind == argc && !s->json != !s->record;
}

/* ---- Runs -------------------------------------------------------------------------------------
 */

static void say(enum bench_mover mover, const struct bench_run *run)
{
    const struct bench_following *f = &run->following;
    fprintf(stderr,
            "  %s, run %u, %s: downtime %.1f ms, 90 %% after %.0f ms, total %.0f ms, %.1f MB; "
            "%.0f waits, half %.0f us, 99 of 100 %.0f us; forecast %.1f ms, off by %.0f %%, bytes "
            "%.1f %%; %s%s\n",
            run->guest->name, run->number, bench_mover_names[mover],
            run->sample.value[BENCH_DOWNTIME], f->recover90_ms, run->sample.value[BENCH_TOTAL],
            run->sample.value[BENCH_BYTES_TOTAL] / 1e6, f->faults, f->p50_us, f->p99_us,
            f->forecast_downtime_ms, f->forecast_error, f->forecast_bytes_error, run->note,
            run->guest_errors ? "; GUEST FOUND ERRORS" : "");
}

/* A run that went wrong is told and left out; several end the benchmark. */
static enum tw_code one(struct state *s, struct bench_follow_result *result, enum bench_mover mover,
                        unsigned number, struct tw_error *err)
{
    struct bench_run run = {.guest = result->guest, .number = number};
    char said[512];
    bench_sample_clear(&run.sample);
    bench_mover_setup(mover, &run);
    enum tw_code code = mover == BENCH_QEMU ? bench_peer_run(&s->setting, &run, err)
                                            : bench_ours_run(s->cluster, &run, err);
    if (code) {
        fprintf(stderr, "  %s, run %u, %s: %s\n", result->guest->name, number,
                bench_mover_names[mover], tw_error_text(err, said, sizeof said));
        return bench_interrupted() || ++s->failures > FAILURES_MAX ? code : TW_OK;
    }
    say(mover, &run);
    bench_follow_add(result, mover, &run);
    json_array_append_new(s->details, bench_follow_run_json(mover, &run));
    return TW_OK;
}

/* Interleaved: each mover once, then again, each round beginning with another one. */
static enum tw_code one_case(struct state *s, const char *name, struct tw_error *err)
{
    static struct bench_follow_result result;
    result = (struct bench_follow_result){.guest = bench_guest_find(name)};
    for (unsigned number = 1; number <= s->runs; number++)
        for (unsigned i = 0; i < BENCH_MOVERS; i++) {
            enum tw_code code = one(s, &result, (number - 1 + i) % BENCH_MOVERS, number, err);
            if (code)
                return code;
        }
    bench_follow_rows(&result, s->rows);
    bench_follow_print(&result, stdout);
    fflush(stdout);
    return TW_OK;
}

/* The agent calls the file by the migration: the only one there. */
static enum tw_code keep_recording(const struct state *s, const char *name, struct tw_error *err)
{
    char from[512] = "", to[512];
    DIR *d = opendir(s->record);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, "m-", 2) == 0)
            snprintf(from, sizeof from, "%s/%s", s->record, e->d_name);
    if (d)
        closedir(d);
    snprintf(to, sizeof to, "%s/%s.misses", s->record, name);
    if (!from[0] || rename(from, to) != 0)
        return tw_fail_errno(err, from[0] ? errno : ENOENT, s->record, "no recording of %s", name);
    return TW_OK;
}

static enum tw_code record(struct state *s, const char *name, struct tw_error *err)
{
    struct bench_run run = {.guest = bench_guest_find(name), .number = 1};
    bench_sample_clear(&run.sample);
    bench_mover_setup(BENCH_PURE_BLIND, &run);
    run.bandwidth = RECORD_BANDWIDTH;
    enum tw_code code = bench_ours_run(s->cluster, &run, err);
    if (code)
        return code;
    say(BENCH_PURE_BLIND, &run);
    return keep_recording(s, name, err);
}

/* ---- Main ------------------------------------------------------------------------------------ */

static enum tw_code check_files(const struct state *s, struct tw_error *err)
{
    const struct bench_files *f = &s->setting.files;
    const char *const files[] = {f->sparse_elf,
                                 s->setting.agent,
                                 s->setting.controller,
                                 s->setting.plugin,
                                 s->wanted[1] ? f->vmlinuz : NULL,
                                 s->wanted[1] ? f->redis_cpio : NULL};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i] && access(files[i], R_OK) != 0)
            return tw_fail_errno(err, errno, files[i], "cannot read it; scripts/bench makes it");
    return TW_OK;
}

static json_t *document(const struct state *s)
{
    return json_pack(
        "{s:s, s:o, s:{s:I, s:I, s:i, s:i, s:i}, s:[s,s,s,s,s,s], s:O, s:O}", "bench", "postcopy",
        "machine", bench_machine_json(s->setting.qemu), "settings", "memory_bytes",
        (json_int_t)BENCH_MEMORY_BYTES, "bandwidth_bytes_per_s", (json_int_t)BENCH_BANDWIDTH,
        "downtime_limit_ms", BENCH_DOWNTIME_MS, "timeout_ms", BENCH_TIMEOUT_MS, "runs",
        (int)s->runs, "notes", "ratio says how many times better ours is",
        "ours is hybrid; metrics that begin with pure_ are pure post-copy's",
        "QEMU's waits are those between its own trace events of a request and of the placed page; "
        "ours between the worker's look at the touch and the opened page",
        "page-fetches: what the same waits would have fetched by pages of 4 KiB",
        "recover90_ms of the Linux guest is known to a second: it tells once a second",
        "forecast_error_pct: the downtime that a plan of 2 s foretold, forecast_bytes_error_pct "
        "its "
        "bytes, by how much off in per cent of what happened, sign left out; the earlier runs of "
        "the "
        "same guest are its history",
        "rows", s->rows, "runs", s->details);
}

static enum tw_code run(struct state *s, struct tw_error *err)
{
    const char *tmp = getenv("TMPDIR");
    enum tw_code code = check_files(s, err);
    if (!code)
        code = bench_folder_make("/dev/shm", s->setting.dir, err);
    if (!code)
        code = bench_folder_make(tmp ? tmp : "/tmp", s->setting.state, err);
    if (!code)
        code = bench_cluster_start(&s->setting, &s->cluster, err);
    for (size_t i = 0; i < CASES && !code; i++)
        if (s->wanted[i])
            code = s->record ? record(s, cases[i], err) : one_case(s, cases[i], err);
    bench_cluster_stop(s->cluster);
    bench_folder_remove(s->setting.dir);
    bench_folder_remove(s->setting.state);
    if (code || s->record)
        return code;
    json_t *all = document(s);
    code = bench_json_write(s->json, all, err);
    json_decref(all);
    return code;
}

int main(int argc, char **argv)
{
    static struct state s = {.setting = {.qemu = "qemu-system-x86_64",
                                         .files = {.sparse_elf = TOWLINE_GUEST_SPARSE,
                                                   .vmlinuz = TOWLINE_GUEST_VMLINUZ,
                                                   .redis_cpio = TOWLINE_GUEST_REDIS},
                                         .agent = TOWLINE_AGENT,
                                         .controller = TOWLINE_CONTROLLER,
                                         .plugin = TOWLINE_PLUGIN}};
    struct tw_error err = {0};
    char said[512];
    if (!parse(&s, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    bench_signals_install();
    tw_log_configure("bench", TW_LOG_WARN);
    s.rows = json_array();
    s.details = json_array();
    enum tw_code code = run(&s, &err);
    json_decref(s.rows);
    json_decref(s.details);
    if (code)
        fprintf(stderr, "towline-bench-postcopy: %s\n", tw_error_text(&err, said, sizeof said));
    return code ? 1 : 0;
}
