/* struct tw_hello on the wire: its fields as they stand, 96 bytes, little-endian. */
#ifndef TOWLINE_FABRIC_HELLO_H
#define TOWLINE_FABRIC_HELLO_H

#include "fabric/fabric.h"

#define TW_HELLO_BYTES        96u
#define TW_FABRIC_VERSION     1u /* newest that this program speaks */
#define TW_FABRIC_VERSION_MIN 1u /* oldest */

static_assert(sizeof(struct tw_hello) == TW_HELLO_BYTES, "the hello is its own wire format");
static_assert(offsetof(struct tw_hello, epoch) == 8, "no hidden padding");
static_assert(offsetof(struct tw_hello, owner) == 16, "no hidden padding");
static_assert(offsetof(struct tw_hello, name) == 32, "no hidden padding");

void tw_hello_encode(const struct tw_hello *hello, uint8_t bytes[TW_HELLO_BYTES]);

/* From a stranger: the name is made a printable, terminated text whatever was in it. */
void tw_hello_decode(struct tw_hello *hello, const uint8_t bytes[TW_HELLO_BYTES]);

/* The newest version that both speak, or TW_FAILED_PRECONDITION. */
enum tw_code tw_hello_agree(const struct tw_hello *ours, const struct tw_hello *theirs,
                            uint16_t *version, struct tw_error *err);

#endif
