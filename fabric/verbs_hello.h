/* What the verbs back end says while queue pairs come up: the private data of a connection request,
 * the reason of a refusal, and the greeting that is the first message of each queue pair. All from
 * strangers; little-endian; pure functions. Checks: verbs_wire_test.c, tests/fuzz/verbs_fuzz.c. */
#ifndef TOWLINE_FABRIC_VERBS_HELLO_H
#define TOWLINE_FABRIC_VERBS_HELLO_H

#include "fabric/backend.h"

#define VERBS_QUEUES_MAX 8u /* bulk queue pairs of a connection */

/* The connection manager leaves 56 bytes to us on InfiniBand and RoCE. */
#define VERBS_PRIVATE_BYTES 56u
#define VERBS_PRIVATE_MAGIC UINT32_C(0x564c5754) /* "TWLV" */
#define VERBS_SHORT_NAME    16u

enum verbs_purpose {
    VERBS_HELLO = 1,  /* the urgent queue pair of a new connection; `token` is the owner's */
    VERBS_BULK = 2,   /* bulk queue pair number `queue`; `token` is the id of the connection */
    VERBS_RESUME = 3, /* the urgent queue pair again, after a break; `token` is the id */
    VERBS_ACCEPT = 4, /* the server's answer; `queue` is the number of bulk queue pairs agreed on */
};

struct verbs_private {
    uint32_t magic;
    uint16_t version;     /* newest that the sender speaks */
    uint16_t version_min; /* oldest */
    uint32_t capabilities;
    uint8_t purpose; /* enum verbs_purpose */
    uint8_t queue;   /* HELLO: bulk queue pairs wanted */
    uint16_t credits;
    uint64_t epoch;
    uint8_t token[TW_OWNER_SIZE];
    char name[VERBS_SHORT_NAME]; /* HELLO: of the sender, cut; the full one follows in a frame */
};
static_assert(sizeof(struct verbs_private) == VERBS_PRIVATE_BYTES, "fits every transport");
static_assert(offsetof(struct verbs_private, epoch) == 16, "no hidden padding");
static_assert(offsetof(struct verbs_private, name) == 40, "no hidden padding");
static_assert(TW_FRAME_ID_SIZE == TW_OWNER_SIZE, "either fits the token");

/* Of a hello that a client wants to say. */
void verbs_private_of_hello(const struct tw_hello *hello, uint16_t credits, uint8_t queues,
                            struct verbs_private *out);

/* Checks magic, purpose, queue and the zeros; `size` may be more than ours (padding), not less. */
enum tw_code verbs_private_parse(const void *bytes, size_t size, struct verbs_private *out,
                                 struct tw_error *err);

/* The HELLO frame that the private data stands for; `hello` is storage for frame->payload. */
void verbs_private_to_frame(const struct verbs_private *priv, uint8_t hello[TW_HELLO_BYTES],
                            struct tw_frame *frame);

/* A refusal: code and text. At most 148 bytes, what InfiniBand's connection manager carries. */
#define VERBS_REFUSAL_BYTES 148u
#define VERBS_REFUSAL_MAGIC UINT32_C(0x4e4c5754) /* "TWLN" */

struct verbs_refusal {
    uint32_t magic;
    uint32_t code; /* enum tw_code */
    char text[VERBS_REFUSAL_BYTES - 8];
};
static_assert(sizeof(struct verbs_refusal) == VERBS_REFUSAL_BYTES, "fits every transport");

void verbs_refusal_encode(const struct tw_error *why, struct verbs_refusal *out);
/* False when it is none: the refusal came from the network, not from a fabric. */
bool verbs_refusal_parse(const void *bytes, size_t size, struct tw_error *why);

/* The first message each way on a queue pair, by SEND, the client's first. */
#define VERBS_GREETING_MAGIC UINT32_C(0x474c5754) /* "TWLG" */

struct verbs_place {
    uint64_t address;
    uint32_t key;
    uint32_t slots;
};

struct verbs_greeting {
    uint32_t magic;
    uint32_t crc32c;                    /* of the greeting with this field 0 */
    struct verbs_place rings[TW_LANES]; /* of the sender's; key 0 where messages go by SEND */
    struct verbs_place acks;            /* where it wants to read what was consumed; slots 0 */
    uint64_t consumed[TW_LANES];        /* messages consumed so far: what need not be sent again */
};
static_assert(sizeof(struct verbs_greeting) == 72, "no hidden padding");

void verbs_greeting_seal(struct verbs_greeting *greeting);
enum tw_code verbs_greeting_parse(const void *bytes, size_t size, struct verbs_greeting *out,
                                  struct tw_error *err);

#endif
