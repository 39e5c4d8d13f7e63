#include "config/value.h"

#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tw_code refuse(const struct tw_config_key *key, const char *where, const char *expected,
                           const char *text, struct tw_error *err)
{
    char given[100];
    snprintf(given, sizeof given, "\"%.90s\"", text);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, expected, given, "bad value of %s", key->name);
}

static void number_text(const struct tw_config_key *key, uint64_t value, char out[TW_SIZE_TEXT])
{
    if (key->type == TW_CONFIG_SIZE)
        tw_size_format(value, out);
    else if (key->type == TW_CONFIG_DURATION)
        tw_duration_format(value, out);
    else
        snprintf(out, TW_SIZE_TEXT, "%llu", (unsigned long long)value);
}

static bool uint_parse(const char *text, uint64_t *value)
{
    if (!*text || text[strspn(text, "0123456789")])
        return false;
    errno = 0;
    *value = strtoull(text, NULL, 10);
    return errno == 0;
}

static enum tw_code number_set(const struct tw_config_key *key, const char *where, const char *text,
                               uint64_t *member, struct tw_error *err)
{
    uint64_t value;
    if (key->type == TW_CONFIG_SIZE && !tw_size_parse(text, &value))
        return refuse(key, where, "a size like 256MiB", text, err);
    if (key->type == TW_CONFIG_DURATION && !tw_duration_parse(text, &value))
        return refuse(key, where, "a duration like 300ms or 2s", text, err);
    if (key->type == TW_CONFIG_UINT && !uint_parse(text, &value))
        return refuse(key, where, "a whole number", text, err);
    char bound[TW_SIZE_TEXT], expected[TW_SIZE_TEXT + 16];
    if (value < key->min) {
        number_text(key, key->min, bound);
        snprintf(expected, sizeof expected, "at least %s", bound);
        return refuse(key, where, expected, text, err);
    }
    if (key->max && value > key->max) {
        number_text(key, key->max, bound);
        snprintf(expected, sizeof expected, "at most %s", bound);
        return refuse(key, where, expected, text, err);
    }
    *member = value;
    return TW_OK;
}

static enum tw_code string_set(const struct tw_config_key *key, const char *where, const char *text,
                               bool quoted, char *member, struct tw_error *err)
{
    size_t length = strlen(text);
    if (length == 0 && !(quoted && key->may_be_empty))
        return refuse(key, where, "a text that is not empty", text, err);
    if (length >= key->size) {
        char expected[48];
        snprintf(expected, sizeof expected, "at most %zu bytes", key->size - 1);
        return refuse(key, where, expected, text, err);
    }
    memcpy(member, text, length + 1);
    return TW_OK;
}

static enum tw_code bool_set(const struct tw_config_key *key, const char *where, const char *text,
                             bool *member, struct tw_error *err)
{
    bool yes = strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "false") != 0)
        return refuse(key, where, "true or false", text, err);
    *member = yes;
    return TW_OK;
}

static enum tw_code choice_set(const struct tw_config_key *key, const char *where, const char *text,
                               unsigned *member, struct tw_error *err)
{
    char expected[128] = "one of";
    for (unsigned i = 0; key->names[i]; i++) {
        if (strcmp(text, key->names[i]) == 0) {
            *member = i;
            return TW_OK;
        }
        size_t n = strlen(expected);
        snprintf(expected + n, sizeof expected - n, "%s %s", i ? "," : "", key->names[i]);
    }
    return refuse(key, where, expected, text, err);
}

static enum tw_code member_set(const struct tw_config_key *key, const char *where, const char *text,
                               bool quoted, void *member, struct tw_error *err)
{
    switch (key->type) {
    case TW_CONFIG_STRING:
        return string_set(key, where, text, quoted, member, err);
    case TW_CONFIG_BOOL:
        return bool_set(key, where, text, member, err);
    case TW_CONFIG_CHOICE:
        return choice_set(key, where, text, member, err);
    case TW_CONFIG_MAPPING:
        return refuse(key, where, "a mapping of keys", text, err);
    case TW_CONFIG_SIZE:
    case TW_CONFIG_DURATION:
    case TW_CONFIG_UINT:
        break;
    }
    return number_set(key, where, text, member, err);
}

enum tw_code tw_config_value_set(const struct tw_config_key *key, const char *where,
                                 const char *text, bool quoted, void *object, struct tw_error *err)
{
    void *member = (char *)object + key->offset;
    enum tw_code code = member_set(key, where, text, quoted, member, err);
    if (code == TW_OK && key->valid && !key->valid(member))
        return refuse(key, where, key->expected, text, err);
    return code;
}
