#include "hosts/qemu/qmp.h"

#include <stdlib.h>
#include <string.h>

static bool make_room(struct tw_qmp_lines *l, size_t more)
{
    if (more > TW_QMP_LINE_MAX - l->used)
        return false;
    if (l->used + more <= l->capacity)
        return true;
    size_t capacity = l->capacity ? l->capacity : 4096;
    while (capacity < l->used + more)
        capacity *= 2;
    char *grown = realloc(l->buffer, capacity);
    if (!grown)
        return false;
    l->buffer = grown;
    l->capacity = capacity;
    return true;
}

enum tw_code tw_qmp_lines_feed(struct tw_qmp_lines *lines, const char *bytes, size_t count,
                               bool (*line)(void *ctx, const char *text, size_t length), void *ctx,
                               struct tw_error *err)
{
    while (count > 0) {
        const char *end = memchr(bytes, '\n', count);
        const size_t part = end ? (size_t)(end - bytes) : count;
        if (!make_room(lines, part))
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, "QMP", "a line of at most 1 MiB", NULL,
                           "line too long");
        if (part)
            memcpy(lines->buffer + lines->used, bytes, part);
        lines->used += part;
        if (!end)
            return TW_OK;
        bytes += part + 1;
        count -= part + 1;
        size_t length = lines->used;
        lines->used = 0;
        while (length > 0 && lines->buffer[length - 1] == '\r')
            length--;
        if (length > 0 && !line(ctx, lines->buffer, length))
            return TW_OK;
    }
    return TW_OK;
}

void tw_qmp_lines_free(struct tw_qmp_lines *lines)
{
    free(lines->buffer);
    *lines = (struct tw_qmp_lines){0};
}
