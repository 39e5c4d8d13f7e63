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
    uint64_t lines;      /* lines carried with data */
    uint64_t zero_lines; /* lines carried as zero */
};

void tw_chunk_writer_init(struct tw_chunk_writer *writer, uint8_t *payload);

/* Adds the lines of `bitmap` of the page at `page_address`, reading them from `page` (its 4096
 * bytes, which other threads may be writing). Zero lines become a zero record; a page that is all
 * zero extends the run before it. Returns the bitmap of the lines that did NOT fit (0 = all
 * added): send the chunk, begin a new one, add the rest. Each line is read exactly once. */
uint64_t tw_chunk_writer_add(struct tw_chunk_writer *writer, uint64_t page_address,
                             const uint8_t *page, uint64_t bitmap);

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
};
void tw_record_reader_init(struct tw_record_reader *reader, const void *payload, uint32_t length,
                           uint64_t memory_bytes);
/* Next record: TW_OK, TW_NOT_FOUND at the end, anything else for a malformed payload. */
enum tw_code tw_record_next(struct tw_record_reader *reader, struct tw_record *record,
                            struct tw_error *err);

/* Writes a record into memory (which holds memory_bytes as checked above). Zero records over
 * memory that is already zero write nothing, so holes stay holes where `page_is_hole` says so
 * (may be NULL). */
void tw_record_apply(const struct tw_record *record, uint8_t *memory);

/* Checks the WHOLE payload, record count included, then applies all of it; a malformed payload
 * changes nothing. */
enum tw_code tw_chunk_apply(const struct tw_chunk_header *header, const void *payload,
                            uint8_t *memory, uint64_t memory_bytes, struct tw_error *err);

#endif
