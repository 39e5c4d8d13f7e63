#include "config/value.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct reader {
    yaml_parser_t yaml;
    const char *name;
    struct tw_error *err;
};

/* "agent.yaml:12"; a path too long for an error's `where` loses its front. */
static const char *place(const struct reader *r, size_t line, char out[64])
{
    char number[24];
    int digits = snprintf(number, sizeof number, ":%zu", line);
    size_t room = 63 - (size_t)digits, length = strlen(r->name);
    snprintf(out, 64, "%s%s", length > room ? r->name + (length - room) : r->name, number);
    return out;
}

static enum tw_code fail_at(const struct reader *r, size_t line, const char *expected,
                            const char *given, const char *what)
{
    char where[64];
    return tw_fail(r->err, TW_INVALID_ARGUMENT, place(r, line, where), expected, given, "%s", what);
}

static size_t line_of(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

static enum tw_code next(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->yaml, event))
        return TW_OK;
    size_t line = r->yaml.problem_mark.line + 1;
    char what[160];
    snprintf(what, sizeof what, "not YAML: %s", r->yaml.problem ? r->yaml.problem : "unreadable");
    if (r->yaml.error == YAML_MEMORY_ERROR)
        return tw_fail(r->err, TW_RESOURCE_EXHAUSTED, r->name, NULL, NULL, "no memory");
    return fail_at(r, line, NULL, NULL, what);
}

static const char *kind_name(yaml_event_type_t type)
{
    switch (type) {
    case YAML_SCALAR_EVENT:
        return "a value";
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_ALIAS_EVENT:
        return "an alias";
    default:
        return "the end";
    }
}

static bool is_plain(const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    return !anchor && !tag;
}

static enum tw_code expect(struct reader *r, const yaml_event_t *event, yaml_event_type_t type,
                           const char *what)
{
    if (event->type != type)
        return fail_at(r, line_of(event), kind_name(type), kind_name(event->type), what);
    if (!is_plain(event))
        return fail_at(r, line_of(event), "a plain value", "an anchor or a tag", what);
    if (type == YAML_SCALAR_EVENT &&
        strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
        return fail_at(r, line_of(event), "text", "a zero byte", what);
    return TW_OK;
}

static enum tw_code unknown_key(struct reader *r, const yaml_event_t *event, const char *name,
                                const struct tw_config_key *keys, size_t count)
{
    const char *names[TW_CONFIG_KEYS_MAX + 1] = {0};
    for (size_t i = 0; i < count && i < TW_CONFIG_KEYS_MAX; i++)
        names[i] = keys[i].name;
    const char *near = tw_config_nearest(name, names);
    char expected[80], given[80];
    if (near) {
        snprintf(expected, sizeof expected, "perhaps %s", near);
    } else {
        snprintf(expected, sizeof expected, "one of");
        for (size_t i = 0; i < count; i++) {
            size_t n = strlen(expected);
            snprintf(expected + n, sizeof expected - n, "%s %s", i ? "," : "", keys[i].name);
        }
    }
    snprintf(given, sizeof given, "%.70s", name);
    return fail_at(r, line_of(event), expected, given, "unknown key");
}

static enum tw_code key_find(struct reader *r, const yaml_event_t *event,
                             const struct tw_config_key *keys, size_t count, uint64_t *seen,
                             const struct tw_config_key **found)
{
    const char *name = (const char *)event->data.scalar.value;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].name, name) != 0)
            continue;
        if (*seen & UINT64_C(1) << i)
            return fail_at(r, line_of(event), "each key once", name, "key given twice");
        *seen |= UINT64_C(1) << i;
        *found = &keys[i];
        return TW_OK;
    }
    return unknown_key(r, event, name, keys, count);
}

static enum tw_code required_check(struct reader *r, size_t line, const struct tw_config_key *keys,
                                   size_t count, uint64_t seen)
{
    for (size_t i = 0; i < count; i++)
        if (keys[i].required && !(seen & UINT64_C(1) << i))
            return fail_at(r, line, keys[i].name, NULL, "key is missing");
    return TW_OK;
}

static enum tw_code mapping_read(struct reader *r, size_t line, const struct tw_config_key *keys,
                                 size_t count, void *object, unsigned depth);

static enum tw_code scalar_read(struct reader *r, const yaml_event_t *event,
                                const struct tw_config_key *key, void *object)
{
    enum tw_code code = expect(r, event, YAML_SCALAR_EVENT, key->name);
    if (code != TW_OK)
        return code;
    char where[64];
    return tw_config_value_set(key, place(r, line_of(event), where),
                               (const char *)event->data.scalar.value,
                               event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE, object, r->err);
}

static enum tw_code value_read(struct reader *r, const struct tw_config_key *key, void *object,
                               unsigned depth)
{
    yaml_event_t event;
    enum tw_code code = next(r, &event);
    if (code != TW_OK)
        return code;
    if (key->type != TW_CONFIG_MAPPING) {
        code = scalar_read(r, &event, key, object);
    } else {
        code = expect(r, &event, YAML_MAPPING_START_EVENT, key->name);
        if (code == TW_OK)
            code = mapping_read(r, line_of(&event), key->keys, key->key_count,
                                (char *)object + key->offset, depth + 1);
    }
    yaml_event_delete(&event);
    return code;
}

/* From behind a mapping's start to its end. Tables nest finitely, so the recursion is bounded
 * whatever the text says. */
static enum tw_code mapping_read(struct reader *r, size_t line, const struct tw_config_key *keys,
                                 size_t count, void *object, unsigned depth)
{
    uint64_t seen = 0;
    if (count > TW_CONFIG_KEYS_MAX || depth > TW_CONFIG_DEPTH_MAX)
        return tw_fail(r->err, TW_INTERNAL, r->name, NULL, NULL, "table of keys is too large");
    for (;;) {
        yaml_event_t event;
        const struct tw_config_key *key = NULL;
        enum tw_code code = next(r, &event);
        if (code != TW_OK)
            return code;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        if (!end)
            code = expect(r, &event, YAML_SCALAR_EVENT, "a key");
        if (!end && code == TW_OK)
            code = key_find(r, &event, keys, count, &seen, &key);
        yaml_event_delete(&event);
        if (end)
            return required_check(r, line, keys, count, seen);
        if (code == TW_OK)
            code = value_read(r, key, object, depth);
        if (code != TW_OK)
            return code;
    }
}

static enum tw_code skip(struct reader *r, yaml_event_type_t type)
{
    yaml_event_t event;
    enum tw_code code = next(r, &event);
    if (code != TW_OK)
        return code;
    if (event.type != type)
        code = fail_at(r, line_of(&event), "one YAML document", "more", "text behind the end");
    yaml_event_delete(&event);
    return code;
}

static enum tw_code document_read(struct reader *r, const struct tw_config_key *keys, size_t count,
                                  void *object)
{
    yaml_event_t event;
    enum tw_code code = skip(r, YAML_STREAM_START_EVENT);
    if (code == TW_OK)
        code = next(r, &event);
    if (code != TW_OK)
        return code;
    bool empty = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    if (empty)
        return required_check(r, 1, keys, count, 0);
    code = next(r, &event);
    if (code != TW_OK)
        return code;
    code = expect(r, &event, YAML_MAPPING_START_EVENT, "the file");
    size_t line = line_of(&event);
    yaml_event_delete(&event);
    if (code == TW_OK)
        code = mapping_read(r, line, keys, count, object, 0);
    if (code == TW_OK)
        code = skip(r, YAML_DOCUMENT_END_EVENT);
    return code == TW_OK ? skip(r, YAML_STREAM_END_EVENT) : code;
}

enum tw_code tw_config_parse(const char *name, const char *text, size_t length,
                             const struct tw_config_key *keys, size_t count, void *object,
                             struct tw_error *err)
{
    struct reader r = {.name = name, .err = err};
    if (length > TW_CONFIG_BYTES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, name, "at most 256 KiB", NULL, "file is too long");
    if (!yaml_parser_initialize(&r.yaml))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "no memory");
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, length);
    enum tw_code code = document_read(&r, keys, count, object);
    yaml_parser_delete(&r.yaml);
    return code;
}
