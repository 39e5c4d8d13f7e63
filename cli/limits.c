#include "cli/limits.h"

#include "cli/options.h"

#include "base/units.h"

#include <string.h>

static enum tw_code bandwidth_take(const struct tow_arguments *arguments,
                                   Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const char *text = tow_option_value(arguments, "bandwidth");
    if (!text)
        return TW_OK;
    if (!tw_size_parse(text, &limits->bandwidth_bytes_per_s) || limits->bandwidth_bytes_per_s == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, "--bandwidth", "a rate above 0, as 128MiB/s", text,
                       "not usable");
    return TW_OK;
}

static enum tw_code downtime_take(const struct tow_arguments *arguments,
                                  Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const char *duration = tow_option_value(arguments, "downtime");
    const char *ms = tow_option_value(arguments, "downtime-ms");
    uint64_t number = 0;
    if (duration && ms)
        return tw_fail(err, TW_INVALID_ARGUMENT, "downtime", "--downtime or --downtime-ms", "both",
                       "downtime given twice");
    if (duration)
        return tow_milliseconds_parse("--downtime", duration, &limits->downtime_ms, err);
    enum tw_code code =
        ms ? tow_number_parse("--downtime-ms", ms, 1, UINT32_MAX, &number, err) : TW_OK;
    limits->downtime_ms = (uint32_t)number;
    return code;
}

static enum tw_code budgets_take(const struct tow_arguments *arguments,
                                 Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const char *total = tow_option_value(arguments, "total");
    const char *slow = tow_option_value(arguments, "slow-down");
    uint64_t percent = 0;
    enum tw_code code =
        total ? tow_milliseconds_parse("--total", total, &limits->total_ms, err) : TW_OK;
    if (code == TW_OK && slow)
        code = tow_number_parse("--slow-down", slow, 1, 90, &percent, err);
    limits->slow_down_percent = (uint32_t)percent;
    return code;
}

static Towline__V1__MigrationMethod method_of(const char *name)
{
    if (name && strcmp(name, "postcopy") == 0)
        return TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY;
    if (name && strcmp(name, "hybrid") == 0)
        return TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID;
    if (name && strcmp(name, "auto") == 0)
        return TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO;
    if (name && strcmp(name, "precopy") == 0)
        return TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY;
    return TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_UNSPECIFIED;
}

static Towline__V1__Predictor predictor_of(const char *name)
{
    static const char *const names[] = {"none", "spatial", "stride", "sequence", "auto"};
    for (int i = 0; name && i < 5; i++)
        if (strcmp(name, names[i]) == 0)
            return (Towline__V1__Predictor)(TOWLINE__V1__PREDICTOR__PREDICTOR_NONE + i);
    return TOWLINE__V1__PREDICTOR__PREDICTOR_UNSPECIFIED;
}

enum tw_code tow_limits_take(const struct tow_arguments *arguments,
                             Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const char *rounds = tow_option_value(arguments, "max-rounds");
    const char *give_up = tow_option_value(arguments, "give-up-after");
    const char *policy = tow_option_value(arguments, "on-no-convergence");
    uint64_t number = 0;
    enum tw_code code = bandwidth_take(arguments, limits, err);
    if (code == TW_OK)
        code = downtime_take(arguments, limits, err);
    if (code == TW_OK)
        code = budgets_take(arguments, limits, err);
    if (code == TW_OK && rounds)
        code = tow_number_parse("--max-rounds", rounds, 1, 1000, &number, err);
    limits->max_rounds = (uint32_t)number;
    if (code == TW_OK && give_up)
        code = tow_milliseconds_parse("--give-up-after", give_up, &limits->timeout_ms, err);
    if (policy)
        limits->on_no_convergence = strcmp(policy, "stop") == 0
                                        ? TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP
                                        : TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_ABORT;
    limits->method = method_of(tow_option_value(arguments, "method"));
    limits->predictor = predictor_of(tow_option_value(arguments, "predictor"));
    if (tow_option_value(arguments, "mirror"))
        limits->mirror = tow_text(tow_option_value(arguments, "mirror"));
    limits->skip_verify = tow_option_value(arguments, "skip-verify") != NULL;
    return code;
}

enum tw_code tow_target_take(const struct tow_arguments *arguments, char **vm, char **host,
                             struct tw_error *err)
{
    const char *to = tow_option_value(arguments, "to");
    const char *where = arguments->command->name;
    if (arguments->word_count == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, arguments->command->arguments, NULL,
                       "argument missing");
    if (arguments->word_count == 2 && to)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "HOST or --to", "both", "host given twice");
    if (arguments->word_count == 1 && !to)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "HOST, --to HOST or --to auto", NULL,
                       "argument missing");
    *vm = tow_text(arguments->words[0]);
    if (!to)
        *host = tow_text(arguments->words[1]);
    else if (strcmp(to, "auto") != 0)
        *host = tow_text(to);
    return TW_OK;
}
