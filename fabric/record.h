/* The record and chunk format: lines as they travel and as they are logged. Same bytes on every
 * back end. Little-endian.
 *
 *   chunk  = header (one cache line), then `length` bytes of payload
 *   payload of a LINES chunk = `count` records:
 *     lines       { page address | LINES,      bitmap }  then one line for each bit, lowest first
 *     zero lines  { page address | ZERO_LINES, bitmap }  no data: these lines are all zero
 *     zero pages  { page address | ZERO_PAGES, count  }  no data: `count` whole pages from there on
 *
 * The low 12 bits of a page address are free and hold the record's kind. k dirty lines of a page
 * cost 16 + 64k bytes. Checks: record_test.c, tests/fuzz/chunk_fuzz.c. */
#ifndef TOWLINE_FABRIC_RECORD_H
#define TOWLINE_FABRIC_RECORD_H

#include "base/error.h"
#include "base/line.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_CHUNK_MAGIC   UINT32_C(0x4b4c5754) /* "TWLK" */
#define TW_CHUNK_VERSION 1u
#define TW_CHUNK_PAYLOAD (UINT32_C(128) << 10) /* bytes; the most that a chunk carries */
#define TW_OWNER_SIZE    16u

enum tw_chunk_kind {
    TW_CHUNK_LINES = 1,   /* records */
    TW_CHUNK_BLOB = 2,    /* opaque bytes in order (device state) */
    TW_CHUNK_CONTROL = 3, /* a small message of the service that owns the stream */
};

struct tw_chunk_header {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;                /* enum tw_chunk_kind */
    uint64_t epoch;               /* ownership epoch that the stream works towards */
    uint64_t sequence;            /* from 0, by one, each lane by itself */
    uint32_t length;              /* payload bytes */
    uint32_t count;               /* records (LINES), else free for the service */
    uint32_t crc32c;              /* of the header with this field 0, then the payload */
    uint32_t tag;                 /* free for the service (round number, control message) */
    uint8_t owner[TW_OWNER_SIZE]; /* token of the migration or lease */
    uint64_t reserved;            /* zero */
};
static_assert(sizeof(struct tw_chunk_header) == TW_LINE_SIZE, "the header is one cache line");
static_assert(offsetof(struct tw_chunk_header, crc32c) == 32, "no hidden padding");
static_assert(offsetof(struct tw_chunk_header, owner) == 40, "no hidden padding");

enum tw_record_kind {
    TW_RECORD_LINES = 0,
    TW_RECORD_ZERO_LINES = 1,
    TW_RECORD_ZERO_PAGES = 2,
};

struct tw_record_header {
    uint64_t place; /* page address (bytes) | enum tw_record_kind */
    uint64_t what;  /* line bitmap, or page count for ZERO_PAGES */
};
static_assert(sizeof(struct tw_record_header) == 16, "a record header is 16 bytes");

/* ---- Writing: gather lines out of memory into a chunk's payload. ----------------------------- */

struct tw_chunk_writer {
    uint8_t *payload;    /* TW_CHUNK_PAYLOAD bytes, owned by the caller */
    uint32_t length;     /* bytes written */
    uint32_t count;      /* records written */
    uint64_t zero_lines; /* lines carried as zero */
    uint32_t run_end;    /* length at which the last record is a run of zero pages, or 0 */
};

/* Lines carried with data: a record costs 16 bytes and 64 a line. */
static inline uint32_t tw_chunk_writer_lines(const struct tw_chunk_writer *writer)
{
    return (writer->length - writer->count * 16) / TW_LINE_SIZE;
}

void tw_chunk_writer_init(struct tw_chunk_writer *writer, uint8_t *payload);

/* Adds the lines of `bitmap` of the page at `page_address`, reading them from `page` (its 4096
 * bytes, aligned to a line, which other threads may be writing). Zero lines become a zero record;
 * a page that is all zero extends the run before it. Returns the bitmap of the lines that did NOT
 * fit (0 = all added): send the chunk, begin a new one, add the rest. A line that is added is read
 * exactly once; whoever wants to know what was sent reads it back out of the payload. */
uint64_t tw_chunk_writer_add(struct tw_chunk_writer *writer, uint64_t page_address,
                             const uint8_t *page, uint64_t bitmap);

/* Asks the processor for lines that will be added soon. Some six pages ahead, it makes a gather of
 * pages with four lines or more a tenth to a third faster; below that it does nothing. */
static inline void tw_chunk_prefetch(const uint8_t *page, uint64_t bitmap)
{
    for (unsigned n = 0; bitmap && n < 8; bitmap &= bitmap - 1, n++)
        __builtin_prefetch(page + (unsigned)__builtin_ctzll(bitmap) * TW_LINE_SIZE, 0, 3);
}

/* Adds a run of pages known to be zero without reading them; false when full. */
bool tw_chunk_writer_add_zero_pages(struct tw_chunk_writer *writer, uint64_t page_address,
                                    uint64_t pages);

/* Completes a header: magic, version, length, count, crc32c. The other fields are the caller's. */
void tw_chunk_seal(struct tw_chunk_header *header, const void *payload);

/* ---- Reading: bytes from outside, so everything is checked before use. ----------------------- */

/* Magic, version, kind, length, reserved; not the checksum (the payload may not be there yet). */
enum tw_code tw_chunk_check_header(const struct tw_chunk_header *header, struct tw_error *err);
/* The checksum over header and payload. */
enum tw_code tw_chunk_check_payload(const struct tw_chunk_header *header, const void *payload,
                                    struct tw_error *err);

/* One record of a payload, decoded. */
struct tw_record {
    enum tw_record_kind kind;
    uint64_t page_address; /* bytes */
    uint64_t bitmap;       /* LINES, ZERO_LINES */
    uint64_t pages;        /* ZERO_PAGES: run length; else 1 */
    const uint8_t *lines;  /* LINES: the data, 64 bytes a bit, lowest first */
};

struct tw_record_reader {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t memory_bytes; /* records must lie inside [0, memory_bytes) */
    uint64_t zero_pages; /* that ZERO_PAGES records may still name: bounds a hostile chunk's work */
    uint32_t index;      /* of the next record */
};
void tw_record_reader_init(struct tw_record_reader *reader, const void *payload, uint32_t length,
                           uint64_t memory_bytes);
/* Next record: TW_OK, TW_NOT_FOUND at the end, anything else for a malformed payload. All the
 * zero pages of one payload together may not exceed the memory. */
enum tw_code tw_record_next(struct tw_record_reader *reader, struct tw_record *record,
                            struct tw_error *err);

/* Memory that records are written into.
 *
 * prepare (may be NULL) is called for each page before a record touches it. There the owner
 * reserves space, so that a full disk is an error here and not a SIGBUS, and notes that the page
 * is a hole no longer. `zero` says that the record brings only zeros: where the page is still a
 * hole, set *skip and nothing is read or written, so that it stays one (even reading a hole
 * through a shared mapping would fill it). A failure ends the apply half-way and is returned. */
struct tw_apply_target {
    uint8_t *memory; /* aligned to a line */
    uint64_t memory_bytes;
    enum tw_code (*prepare)(void *ctx, uint64_t page_address, bool zero, bool *skip,
                            struct tw_error *err);
    void *ctx; /* of prepare */
};

/* Writes a record that tw_record_next() has checked against target->memory_bytes. */
enum tw_code tw_record_apply(const struct tw_record *record, const struct tw_apply_target *target,
                             struct tw_error *err);

/* Checks the WHOLE payload, record count included, then applies all of it; a malformed payload
 * changes nothing. header and payload have passed the checks above, or come from ourselves. */
enum tw_code tw_chunk_apply(const struct tw_chunk_header *header, const void *payload,
                            const struct tw_apply_target *target, struct tw_error *err);

#endif
