/* towline-bench-migration: ours beside QEMU's own migration, on the same guests, in the same run.
 */
#include "base/log.h"
#include "bench/migration/report.h"
#include "bench/migration/run.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILURES_MAX 3u /* runs that may go wrong before the benchmark gives up */

struct plan {
    const char *json, *append;
    unsigned runs;
    bool slowdown;
    bool contender[BENCH_CONTENDERS];
    bool wanted[16]; /* by case */
};

struct state {
    struct plan plan;
    struct bench_setting setting;
    struct bench_cluster *cluster;
    json_t *rows, *runs;
    unsigned failures;
};

static const char usage[] =
    "usage: towline-bench-migration --json FILE [--runs N] [--case NAME]... [--contender NAME]...\n"
    "       towline-bench-migration --slowdown (--json FILE | --append FILE) [--runs N]\n"
    "  --case       sparse, dense, idle, redis; default all\n"
    "  --contender  towline, qemu-precopy, qemu-xbzrle, qemu-postcopy; default all\n"
    "  --slowdown   the guest's speed while its stores are reported, instead of migrations\n"
    "  --append     adds the rows to a file that another benchmark wrote\n";

/* ---- Command line ---------------------------------------------------------------------------- */

static bool choose_case(struct plan *plan, const char *name)
{
    const struct bench_guest *g = bench_guest_find(name);
    if (g)
        plan->wanted[g - bench_guests] = true;
    else
        fprintf(stderr, "--case: expected sparse, dense, idle or redis, given %s\n", name);
    return g != NULL;
}

static bool choose_contender(struct plan *plan, const char *name)
{
    for (unsigned i = 0; i < BENCH_CONTENDERS; i++) {
        if (strcmp(name, bench_contender_names[i]) == 0)
            return plan->contender[i] = true;
    }
    fprintf(stderr, "--contender: no such contender: %s\n", name);
    return false;
}

static bool parse_runs(struct plan *plan, const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || n < 1 || n > BENCH_RUNS_MAX) {
        fprintf(stderr, "--runs: expected 1 to %u, given %s\n", BENCH_RUNS_MAX, text);
        return false;
    }
    plan->runs = (unsigned)n;
    return true;
}

static bool option(struct plan *plan, int letter, const char *value)
{
    switch (letter) {
    case 'j':
        plan->json = value;
        return true;
    case 'a':
        plan->append = value;
        return true;
    case 'n':
        return parse_runs(plan, value);
    case 'c':
        return choose_case(plan, value);
    case 'k':
        return choose_contender(plan, value);
    case 's':
        return plan->slowdown = true;
    default:
        return false;
    }
}

static bool any(const bool *flags, size_t count)
{
    bool yes = false;
    for (size_t i = 0; i < count; i++)
        yes = yes || flags[i];
    return yes;
}

static bool parse(struct plan *plan, int argc, char **argv)
{
    static const struct option options[] = {{"json", required_argument, NULL, 'j'},
                                            {"append", required_argument, NULL, 'a'},
                                            {"runs", required_argument, NULL, 'n'},
                                            {"case", required_argument, NULL, 'c'},
                                            {"contender", required_argument, NULL, 'k'},
                                            {"slowdown", no_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    *plan = (struct plan){.runs = 3};
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (!option(plan, letter, optarg))
            return false;
    if (!any(plan->wanted, bench_guest_count))
        memset(plan->wanted, 1, sizeof plan->wanted);
    if (!any(plan->contender, BENCH_CONTENDERS))
        memset(plan->contender, 1, sizeof plan->contender);
    bool one_file = !plan->json != !plan->append;
    return optind == argc && one_file && (plan->slowdown || plan->json);
}

/* ---- Migrations ------------------------------------------------------------------------------ */

static void say(const struct bench_run *run)
{
    const double *v = run->sample.value;
    fprintf(stderr,
            "  %s, run %u, %s: %.1f MB, downtime %.1f ms, total %.0f ms, %.0f ops/s; %s%s\n",
            run->guest->name, run->number, bench_contender_names[run->contender],
            v[BENCH_BYTES_TOTAL] / 1e6, v[BENCH_DOWNTIME], v[BENCH_TOTAL], v[BENCH_OPS], run->note,
            run->guest_errors ? "; GUEST FOUND ERRORS" : "");
}

/* A run that went wrong is told and left out; several end the benchmark. */
static enum tw_code one(struct state *s, struct bench_case_result *result, enum bench_contender who,
                        unsigned number, struct tw_error *err)
{
    struct bench_run run = {.guest = result->guest, .contender = who, .number = number};
    char said[512];
    bench_sample_clear(&run.sample);
    enum tw_code code = who == BENCH_OURS ? bench_ours_run(s->cluster, &run, err)
                                          : bench_peer_run(&s->setting, &run, err);
    if (code) {
        fprintf(stderr, "  %s, run %u, %s: %s\n", result->guest->name, number,
                bench_contender_names[who], tw_error_text(err, said, sizeof said));
        return bench_interrupted() || ++s->failures > FAILURES_MAX ? code : TW_OK;
    }
    say(&run);
    result->samples[who][result->count[who]++] = run.sample;
    json_array_append_new(s->runs, bench_run_json(&run));
    return TW_OK;
}

/* Interleaved: each contender once, then again, each round beginning with another one. */
static enum tw_code one_case(struct state *s, const struct bench_guest *guest, struct tw_error *err)
{
    static struct bench_case_result result;
    result = (struct bench_case_result){.guest = guest};
    for (unsigned number = 1; number <= s->plan.runs; number++) {
        for (unsigned i = 0; i < BENCH_CONTENDERS; i++) {
            enum bench_contender who = (number - 1 + i) % BENCH_CONTENDERS;
            enum tw_code code = s->plan.contender[who] ? one(s, &result, who, number, err) : TW_OK;
            if (code)
                return code;
        }
    }
    bench_case_rows(&result, s->rows);
    bench_case_print(&result, stdout);
    fflush(stdout);
    return TW_OK;
}

static enum tw_code all_cases(struct state *s, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    for (size_t i = 0; i < bench_guest_count && !code; i++)
        if (s->plan.wanted[i])
            code = one_case(s, &bench_guests[i], err);
    return code;
}

/* ---- Slow-down ------------------------------------------------------------------------------- */

static void slowdown_row(struct state *s, const char *guest, const char *what, const double ours[],
                         const double plain[])
{
    struct bench_sample a[BENCH_RUNS_MAX], b[BENCH_RUNS_MAX];
    char metric[64];
    for (unsigned i = 0; i < s->plan.runs; i++) {
        a[i].value[BENCH_OPS] = ours[i];
        b[i].value[BENCH_OPS] = plain[i];
    }
    double mine = bench_sample_median(a, s->plan.runs, BENCH_OPS);
    double ceiling = bench_sample_median(b, s->plan.runs, BENCH_OPS);
    snprintf(metric, sizeof metric, "%s_ops_per_s_%s", guest, what);
    json_array_append_new(s->rows, bench_row("device", "guest_slowdown", metric, "1/s", mine,
                                             "ceiling", ceiling, bench_ratio(mine, ceiling, true)));
    printf("%-32s%14.0f%14.0f%12.2f times slower\n", metric, mine, ceiling, ceiling / mine);
}

static enum tw_code slowdown(struct state *s, const char *guest, struct tw_error *err)
{
    double plain[BENCH_RUNS_MAX], attached[BENCH_RUNS_MAX], tracked[BENCH_RUNS_MAX];
    for (unsigned i = 0; i < s->plan.runs; i++) {
        struct bench_slowdown r;
        enum tw_code code =
            bench_slowdown_run(&s->setting, s->cluster, bench_guest_find(guest), &r, err);
        if (code)
            return code;
        fprintf(stderr, "  %s, run %u: plain %.0f, stores reported %.0f, migrating %.0f ops/s\n",
                guest, i + 1, r.plain, r.attached, r.tracked);
        plain[i] = r.plain;
        attached[i] = r.attached;
        tracked[i] = r.tracked;
    }
    slowdown_row(s, guest, "attached", attached, plain);
    slowdown_row(s, guest, "tracked", tracked, plain);
    return TW_OK;
}

static enum tw_code all_slowdowns(struct state *s, struct tw_error *err)
{
    static const char *const guests[] = {"sparse", "redis"};
    enum tw_code code = TW_OK;
    printf("%-32s%14s%14s\n", "guest_slowdown", "towline", "plain QEMU");
    for (size_t i = 0; i < 2 && !code; i++)
        if (s->plan.wanted[bench_guest_find(guests[i]) - bench_guests])
            code = slowdown(s, guests[i], err);
    return code;
}

/* ---- Main ------------------------------------------------------------------------------------ */

static bool needs_cluster(const struct state *s)
{
    return s->plan.slowdown || s->plan.contender[BENCH_OURS];
}

static enum tw_code check_files(const struct state *s, struct tw_error *err)
{
    const struct bench_files *f = &s->setting.files;
    bool redis = s->plan.wanted[bench_guest_find("redis") - bench_guests];
    const struct {
        const char *path;
        bool needed;
    } files[] = {{f->sparse_elf, true},
                 {f->vmlinuz, redis},
                 {f->redis_cpio, redis},
                 {s->setting.agent, needs_cluster(s)},
                 {s->setting.controller, needs_cluster(s)},
                 {s->setting.plugin, needs_cluster(s)}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i].needed && access(files[i].path, R_OK) != 0)
            return tw_fail_errno(err, errno, files[i].path,
                                 "cannot read it; scripts/bench makes it");
    return TW_OK;
}

static json_t *document(const struct state *s, json_t *machine, int argc, char **argv)
{
    json_t *command = json_array();
    for (int i = 0; i < argc; i++)
        json_array_append_new(command, json_string(argv[i]));
    return json_pack(
        "{s:s, s:o, s:o, s:{s:I, s:I, s:i, s:i, s:i}, s:[s,s,s,s], s:O, s:O}", "bench",
        s->plan.slowdown ? "device" : "migration", "machine", machine, "command", command,
        "settings", "memory_bytes", (json_int_t)BENCH_MEMORY_BYTES, "bandwidth_bytes_per_s",
        (json_int_t)BENCH_BANDWIDTH, "downtime_limit_ms", BENCH_DOWNTIME_MS, "timeout_ms",
        BENCH_TIMEOUT_MS, "runs", (int)s->plan.runs, "notes",
        "ratio says how many times better ours is; null where a side has no such figure",
        "memory is 8 KiB more than 256 MiB for all contenders: QEMU 7.2's own pre-copy under TCG "
        "loses writes when memory is a multiple of 256 KiB",
        "bytes count guest memory with its headers, not the device state, for all contenders",
        "a migration that has not converged after timeout_ms is broken off: converged 0, bytes so "
        "far",
        "rows", s->rows, "runs", s->runs);
}

static enum tw_code run(struct state *s, int argc, char **argv, struct tw_error *err)
{
    const char *tmp = getenv("TMPDIR");
    json_t *machine = bench_machine_json(s->setting.qemu);
    enum tw_code code = check_files(s, err);
    if (!code)
        code = bench_folder_make("/dev/shm", s->setting.dir, err);
    if (!code && needs_cluster(s))
        code = bench_folder_make(tmp ? tmp : "/tmp", s->setting.state, err);
    if (!code && needs_cluster(s))
        code = bench_cluster_start(&s->setting, &s->cluster, err);
    if (!code)
        code = s->plan.slowdown ? all_slowdowns(s, err) : all_cases(s, err);
    bench_cluster_stop(s->cluster);
    bench_folder_remove(s->setting.dir);
    bench_folder_remove(s->setting.state);
    json_t *all = document(s, machine, argc, argv);
    if (!code)
        code = s->plan.append ? bench_json_append(s->plan.append, s->rows, err)
                              : bench_json_write(s->plan.json, all, err);
    json_decref(all);
    return code;
}

/* Guests, agents and both ends share the processors: others' work makes every figure worse. */
static void warn_when_busy(void)
{
    double load;
    if (getloadavg(&load, 1) == 1 && load > 1)
        fprintf(stderr,
                "the machine is busy (load %.1f): the figures will tell more of that than "
                "of the contenders\n",
                load);
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
    if (!parse(&s.plan, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    bench_signals_install();
    warn_when_busy();
    tw_log_configure("bench", TW_LOG_WARN);
    s.rows = json_array();
    s.runs = json_array();
    enum tw_code code = run(&s, argc, argv, &err);
    json_decref(s.rows);
    json_decref(s.runs);
    if (code)
        fprintf(stderr, "towline-bench-migration: %s\n", tw_error_text(&err, said, sizeof said));
    return code ? 1 : 0;
}
