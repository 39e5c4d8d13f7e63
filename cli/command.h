/* The whole program as a table of subcommands: parser, help and shell completion read it. */
#ifndef TOWLINE_CLI_COMMAND_H
#define TOWLINE_CLI_COMMAND_H

#include "cli/tow.h"

#define TOW_WORDS_MAX   2u  /* arguments of a subcommand */
#define TOW_OPTIONS_MAX 16u /* given at once */

struct tow_option {
    char letter; /* 0 = none */
    const char *name;
    const char *value;   /* "DURATION"; NULL = a switch */
    const char *choices; /* "abort stop": the only values; NULL = any */
    const char *help;
};

struct tow_arguments;

struct tow_command {
    const char *group; /* "vm"; NULL = none */
    const char *name;
    const char *arguments; /* "VM HOST"; NULL = none */
    unsigned words_min, words_max;
    bool takes_program;               /* what follows is a program with its arguments */
    const char *choices;              /* for the first argument; NULL = any */
    const char *help;                 /* one line */
    const char *details;              /* paragraphs; may be NULL */
    unsigned timeout_ms;              /* default of --timeout; 0 = 10 s */
    const struct tow_option *options; /* ends with a NULL name; may be NULL */
    int (*run)(struct tow *tow, const struct tow_arguments *arguments);
};

struct tow_arguments {
    const struct tow_command *command;
    const char *words[TOW_WORDS_MAX];
    unsigned word_count;
    char *const *program; /* with takes_program; ends with NULL */
    struct {
        const struct tow_option *option;
        const char *value;
    } options[TOW_OPTIONS_MAX];
    unsigned option_count;
};

/* End with a NULL name. */
extern const struct tow_command tow_commands[];
extern const struct tow_option tow_global_options[];

/* The last value given for --NAME; "" for a switch; NULL = not given. */
const char *tow_option_value(const struct tow_arguments *arguments, const char *name);

/* Commands by what they act on, each in its own file. */
int tow_doctor(struct tow *tow, const struct tow_arguments *arguments);
int tow_status(struct tow *tow, const struct tow_arguments *arguments);
int tow_host_list(struct tow *tow, const struct tow_arguments *arguments);
int tow_host_show(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_create(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_list(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_show(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_stop(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_delete(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_plan(struct tow *tow, const struct tow_arguments *arguments);
int tow_vm_migrate(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_list(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_show(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_switch(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_cancel(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_set(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_pause(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_resume(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_reconnect(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_why(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_recover(struct tow *tow, const struct tow_arguments *arguments);
int tow_migration_resolve(struct tow *tow, const struct tow_arguments *arguments);
int tow_track(struct tow *tow, const struct tow_arguments *arguments);
int tow_run(struct tow *tow, const struct tow_arguments *arguments);
int tow_top(struct tow *tow, const struct tow_arguments *arguments);
int tow_events(struct tow *tow, const struct tow_arguments *arguments);
int tow_pki_init(struct tow *tow, const struct tow_arguments *arguments);
int tow_pki_issue(struct tow *tow, const struct tow_arguments *arguments);
int tow_pki_revoke(struct tow *tow, const struct tow_arguments *arguments);
int tow_version(struct tow *tow, const struct tow_arguments *arguments);
int tow_completion(struct tow *tow, const struct tow_arguments *arguments);
int tow_help(struct tow *tow, const struct tow_arguments *arguments);

#endif
