/* One value: text into a member of the struct. Inside config/ only. */
#ifndef TOWLINE_CONFIG_VALUE_H
#define TOWLINE_CONFIG_VALUE_H

#include "config/config.h"

/* `quoted`: the text stood in quotes, so an empty one is meant. */
enum tw_code tw_config_value_set(const struct tw_config_key *key, const char *where,
                                 const char *text, bool quoted, void *object, struct tw_error *err);

#endif
