#include "cli/command.h"
#include "cli/json.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/table.h"

#include "base/units.h"

#include "towline/v1/migration.pb-c.h"

#include <string.h>

#define SERVICE (&towline__v1__migration_service__descriptor)

static void print_list(struct tow *tow, Towline__V1__Migration *const *list, size_t count)
{
    static const struct tow_column columns[] = {
        {"ID", false},      {"VM", false},    {"FROM", false},    {"TO", false},
        {"STATE", false},   {"ROUNDS", true}, {"SENT", true},     {"AS PAGES", true},
        {"DOWNTIME", true}, {"TOTAL", true},  {"STARTED", false}, {"BECAUSE", false}};
    static const Towline__V1__MigrationProgress none = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        const Towline__V1__Migration *m = list[i];
        const Towline__V1__MigrationProgress *p = m->progress ? m->progress : &none;
        char state[TOW_ENUM_TEXT], text[TW_SIZE_TEXT], time[TOW_TIME_TEXT];
        tow_enum_name(&towline__v1__migration_state__descriptor, (int)m->state, state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", m->id);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", m->vm);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", m->source);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", m->destination);
        tow_table_add(&table, tow_tone_of_state(state), "%s", state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%zu", p->n_rounds);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(p->bytes_sent, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(p->bytes_if_pages, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      p->downtime_us ? tw_duration_format(p->downtime_us * 1000, text) : "");
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      p->total_us ? tw_duration_format(p->total_us * 1000, text) : "");
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tow_time_format(m->created_unix_ms, time));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", m->error ? m->error->what : "");
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
}

int tow_migration_list(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__ListMigrationsRequest request = TOWLINE__V1__LIST_MIGRATIONS_REQUEST__INIT;
    const char *vm = tow_option_value(arguments, "vm");
    const char *limit = tow_option_value(arguments, "limit");
    struct tw_error err = {0};
    uint64_t number = 0;
    int status;
    if (limit && tow_number_parse("--limit", limit, 1, 1000, &number, &err) != TW_OK)
        return tow_fail(tow, &err);
    request.limit = (uint32_t)number;
    if (vm)
        request.vm = tow_text(vm);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "List", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__ListMigrationsResponse *list = (const void *)response;
    if (!tow_print_json(tow, response))
        print_list(tow, list->migrations, list->n_migrations);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_migration_show(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__GetMigrationRequest request = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    int status;
    request.id = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Get", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__Migration *m =
        ((const Towline__V1__GetMigrationResponse *)response)->migration;
    if (!tow_print_json(tow, response) && m)
        tow_migration_print(m, tow->color_out, tow->out);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

/* "m-3: copying, vm web-1 node-a -> node-b" */
static void print_short(struct tow *tow, const Towline__V1__Migration *m)
{
    char state[TOW_ENUM_TEXT], line[512], safe[512];
    if (!m)
        return;
    tow_enum_name(&towline__v1__migration_state__descriptor, (int)m->state, state);
    snprintf(line, sizeof line, "%s: %s%s, vm %s, %s -> %s", m->id, state,
             m->cancel_requested && !tow_migration_ended(m) ? " (cancel asked for)" : "", m->vm,
             m->source, m->destination);
    fprintf(tow->out, "%s\n", tow_safe_text(line, safe, sizeof safe));
}

int tow_migration_cancel(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__CancelMigrationRequest request = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    int status;
    request.id = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Cancel", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        print_short(tow, ((const Towline__V1__CancelMigrationResponse *)response)->migration);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_migration_switch(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__SwitchMigrationRequest request = TOWLINE__V1__SWITCH_MIGRATION_REQUEST__INIT;
    int status;
    request.id = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "SwitchNow", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        print_short(tow, ((const Towline__V1__SwitchMigrationResponse *)response)->migration);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_migration_reconnect(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__ReconnectMigrationRequest request = TOWLINE__V1__RECONNECT_MIGRATION_REQUEST__INIT;
    int status;
    request.id = tow_text(arguments->words[0]);
    request.from_mirror = tow_option_value(arguments, "from-mirror") != NULL;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Reconnect", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        print_short(tow, ((const Towline__V1__ReconnectMigrationResponse *)response)->migration);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_migration_recover(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__RecoverMigrationRequest request = TOWLINE__V1__RECOVER_MIGRATION_REQUEST__INIT;
    const char *to = tow_option_value(arguments, "to");
    int status;
    if (!to)
        return tow_usage(tow, "migration recover", "--to source or --to destination", NULL,
                         "who gets the VM is missing");
    if (!tow_option_value(arguments, "fenced"))
        return tow_usage(tow, "migration recover", "--fenced", NULL,
                         "refused without your word that the other side's host is off for good");
    request.id = tow_text(arguments->words[0]);
    request.to = strcmp(to, "source") == 0 ? TOWLINE__V1__RECOVER_TO__RECOVER_TO_SOURCE
                                           : TOWLINE__V1__RECOVER_TO__RECOVER_TO_DESTINATION;
    request.other_side_is_fenced = 1;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Recover", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        print_short(tow, ((const Towline__V1__RecoverMigrationResponse *)response)->migration);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_migration_resolve(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__DeclareLostRequest request = TOWLINE__V1__DECLARE_LOST_REQUEST__INIT;
    const char *host = tow_option_value(arguments, "lost");
    char safe[512];
    int status;
    if (!host)
        return tow_usage(tow, "migration resolve", "--lost HOST", NULL,
                         "the host that never returns is missing");
    request.id = tow_text(arguments->words[0]);
    request.host = tow_text(host);
    request.confirmed = tow_option_value(arguments, "yes") != NULL;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "DeclareLost", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__DeclareLostResponse *r = (const void *)response;
    if (!tow_print_json(tow, response)) {
        print_short(tow, r->migration);
        fprintf(tow->out, "%s\n", tow_safe_text(r->risk, safe, sizeof safe));
    }
    if (!request.confirmed) {
        fprintf(tow->err,
                "tow: nothing was decided; when %s is off and will not come back, again with "
                "--yes\n",
                tow_safe_text(host, safe, sizeof safe));
        status = 2;
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
