/* tow vm plan: has a running VM measured and shows what its migration would come to. */
#include "cli/command.h"
#include "cli/follow.h"
#include "cli/format.h"
#include "cli/json.h"
#include "cli/limits.h"
#include "cli/options.h"
#include "cli/outcome.h"
#include "cli/table.h"

#include "base/clock.h"
#include "base/units.h"

#include "towline/v1/migration.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define SERVICE  (&towline__v1__migration_service__descriptor)
#define LOOK_MS  200u
#define LIMIT_NS (120 * TW_SEC) /* a measurement is at most a minute */

/* ---- What was measured ------------------------------------------------------------------------
 */

static void print_samples(const Towline__V1__Measurement *m, bool color, FILE *out)
{
    static const struct tow_column columns[] = {{"EPOCH", true},    {"LINES", true},
                                                {"PAGES", true},    {"LINES/PAGE", true},
                                                {"AS LINES", true}, {"AS PAGES", true}};
    struct tow_table table;
    uint64_t next_us = 0;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < m->n_samples; i++) {
        const Towline__V1__DirtySample *s = m->samples[i];
        char text[TW_SIZE_TEXT];
        bool last = i + 1 == m->n_samples;
        if (s->after_us < next_us && !last)
            continue; /* about six rows are enough to see how the set grows */
        next_us = s->after_us * 3;
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_duration_format(s->after_us * TW_US, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)s->lines);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)s->pages);
        tow_table_add(&table, TOW_TONE_PLAIN, "%.1f",
                      s->pages ? (double)s->lines / (double)s->pages : 0);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(s->lines * 64, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(s->pages * 4096, text));
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}

static void print_measured(const Towline__V1__Plan *p, FILE *out)
{
    static const char *const sources[] = {"of unknown origin", "measured", "configured", "as in",
                                          "assumed"};
    const Towline__V1__Measurement *m = p->measurement;
    unsigned source = (unsigned)m->path_source < 5 ? (unsigned)m->path_source : 0;
    char text[TW_SIZE_TEXT], from[80], safe[80];
    snprintf(from, sizeof from, "%s%s%.40s", sources[source], m->path_from[0] ? " " : "",
             m->path_from);
    fprintf(out, "measured       for %s", tw_duration_format(m->duration_us * TW_US, text));
    fprintf(out, "; %llu write-backs of lines a second\n",
            (unsigned long long)m->write_backs_per_s);
    fprintf(out, "memory         %s", tw_size_format(m->memory_bytes, text));
    fprintf(out, ", %s of it in use", tw_size_format(m->data_bytes, text));
    fprintf(out, ", %s on the wire\n", tw_size_format(m->full_copy_bytes, text));
    fprintf(out, "path           %s/s, %s", tw_size_format(m->path_bytes_per_s, text),
            tow_safe_text(from, safe, sizeof safe));
    if (p->limits && p->limits->bandwidth_bytes_per_s)
        fprintf(out, "; limited to %s/s", tw_size_format(p->limits->bandwidth_bytes_per_s, text));
    fputs("\n\n", out);
}

/* ---- What it would come to --------------------------------------------------------------------
 */

static void print_forecasts(const Towline__V1__Plan *p, bool color, FILE *out)
{
    static const struct tow_column columns[] = {
        {"METHOD", false},  {"ROUNDS", true}, {"BYTES", true},     {"TOTAL", true},
        {"DOWNTIME", true}, {"BEHIND", true}, {"SLOW-DOWN", true}, {"", false}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < p->n_forecasts; i++) {
        const Towline__V1__Forecast *f = p->forecasts[i];
        char method[TOW_ENUM_TEXT], text[TW_SIZE_TEXT];
        bool taken = f->method == p->method;
        tow_enum_name(&towline__v1__migration_method__descriptor, (int)f->method, method);
        tow_table_add(&table, taken ? TOW_TONE_TITLE : TOW_TONE_PLAIN, "%s", method);
        tow_table_add(&table, TOW_TONE_PLAIN, "%u", f->rounds);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(f->bytes, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_duration_format(f->total_us * TW_US, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tw_duration_format(f->downtime_us * TW_US, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)f->lines_to_come);
        /* Nobody sees what the guest reads: where memory follows it is a lower bound. */
        tow_table_add(&table, TOW_TONE_PLAIN, "%s%u.%u %%", f->lines_to_come ? "at least " : "",
                      f->slow_down_permille / 10, f->slow_down_permille % 10);
        tow_table_add(&table, f->converges ? TOW_TONE_PLAIN : TOW_TONE_BAD, "%s",
                      !f->converges ? "does not converge"
                      : taken       ? "<- to be run"
                                    : " ");
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
    fputc('\n', out);
}

/* Those of the method that would be run; the others are for "migration why". */
static void print_reasons(struct tow *tow, const Towline__V1__Plan *p)
{
    Towline__V1__Reason **own = calloc(p->n_reasons + 1, sizeof *own);
    char method[TOW_ENUM_TEXT];
    size_t count = 0;
    tow_enum_name(&towline__v1__migration_method__descriptor, (int)p->method, method);
    for (size_t i = 0; own && i < p->n_reasons; i++)
        if (strcmp(p->reasons[i]->about, method) == 0 || strcmp(p->reasons[i]->about, "plan") == 0)
            own[count++] = p->reasons[i];
    tow_reasons_print(own, count, tow->color_out, tow->out);
    free(own);
}

static void print_plan(struct tow *tow, const Towline__V1__Plan *p)
{
    char line[300], safe[300], time[TOW_TIME_TEXT];
    snprintf(line, sizeof line, "%s  vm %s  %s -> %s", p->token, p->vm, p->source, p->destination);
    fprintf(tow->out, "%s\n\n", tow_safe_text(line, safe, sizeof safe));
    if (p->measurement) {
        print_measured(p, tow->out);
        print_samples(p->measurement, tow->color_out, tow->out);
        fputc('\n', tow->out);
    }
    print_forecasts(p, tow->color_out, tow->out);
    print_reasons(tow, p);
    if (p->refused)
        fprintf(tow->out, "\nrefused: see the reasons\n");
    else
        fprintf(tow->out, "\nuntil %s: tow vm migrate --plan %s\n",
                tow_time_format(p->expires_unix_ms, time),
                tow_safe_text(p->token, safe, sizeof safe));
}

/* ---- The command ------------------------------------------------------------------------------
 */

/* The plan once it has ended; NULL = failed, *status is set. */
static ProtobufCMessage *await_plan(struct tow *tow, const char *token, int *status)
{
    Towline__V1__GetPlanRequest request = TOWLINE__V1__GET_PLAN_REQUEST__INIT;
    uint64_t limit_ns = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    struct tw_error err = {0};
    request.token = tow_text(token);
    for (;;) {
        ProtobufCMessage *response = tow_ask(tow, SERVICE, "GetPlan", &request.base, status);
        if (!response)
            return NULL;
        const Towline__V1__Plan *p = ((const Towline__V1__GetPlanResponse *)response)->plan;
        if (p && p->state != TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING)
            return response;
        uint32_t left = p && p->left_ms < LOOK_MS ? p->left_ms : LOOK_MS;
        protobuf_c_message_free_unpacked(response, NULL);
        if (tw_now(&tw_monotonic) > limit_ns) {
            tw_fail(&err, TW_DEADLINE_EXCEEDED, token, NULL, NULL, "the measurement does not end");
            *status = tow_fail(tow, &err);
            return NULL;
        }
        tow_sleep_ms(left + 10);
    }
}

static int show(struct tow *tow, const Towline__V1__PlanMigrationResponse *begun)
{
    int status = TOW_EXIT_OK;
    struct tw_error err = {0};
    if (!begun->plan)
        return TOW_EXIT_FAILED;
    ProtobufCMessage *response = await_plan(tow, begun->plan->token, &status);
    if (!response)
        return status;
    const Towline__V1__Plan *p = ((const Towline__V1__GetPlanResponse *)response)->plan;
    bool failed = p->state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_FAILED;
    if (!tow_print_json(tow, response) && !failed)
        print_plan(tow, p);
    if (failed) {
        tw_error_from_proto(p->error, &err);
        status = tow_fail(tow, &err);
    } else if (p->refused) {
        status = TOW_EXIT_NOT_MOVED;
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_vm_plan(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__PlanMigrationRequest request = TOWLINE__V1__PLAN_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    const char *length = tow_option_value(arguments, "for");
    struct tw_error err = {0};
    int status;
    enum tw_code code = tow_limits_take(arguments, &limits, &err);
    if (code == TW_OK)
        code = tow_target_take(arguments, &request.vm, &request.destination, &err);
    if (code == TW_OK && length)
        code = tow_milliseconds_parse("--for", length, &request.for_ms, &err);
    if (code != TW_OK)
        return tow_fail(tow, &err);
    request.limits = &limits;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Plan", &request.base, &status);
    if (!response)
        return status;
    status = show(tow, (const Towline__V1__PlanMigrationResponse *)response);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
