#include "rpc/rpc.h"

#include "towline/v1/common.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_copy(char **to, const char *from)
{
    if (*from == 0)
        return true; /* init has set the field to the empty string already */
    char *copy = strdup(from);
    if (copy)
        *to = copy;
    return copy != NULL;
}

struct Towline__V1__ErrorDetail *tw_error_to_proto(const struct tw_error *err)
{
    if (!err || err->code == TW_OK)
        return NULL;
    Towline__V1__ErrorDetail *detail = malloc(sizeof *detail);
    if (!detail)
        return NULL;
    towline__v1__error_detail__init(detail);
    detail->code = (uint32_t)err->code;
    if (!text_copy(&detail->where, err->where) || !text_copy(&detail->what, err->what) ||
        !text_copy(&detail->expected, err->expected) || !text_copy(&detail->given, err->given)) {
        towline__v1__error_detail__free_unpacked(detail, NULL);
        return NULL;
    }
    return detail;
}

/* Cuts at a character's boundary, so that what is printed stays valid UTF-8. */
static void text_fit(char *to, size_t size, const char *from)
{
    size_t length = strnlen(from ? from : "", size);
    if (length == size) {
        length = size - 1;
        while (length > 0 && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(to, from ? from : "", length);
    to[length] = 0;
}

void tw_error_from_proto(const struct Towline__V1__ErrorDetail *detail, struct tw_error *err)
{
    if (!err)
        return;
    tw_error_clear(err);
    if (!detail)
        return;
    err->code = detail->code <= TW_UNAUTHENTICATED ? (enum tw_code)detail->code : TW_UNKNOWN;
    text_fit(err->where, sizeof err->where, detail->where);
    text_fit(err->what, sizeof err->what, detail->what);
    text_fit(err->expected, sizeof err->expected, detail->expected);
    text_fit(err->given, sizeof err->given, detail->given);
}
