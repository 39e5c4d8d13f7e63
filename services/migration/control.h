/* The service's own messages: small structures inside TW_CHUNK_CONTROL chunks, the chunk's tag
 * says which. Little-endian, fixed size; a message of another size is refused.
 *
 *   source -> destination                       destination -> source
 *     bulk    begin, LINES.., round_end..,
 *             final_end, BLOB.., state_end        urgent  prepared, running, abort
 *     urgent  commit, abort
 *   and in post-copy:
 *     bulk    MAP.., map_end before final_end,
 *             LINES.. behind state_end            urgent  room, want, whole
 *     urgent  LINES.. that were wanted
 *   and when the destination has connected again, before anything else:
 *                                                 bulk    MAP.., missing
 *   and with a mirror (mirror.h), by a connection of its own, the source beside what it does above:
 *     bulk    begin, MAP.., map_end, LINES..,
 *             keep_end                            urgent  kept, abort
 *     urgent  release, abort
 *   to which the destination of a lost source says what it says to a source when it connects again.
 *
 * What goes by bulk keeps its order with the lines; what goes by urgent may overtake them. */
#ifndef TOWLINE_SERVICES_MIGRATION_CONTROL_H
#define TOWLINE_SERVICES_MIGRATION_CONTROL_H

#include "base/error.h"
#include "fabric/fabric.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum tw_control_kind {
    TW_CONTROL_BEGIN = 1, /* first of all: what will come */
    TW_CONTROL_ROUND_END = 2,
    TW_CONTROL_FINAL_END = 3, /* the last line was sent; the VM is stopped */
    TW_CONTROL_STATE_END = 4, /* the device state is complete */
    TW_CONTROL_PREPARED = 5,  /* durable: the destination has everything */
    TW_CONTROL_COMMIT = 6,    /* durable: the source has given up */
    TW_CONTROL_RUNNING = 7,   /* the destination runs the VM */
    TW_CONTROL_ABORT = 8,     /* the sender has given the migration up; says why */
    TW_CONTROL_MAP_END = 9,   /* the lines to come are named */
    TW_CONTROL_ROOM = 10,     /* the destination has room for what was announced */
    TW_CONTROL_WANT = 11,     /* the guest waits for lines of a page */
    TW_CONTROL_WHOLE = 12,    /* the last line to come has arrived */
    TW_CONTROL_MISSING = 13,  /* connected again: the lines that have not arrived are named */
    TW_CONTROL_KEEP_END = 14, /* to a mirror: every line of the map was sent */
    TW_CONTROL_KEPT = 15,     /* of a mirror: it holds them all, as they were sent */
    TW_CONTROL_RELEASE = 16,  /* to a mirror: nobody will ever ask for them */
};

/* Tags of BLOB chunks. */
enum tw_blob_tag {
    TW_BLOB_STATE = 0, /* device state */
    TW_BLOB_MAP = 1,   /* lines to come (line_set.h) */
};

/* Tags of LINES chunks behind the map: why they come now. */
enum tw_rest_tag {
    TW_REST_IN_TURN = 0,
    TW_REST_WANTED = 1, /* the guest waits for them */
    TW_REST_AHEAD = 2,  /* whole pages that it is likely to touch next */
};

struct tw_control_begin {
    uint64_t memory_bytes;
    uint64_t epoch;  /* that the destination gets */
    uint32_t verify; /* 1: final_end will carry a digest */
    uint32_t method; /* enum tw_migration_method */
};
static_assert(sizeof(struct tw_control_begin) == 24, "wire format");

struct tw_control_round_end {
    uint64_t lines, pages, zero_lines, bytes, duration_ns;
    uint32_t index;
    uint32_t final; /* 1: the VM was stopped during it */
};
static_assert(sizeof(struct tw_control_round_end) == 48, "wire format");

/* What the whole stream carried: counted again at the far side, so that a record that vanished on
 * the way is noticed even where no digest is compared. */
struct tw_control_totals {
    uint64_t lines, zero_lines, zero_pages;
};
static_assert(sizeof(struct tw_control_totals) == 24, "wire format");

struct tw_control_final_end {
    uint64_t digest; /* of the memory without the lines to come; 0 when not compared */
    struct tw_control_totals totals;
    uint32_t verify; /* 1: compare the digest */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_control_final_end) == 40, "wire format");

struct tw_control_state_end {
    uint64_t size; /* bytes of device state */
    uint64_t hash; /* XXH3 of them */
};
static_assert(sizeof(struct tw_control_state_end) == 16, "wire format");

struct tw_control_prepared {
    uint64_t epoch;
    uint32_t compared; /* 1: the digests were compared and were equal */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_control_prepared) == 16, "wire format");

struct tw_control_epoch { /* commit, running, room, kept, release */
    uint64_t epoch;
};
static_assert(sizeof(struct tw_control_epoch) == 8, "wire format");

struct tw_control_map_end {
    uint64_t lines; /* that the map names */
    uint32_t final; /* 0: an announcement while the VM runs, to make room by */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_control_map_end) == 16, "wire format");

struct tw_control_want {
    uint64_t page;
    uint64_t lines;    /* of it, at least one */
    uint32_t critical; /* the line that was touched: comes first if it is among them */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_control_want) == 24, "wire format");

struct tw_control_whole {
    uint64_t epoch;
    uint64_t lines;  /* that came behind the map */
    uint64_t digest; /* of these as they came; 0 when not compared */
    uint64_t faults, fault_p50_ns, fault_p99_ns;
    uint64_t ahead_watched, ahead_touched; /* pages: see struct tw_foresight_figures */
};
static_assert(sizeof(struct tw_control_whole) == 64, "wire format");

/* Its sender owns the VM. */
struct tw_control_missing {
    uint64_t epoch;
    uint64_t lines;   /* that the map names */
    uint64_t to_come; /* lines that were to come at the switch */
    uint64_t digest;  /* of those that have come, as they came; 0 when it is not known */
    uint32_t known;   /* 1: the digest is */
    uint32_t reserved;
};
static_assert(sizeof(struct tw_control_missing) == 40, "wire format");

struct tw_control_keep_end {
    uint64_t epoch;
    uint64_t lines;  /* that were sent */
    uint64_t digest; /* of them, always */
};
static_assert(sizeof(struct tw_control_keep_end) == 24, "wire format");

struct tw_control_abort {
    uint32_t code;     /* enum tw_code */
    uint32_t compared; /* 1: the digests were compared and differ */
    char where[64];
    char what[192];
    char expected[128];
    char given[128];
};
static_assert(sizeof(struct tw_control_abort) == 520, "wire format");
static_assert(offsetof(struct tw_control_abort, what) == 72, "no hidden padding");

/* Any message, as it stands in a payload. */
union tw_control {
    struct tw_control_begin begin;
    struct tw_control_round_end round_end;
    struct tw_control_final_end final_end;
    struct tw_control_state_end state_end;
    struct tw_control_prepared prepared;
    struct tw_control_epoch epoch;
    struct tw_control_map_end map_end;
    struct tw_control_want want;
    struct tw_control_whole whole;
    struct tw_control_missing missing;
    struct tw_control_keep_end keep_end;
    struct tw_control_abort abort;
};

/* Name of a kind, for messages; never NULL. */
const char *tw_control_name(uint32_t kind);

/* Bytes of a message of this kind; 0 = there is no such kind. */
uint32_t tw_control_size(uint32_t kind);

/* Checks kind, size, lane and reserved fields and copies the message out. */
enum tw_code tw_control_decode(const struct tw_chunk_header *header, enum tw_lane lane,
                               const uint8_t *payload, union tw_control *out, struct tw_error *err);

/* Sends a message on the lane of its kind. TW_RESOURCE_EXHAUSTED: no credit now, try again. */
enum tw_code tw_control_send(struct tw_conn *conn, enum tw_control_kind kind,
                             const union tw_control *message, struct tw_error *err);

/* An error as it travels, and back. What comes in is a stranger's text: it is cut to its field,
 * unprintable bytes are replaced, an impossible code becomes TW_UNKNOWN. */
void tw_control_abort_pack(struct tw_control_abort *out, const struct tw_error *why, bool compared);
void tw_control_abort_unpack(const struct tw_control_abort *in, struct tw_error *why);

#endif
