#include "bench/migration/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *number(double value)
{
    if (isnan(value) || isinf(value))
        return json_null();
    if (value == floor(value) && fabs(value) < 1e15)
        return json_integer((json_int_t)value);
    return json_real(round(value * 1000) / 1000);
}

json_t *bench_row(const char *bench, const char *case_name, const char *metric, const char *unit,
                  double ours, const char *peer, double peer_value, double ratio)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:o}", "bench", bench, "case", case_name,
                     "metric", metric, "unit", unit, "ours", number(ours), "peer", peer,
                     "peer_value", number(peer_value), "ratio", number(ratio));
}

json_t *bench_run_json(const struct bench_run *run)
{
    json_t *o = json_pack("{s:s, s:s, s:i, s:I, s:s}", "case", run->guest->name, "contender",
                          bench_contender_names[run->contender], "run", (int)run->number,
                          "guest_errors", (json_int_t)run->guest_errors, "note", run->note);
    for (unsigned m = 0; m < BENCH_METRICS; m++)
        json_object_set_new(o, bench_metrics[m].name, number(run->sample.value[m]));
    return o;
}

/* The first line of a command's or file's text that begins with `key`, from behind `skip`. */
static void first_line(FILE *f, const char *key, const char *skip, char out[160])
{
    char line[512];
    out[0] = 0;
    while (f && !out[0] && fgets(line, sizeof line, f)) {
        const char *at = *skip ? strstr(line, skip) : line;
        if (strncmp(line, key, strlen(key)) != 0 || !at)
            continue;
        at += strlen(skip);
        snprintf(out, 160, "%.*s", (int)strcspn(at, "\n"), at);
    }
}

static void qemu_version(const char *qemu, char out[160])
{
    char command[BENCH_PATH + 32];
    snprintf(command, sizeof command, "'%s' --version", qemu);
    FILE *f = popen(command, "r");
    first_line(f, "QEMU", "", out);
    if (f)
        pclose(f);
}

json_t *bench_machine_json(const char *qemu)
{
    struct utsname u;
    char cpu[160], version[160], date[32], kernel[256] = "";
    double load[3] = {NAN, NAN, NAN};
    time_t now = time(NULL);
    struct tm tm;
    FILE *f = fopen("/proc/cpuinfo", "r");
    first_line(f, "model name", ": ", cpu);
    if (f)
        fclose(f);
    qemu_version(qemu, version);
    if (uname(&u) == 0)
        snprintf(kernel, sizeof kernel, "%s %s", u.sysname, u.release);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    if (getloadavg(load, 3) < 1)
        load[0] = NAN;
    return json_pack("{s:s, s:i, s:I, s:s, s:s, s:s, s:o}", "cpu", cpu, "cpus",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "memory_mib",
                     (json_int_t)(sysconf(_SC_PHYS_PAGES) / 256), "kernel", kernel, "qemu", version,
                     "date", date, "load_average_before", number(load[0]));
}

enum tw_code bench_json_write(const char *path, const json_t *document, struct tw_error *err)
{
    char fresh[BENCH_PATH + 8];
    snprintf(fresh, sizeof fresh, "%.*s.new", (int)BENCH_PATH, path);
    if (json_dump_file(document, fresh, JSON_INDENT(1)) != 0 || rename(fresh, path) != 0)
        return tw_fail_errno(err, errno ? errno : EIO, path, "cannot write the figures");
    return TW_OK;
}

enum tw_code bench_json_append(const char *path, json_t *rows, struct tw_error *err)
{
    json_error_t why;
    json_t *document = json_load_file(path, 0, &why);
    json_t *there = json_is_object(document) ? json_object_get(document, "rows") : document;
    enum tw_code code;
    if (!json_is_array(there))
        code = tw_fail(err, TW_INVALID_ARGUMENT, path, "JSON with rows",
                       document ? "other JSON" : why.text, "cannot append to it");
    else if (json_array_extend(there, rows) != 0)
        code = tw_fail_errno(err, ENOMEM, path, "cannot append to it");
    else
        code = bench_json_write(path, document, err);
    json_decref(document);
    return code;
}

/* ---- Cases ----------------------------------------------------------------------------------- */

static double result_of(const struct bench_case_result *r, enum bench_contender who,
                        enum bench_metric metric)
{
    return bench_result(r->samples[who], r->count[who], metric);
}

/* Nobody measured it, or nobody counts it in this case. */
static bool is_empty(const struct bench_case_result *r, enum bench_metric metric)
{
    bool empty = true;
    for (unsigned who = 0; who < BENCH_CONTENDERS; who++)
        empty = empty && isnan(result_of(r, who, metric));
    return empty;
}

void bench_case_rows(const struct bench_case_result *result, json_t *rows)
{
    for (unsigned m = 0; m < BENCH_METRICS; m++) {
        const struct bench_metric_info *info = &bench_metrics[m];
        if (is_empty(result, m))
            continue;
        double ours = result_of(result, BENCH_OURS, m);
        for (unsigned who = BENCH_OURS + 1; who < BENCH_CONTENDERS; who++) {
            if (result->count[who] == 0)
                continue;
            double peer = result_of(result, who, m);
            json_array_append_new(rows,
                                  bench_row("migration", result->guest->name, info->name,
                                            info->unit, ours, bench_contender_names[who], peer,
                                            bench_ratio(ours, peer, info->more_is_better)));
        }
    }
}

static void cell(char out[32], double value)
{
    if (isnan(value))
        snprintf(out, 32, "-");
    else if (fabs(value) >= 1000 || value == floor(value))
        snprintf(out, 32, "%.0f", value);
    else
        snprintf(out, 32, "%.1f", value);
}

static void ratio_cell(char out[32], double ratio)
{
    if (isnan(ratio))
        snprintf(out, 32, "%10s", "");
    else
        snprintf(out, 32, " %8.*fx", ratio < 10 ? 2 : ratio < 100 ? 1 : 0, ratio);
}

void bench_case_print(const struct bench_case_result *result, FILE *out)
{
    char text[32], times[32];
    fprintf(out, "\n%s: %s\n%-24s%14s", result->guest->name, result->guest->what, "",
            bench_contender_names[BENCH_OURS]);
    for (unsigned who = BENCH_OURS + 1; who < BENCH_CONTENDERS; who++)
        fprintf(out, "%14s%10s", bench_contender_names[who], "ratio");
    fputc('\n', out);
    for (unsigned m = 0; m < BENCH_METRICS; m++) {
        if (is_empty(result, m))
            continue;
        double ours = result_of(result, BENCH_OURS, m);
        cell(text, ours);
        fprintf(out, "%-24s%14s", bench_metrics[m].name, text);
        for (unsigned who = BENCH_OURS + 1; who < BENCH_CONTENDERS; who++) {
            double peer = result_of(result, who, m);
            cell(text, peer);
            ratio_cell(times, bench_ratio(ours, peer, bench_metrics[m].more_is_better));
            fprintf(out, "%14s%10s", text, times);
        }
        fputc('\n', out);
    }
}
