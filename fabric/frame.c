#include "fabric/frame.h"

#include "base/crc32c.h"
#include "fabric/hello.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What each kind may carry. */
static const struct {
    const char *name;
    uint32_t least, most; /* payload bytes */
} kinds[TW_FRAME_KINDS] = {
    [TW_FRAME_HELLO] = {"hello", TW_HELLO_BYTES, TW_HELLO_BYTES},
    [TW_FRAME_ACCEPT] = {"accept", TW_HELLO_BYTES, TW_HELLO_BYTES},
    [TW_FRAME_JOIN] = {"join", 0, 0},
    [TW_FRAME_READY] = {"ready", 0, 0},
    [TW_FRAME_CREDIT] = {"credit", 0, 0},
    [TW_FRAME_READ] = {"read", 0, 0},
    [TW_FRAME_DATA] = {"data", 0, TW_CHUNK_PAYLOAD},
    [TW_FRAME_PING] = {"ping", 0, 0},
    [TW_FRAME_GOODBYE] = {"goodbye", 0, TW_GOODBYE_TEXT},
    [TW_FRAME_LOOKUP] = {"lookup", 0, 0},
    [TW_FRAME_REGION] = {"region", 0, 0},
};

static enum tw_code bad(struct tw_error *err, enum tw_code code, const char *where,
                        uint64_t expected, uint64_t given, const char *what)
{
    if (!err)
        return code;
    char e[32], g[32];
    snprintf(e, sizeof e, "%#" PRIx64, expected);
    snprintf(g, sizeof g, "%#" PRIx64, given);
    return tw_fail(err, code, where, e, g, "%s", what);
}

static uint32_t checksum(const struct tw_frame_header *header, const void *payload)
{
    struct tw_frame_header h = *header;
    h.crc32c = 0;
    return tw_crc32c(tw_crc32c(0, &h, sizeof h), payload, h.length);
}

void tw_frame_seal(struct tw_frame_header *header, const void *payload, uint32_t length)
{
    header->magic = TW_FRAME_MAGIC;
    header->version = TW_FRAME_VERSION;
    header->length = length;
    header->crc32c = checksum(header, payload);
}

static enum tw_code check(const struct tw_frame_header *h, struct tw_error *err)
{
    if (h->magic != TW_FRAME_MAGIC)
        return bad(err, TW_INVALID_ARGUMENT, "frame", TW_FRAME_MAGIC, h->magic,
                   "neither a chunk nor a frame of this protocol: magic");
    if (h->version != TW_FRAME_VERSION)
        return bad(err, TW_FAILED_PRECONDITION, "frame", TW_FRAME_VERSION, h->version,
                   "frame of another version");
    if (h->kind == 0 || h->kind >= TW_FRAME_KINDS)
        return bad(err, TW_INVALID_ARGUMENT, "frame", TW_FRAME_KINDS - 1, h->kind,
                   "unknown kind of frame (expected at most)");
    const uint32_t least = kinds[h->kind].least, most = kinds[h->kind].most;
    if (h->length < least || h->length > most)
        return bad(err, TW_OUT_OF_RANGE, kinds[h->kind].name, h->length < least ? least : most,
                   h->length, "frame of a length that its kind cannot have");
    return TW_OK;
}

/* Enough is there to know what it is; the payload may not be. */
static enum tw_code parse_header(const uint8_t *bytes, uint32_t magic, struct tw_frame *frame,
                                 struct tw_error *err)
{
    enum tw_code code;
    if (magic == TW_CHUNK_MAGIC) {
        memcpy(&frame->chunk, bytes, sizeof frame->chunk);
        code = tw_chunk_check_header(&frame->chunk, err);
        frame->kind = TW_FRAME_CHUNK;
        frame->length = frame->chunk.length;
    } else {
        memcpy(&frame->header, bytes, sizeof frame->header);
        code = check(&frame->header, err);
        frame->kind = (enum tw_frame_kind)frame->header.kind;
        frame->length = frame->header.length;
    }
    return code;
}

enum tw_code tw_frame_parse(const uint8_t *bytes, size_t size, struct tw_frame *frame,
                            struct tw_error *err)
{
    uint32_t magic;
    frame->size = TW_FRAME_HEADER;
    if (size < sizeof magic)
        return TW_UNAVAILABLE;
    memcpy(&magic, bytes, sizeof magic);
    if (magic != TW_CHUNK_MAGIC && magic != TW_FRAME_MAGIC) /* do not wait for 60 bytes of noise */
        return bad(err, TW_INVALID_ARGUMENT, "frame", TW_FRAME_MAGIC, magic,
                   "neither a chunk nor a frame of this protocol: magic");
    if (size < TW_FRAME_HEADER)
        return TW_UNAVAILABLE;
    const enum tw_code code = parse_header(bytes, magic, frame, err);
    if (code)
        return code;
    frame->size = TW_FRAME_HEADER + frame->length;
    frame->payload = bytes + TW_FRAME_HEADER;
    if (size < frame->size)
        return TW_UNAVAILABLE;
    if (frame->kind == TW_FRAME_CHUNK)
        return TW_OK;
    const uint32_t crc = checksum(&frame->header, frame->payload);
    if (crc != frame->header.crc32c)
        return bad(err, TW_DATA_LOSS, kinds[frame->kind].name, frame->header.crc32c, crc,
                   "frame damaged: crc32c");
    return TW_OK;
}
