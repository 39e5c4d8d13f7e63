#include "bench/migration/postcopy.h"

#include "bench/median.h"
#include "towline/v1/common.pb-c.h"

#include <math.h>

#define PAGE_FETCH 4104.0 /* bytes: a page and QEMU's header */

const char *const bench_mover_names[BENCH_MOVERS] = {
    [BENCH_HYBRID] = "hybrid",      [BENCH_HYBRID_BLIND] = "hybrid-no-predictor",
    [BENCH_PURE] = "pure-postcopy", [BENCH_PURE_BLIND] = "pure-no-predictor",
    [BENCH_PRECOPY] = "precopy",    [BENCH_QEMU] = "qemu-postcopy",
};

static const struct {
    const char *name, *unit;
    bool more_is_better;
} metrics[BENCH_F_METRICS] = {
    [BENCH_F_DOWNTIME] = {"downtime_ms", "ms", false},
    [BENCH_F_RECOVER90] = {"recover90_ms", "ms", false},
    [BENCH_F_TOTAL] = {"total_ms", "ms", false},
    [BENCH_F_BYTES] = {"bytes_total", "bytes", false},
    [BENCH_F_BYTES_ON_DEMAND] = {"bytes_on_demand", "bytes", false},
    [BENCH_F_FAULTS] = {"faults", "1", false},
    [BENCH_F_P50] = {"fault_p50_us", "us", false},
    [BENCH_F_P99] = {"fault_p99_us", "us", false},
    [BENCH_F_ACCURACY] = {"predictor_accuracy", "%", true},
    [BENCH_F_COVERAGE] = {"predictor_coverage", "%", true},
    [BENCH_F_FORECAST] = {"forecast_error_pct", "%", false},
    [BENCH_F_FORECAST_BYTES] = {"forecast_bytes_error_pct", "%", false},
};

void bench_mover_setup(enum bench_mover mover, struct bench_run *run)
{
    bool pure = mover == BENCH_PURE || mover == BENCH_PURE_BLIND;
    bool blind = mover == BENCH_HYBRID_BLIND || mover == BENCH_PURE_BLIND;
    run->contender = mover == BENCH_QEMU ? BENCH_QEMU_POSTCOPY : BENCH_OURS;
    run->method = mover == BENCH_PRECOPY ? TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY
                  : pure                 ? TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY
                                         : TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID;
    run->predictor =
        blind ? TOWLINE__V1__PREDICTOR__PREDICTOR_NONE : TOWLINE__V1__PREDICTOR__PREDICTOR_AUTO;
    run->follow = true;
    run->plan = mover != BENCH_QEMU;
    run->following = (struct bench_following){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
}

static void values_of(const struct bench_run *run, double out[BENCH_F_METRICS])
{
    const double *v = run->sample.value;
    const struct bench_following *f = &run->following;
    const double all[BENCH_F_METRICS] = {
        [BENCH_F_DOWNTIME] = v[BENCH_DOWNTIME],
        [BENCH_F_RECOVER90] = f->recover90_ms,
        [BENCH_F_TOTAL] = v[BENCH_TOTAL],
        [BENCH_F_BYTES] = v[BENCH_BYTES_TOTAL],
        [BENCH_F_BYTES_ON_DEMAND] = f->bytes_on_demand,
        [BENCH_F_FAULTS] = f->faults,
        [BENCH_F_P50] = f->p50_us,
        [BENCH_F_P99] = f->p99_us,
        [BENCH_F_ACCURACY] = f->accuracy,
        [BENCH_F_COVERAGE] = f->coverage,
        [BENCH_F_FORECAST] = f->forecast_error,
        [BENCH_F_FORECAST_BYTES] = f->forecast_bytes_error,
    };
    for (unsigned m = 0; m < BENCH_F_METRICS; m++)
        out[m] = all[m];
}

/* A migration that was broken off has no figures to compare. */
void bench_follow_add(struct bench_follow_result *result, enum bench_mover mover,
                      const struct bench_run *run)
{
    double values[BENCH_F_METRICS];
    if (!(run->sample.value[BENCH_CONVERGED] > 0) || result->count[mover] == BENCH_RUNS_MAX)
        return;
    values_of(run, values);
    for (unsigned m = 0; m < BENCH_F_METRICS; m++)
        result->values[mover][m][result->count[mover]] = values[m];
    result->count[mover]++;
}

double bench_follow_median(const struct bench_follow_result *result, enum bench_mover mover,
                           enum bench_follow_metric metric)
{
    double known[BENCH_RUNS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < result->count[mover]; i++)
        if (!isnan(result->values[mover][metric][i]))
            known[n++] = result->values[mover][metric][i];
    return bench_median(known, n);
}

static void row(const struct bench_follow_result *r, json_t *rows, const char *prefix,
                enum bench_mover ours, enum bench_mover peer, unsigned metric)
{
    char name[64];
    double mine = bench_follow_median(r, ours, metric);
    double theirs = bench_follow_median(r, peer, metric);
    if (isnan(mine) && isnan(theirs))
        return;
    snprintf(name, sizeof name, "%s%s", prefix, metrics[metric].name);
    json_array_append_new(rows,
                          bench_row("postcopy", r->guest->name, name, metrics[metric].unit, mine,
                                    bench_mover_names[peer], theirs,
                                    bench_ratio(mine, theirs, metrics[metric].more_is_better)));
}

static void page_fetches(const struct bench_follow_result *r, json_t *rows, const char *prefix,
                         enum bench_mover ours)
{
    char name[64];
    double bytes = bench_follow_median(r, ours, BENCH_F_BYTES_ON_DEMAND);
    double pages = bench_follow_median(r, ours, BENCH_F_FAULTS) * PAGE_FETCH;
    if (isnan(bytes) || isnan(pages))
        return;
    snprintf(name, sizeof name, "%sbytes_on_demand", prefix);
    json_array_append_new(rows, bench_row("postcopy", r->guest->name, name, "bytes", bytes,
                                          "page-fetches", pages, bench_ratio(bytes, pages, false)));
}

static void forecast_rows(const struct bench_follow_result *r, json_t *rows, const char *prefix,
                          enum bench_mover ours)
{
    for (unsigned m = BENCH_F_FORECAST; m <= BENCH_F_FORECAST_BYTES; m++) {
        char name[64];
        double value = bench_follow_median(r, ours, m);
        snprintf(name, sizeof name, "%s%s", prefix, metrics[m].name);
        if (!isnan(value))
            json_array_append_new(rows, bench_row("postcopy", r->guest->name, name, metrics[m].unit,
                                                  value, NULL, NAN, NAN));
    }
}

void bench_follow_rows(const struct bench_follow_result *result, json_t *rows)
{
    static const enum bench_mover beside_hybrid[] = {BENCH_QEMU, BENCH_PURE, BENCH_HYBRID_BLIND};
    static const enum bench_mover beside_pure[] = {BENCH_QEMU, BENCH_PURE_BLIND};
    for (unsigned m = 0; m < BENCH_F_FORECAST; m++) {
        for (size_t i = 0; i < sizeof beside_hybrid / sizeof *beside_hybrid; i++)
            row(result, rows, "", BENCH_HYBRID, beside_hybrid[i], m);
        for (size_t i = 0; i < sizeof beside_pure / sizeof *beside_pure; i++)
            row(result, rows, "pure_", BENCH_PURE, beside_pure[i], m);
    }
    forecast_rows(result, rows, "", BENCH_HYBRID);
    forecast_rows(result, rows, "pure_", BENCH_PURE);
    forecast_rows(result, rows, "precopy_", BENCH_PRECOPY);
    page_fetches(result, rows, "", BENCH_HYBRID);
    page_fetches(result, rows, "pure_", BENCH_PURE);
}

void bench_follow_print(const struct bench_follow_result *result, FILE *out)
{
    fprintf(out, "\n%s: %s\n%-20s", result->guest->name, result->guest->what, "");
    for (unsigned who = 0; who < BENCH_MOVERS; who++)
        fprintf(out, "%20s", bench_mover_names[who]);
    fputc('\n', out);
    for (unsigned m = 0; m < BENCH_F_METRICS; m++) {
        fprintf(out, "%-20s", metrics[m].name);
        for (unsigned who = 0; who < BENCH_MOVERS; who++) {
            double value = bench_follow_median(result, who, m);
            if (isnan(value))
                fprintf(out, "%20s", "-");
            else
                fprintf(out, "%20.*f", value < 1000 && value != floor(value) ? 1 : 0, value);
        }
        fputc('\n', out);
    }
}

json_t *bench_follow_run_json(enum bench_mover mover, const struct bench_run *run)
{
    double values[BENCH_F_METRICS];
    json_t *o = json_pack("{s:s, s:s, s:i, s:I, s:s}", "case", run->guest->name, "mover",
                          bench_mover_names[mover], "run", (int)run->number, "guest_errors",
                          (json_int_t)run->guest_errors, "note", run->note);
    values_of(run, values);
    for (unsigned m = 0; m < BENCH_F_METRICS; m++)
        json_object_set_new(o, metrics[m].name, bench_number(values[m]));
    json_object_set_new(o, "forecast_downtime_ms",
                        bench_number(run->following.forecast_downtime_ms));
    return o;
}
