#include "cli/command.h"
#include "cli/follow.h"
#include "cli/meter.h"
#include "cli/options.h"
#include "cli/report.h"

#include "base/clock.h"

#include <limits.h>
#include <string.h>

#define EVERY_MS  1000u
#define REPORT_MS 10000u

static int pid_parse(struct tow *tow, const char *text, pid_t *pid)
{
    struct tw_error err = {0};
    uint64_t number;
    if (tow_number_parse("PID", text, 1, INT_MAX, &number, &err) != TW_OK)
        return tow_fail(tow, &err);
    *pid = (pid_t)number;
    return TOW_EXIT_OK;
}

/* A duration option; leaves *ms alone when it is not given. */
static int duration_take(struct tow *tow, const struct tow_arguments *arguments, const char *name,
                         unsigned *ms)
{
    struct tw_error err = {0};
    char where[32];
    const char *value = tow_option_value(arguments, name);
    snprintf(where, sizeof where, "--%s", name);
    if (value && tow_milliseconds_parse(where, value, ms, &err) != TW_OK)
        return tow_fail(tow, &err);
    return TOW_EXIT_OK;
}

static uint32_t attachment_of(const char *name)
{
    return !name || strcmp(name, "auto") == 0 ? TOWLINE_ANY
           : strcmp(name, "process") == 0     ? TOWLINE_PROCESS
                                              : TOWLINE_INSTRUMENTED;
}

int tow_meter_options(struct tow *tow, const struct tow_arguments *arguments,
                      struct tow_meter *meter)
{
    meter->socket = tow_option_value(arguments, "socket");
    meter->exact = tow_option_value(arguments, "exact") != NULL;
    meter->attachment = attachment_of(tow_option_value(arguments, "attachment"));
    meter->sharing = tow_option_value(arguments, "sharing") != NULL;
    meter->accessed = tow_option_value(arguments, "accessed") != NULL;
    meter->bytes = tow_option_value(arguments, "bytes") != NULL;
    meter->every_ms = EVERY_MS;
    return duration_take(tow, arguments, "every", &meter->every_ms);
}

/* Gathers quietly, then writes. */
static int report(struct tow *tow, struct tow_meter *meter, const char *path)
{
    char usual[64];
    bool counted = true;
    while (counted && !meter->ended && meter->now_ns < meter->until_ns) {
        int status = tow_meter_next(tow, meter, &counted);
        if (status)
            return status;
    }
    snprintf(usual, sizeof usual, "towline-%d.html", (int)meter->pid);
    return tow_report_write(tow, meter, path ? path : usual);
}

int tow_track(struct tow *tow, const struct tow_arguments *arguments)
{
    struct tow_heat heat = {0}, accessed = {0};
    struct tow_meter meter = {0};
    bool wants_report = arguments->word_count == 2;
    unsigned for_ms = wants_report ? REPORT_MS : 0;
    if (wants_report && strcmp(arguments->words[0], "report") != 0)
        return tow_usage(tow, "track", "PID or report PID", arguments->words[0], "not usable");
    int status = pid_parse(tow, arguments->words[arguments->word_count - 1], &meter.pid);
    if (!status)
        status = tow_meter_options(tow, arguments, &meter);
    if (!status)
        status = duration_take(tow, arguments, "for", &for_ms);
    if (status)
        return status;
    meter.heat = wants_report ? &heat : NULL;
    meter.heat_accessed = wants_report && meter.accessed ? &accessed : NULL;
    tow_interrupt_catch();
    status = tow_meter_open(tow, &meter, false);
    if (!status)
        status = tow_meter_start(tow, &meter);
    if (!status && for_ms)
        tow_meter_limit(&meter, for_ms);
    if (!status && wants_report)
        status = report(tow, &meter, tow_option_value(arguments, "out"));
    else if (!status)
        status = tow_meter_follow(tow, &meter, tow->out);
    tow_meter_close(&meter);
    tow_heat_free(&heat);
    tow_heat_free(&accessed);
    tow_sharing_free(&meter.shared);
    return status;
}
