/* tow migration set, pause, resume and why. */
#include "cli/command.h"
#include "cli/format.h"
#include "cli/options.h"
#include "cli/outcome.h"

#include "base/units.h"

#include "towline/v1/migration.pb-c.h"

#include <string.h>

#define SERVICE (&towline__v1__migration_service__descriptor)

static int adjust(struct tow *tow, Towline__V1__AdjustMigrationRequest *request, const char *done)
{
    int status;
    char safe[100];
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Adjust", &request->base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        fprintf(tow->out, "%s: %s\n", tow_safe_text(request->id, safe, sizeof safe), done);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static enum tw_code slow_down_parse(const char *text, uint32_t *percent, struct tw_error *err)
{
    uint64_t number = 0;
    enum tw_code code = TW_OK;
    if (strcmp(text, "none") != 0)
        code = tow_number_parse("--slow-down", text, 1, 90, &number, err);
    *percent = (uint32_t)number;
    return code;
}

int tow_migration_set(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__AdjustMigrationRequest request = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    const char *bandwidth = tow_option_value(arguments, "bandwidth");
    const char *downtime = tow_option_value(arguments, "downtime");
    const char *slow = tow_option_value(arguments, "slow-down");
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    request.id = tow_text(arguments->words[0]);
    request.set_bandwidth = bandwidth != NULL;
    request.set_downtime = downtime != NULL;
    request.set_slow_down = slow != NULL;
    if (!bandwidth && !downtime && !slow)
        return tow_usage(tow, "migration set", "--bandwidth, --downtime or --slow-down", NULL,
                         "nothing to change");
    if (bandwidth && strcmp(bandwidth, "unlimited") != 0 &&
        (!tw_size_parse(bandwidth, &request.bandwidth_bytes_per_s) ||
         request.bandwidth_bytes_per_s == 0))
        return tow_usage(tow, "--bandwidth", "a rate above 0, as 64MiB/s, or unlimited", bandwidth,
                         "not usable");
    if (downtime)
        code = tow_milliseconds_parse("--downtime", downtime, &request.downtime_ms, &err);
    if (code == TW_OK && slow)
        code = slow_down_parse(slow, &request.slow_down_percent, &err);
    return code == TW_OK ? adjust(tow, &request, "changed") : tow_fail(tow, &err);
}

static int set_paused(struct tow *tow, const struct tow_arguments *arguments, bool paused)
{
    Towline__V1__AdjustMigrationRequest request = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    request.id = tow_text(arguments->words[0]);
    request.set_paused = true;
    request.paused = paused;
    return adjust(tow, &request,
                  paused ? "paused, for 5 minutes at most; what the guest waits for is still sent"
                         : "goes on");
}

int tow_migration_pause(struct tow *tow, const struct tow_arguments *arguments)
{
    return set_paused(tow, arguments, true);
}

int tow_migration_resume(struct tow *tow, const struct tow_arguments *arguments)
{
    return set_paused(tow, arguments, false);
}

int tow_migration_why(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__WhyMigrationRequest request = TOWLINE__V1__WHY_MIGRATION_REQUEST__INIT;
    int status;
    char line[300], safe[300];
    request.id = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Why", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__WhyMigrationResponse *r = (const void *)response;
    if (!tow_print_json(tow, response)) {
        snprintf(line, sizeof line, "%s: vm %s, %s%s: %s%s", r->id, r->vm,
                 r->wanted[0] ? "to host " : "to any host", r->wanted,
                 r->chosen[0] ? "chosen " : "refused", r->chosen);
        fprintf(tow->out, "%s\n\n", tow_safe_text(line, safe, sizeof safe));
        tow_reasons_print(r->reasons, r->n_reasons, tow->color_out, tow->out);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
