#include "cli/options.h"

#include <criterion/criterion.h>
#include <string.h>

#define PARSE(arguments, err, ...)                                                                 \
    parse((char *[]){(char[]){"tow"}, __VA_ARGS__, NULL}, arguments, err)

static enum tw_code parse(char *const *argv, struct tow_arguments *arguments, struct tw_error *err)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    memset(err, 0, sizeof *err);
    return tow_arguments_parse(argc, argv, arguments, err);
}

#define W(text) tow_text(text)

Test(options, words_and_options_in_any_order)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_assert_eq(PARSE(&a, &err, W("-o"), W("json"), W("vm"), W("--timeout=3s"), W("migrate"),
                       W("web-1"), W("--wait"), W("node-b"), W("--downtime-ms"), W("5")),
                 TW_OK);
    cr_assert_str_eq(a.command->name, "migrate");
    cr_assert_eq(a.word_count, 2);
    cr_assert_str_eq(a.words[0], "web-1");
    cr_assert_str_eq(a.words[1], "node-b");
    cr_assert_str_eq(tow_option_value(&a, "output"), "json");
    cr_assert_str_eq(tow_option_value(&a, "timeout"), "3s");
    cr_assert_str_eq(tow_option_value(&a, "wait"), "");
    cr_assert_str_eq(tow_option_value(&a, "downtime-ms"), "5");
    cr_assert_null(tow_option_value(&a, "bandwidth"));
}

Test(options, short_forms_and_the_last_one_counts)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_assert_eq(
        PARSE(&a, &err, W("vm"), W("create"), W("-fweb.yaml"), W("-o"), W("json"), W("-otable")),
        TW_OK);
    cr_assert_str_eq(tow_option_value(&a, "file"), "web.yaml");
    cr_assert_str_eq(tow_option_value(&a, "output"), "table");
    cr_assert_eq(PARSE(&a, &err, W("vm"), W("create"), W("-f"), W("-")), TW_OK);
    cr_assert_str_eq(tow_option_value(&a, "file"), "-");
}

Test(options, double_dash_ends_options)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_assert_eq(PARSE(&a, &err, W("vm"), W("show"), W("--"), W("-o")), TW_OK);
    cr_assert_str_eq(a.words[0], "-o");
}

Test(options, nothing_is_status)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_assert_eq(PARSE(&a, &err, NULL), TW_OK);
    cr_assert_str_eq(a.command->name, "status");
}

Test(options, each_mistake_is_named)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_expect_eq(PARSE(&a, &err, W("vm"), W("list"), W("--wait")), TW_INVALID_ARGUMENT);
    cr_expect(strstr(err.what, "no such option"));
    cr_expect_eq(PARSE(&a, &err, W("--wait"), W("vm"), W("list")), TW_INVALID_ARGUMENT);
    cr_expect_eq(PARSE(&a, &err, W("--time"), W("3s"), W("status")), TW_INVALID_ARGUMENT,
                 "options are not abbreviated");
    cr_expect_eq(PARSE(&a, &err, W("vm"), W("migrate"), W("a"), W("b"), W("--wait=yes")),
                 TW_INVALID_ARGUMENT);
    cr_expect_str_eq(err.given, "yes");
    cr_expect_eq(PARSE(&a, &err, W("status"), W("--timeout")), TW_INVALID_ARGUMENT);
    cr_expect_str_eq(err.expected, "DURATION");
    cr_expect_eq(PARSE(&a, &err, W("status"), W("--color"), W("blue")), TW_INVALID_ARGUMENT);
    cr_expect_str_eq(err.expected, "auto, always or never");
    cr_expect_eq(PARSE(&a, &err, W("status"), W("-o"), W("")), TW_INVALID_ARGUMENT);
    cr_expect_eq(PARSE(&a, &err, W("status"), W("-o"), W("table json")), TW_INVALID_ARGUMENT);
    cr_expect_eq(PARSE(&a, &err, W("vm"), W("show")), TW_INVALID_ARGUMENT);
    cr_expect_str_eq(err.expected, "VM");
    cr_expect_eq(PARSE(&a, &err, W("vm"), W("show"), W("a"), W("b")), TW_INVALID_ARGUMENT);
    cr_expect_str_eq(err.given, "b");
    cr_expect_eq(PARSE(&a, &err, W("vm")), TW_INVALID_ARGUMENT);
    cr_expect(strstr(err.expected, "create, list"));
    cr_expect_eq(PARSE(&a, &err, W("completion"), W("fish")), TW_INVALID_ARGUMENT);
}

Test(options, too_many_options_are_refused)
{
    char *argv[64] = {W("tow"), W("status")};
    struct tow_arguments a;
    struct tw_error err;
    for (int i = 2; i < 60; i++)
        argv[i] = W("-ojson");
    cr_assert_eq(tow_arguments_parse(60, argv, &a, &err), TW_INVALID_ARGUMENT);
}

Test(options, help_needs_no_arguments)
{
    struct tow_arguments a;
    struct tw_error err;
    cr_assert_eq(PARSE(&a, &err, W("vm"), W("migrate"), W("-h")), TW_OK);
    cr_assert_str_eq(a.command->name, "migrate");
    cr_assert_eq(PARSE(&a, &err, W("--help")), TW_OK);
    cr_assert_null(a.command);
}

Test(options, nearest_command)
{
    cr_assert_str_eq(tow_command_nearest(NULL, "stauts"), "status");
    cr_assert_str_eq(tow_command_nearest(NULL, "migrations"), "migration");
    cr_assert_str_eq(tow_command_nearest(NULL, "comp"), "completion");
    cr_assert_str_eq(tow_command_nearest("vm", "lst"), "list");
    cr_assert_str_eq(tow_command_nearest("vm", "migarte"), "migrate");
    cr_assert_null(tow_command_nearest("host", "create"));
    cr_assert_null(tow_command_nearest(NULL, "xyzzy"));
}

Test(options, numbers_and_durations)
{
    struct tw_error err;
    uint64_t value;
    uint32_t ms;
    cr_assert_eq(tow_number_parse("-n", "30", 1, 100, &value, &err), TW_OK);
    cr_assert_eq(value, 30);
    static const char *const bad[] = {"",   "0",  "101", "-1",   "+1",
                                      " 1", "1 ", "1x",  "0x10", "99999999999999999999"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(tow_number_parse("-n", bad[i], 1, 100, &value, &err), TW_INVALID_ARGUMENT,
                     "%s", bad[i]);
    cr_assert_eq(tow_milliseconds_parse("-t", "1.5s", &ms, &err), TW_OK);
    cr_assert_eq(ms, 1500);
    cr_assert_eq(tow_milliseconds_parse("-t", "10", &ms, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tow_milliseconds_parse("-t", "999us", &ms, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tow_milliseconds_parse("-t", "2000h", &ms, &err), TW_INVALID_ARGUMENT);
}

/* The table itself: what is printed from it must be true. */
Test(commands, table_is_sound)
{
    for (const struct tow_command *c = tow_commands; c->name; c++) {
        cr_expect_not_null(c->run);
        cr_expect_not_null(c->help);
        cr_expect_eq(tow_command_find(c->group, c->name), c, "%s is unique", c->name);
        cr_expect_leq(c->words_max, TOW_WORDS_MAX);
        cr_expect_eq(c->arguments != NULL, c->words_max > 0 || c->takes_program);
        for (const struct tow_option *o = c->options; o && o->name; o++)
            for (const struct tow_option *g = tow_global_options; g->name; g++) {
                cr_expect_str_neq(o->name, g->name);
                cr_expect(o->letter == 0 || o->letter != g->letter, "-%c", o->letter);
            }
    }
}

Test(commands, every_code_has_an_exit_status_that_is_explained)
{
    for (int code = TW_OK; code <= TW_UNAUTHENTICATED; code++) {
        bool found = false;
        for (const struct tow_exit_text *e = tow_exit_texts; e->text; e++)
            found = found || e->status == tow_exit_of((enum tw_code)code);
        cr_expect(found, "code %d", code);
        cr_expect_eq(tow_exit_of((enum tw_code)code) == TOW_EXIT_OK, code == TW_OK);
    }
}

Test(options, a_program_keeps_its_own_options)
{
    struct tow_arguments a;
    struct tw_error err;
    char *dashes[] = {(char[]){"tow"}, (char[]){"run"}, (char[]){"--exact"}, (char[]){"--"},
                      (char[]){"ls"},  (char[]){"-l"},  (char[]){"--help"},  NULL};
    char *plain[] = {(char[]){"tow"}, (char[]){"run"}, (char[]){"ls"},
                     (char[]){"-o"},  (char[]){"x"},   NULL};
    char *none[] = {(char[]){"tow"}, (char[]){"run"}, (char[]){"--"}, NULL};
    cr_assert_eq(tow_arguments_parse(7, dashes, &a, &err), TW_OK);
    cr_assert_eq(a.program, dashes + 4);
    cr_assert_eq(a.option_count, 1);
    cr_assert_eq(tow_arguments_parse(5, plain, &a, &err), TW_OK);
    cr_assert_eq(a.program, plain + 2);
    cr_assert_eq(a.option_count, 0);
    cr_assert_eq(tow_arguments_parse(3, none, &a, &err), TW_INVALID_ARGUMENT);
}
