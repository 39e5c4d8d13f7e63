#include "bench/migration/report.h"

#include <math.h>

json_t *bench_run_json(const struct bench_run *run)
{
    json_t *o = json_pack("{s:s, s:s, s:i, s:I, s:s}", "case", run->guest->name, "contender",
                          bench_contender_names[run->contender], "run", (int)run->number,
                          "guest_errors", (json_int_t)run->guest_errors, "note", run->note);
    for (unsigned m = 0; m < BENCH_METRICS; m++)
        json_object_set_new(o, bench_metrics[m].name, bench_number(run->sample.value[m]));
    return o;
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
