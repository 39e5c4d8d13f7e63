/* What a migration may cost and where it goes, from options. */
#ifndef TOWLINE_CLI_LIMITS_H
#define TOWLINE_CLI_LIMITS_H

#include "cli/command.h"

#include "towline/v1/common.pb-c.h"

/* What is not given stays 0. */
enum tw_code tow_limits_take(const struct tow_arguments *arguments,
                             Towline__V1__MigrationLimits *limits, struct tw_error *err);

/* VM [HOST] and --to HOST|auto; *host is left as it is for auto. Both point into the arguments. */
enum tw_code tow_target_take(const struct tow_arguments *arguments, char **vm, char **host,
                             struct tw_error *err);

#endif
