/* Command line to command: words and options against the table. */
#ifndef TOWLINE_CLI_OPTIONS_H
#define TOWLINE_CLI_OPTIONS_H

#include "cli/command.h"

/* Options may stand anywhere, "--" ends them. Without words the command is `status`. With --help
 * the words need not be complete; arguments->command is then NULL for the general help. */
enum tw_code tow_arguments_parse(int argc, char *const *argv, struct tow_arguments *arguments,
                                 struct tw_error *err);

/* The command called GROUP NAME (group may be NULL); NULL = none. */
const struct tow_command *tow_command_find(const char *group, const char *name);
bool tow_group_exists(const char *group);

/* The command or group nearest to what was typed; NULL when nothing is near. With `group`: among
 * its names. */
const char *tow_command_nearest(const char *group, const char *typed);

/* Values of options. `name` is for the error: "--max-rounds". */
enum tw_code tow_number_parse(const char *name, const char *text, uint64_t min, uint64_t max,
                              uint64_t *value, struct tw_error *err);
enum tw_code tow_milliseconds_parse(const char *name, const char *text, uint32_t *ms,
                                    struct tw_error *err);

#endif
