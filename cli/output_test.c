/* Tables, text and JSON. */
#include "cli/format.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/table.h"

#include "base/clock.h"

#include "towline/v1/agent.pb-c.h"
#include "towline/v1/migration.pb-c.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const struct tow_column columns[] = {{"NAME", false}, {"SIZE", true}, {"WHY", false}};

static char *table_text(struct tow_table *table, bool color)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    tow_table_print(table, color, out);
    fclose(out);
    return text;
}

Test(table, columns_align_whatever_the_script)
{
    struct tow_table table;
    tow_table_init(&table, columns, 3);
    tow_table_add(&table, TOW_TONE_PLAIN, "web");
    tow_table_add(&table, TOW_TONE_PLAIN, "%d MiB", 256);
    tow_table_add(&table, TOW_TONE_PLAIN, "%s", "");
    tow_table_add(&table, TOW_TONE_PLAIN, "%s", "m\xc3\xbcller"); /* two bytes, one column */
    tow_table_add(&table, TOW_TONE_PLAIN, "4 KiB");
    tow_table_add(&table, TOW_TONE_PLAIN, "x");
    tow_table_add(&table, TOW_TONE_PLAIN, "%s", "\xe6\x9d\xb1\xe4\xba\xac"); /* wide ones */
    tow_table_add(&table, TOW_TONE_PLAIN, "9 B");
    tow_table_add(&table, TOW_TONE_PLAIN, "y");
    char *text = table_text(&table, false);
    cr_assert_str_eq(text, "NAME       SIZE  WHY\n"
                           "web     256 MiB  -\n"
                           "m\xc3\xbcller    4 KiB  x\n"
                           "\xe6\x9d\xb1\xe4\xba\xac        9 B  y\n");
    free(text);
    tow_table_free(&table);
}

Test(table, color_does_not_move_columns)
{
    struct tow_table table;
    tow_table_init(&table, columns, 3);
    tow_table_add(&table, TOW_TONE_GOOD, "ok");
    tow_table_add(&table, TOW_TONE_PLAIN, "1");
    tow_table_add(&table, TOW_TONE_BAD, "no");
    char *text = table_text(&table, true);
    cr_assert_str_eq(text, "\033[1mNAME\033[0m  \033[1mSIZE\033[0m  \033[1mWHY\033[0m\n"
                           "\033[32mok\033[0m       1  \033[31mno\033[0m\n");
    free(text);
    tow_table_free(&table);
}

Test(table, too_wide_breaks_the_last_column)
{
    struct tow_table table;
    tow_table_init(&table, columns, 3);
    table.width = 40;
    tow_table_add(&table, TOW_TONE_PLAIN, "web");
    tow_table_add(&table, TOW_TONE_PLAIN, "256 MiB");
    tow_table_add(&table, TOW_TONE_BAD, "killed by signal 9 while m\xc3\xbcller looked at it");
    char *text = table_text(&table, false);
    cr_assert_str_eq(text, "NAME     SIZE  WHY\n"
                           "web   256 MiB  killed by signal 9 while\n"
                           "               m\xc3\xbcller looked at it\n");
    free(text);
    table.width = 5;
    text = table_text(&table, false);
    cr_assert_str_eq(text, "NAME     SIZE  WHY\n"
                           "web   256 MiB  killed by signal 9\n"
                           "               while m\xc3\xbcller looked\n"
                           "               at it\n");
    free(text);
    tow_table_free(&table);
}

Test(table, no_rows)
{
    struct tow_table table;
    tow_table_init(&table, columns, 3);
    char *text = table_text(&table, false);
    cr_assert_str_eq(text, "none\n");
    free(text);
    tow_table_free(&table);
}

Test(table, cells_cannot_steer_the_terminal)
{
    struct tow_table table;
    tow_table_init(&table, columns, 1);
    tow_table_add(&table, TOW_TONE_PLAIN, "%s", "a\033[31m\nb\xc2\x9b\xff");
    char *text = table_text(&table, false);
    cr_assert_str_eq(text, "NAME\na?[31m?b??\n");
    free(text);
    tow_table_free(&table);
}

Test(format, safe_text_cuts_at_a_character)
{
    char out[6];
    cr_assert_str_eq(tow_safe_text("abc\xc3\xa4\xc3\xa4", out, sizeof out), "abc\xc3\xa4");
    cr_assert_str_eq(tow_safe_text("abcd\xc3\xa4", out, sizeof out), "abcd");
    cr_assert_str_eq(tow_safe_text("\xc3", out, sizeof out), "?");
    cr_assert_str_eq(tow_safe_text("\xc0\x80", out, sizeof out), "??", "overlong");
    cr_assert_str_eq(tow_safe_text("\xed\xa0\x80", out, sizeof out), "???", "surrogate");
    cr_assert_str_eq(tow_safe_text("\xe2\x80\xae", out, sizeof out), "?", "turned direction");
}

Test(format, times)
{
    char out[TOW_TIME_TEXT];
    setenv("TZ", "UTC", 1);
    cr_assert_str_eq(tow_time_format(UINT64_C(1790000000000), out), "2026-09-21 14:13:20");
    cr_assert_str_eq(tow_time_format(0, out), "-");
    cr_assert_str_eq(tow_ago_format(1000, 4200, out), "3.20 s ago");
    cr_assert_str_eq(tow_ago_format(9000, 4200, out), "now", "clocks differ");
    cr_assert_str_eq(tow_ago_format(0, 4200, out), "never");
    cr_assert_str_eq(tow_times_format(153, 10, out), "15.3 times");
    cr_assert_str_eq(tow_times_format(153, 0, out), "-");
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static char *json_text(const ProtobufCMessage *message, enum tow_json_style style)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    tow_json_print(message, style, out);
    fclose(out);
    return text;
}

static json_t *json_of(const ProtobufCMessage *message, enum tow_json_style style)
{
    json_error_t error;
    char *text = json_text(message, style);
    json_t *root = json_loads(text, 0, &error);
    cr_assert_not_null(root, "%s in %s", error.text, text);
    free(text);
    return root;
}

Test(json, names_numbers_and_nesting)
{
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    Towline__V1__MigrationProgress p = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    Towline__V1__Round rounds[2] = {TOWLINE__V1__ROUND__INIT, TOWLINE__V1__ROUND__INIT};
    Towline__V1__Round *list[2] = {&rounds[0], &rounds[1]};
    m.id = (char[]){"m-1"};
    m.state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING;
    m.progress = &p;
    p.n_rounds = 2;
    p.rounds = list;
    p.memory_equal = 1;
    rounds[1].bytes = 4711;
    rounds[1].final = 1;
    for (enum tow_json_style style = TOW_JSON_INDENTED; style <= TOW_JSON_ONE_LINE; style++) {
        json_t *root = json_of(&m.base, style);
        cr_assert_str_eq(json_string_value(json_object_get(root, "id")), "m-1");
        cr_assert_str_eq(json_string_value(json_object_get(root, "state")), "copying");
        cr_assert(json_is_null(json_object_get(root, "error")));
        cr_assert(json_is_false(json_object_get(root, "cancel_requested")));
        json_t *progress = json_object_get(root, "progress");
        cr_assert(json_is_true(json_object_get(progress, "memory_equal")));
        cr_assert_eq(json_integer_value(json_object_get(progress, "bytes_sent")), 0);
        json_t *last = json_array_get(json_object_get(progress, "rounds"), 1);
        cr_assert_eq(json_integer_value(json_object_get(last, "bytes")), 4711);
        cr_assert(json_is_true(json_object_get(last, "final")));
        cr_assert_eq(json_object_size(root), m.base.descriptor->n_fields);
        json_decref(root);
    }
}

Test(json, one_line_is_one_line)
{
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    m.vm = (char[]){"a\nb"};
    char *text = json_text(&m.base, TOW_JSON_ONE_LINE);
    cr_assert_null(strchr(text, '\n'));
    free(text);
}

Test(json, whole_range_of_64_bits)
{
    Towline__V1__HostDescription d = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    d.instance = UINT64_MAX;
    char *text = json_text(&d.base, TOW_JSON_ONE_LINE);
    cr_assert(strstr(text, "\"instance\": 18446744073709551615"));
    free(text);
}

Test(json, hostile_text)
{
    static const char text[] = "q\" b\\ \t\n\r\x01\x7f \xff\xc3 \xc3\xa4 \xc2\x9b";
    Towline__V1__ErrorDetail d = TOWLINE__V1__ERROR_DETAIL__INIT;
    d.what = (char *)(uintptr_t)text;
    json_t *root = json_of(&d.base, TOW_JSON_ONE_LINE);
    cr_assert_str_eq(json_string_value(json_object_get(root, "what")),
                     "q\" b\\ \t\n\r\x01\x7f \xef\xbf\xbd\xef\xbf\xbd \xc3\xa4 \xc2\x9b");
    json_decref(root);
    char *raw = json_text(&d.base, TOW_JSON_ONE_LINE);
    cr_assert_null(strchr(raw, 0x7f));
    cr_assert_null(strstr(raw, "\xc2\x9b"), "not raw on a terminal");
    free(raw);
}

Test(json, bytes_in_hexadecimal)
{
    Towline__V1__PrepareIncomingResponse r = TOWLINE__V1__PREPARE_INCOMING_RESPONSE__INIT;
    r.token = (ProtobufCBinaryData){3, (uint8_t[]){0, 0x1f, 0xff}};
    char *text = json_text(&r.base, TOW_JSON_ONE_LINE);
    cr_assert(strstr(text, "\"token\": \"001fff\""));
    free(text);
}

Test(json, enumerations)
{
    char name[TOW_ENUM_TEXT];
    const ProtobufCEnumDescriptor *state = &towline__v1__migration_state__descriptor;
    cr_assert_str_eq(tow_enum_name(state, 6, name), "completed");
    cr_assert_str_eq(tow_enum_name(state, 0, name), "unspecified");
    cr_assert_str_eq(tow_enum_name(state, 4711, name), "unknown 4711");
    cr_assert_str_eq(tow_enum_name(&towline__v1__hand_over__descriptor, 3, name), "given_up");
    cr_assert_str_eq(tow_enum_name(&towline__v1__cache_kind__descriptor, 2, name), "mesi");
}

/* ---- Progress ------------------------------------------------------------------------------- */

Test(progress, the_estimate_may_go_up_and_says_so)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct tow_progress progress = {.out = out, .terminal = true, .columns = 200};
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    Towline__V1__MigrationProgress p = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    m.progress = &p;
    p.eta_ms = 1000;
    tow_progress_show(&progress, &m, 0);
    fflush(out);
    cr_assert(strstr(text, "switch-over in 1.00 s\n"));
    p.eta_ms = 3000;
    tow_progress_show(&progress, &m, 0);
    fflush(out);
    cr_assert(strstr(text, "switch-over in 3.00 s (longer than thought)\n"));
    fclose(out);
    free(text);
}

Test(progress, block_is_redrawn_in_place_and_never_wraps)
{
    char *text, id[200];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct tow_progress progress = {.out = out, .terminal = true, .columns = 40};
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    memset(id, 'm', sizeof id);
    id[sizeof id - 1] = 0;
    m.id = id;
    tow_progress_show(&progress, &m, 0);
    unsigned drawn = progress.lines_drawn;
    cr_assert_eq(drawn, 4);
    fflush(out);
    size_t first = size;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        cr_assert_lt(end - line, 40);
    tow_progress_show(&progress, &m, 2000);
    fflush(out);
    unsigned up = 0;
    for (const char *p = text + first; (p = strstr(p, "\033[A")); p++)
        up++;
    cr_assert_eq(up, drawn, "climbs exactly over what it drew");
    cr_assert_eq(progress.lines_drawn, 5);
    cr_assert(strstr(text, "controller has not answered for 2.00 s"));
    fclose(out);
    free(text);
}

Test(progress, elsewhere_lines_are_few)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct tow_progress progress = {.out = out};
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    m.state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING;
    for (int i = 0; i < 50; i++)
        tow_progress_show(&progress, &m, 0);
    m.state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_SWITCHING;
    tow_progress_show(&progress, &m, 0);
    fclose(out);
    unsigned lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    cr_assert_eq(lines, 2, "one, and one for the new state");
    free(text);
}

/* ---- What was planned and what ran ----------------------------------------------------------- */

static char *migration_text(const Towline__V1__Migration *m)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    tow_migration_print(m, false, out);
    fclose(out);
    return text;
}

Test(migration, says_that_it_ran_otherwise_than_planned)
{
    Towline__V1__Migration m = TOWLINE__V1__MIGRATION__INIT;
    Towline__V1__Forecast f = TOWLINE__V1__FORECAST__INIT;
    Towline__V1__AuditEntry e = TOWLINE__V1__AUDIT_ENTRY__INIT;
    Towline__V1__AuditEntry *audit[] = {&e};
    e.what = (char *)(uintptr_t) "bandwidth";
    e.from = (char *)(uintptr_t) "128.0 MiB/s";
    e.to = (char *)(uintptr_t) "16.0 MiB/s";
    e.who = (char *)(uintptr_t) "operator alice";
    m.state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
    m.created_unix_ms = 1000;
    e.unix_ms = 3500;
    m.forecast = &f;
    m.audit = audit;
    m.n_audit = 1;
    char *text = migration_text(&m);
    cr_assert_null(strstr(text, "not as planned"), "nothing that was forecast was changed");
    free(text);
    m.adjusted = true;
    text = migration_text(&m);
    cr_assert_not_null(strstr(text, "not as planned"), "%s", text);
    cr_assert_not_null(
        strstr(text, "2.50 s after its start: bandwidth from 128.0 MiB/s to 16.0 MiB/s"), "%s",
        text);
    free(text);
}
