#include "agentd/local_request.h"

#include <stdio.h>
#include <string.h>

static const char where[] = "local request";

enum tw_code tw_local_header_check(const struct tw_local_header *header, struct tw_error *err)
{
    char expected[32], given[32];
    if (header->magic != TW_LOCAL_MAGIC)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL, "not a message of ours");
    snprintf(expected, sizeof expected, "version %u", TW_LOCAL_VERSION);
    snprintf(given, sizeof given, "%u", header->version);
    if (header->version != TW_LOCAL_VERSION)
        return tw_fail(err, TW_UNIMPLEMENTED, where, expected, given,
                       "another version of the protocol");
    snprintf(given, sizeof given, "%u", header->length);
    if (header->length > TW_LOCAL_BODY_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "at most 128 KiB", given, "too long");
    return TW_OK;
}

static enum tw_code wrong_length(size_t expected, size_t given, struct tw_error *err)
{
    char want[32], got[32];
    snprintf(want, sizeof want, "%zu bytes", expected);
    snprintf(got, sizeof got, "%zu", given);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, want, got, "a body of the wrong length");
}

static enum tw_code parse_open(const void *body, size_t length, struct tw_local_request *out,
                               struct tw_error *err)
{
    if (length < sizeof out->open)
        return wrong_length(sizeof out->open, length, err);
    memcpy(&out->open, body, sizeof out->open);
    if (out->open.range_count > TW_LOCAL_RANGES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "at most 4096", NULL, "%u ranges",
                       out->open.range_count);
    size_t whole = sizeof out->open + out->open.range_count * sizeof *out->ranges;
    if (length != whole)
        return wrong_length(whole, length, err);
    out->ranges = (const void *)((const uint8_t *)body + sizeof out->open);
    return TW_OK;
}

static size_t length_of(enum tw_local_kind kind)
{
    switch (kind) {
    case TW_LOCAL_CATCH:
        return sizeof(struct tw_local_catch);
    case TW_LOCAL_EPOCH:
        return sizeof(struct tw_local_epoch);
    case TW_LOCAL_READ:
    case TW_LOCAL_ACCESSED:
        return sizeof(struct tw_local_read);
    case TW_LOCAL_COLLECT:
    case TW_LOCAL_FIGURES:
    case TW_LOCAL_EPOCH_CLOSE:
    case TW_LOCAL_SHARED:
        return sizeof(struct tw_local_epoch_ask);
    default:
        return 0; /* LIST */
    }
}

enum tw_code tw_local_request_parse(const struct tw_local_header *header, const void *body,
                                    struct tw_local_request *out, struct tw_error *err)
{
    *out = (struct tw_local_request){.kind = (enum tw_local_kind)header->kind};
    if (header->kind == 0 || header->kind >= TW_LOCAL_KIND_END)
        return tw_fail(err, TW_UNIMPLEMENTED, where, NULL, NULL, "kind %u is not known",
                       header->kind);
    if (header->kind == TW_LOCAL_OPEN)
        return parse_open(body, header->length, out, err);
    size_t length = length_of(out->kind);
    if (header->length != length)
        return wrong_length(length, header->length, err);
    if (length)
        memcpy(&out->epoch, body, length); /* the union's longest member */
    if (out->kind == TW_LOCAL_EPOCH && !memchr(out->epoch.name, 0, sizeof out->epoch.name))
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "at most 31 bytes", NULL,
                       "a name without an end");
    return TW_OK;
}
