/* Configuration files: a YAML mapping read into a struct along a table of keys.
 *
 *   static const struct tw_config_key keys[] = {
 *       {.name = "listen", .type = TW_CONFIG_STRING, .offset = offsetof(struct me, listen),
 *        .size = sizeof(((struct me *)0)->listen), .required = true},
 *       {.name = "lease", .type = TW_CONFIG_DURATION, .offset = offsetof(struct me, lease_ns),
 *        .min = 100 * TW_MS, .max = 60 * TW_SEC},
 *       {.name = "limits", .type = TW_CONFIG_MAPPING, .offset = offsetof(struct me, limits),
 *        .keys = limit_keys, .key_count = 2},
 *   };
 *
 * The caller fills the struct with its defaults first; keys that the text does not name stay as
 * they are. Errors name file and line ("agent.yaml:12"), the expectation and the value. Unknown
 * keys (with the nearest known one), keys given twice, missing values, anchors, aliases, tags,
 * lists and a second document are errors. After an error the struct is to be thrown away.
 *
 * Nothing is allocated that outlives a call; all functions are thread-safe. */
#ifndef TOWLINE_CONFIG_CONFIG_H
#define TOWLINE_CONFIG_CONFIG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_CONFIG_BYTES_MAX (256u << 10) /* a longer file is refused */
#define TW_CONFIG_KEYS_MAX  64u          /* keys in one table */
#define TW_CONFIG_DEPTH_MAX 4u           /* mappings inside mappings */

enum tw_config_type {
    TW_CONFIG_STRING,   /* char[size]; the text, not empty (see may_be_empty) */
    TW_CONFIG_SIZE,     /* uint64_t, bytes: "256MiB" (base/units.h) */
    TW_CONFIG_DURATION, /* uint64_t, nanoseconds: "300ms" */
    TW_CONFIG_UINT,     /* uint64_t: decimal digits */
    TW_CONFIG_BOOL,     /* bool: true or false */
    TW_CONFIG_CHOICE,   /* unsigned: index into `choices` */
    TW_CONFIG_MAPPING,  /* the members that `keys` describe, offsets from this key's offset */
};

struct tw_config_key {
    const char *name;
    enum tw_config_type type;
    size_t offset;
    size_t size;              /* STRING: of the array, with the final zero */
    bool required;            /* absent is an error */
    bool may_be_empty;        /* STRING: "" in quotes is fine */
    uint64_t min, max;        /* numbers, inclusive; max 0 = no upper bound */
    const char *const *names; /* CHOICE: ends with NULL */
    const struct tw_config_key *keys;
    size_t key_count; /* MAPPING */
    /* A further check of the value, with what it expects as text; NULL = none. */
    bool (*valid)(const void *value);
    const char *expected;
};

/* Reads `path`. `object` holds the defaults. */
enum tw_code tw_config_read(const char *path, const struct tw_config_key *keys, size_t count,
                            void *object, struct tw_error *err);

/* The same for text in memory; `name` stands for the file in errors. */
enum tw_code tw_config_parse(const char *name, const char *text, size_t length,
                             const struct tw_config_key *keys, size_t count, void *object,
                             struct tw_error *err);

/* Sets one top-level key from a command line's option, with the same checks; `where` names the
 * option in errors ("--listen"). Mappings cannot be set. */
enum tw_code tw_config_set(const char *where, const char *key, const char *text,
                           const struct tw_config_key *keys, size_t count, void *object,
                           struct tw_error *err);

/* The name that `given` was most likely meant to be: at most a third of its letters (and at least
 * one) changed, added, left out or swapped. NULL = none is near. `names` ends with NULL. */
const char *tw_config_nearest(const char *given, const char *const *names);

#endif
