/* Control messages out of arbitrary bytes: first a chunk header's fields, then the payload. What
 * is decoded must be in range, and an abort's text printable and terminated. */
#include "services/migration/control.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t room)
{
    size_t n = strnlen(text, room);
    if (n == room)
        abort();
    for (size_t i = 0; i < n; i++)
        if (text[i] < ' ' || text[i] > '~')
            abort();
}

static void check(uint32_t kind, const union tw_control *m)
{
    struct tw_error why;
    if ((kind == TW_CONTROL_BEGIN && m->begin.verify > 1) ||
        (kind == TW_CONTROL_FINAL_END && m->final_end.verify > 1) ||
        (kind == TW_CONTROL_PREPARED && m->prepared.compared > 1))
        abort();
    if (kind != TW_CONTROL_ABORT)
        return;
    tw_control_abort_unpack(&m->abort, &why);
    if (why.code == TW_OK || why.code > TW_UNAUTHENTICATED)
        abort();
    check_text(why.where, sizeof why.where);
    check_text(why.what, sizeof why.what);
    check_text(why.expected, sizeof why.expected);
    check_text(why.given, sizeof why.given);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union tw_control m;
    struct tw_chunk_header header = {.kind = TW_CHUNK_CONTROL};
    if (size < 3)
        return 0;
    header.tag = data[0] & 31;
    enum tw_lane lane = data[1] & 1;
    bool fitting = data[2] & 1; /* else the payload's own length, which is mostly wrong */
    header.length = (uint32_t)(size - 3);
    if (fitting && tw_control_size(header.tag) <= header.length)
        header.length = tw_control_size(header.tag);
    /* A copy of exactly this size, so that a read beyond it is noticed. */
    uint8_t *payload = malloc(header.length ? header.length : 1);
    memcpy(payload, data + 3, header.length);
    if (tw_control_decode(&header, lane, payload, &m, NULL) == TW_OK)
        check(header.tag, &m);
    free(payload);
    return 0;
}
