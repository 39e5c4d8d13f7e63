/* A recording of what a guest waited for while its memory followed it, as predictors are compared
 * on: a header and then one entry a wait, in the order in which the waits ended. Little-endian,
 * fixed sizes.
 *
 * Versioned; a file of another version is refused. What lies behind the last entry that the header
 * counts is no part of it: an agent that was killed leaves the room that it had not used. */
#ifndef TOWLINE_SERVICES_MIGRATION_MISS_STREAM_H
#define TOWLINE_SERVICES_MIGRATION_MISS_STREAM_H

#include "base/error.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define TW_MISS_STREAM_MAGIC   UINT64_C(0x315353494d575400) /* "\0TWMISS1" */
#define TW_MISS_STREAM_VERSION 1u
#define TW_MISSES_MAX          (UINT64_C(1) << 20)
#define TW_MISS_TIME_MAX       (UINT64_C(1) << 62) /* ns */

struct tw_miss_header {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    uint64_t pages; /* of the guest's memory */
    uint64_t count; /* entries */
};
static_assert(sizeof(struct tw_miss_header) == 32, "file format");

struct tw_miss {
    uint64_t at_ns;     /* when it was touched, from the first entry's base on */
    uint64_t waited_ns; /* until it was there */
    uint64_t line;      /* line number in memory: page * 64 + line of the page */
};
static_assert(sizeof(struct tw_miss) == 24, "file format");

/* Reads a file's bytes, which may be anybody's. `misses` has room for `room` entries and gets
 * *count of them, sorted by the time of the touch. */
enum tw_code tw_miss_stream_read(const uint8_t *bytes, size_t size, const char *where,
                                 struct tw_miss_header *header, struct tw_miss *misses, size_t room,
                                 struct tw_error *err);

#endif
