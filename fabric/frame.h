/* Frames: what a lane of a connection carries. A frame is a header of one cache line and `length`
 * bytes behind it. There are two sorts, told apart by the first four bytes: chunks, just as
 * fabric/record.h says, and frames of the fabric's own protocol, described here. All little-endian.
 *
 *   kind     numbers                         id       payload          lane
 *   HELLO    bulk credits, urgent credits    -        struct tw_hello  urgent  client first
 *   ACCEPT   bulk credits, urgent credits    of conn  struct tw_hello  urgent  answer to HELLO
 *   JOIN     -                               of conn  -                bulk    client, after ACCEPT
 *   READY    -                               -        -                urgent  answer to JOIN
 *   CREDIT   consumed bulk, urgent           -        -                urgent  totals: none is lost
 *   READ     number, address, key, length    -        -                urgent
 *   DATA     number, code                    -        bytes read       urgent  in order of READ
 *   PING     -                               -        -                urgent  against silence
 *   GOODBYE  code                            -        text             urgent  the last; refuses
 * too LOOKUP   key, address                    -        -                urgent  RDMA: where is it?
 *   REGION   key, start, length, address     rkey     -                urgent  of a slice; or 0
 *
 * Parsing is a pure function over bytes. Checks: frame_test.c, tests/fuzz/frame_fuzz.c. */
#ifndef TOWLINE_FABRIC_FRAME_H
#define TOWLINE_FABRIC_FRAME_H

#include "base/error.h"
#include "fabric/record.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures go to the wire as they are");

#define TW_FRAME_MAGIC   UINT32_C(0x504c5754) /* "TWLP" */
#define TW_FRAME_VERSION 1u
#define TW_FRAME_ID_SIZE 16u
#define TW_FRAME_HEADER  64u
#define TW_FRAME_MAX     (TW_FRAME_HEADER + TW_CHUNK_PAYLOAD) /* bytes of the longest frame */
#define TW_GOODBYE_TEXT  255u                                 /* bytes at most */

enum tw_frame_kind {
    TW_FRAME_CHUNK = 0, /* not on the wire: stands for a chunk in struct tw_frame */
    TW_FRAME_HELLO = 1,
    TW_FRAME_ACCEPT = 2,
    TW_FRAME_JOIN = 3,
    TW_FRAME_READY = 4,
    TW_FRAME_CREDIT = 5,
    TW_FRAME_READ = 6,
    TW_FRAME_DATA = 7,
    TW_FRAME_PING = 8,
    TW_FRAME_GOODBYE = 9,
    TW_FRAME_LOOKUP = 10,
    TW_FRAME_REGION = 11,
    TW_FRAME_KINDS
};

struct tw_frame_header {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;       /* enum tw_frame_kind */
    uint32_t length;     /* payload bytes */
    uint32_t crc32c;     /* of the header with this field 0, then the payload */
    uint64_t numbers[4]; /* by kind, see above; unused ones are 0 */
    uint8_t id[TW_FRAME_ID_SIZE];
};
static_assert(sizeof(struct tw_frame_header) == TW_FRAME_HEADER, "the header is one cache line");
static_assert(offsetof(struct tw_frame_header, numbers) == 16, "no hidden padding");
static_assert(offsetof(struct tw_frame_header, id) == 48, "no hidden padding");

/* A frame found in a stream of bytes. */
struct tw_frame {
    enum tw_frame_kind kind;
    size_t size; /* bytes, header and payload; of a frame not yet complete: what is known so far */
    struct tw_frame_header header; /* unless kind is CHUNK */
    struct tw_chunk_header chunk;  /* if kind is CHUNK */
    const uint8_t *payload;        /* into the bytes that were parsed */
    uint32_t length;               /* of payload */
};

/* Looks at the beginning of `bytes`. TW_OK: a whole frame; frame->size bytes of it are done with.
 * TW_UNAVAILABLE: so far it is well-formed, frame->size bytes are needed at least. Anything else:
 * the peer does not speak our language. Of a chunk, the header is checked, not the crc32c. */
enum tw_code tw_frame_parse(const uint8_t *bytes, size_t size, struct tw_frame *frame,
                            struct tw_error *err);

/* Completes a header whose kind, numbers and id are set: magic, version, length, crc32c. */
void tw_frame_seal(struct tw_frame_header *header, const void *payload, uint32_t length);

#endif
