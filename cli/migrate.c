/* tow vm migrate: starts a migration and, with --wait, follows it. */
#include "cli/command.h"
#include "cli/follow.h"
#include "cli/format.h"
#include "cli/limits.h"
#include "cli/progress.h"

#include "base/clock.h"
#include "towline/v1/event.pb-c.h"
#include "towline/v1/migration.pb-c.h"

#include <string.h>

#define SERVICE       (&towline__v1__migration_service__descriptor)
#define EVENT_SERVICE (&towline__v1__event_service__descriptor)

#define CALL_MS      2000u /* for one look at the migration */
#define LOOK_MS      250u  /* between two looks on a terminal */
#define LOOK_LONG_MS 1000u /* and elsewhere */

/* ---- Following ------------------------------------------------------------------------------ */

struct follow {
    struct tow *tow;
    char id[80];
    struct tow_progress progress;
    struct tow_absence absence;
    uint64_t revision; /* events seen */
    Towline__V1__GetMigrationResponse *last;
};

static const Towline__V1__Migration *last_of(const struct follow *follow)
{
    return follow->last ? follow->last->migration : NULL;
}

/* Asks for the migration as it is now; keeps what was known when that fails. */
static enum tw_code look(struct follow *follow, struct tw_error *err)
{
    Towline__V1__GetMigrationRequest request = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *response;
    request.id = follow->id;
    enum tw_code code =
        tow_call_within(follow->tow, SERVICE, "Get", &request.base, CALL_MS, &response, err);
    if (code != TW_OK)
        return code;
    if (!((Towline__V1__GetMigrationResponse *)response)->migration) {
        protobuf_c_message_free_unpacked(response, NULL);
        return tw_fail(err, TW_INTERNAL, follow->id, "a migration", NULL,
                       "the controller answered without one");
    }
    if (follow->last)
        protobuf_c_message_free_unpacked(&follow->last->base, NULL);
    follow->last = (Towline__V1__GetMigrationResponse *)response;
    return TW_OK;
}

/* Waits for the next event of the migration, but not for long: figures change without events. */
static void pause_for_event(struct follow *follow)
{
    Towline__V1__WatchEventsRequest request = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    ProtobufCMessage *response;
    uint64_t begin_ns = tw_now(&tw_monotonic);
    request.subject = follow->id;
    request.after_revision = follow->revision;
    request.wait_ms = follow->progress.terminal ? LOOK_MS : LOOK_LONG_MS;
    if (tow_call_within(follow->tow, EVENT_SERVICE, "Watch", &request.base, CALL_MS, &response,
                        NULL) == TW_OK) {
        const Towline__V1__WatchEventsResponse *events = (const void *)response;
        follow->revision = events->next_revision;
        protobuf_c_message_free_unpacked(response, NULL);
    } else if (tw_now(&tw_monotonic) - begin_ns < request.wait_ms * TW_MS) {
        tow_sleep_ms(request.wait_ms); /* whatever is wrong with events: do not spin */
    }
}

static enum tw_code follow_to_the_end(struct follow *follow, struct tw_error *err)
{
    for (;;) {
        enum tw_code code = look(follow, err);
        if (tow_interrupted())
            return tw_fail(err, TW_CANCELLED, follow->id, NULL, NULL,
                           "interrupted; the migration goes on: tow migration show %s", follow->id);
        if (code == TW_OK && tow_migration_ended(last_of(follow)))
            return TW_OK;
        if (!tow_absence_bridge(&follow->absence, code))
            return code;
        if (last_of(follow))
            tow_progress_show(&follow->progress, last_of(follow), tow_absence_ms(&follow->absence));
        if (code == TW_OK)
            pause_for_event(follow);
    }
}

static int follow_result(struct follow *follow)
{
    struct tow *tow = follow->tow;
    const Towline__V1__Migration *m = last_of(follow);
    if (!tow_print_json(tow, &follow->last->base))
        tow_migration_print(m, tow->color_out, tow->out);
    if (m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED)
        return TOW_EXIT_OK;
    struct tw_error err = {0};
    tw_error_from_proto(m->error, &err);
    if (err.code == TW_OK)
        tw_fail(&err, TW_ABORTED, follow->id, NULL, NULL, "the VM did not move");
    tow_fail(tow, &err);
    return TOW_EXIT_NOT_MOVED;
}

static int follow_migration(struct tow *tow, const char *id)
{
    struct follow follow = {.tow = tow};
    struct tw_error err = {0};
    int status;
    snprintf(follow.id, sizeof follow.id, "%s", id);
    tow_progress_init(&follow.progress, tow->err, tow->color_err);
    tow_absence_init(&follow.absence, tow);
    tow_interrupt_catch();
    enum tw_code code = follow_to_the_end(&follow, &err);
    tow_progress_clear(&follow.progress);
    if (code == TW_OK)
        status = follow_result(&follow);
    else
        status = tow_fail(tow, &err);
    if (tow_interrupted() && code != TW_OK)
        status = TOW_EXIT_INTERRUPTED;
    if (follow.last)
        protobuf_c_message_free_unpacked(&follow.last->base, NULL);
    return status;
}

/* ---- Start ---------------------------------------------------------------------------------- */

static void print_started(struct tow *tow, const Towline__V1__Migration *m)
{
    char line[512], safe[512];
    snprintf(line, sizeof line, "%s: started, vm %s, %s -> %s; see: tow migration show %s", m->id,
             m->vm, m->source, m->destination, m->id);
    fprintf(tow->out, "%s\n", tow_safe_text(line, safe, sizeof safe));
}

static int start_failed(struct tow *tow, const struct tw_error *err)
{
    int status = tow_fail(tow, err);
    if (err->code == TW_DEADLINE_EXCEEDED || err->code == TW_UNAVAILABLE)
        fputs("tow: whether it was started is not known; see: tow migration list\n", tow->err);
    return status;
}

/* VM and host by words or --to, or a plan and none of them. */
static enum tw_code wish_take(const struct tow_arguments *arguments,
                              Towline__V1__StartMigrationRequest *request,
                              Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    const char *plan = tow_option_value(arguments, "plan");
    if (!plan) {
        enum tw_code code = tow_limits_take(arguments, limits, err);
        request->limits = limits;
        return code == TW_OK ? tow_target_take(arguments, &request->vm, &request->destination, err)
                             : code;
    }
    if (arguments->word_count > 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, "vm migrate", "--plan TOKEN alone",
                       arguments->words[0], "VM and host are in the plan");
    for (unsigned i = 0; i < arguments->option_count; i++) {
        const struct tow_option *o = arguments->options[i].option;
        for (const struct tow_option *m = arguments->command->options; m->name; m++)
            if (m == o && strcmp(o->name, "plan") != 0 && strcmp(o->name, "wait") != 0)
                return tw_fail(err, TW_INVALID_ARGUMENT, "vm migrate", "--plan TOKEN alone",
                               o->name, "limits are in the plan");
    }
    request->plan = tow_text(plan);
    return TW_OK;
}

int tow_vm_migrate(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__StartMigrationRequest request = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    struct tw_error err = {0};
    ProtobufCMessage *response;
    if (wish_take(arguments, &request, &limits, &err) != TW_OK)
        return tow_fail(tow, &err);
    if (tow_call(tow, SERVICE, "Start", &request.base, &response, &err) != TW_OK)
        return start_failed(tow, &err);
    int status = TOW_EXIT_OK;
    const Towline__V1__Migration *m = ((Towline__V1__StartMigrationResponse *)response)->migration;
    if (!m)
        status = TOW_EXIT_FAILED;
    else if (tow_option_value(arguments, "wait"))
        status = follow_migration(tow, m->id);
    else if (!tow_print_json(tow, response))
        print_started(tow, m);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
