/* Help, version and shell completion: all read from the table of commands. */
#include "cli/command.h"
#include "cli/format.h"
#include "cli/options.h"

#include <ctype.h>
#include <string.h>

#define HELP_COLUMN  34
#define HELP_WIDTH   80
#define DETAILS_TEXT 1024u /* of a paragraph */

static int command_text(const struct tow_command *c, char *out, size_t size)
{
    return snprintf(out, size, "%s%s%s%s%s", c->group ? c->group : "", c->group ? " " : "", c->name,
                    c->arguments ? " " : "", c->arguments ? c->arguments : "");
}

static void print_line(const struct tow_command *c, FILE *out)
{
    char text[96];
    command_text(c, text, sizeof text);
    fprintf(out, "  %-*s ", HELP_COLUMN - 3, text);
    tow_text_wrap(c->help, HELP_COLUMN, HELP_WIDTH, out);
    fputc('\n', out);
}

static void print_options(const struct tow_option *options, FILE *out)
{
    for (const struct tow_option *o = options; o && o->name; o++) {
        char text[64], help[256];
        snprintf(text, sizeof text, "%c%c%s--%s%s%s", o->letter ? '-' : ' ',
                 o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        fprintf(out, "  %-*s ", HELP_COLUMN - 3, text);
        snprintf(help, sizeof help, "%s%s%s%s", o->help, o->choices ? " (" : "",
                 o->choices ? o->choices : "", o->choices ? ")" : "");
        tow_text_wrap(help, HELP_COLUMN, HELP_WIDTH, out);
        fputc('\n', out);
    }
}

static void print_exit_codes(FILE *out)
{
    fputs("Exit codes\n", out);
    for (const struct tow_exit_text *e = tow_exit_texts; e->text; e++)
        fprintf(out, "  %3d  %s\n", (int)e->status, e->text);
}

static void print_general(FILE *out)
{
    fputs("tow: moves running VMs between hosts, cache line by cache line.\n\n"
          "Usage: tow [OPTIONS] COMMAND [ARGUMENTS]\n\n",
          out);
    for (const struct tow_command *c = tow_commands; c->name; c++) {
        print_line(c, out);
    }
    fputs("\nOptions of every command\n", out);
    print_options(tow_global_options, out);
    fputs("\nSizes are written as 64KiB, 1.5GiB, rates as 128MiB/s, durations as 250us, 2s.\n"
          "See \"tow help COMMAND\" for one command and \"tow help exit-codes\".\n",
          out);
}

/* An indented one stays as it is, in others the ends of lines are spaces. */
static void print_paragraph(char *text, FILE *out)
{
    size_t length = strlen(text);
    if (length > 0 && text[length - 1] == '\n')
        text[length - 1] = 0;
    if (text[0] == ' ') {
        fprintf(out, "%s\n", text);
        return;
    }
    for (char *p = text; *p; p++)
        *p = *p == '\n' ? ' ' : *p;
    tow_text_wrap(text, 0, HELP_WIDTH, out);
    fputc('\n', out);
}

/* Paragraphs, each with an empty line before it. */
static void print_details(const char *text, FILE *out)
{
    char paragraph[DETAILS_TEXT];
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t length = end ? (size_t)(end - text) : strlen(text);
        snprintf(paragraph, sizeof paragraph, "%.*s", (int)length, text);
        fputc('\n', out);
        print_paragraph(paragraph, out);
        text += length + (end ? 2 : 0);
    }
}

static void print_command(const struct tow_command *command, FILE *out)
{
    char text[96];
    command_text(command, text, sizeof text);
    fprintf(out, "Usage: tow %s%s\n\n%c%s.\n", text, command->options ? " [OPTIONS]" : "",
            toupper((unsigned char)command->help[0]), command->help + 1);
    if (command->details)
        print_details(command->details, out);
    if (command->options) {
        fputs("\nOptions\n", out);
        print_options(command->options, out);
    }
    fputs("\nOptions of every command\n", out);
    print_options(tow_global_options, out);
}

static int print_group(const char *group, FILE *out)
{
    for (const struct tow_command *c = tow_commands; c->name; c++) {
        if (c->group && strcmp(c->group, group) == 0)
            print_line(c, out);
    }
    return TOW_EXIT_OK;
}

int tow_help(struct tow *tow, const struct tow_arguments *arguments)
{
    const char *first = arguments->word_count > 0 ? arguments->words[0] : NULL;
    const char *second = arguments->word_count > 1 ? arguments->words[1] : NULL;
    const struct tow_command *command = arguments->command;
    if (command && command->run == tow_help) {
        if (first && !second && strcmp(first, "exit-codes") == 0) {
            print_exit_codes(tow->out);
            return TOW_EXIT_OK;
        }
        if (first && !second && tow_group_exists(first))
            return print_group(first, tow->out);
        command = first ? tow_command_find(second ? first : NULL, second ? second : first) : NULL;
        if (first && !command)
            return tow_usage(tow, "help", "a command or \"exit-codes\"", second ? second : first,
                             "nothing is known of it");
    }
    if (command)
        print_command(command, tow->out);
    else
        print_general(tow->out);
    return TOW_EXIT_OK;
}

int tow_version(struct tow *tow, const struct tow_arguments *arguments)
{
    (void)arguments;
    if (tow->json)
        fprintf(tow->out,
                "{\"version\": \"%s\", \"protocol_version\": %u, \"protocol_version_min\": %u}\n",
                TOWLINE_VERSION, TW_RPC_VERSION, TW_RPC_VERSION_MIN);
    else
        fprintf(tow->out, "tow %s, protocol %u\n", TOWLINE_VERSION, TW_RPC_VERSION);
    return TOW_EXIT_OK;
}

/* ---- Completion ----------------------------------------------------------------------------- */

static void print_value_cases(const struct tow_option *options, FILE *out)
{
    for (const struct tow_option *o = options; o && o->name; o++) {
        if (!o->choices && (!o->value || strcmp(o->value, "FILE") != 0))
            continue;
        fprintf(out, "        \"%s --%s\"", "$command", o->name);
        if (o->letter)
            fprintf(out, "|\"%s -%c\"", "$command", o->letter);
        if (o->choices)
            fprintf(out, ") _tow_reply \"%s\"; return ;;\n", o->choices);
        else
            fputs(") COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n", out);
    }
}

static void print_option_names(const struct tow_option *options, FILE *out)
{
    for (const struct tow_option *o = options; o && o->name; o++)
        fprintf(out, " --%s", o->name);
}

/* First words: groups and commands without a group, each once. */
static void print_first_words(FILE *out)
{
    const char *last = "";
    for (const struct tow_command *c = tow_commands; c->name; c++) {
        const char *word = c->group ? c->group : c->name;
        if (strcmp(word, last) != 0)
            fprintf(out, " %s", word);
        last = word;
    }
}

static void print_words_of_group(const char *group, FILE *out)
{
    for (const struct tow_command *c = tow_commands; c->name; c++)
        if (c->group && strcmp(c->group, group) == 0)
            fprintf(out, " %s", c->name);
}

static void print_command_case(const struct tow_command *c, FILE *out)
{
    fprintf(out, "    \"%s%s%s\")\n", c->group ? c->group : "", c->group ? " " : "", c->name);
    if (c->options) {
        fputs("        case \"$command $previous\" in\n", out);
        print_value_cases(c->options, out);
        fputs("        esac\n", out);
    }
    fputs("        words=\"", out);
    print_option_names(c->options, out);
    fputs("\"\n", out);
    if (c->choices)
        fprintf(out, "        ((count == %d)) && words=\"%s$words\"\n", c->group ? 2 : 1,
                c->choices);
    fputs("        ;;\n", out);
}

int tow_completion(struct tow *tow, const struct tow_arguments *arguments)
{
    FILE *out = tow->out;
    (void)arguments;
    fputs(
        "# bash completion for tow; made by \"tow completion bash\"\n"
        "_tow_reply() { COMPREPLY=($(compgen -W \"$1\" -- \"$current\")); }\n"
        "_tow() {\n"
        "    local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
        "    local command=\"\" words=\"\" i word skip=0 count=0\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        word=\"${COMP_WORDS[i]}\"\n"
        "        if ((skip)); then skip=0; continue; fi\n"
        "        case \"$word\" in\n",
        out);
    for (const struct tow_option *o = tow_global_options; o->name; o++)
        if (o->value)
            fprintf(out, "        --%s|-%c) skip=1; continue ;;\n", o->name,
                    o->letter ? o->letter : '-');
    fputs("        -*) continue ;;\n"
          "        esac\n"
          "        ((count++ < 2)) && command=\"${command:+$command }$word\"\n"
          "    done\n",
          out);
    fputs("    case \"$previous\" in\n", out);
    for (const struct tow_option *o = tow_global_options; o->name; o++)
        if (o->choices)
            fprintf(out, "    --%s|-%c) _tow_reply \"%s\"; return ;;\n", o->name,
                    o->letter ? o->letter : '-', o->choices);
    fputs("    esac\n    case \"$command\" in\n    \"\") words=\"", out);
    print_first_words(out);
    fputs("\" ;;\n", out);
    const char *last = "";
    for (const struct tow_command *c = tow_commands; c->name; c++) {
        if (c->group && strcmp(c->group, last) != 0) {
            fprintf(out, "    \"%s\") words=\"", c->group);
            print_words_of_group(c->group, out);
            fputs("\" ;;\n", out);
        }
        last = c->group ? c->group : "";
    }
    for (const struct tow_command *c = tow_commands; c->name; c++)
        print_command_case(c, out);
    fputs("    esac\n    _tow_reply \"$words", out);
    print_option_names(tow_global_options, out);
    fputs("\"\n}\ncomplete -F _tow tow\n", out);
    return TOW_EXIT_OK;
}
