#include "cli/options.h"

#include "base/clock.h"
#include "base/units.h"
#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names ---------------------------------------------------------------------------------- */

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

const struct tow_command *tow_command_find(const char *group, const char *name)
{
    for (const struct tow_command *c = tow_commands; c->name; c++)
        if (same(c->group, group) && strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

#define NAME_TEXT 64u

/* "vm show" */
static const char *full_name(const struct tow_command *command, char out[NAME_TEXT])
{
    snprintf(out, NAME_TEXT, "%s%s%s", command->group ? command->group : "",
             command->group ? " " : "", command->name);
    return out;
}

bool tow_group_exists(const char *group)
{
    for (const struct tow_command *c = tow_commands; c->name; c++)
        if (c->group && strcmp(c->group, group) == 0)
            return true;
    return false;
}

#define NAMES_MAX 32u

const char *tow_command_nearest(const char *group, const char *typed)
{
    const char *names[NAMES_MAX + 1] = {0};
    unsigned count = 0;
    for (const struct tow_command *c = tow_commands; c->name && count < NAMES_MAX; c++) {
        if (group && same(c->group, group))
            names[count++] = c->name;
        else if (!group)
            names[count++] = c->group ? c->group : c->name;
    }
    /* A beginning is near, however much is missing. */
    for (unsigned i = 0; i < count && typed[0] && typed[1]; i++)
        if (strncmp(typed, names[i], strlen(typed)) == 0)
            return names[i];
    return tw_config_nearest(typed, names);
}

/* ---- Options -------------------------------------------------------------------------------- */

static const struct tow_option *find_in(const struct tow_option *options, const char *name,
                                        size_t length, char letter)
{
    for (const struct tow_option *o = options; o && o->name; o++) {
        if (letter ? o->letter == letter
                   : strncmp(o->name, name, length) == 0 && o->name[length] == 0)
            return o;
    }
    return NULL;
}

static const struct tow_option *option_find(const struct tow_arguments *arguments, const char *name,
                                            size_t length, char letter)
{
    const struct tow_option *found =
        arguments->command ? find_in(arguments->command->options, name, length, letter) : NULL;
    return found ? found : find_in(tow_global_options, name, length, letter);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strchr(value, ' ') ? 0 : strlen(value);
    for (const char *p = choices; length > 0 && (p = strstr(p, value)); p += length) {
        bool begins = p == choices || p[-1] == ' ';
        if (begins && (p[length] == ' ' || p[length] == 0))
            return true;
    }
    return false;
}

static void choices_text(const char *choices, char *out, size_t size)
{
    size_t used = 0;
    for (const char *p = choices; *p && used + 5 < size; p++) {
        if (*p != ' ') {
            out[used++] = *p;
            continue;
        }
        const char *between = strchr(p + 1, ' ') ? ", " : " or ";
        used += (size_t)snprintf(out + used, size - used, "%s", between);
    }
    out[used] = 0;
}

static enum tw_code choice_check(const char *choices, const char *where, const char *value,
                                 struct tw_error *err)
{
    char expected[96];
    if (!choices || is_choice(choices, value))
        return TW_OK;
    choices_text(choices, expected, sizeof expected);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, expected, value, "not a possible value");
}

/* One option at argv[*index]; takes its value from there or from the next word. */
static enum tw_code option_take(int argc, char *const *argv, int *index,
                                struct tow_arguments *arguments, struct tw_error *err)
{
    const char *text = argv[*index], *value = NULL, *equals = NULL;
    bool is_long = text[1] == '-';
    if (is_long)
        equals = strchr(text, '=');
    size_t length = is_long ? (equals ? (size_t)(equals - text) : strlen(text)) - 2 : 0;
    const struct tow_option *option =
        option_find(arguments, text + 2, length, is_long ? 0 : text[1]);
    if (!option)
        return tw_fail(err, TW_INVALID_ARGUMENT, text, NULL, NULL, "no such option%s",
                       arguments->command ? " for this command" : " before the command");
    if (equals)
        value = equals + 1;
    else if (!is_long && text[2])
        value = text + 2;
    if (!option->value && value)
        return tw_fail(err, TW_INVALID_ARGUMENT, text, NULL, value, "this option takes no value");
    if (option->value && !value && *index + 1 < argc)
        value = argv[++*index];
    if (option->value && !value)
        return tw_fail(err, TW_INVALID_ARGUMENT, text, option->value, NULL, "value missing");
    if (arguments->option_count == TOW_OPTIONS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, text, NULL, NULL, "too many options");
    arguments->options[arguments->option_count].option = option;
    arguments->options[arguments->option_count++].value = value ? value : "";
    char where[64];
    snprintf(where, sizeof where, "--%s", option->name);
    return choice_check(option->choices, where, value ? value : "", err);
}

/* ---- Words ---------------------------------------------------------------------------------- */

static enum tw_code not_a_command(const char *group, const char *typed, struct tw_error *err)
{
    const char *nearest = tow_command_nearest(group, typed);
    char where[64];
    snprintf(where, sizeof where, "%s%s%.40s", group ? group : "", group ? " " : "", typed);
    if (nearest)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL,
                       "no such command; did you mean \"%s%s%s\"?", group ? group : "",
                       group ? " " : "", nearest);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL,
                   "no such command; see \"tow help\"");
}

/* A word that names the command or its group, or an argument of it. */
static enum tw_code word_take(const char *word, const char **group, struct tow_arguments *arguments,
                              struct tw_error *err)
{
    if (!arguments->command) {
        arguments->command = tow_command_find(*group, word);
        if (!arguments->command && !*group && tow_group_exists(word))
            *group = word;
        else if (!arguments->command)
            return not_a_command(*group, word, err);
        return TW_OK;
    }
    const struct tow_command *command = arguments->command;
    char name[NAME_TEXT];
    if (arguments->word_count == command->words_max)
        return tw_fail(err, TW_INVALID_ARGUMENT, full_name(command, name),
                       command->arguments ? command->arguments : "no arguments", word,
                       "too many arguments");
    arguments->words[arguments->word_count++] = word;
    return arguments->word_count == 1 ? choice_check(command->choices, command->name, word, err)
                                      : TW_OK;
}

static enum tw_code complete(const char *group, struct tow_arguments *arguments,
                             struct tw_error *err)
{
    char name[NAME_TEXT];
    if (tow_option_value(arguments, "help"))
        return TW_OK;
    if (group && !arguments->command) {
        char names[128] = "";
        size_t used = 0;
        for (const struct tow_command *c = tow_commands; c->name && used < sizeof names; c++)
            if (same(c->group, group))
                used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                         used ? ", " : "", c->name);
        return tw_fail(err, TW_INVALID_ARGUMENT, group, names, NULL, "what to do is missing");
    }
    if (!arguments->command)
        arguments->command = tow_command_find(NULL, "status");
    if (arguments->command->takes_program && !arguments->program)
        return tw_fail(err, TW_INVALID_ARGUMENT, arguments->command->name, "a program", NULL,
                       "what to run is missing");
    if (arguments->word_count < arguments->command->words_min)
        return tw_fail(err, TW_INVALID_ARGUMENT, full_name(arguments->command, name),
                       arguments->command->arguments, NULL, "argument missing");
    return TW_OK;
}

enum tw_code tow_arguments_parse(int argc, char *const *argv, struct tow_arguments *arguments,
                                 struct tw_error *err)
{
    const char *group = NULL;
    bool options_over = false;
    enum tw_code code = TW_OK;
    *arguments = (struct tow_arguments){0};
    for (int i = 1; i < argc && code == TW_OK; i++) {
        bool dashes = !options_over && strcmp(argv[i], "--") == 0;
        bool takes_program = arguments->command && arguments->command->takes_program;
        if (takes_program && (dashes ? argv[i + 1] != NULL : argv[i][0] != '-')) {
            arguments->program = argv + i + dashes;
            break;
        }
        if (dashes)
            options_over = true;
        else if (!options_over && argv[i][0] == '-' && argv[i][1])
            code = option_take(argc, argv, &i, arguments, err);
        else
            code = word_take(argv[i], &group, arguments, err);
    }
    return code == TW_OK ? complete(group, arguments, err) : code;
}

/* ---- Values --------------------------------------------------------------------------------- */

enum tw_code tow_number_parse(const char *name, const char *text, uint64_t min, uint64_t max,
                              uint64_t *value, struct tw_error *err)
{
    char expected[64], *end = NULL;
    errno = 0;
    *value = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    if (end && *end == 0 && errno == 0 && *value >= min && *value <= max)
        return TW_OK;
    snprintf(expected, sizeof expected, "a number from %llu to %llu", (unsigned long long)min,
             (unsigned long long)max);
    return tw_fail(err, TW_INVALID_ARGUMENT, name, expected, text, "not usable");
}

enum tw_code tow_milliseconds_parse(const char *name, const char *text, uint32_t *ms,
                                    struct tw_error *err)
{
    uint64_t ns;
    if (!tw_duration_parse(text, &ns) || ns < TW_MS || ns / TW_MS > UINT32_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, name, "a duration of at least 1ms, as 300ms or 2s",
                       text, "not usable");
    *ms = (uint32_t)(ns / TW_MS);
    return TW_OK;
}
