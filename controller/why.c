#include "controller/why.h"

#include "controller/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

tw_why *tw_why_new(const char *vm, const char *wanted)
{
    tw_why *why = malloc(sizeof *why);
    if (!why)
        return NULL;
    towline__v1__why_migration_response__init(why);
    if (tw_text_set(&why->vm, vm) && tw_text_set(&why->wanted, wanted))
        return why;
    towline__v1__why_migration_response__free_unpacked(why, NULL);
    return NULL;
}

static bool set(char **field, const char *text)
{
    return !text || tw_text_set(field, text);
}

void tw_why_add(tw_why *why, Towline__V1__ReasonVerdict verdict, const struct tw_rule *rule,
                const char *format, ...)
{
    char text[256];
    va_list list;
    if (!why || why->n_reasons >= TW_WHY_REASONS_MAX)
        return;
    Towline__V1__Reason *r = malloc(sizeof *r);
    if (!r)
        return;
    towline__v1__reason__init(r);
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    r->verdict = verdict;
    r->value = rule->value;
    r->limit = rule->limit;
    bool ok = set(&r->about, rule->about) && set(&r->rule, rule->rule) &&
              set(&r->unit, rule->unit) && set(&r->value_text, rule->value_text) &&
              set(&r->limit_text, rule->limit_text) && set(&r->text, text);
    if (!ok)
        towline__v1__reason__free_unpacked(r, NULL);
    else
        tw_append(&why->reasons, &why->n_reasons, &r->base);
}

ProtobufCMessage *tw_message_copy(const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return NULL;
    protobuf_c_message_pack(message, bytes);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, size, bytes);
    free(bytes);
    return copy;
}

bool tw_reasons_copy(Towline__V1__Reason ***to, size_t *count, Towline__V1__Reason *const *from,
                     size_t from_count)
{
    size_t room = 1;
    while (room < *count)
        room *= 2;
    /* tw_append() grows at powers of two; who unpacked the array has made it as long as it is. */
    Towline__V1__Reason **roomy = *count ? realloc(*to, room * sizeof *roomy) : *to;
    bool ok = roomy || !*count;
    if (ok)
        *to = roomy;
    for (size_t i = 0; i < from_count && ok; i++)
        ok = tw_append(to, count, tw_message_copy(&from[i]->base));
    return ok;
}

enum tw_code tw_why_keep(struct tw_store *store, const char *id, tw_why *why, struct tw_error *err)
{
    if (!why)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, id, NULL, NULL, "no memory for its reasons");
    if (why->id == protobuf_c_empty_string && !tw_text_set(&why->id, id))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, id, NULL, NULL, "no memory for its reasons");
    enum tw_code code = tw_store_begin(store, TW_STORE_RELAXED, err);
    return code == TW_OK
               ? tw_store_end(store, tw_store_note_put(store, id, "why", &why->base, err), err)
               : code;
}

void tw_why_refuse(struct tw_store *store, tw_why *why, struct tw_error *err)
{
    char id[TW_NAME_SIZE];
    struct tw_error ignored;
    if (!why || !err || tw_token_new("r-", id, &ignored) != TW_OK ||
        tw_why_keep(store, id, why, &ignored) != TW_OK)
        return;
    size_t length = strlen(err->what);
    snprintf(err->what + length, sizeof err->what - length, "; see: tow migration why %s", id);
}

struct loader {
    tw_why *why;
};

static void load(void *ctx, const uint8_t *body, size_t size)
{
    struct loader *l = ctx;
    if (!l->why)
        l->why = towline__v1__why_migration_response__unpack(NULL, size, body);
}

enum tw_code tw_why_load(struct tw_store *store, const char *id, tw_why **why, struct tw_error *err)
{
    struct loader l = {NULL};
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, tw_store_notes_each(store, id, "why", 1, load, &l, err), err);
    if (code == TW_OK && !l.why)
        code = tw_fail(err, TW_NOT_FOUND, id, NULL, NULL, "no reasons are kept about it");
    *why = l.why;
    return code;
}

enum tw_code tw_token_new(const char *prefix, char token[TW_NAME_SIZE], struct tw_error *err)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return tw_fail_errno(err, errno, "token", "cannot make one");
    snprintf(token, TW_NAME_SIZE, "%s%016" PRIx64, prefix, number);
    return TW_OK;
}
