#include "bench/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PATH_SIZE 512u

json_t *bench_number(double value)
{
    if (isnan(value) || isinf(value))
        return json_null();
    if (value == floor(value) && fabs(value) < 1e15)
        return json_integer((json_int_t)value);
    return json_real(round(value * 1000) / 1000);
}

double bench_ratio(double ours, double peer, bool more_is_better)
{
    double better = more_is_better ? ours : peer, base = more_is_better ? peer : ours;
    if (isnan(ours) || isnan(peer))
        return NAN;
    if (ours == peer)
        return 1;
    return base > 0 ? better / base : NAN;
}

json_t *bench_row(const char *bench, const char *case_name, const char *metric, const char *unit,
                  double ours, const char *peer, double peer_value, double ratio)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:o, s:o}", "bench", bench, "case", case_name,
                     "metric", metric, "unit", unit, "ours", bench_number(ours), "peer", peer,
                     "peer_value", bench_number(peer_value), "ratio", bench_number(ratio));
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
    char command[PATH_SIZE + 32];
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
                     "date", date, "load_average_before", bench_number(load[0]));
}

enum tw_code bench_json_write(const char *path, const json_t *document, struct tw_error *err)
{
    char fresh[PATH_SIZE + 8];
    snprintf(fresh, sizeof fresh, "%.*s.new", (int)PATH_SIZE, path);
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
