#include "fabric/record.h"

#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KIND_MASK UINT64_C(0xfff)

/* ---- Lines ----------------------------------------------------------------------------------- */

/* Bodies marked FAST are compiled twice: for any x86-64, and for one with AVX2 and POPCNT (any
 * since 2013), which is chosen where it is there. */
#define FAST static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define WIDE           __attribute__((target("avx2,popcnt,bmi")))
#define WIDE_IS_HERE() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
#else
#define WIDE
#define WIDE_IS_HERE() false
#endif

/* Copies a line and tells whether it holds anything but zeros. The source may be changing under
 * us, so it is read once (volatile), and what is tested is what was read. */
typedef bool copy_line(uint8_t *to, const uint8_t *from);

typedef uint64_t vec128 __attribute__((vector_size(16)));
typedef uint64_t vec256 __attribute__((vector_size(32)));

static inline bool copy_line_plain(uint8_t *to, const uint8_t *from)
{
    const volatile vec128 *f = (const volatile vec128 *)(const volatile void *)from;
    const vec128 a = f[0], b = f[1], c = f[2], d = f[3];
    memcpy(to, &a, sizeof a);
    memcpy(to + 16, &b, sizeof b);
    memcpy(to + 32, &c, sizeof c);
    memcpy(to + 48, &d, sizeof d);
    const vec128 any = (a | b) | (c | d);
    return (any[0] | any[1]) != 0;
}

#if defined(__x86_64__)
WIDE static inline bool copy_line_wide(uint8_t *to, const uint8_t *from)
{
    typedef long long type_of_ptestz __attribute__((vector_size(32)));
    const volatile vec256 *f = (const volatile vec256 *)(const volatile void *)from;
    const vec256 a = f[0], b = f[1];
    memcpy(to, &a, sizeof a);
    memcpy(to + sizeof a, &b, sizeof b);
    const type_of_ptestz any = (type_of_ptestz)(a | b);
    return !__builtin_ia32_ptestz256(any, any);
}
#else
#define copy_line_wide copy_line_plain
#endif

FAST unsigned lowest(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits);
}

/* Copies the lines of `bitmap` that are not zero to *to, one behind the other, and moves *to behind
 * them. Returns the bitmap of those that are zero. A branch for each line, which is foreseen as
 * zeros come in crowds: without one, each line would wait for the one before it to arrive. Writes
 * at most one line behind the last that it keeps. */
FAST uint64_t gather(uint8_t **to, const uint8_t *page, uint64_t bitmap, copy_line *copy)
{
    uint8_t *at = *to;
    uint64_t zero = 0;
    for (; bitmap; bitmap &= bitmap - 1) {
        const unsigned i = lowest(bitmap);
        if (__builtin_expect(copy(at, page + (size_t)i * TW_LINE_SIZE), 1))
            at += TW_LINE_SIZE;
        else
            zero |= UINT64_C(1) << i;
    }
    *to = at;
    return zero;
}

/* ---- Writing --------------------------------------------------------------------------------- */

void tw_chunk_writer_init(struct tw_chunk_writer *writer, uint8_t *payload)
{
    *writer = (struct tw_chunk_writer){.payload = payload};
}

/* Writes a record header at `at` in the payload; the caller has made sure that it fits. */
FAST void put_header(struct tw_chunk_writer *w, uint32_t at, enum tw_record_kind kind,
                     uint64_t page_address, uint64_t what)
{
    const struct tw_record_header h = {page_address | (uint64_t)kind, what};
    memcpy(w->payload + at, &h, sizeof h);
}

bool tw_chunk_writer_add_zero_pages(struct tw_chunk_writer *w, uint64_t page_address,
                                    uint64_t pages)
{
    struct tw_record_header h;
    if (w->run_end && w->run_end == w->length) {
        memcpy(&h, w->payload + w->length - sizeof h, sizeof h);
        if ((h.place & ~KIND_MASK) + h.what * TW_PAGE_SIZE == page_address) {
            h.what += pages;
            memcpy(w->payload + w->length - sizeof h, &h, sizeof h);
            w->zero_lines += pages * TW_LINES_PER_PAGE;
            return true;
        }
    }
    if (TW_CHUNK_PAYLOAD - w->length < sizeof h)
        return false;
    put_header(w, w->length, TW_RECORD_ZERO_PAGES, page_address, pages);
    w->length += (uint32_t)sizeof h;
    w->count++;
    w->run_end = w->length;
    w->zero_lines += pages * TW_LINES_PER_PAGE;
    return true;
}

/* The lowest `n` bits that are set. */
static uint64_t first_bits(uint64_t bitmap, unsigned n)
{
    uint64_t rest = bitmap;
    while (n--)
        rest &= rest - 1;
    return bitmap & ~rest;
}

/* A page of which lines were zero. Those with data lie at `at` + 16 already, up to `end`. */
static __attribute__((noinline)) void put_with_zeros(struct tw_chunk_writer *w,
                                                     uint64_t page_address, uint64_t bitmap,
                                                     uint64_t zero, const uint8_t *end)
{
    if (zero == TW_ALL_LINES) {
        tw_chunk_writer_add_zero_pages(w, page_address, 1);
        return;
    }
    if (zero != bitmap) {
        put_header(w, w->length, TW_RECORD_LINES, page_address, bitmap & ~zero);
        w->length = (uint32_t)(end - w->payload);
        w->count++;
    }
    put_header(w, w->length, TW_RECORD_ZERO_LINES, page_address, zero);
    w->length += (uint32_t)sizeof(struct tw_record_header);
    w->count++;
    w->zero_lines += tw_popcount(zero);
}

/* Adds lines that are known to fit. The common case is short: a sparse gather is bound by what the
 * processor holds in flight at once, and every instruction here takes room from a line there. */
FAST void put_lines(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                    uint64_t bitmap, copy_line *copy)
{
    const uint32_t at = w->length;
    uint8_t *end = w->payload + at + sizeof(struct tw_record_header);
    const uint64_t zero = gather(&end, page, bitmap, copy);
    if (__builtin_expect(zero != 0, 0)) {
        put_with_zeros(w, page_address, bitmap, zero, end);
        return;
    }
    put_header(w, at, TW_RECORD_LINES, page_address, bitmap);
    w->length = (uint32_t)(end - w->payload);
    w->count++;
}

/* Near the end of the payload: as many lines as fit in the worst case, which is a record of lines
 * with data and one of zero lines. */
static __attribute__((noinline)) uint64_t put_last(struct tw_chunk_writer *w, uint64_t page_address,
                                                   const uint8_t *page, uint64_t bitmap)
{
    const uint32_t headers = 2 * sizeof(struct tw_record_header);
    const uint32_t room = TW_CHUNK_PAYLOAD - w->length;
    const uint32_t fit = room < headers ? 0 : (room - headers) / TW_LINE_SIZE;
    const uint64_t first = tw_popcount(bitmap) > fit ? first_bits(bitmap, fit) : bitmap;
    if (first)
        put_lines(w, page_address, page, first, copy_line_plain);
    return bitmap & ~first;
}

FAST uint64_t add(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                  uint64_t bitmap, copy_line *copy)
{
    const uint32_t worst = 2 * sizeof(struct tw_record_header) + TW_PAGE_SIZE;
    if (__builtin_expect(w->length > TW_CHUNK_PAYLOAD - worst || bitmap == 0, 0))
        return put_last(w, page_address, page, bitmap);
    put_lines(w, page_address, page, bitmap, copy);
    return 0;
}

typedef uint64_t add_page(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                          uint64_t bitmap);

WIDE static uint64_t add_wide(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                              uint64_t bitmap)
{
    return add(w, page_address, page, bitmap, copy_line_wide);
}

static uint64_t add_plain(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                          uint64_t bitmap)
{
    return add(w, page_address, page, bitmap, copy_line_plain);
}

static add_page *add_best = add_plain;

__attribute__((constructor)) static void choose(void)
{
    if (WIDE_IS_HERE())
        add_best = add_wide;
}

uint64_t tw_chunk_writer_add(struct tw_chunk_writer *w, uint64_t page_address, const uint8_t *page,
                             uint64_t bitmap)
{
    assert((page_address & KIND_MASK) == 0);
    assert(((uintptr_t)page & (TW_LINE_SIZE - 1)) == 0);
    return add_best(w, page_address, page, bitmap);
}

static uint32_t checksum(const struct tw_chunk_header *header, const void *payload)
{
    struct tw_chunk_header h = *header;
    h.crc32c = 0;
    return tw_crc32c(tw_crc32c(0, &h, sizeof h), payload, h.length);
}

void tw_chunk_seal(struct tw_chunk_header *header, const void *payload)
{
    assert(header->length <= TW_CHUNK_PAYLOAD);
    header->magic = TW_CHUNK_MAGIC;
    header->version = TW_CHUNK_VERSION;
    header->reserved = 0;
    header->crc32c = checksum(header, payload);
}

/* ---- Checking -------------------------------------------------------------------------------- */

static enum tw_code bad_header(struct tw_error *err, enum tw_code code,
                               const struct tw_chunk_header *h, uint64_t expected, uint64_t given,
                               const char *what)
{
    if (!err)
        return code;
    char where[64], e[32], g[32];
    snprintf(where, sizeof where, "chunk %" PRIu64, h->sequence);
    snprintf(e, sizeof e, "%#" PRIx64, expected);
    snprintf(g, sizeof g, "%#" PRIx64, given);
    return tw_fail(err, code, where, e, g, "%s", what);
}

enum tw_code tw_chunk_check_header(const struct tw_chunk_header *h, struct tw_error *err)
{
    if (h->magic != TW_CHUNK_MAGIC)
        return bad_header(err, TW_DATA_LOSS, h, TW_CHUNK_MAGIC, h->magic, "not a chunk: magic");
    if (h->version != TW_CHUNK_VERSION)
        return bad_header(err, TW_FAILED_PRECONDITION, h, TW_CHUNK_VERSION, h->version,
                          "chunk of another version");
    if (h->kind < TW_CHUNK_LINES || h->kind > TW_CHUNK_CONTROL)
        return bad_header(err, TW_INVALID_ARGUMENT, h, TW_CHUNK_CONTROL, h->kind,
                          "chunk of an unknown kind (the highest is expected)");
    if (h->length > TW_CHUNK_PAYLOAD)
        return bad_header(err, TW_OUT_OF_RANGE, h, TW_CHUNK_PAYLOAD, h->length,
                          "chunk longer than the limit (expected at most)");
    if (h->reserved != 0)
        return bad_header(err, TW_INVALID_ARGUMENT, h, 0, h->reserved,
                          "chunk header with reserved bits");
    return TW_OK;
}

enum tw_code tw_chunk_check_payload(const struct tw_chunk_header *h, const void *payload,
                                    struct tw_error *err)
{
    const uint32_t crc = checksum(h, payload);
    if (crc != h->crc32c)
        return bad_header(err, TW_DATA_LOSS, h, h->crc32c, crc, "chunk damaged: crc32c");
    return TW_OK;
}

/* ---- Reading --------------------------------------------------------------------------------- */

void tw_record_reader_init(struct tw_record_reader *reader, const void *payload, uint32_t length,
                           uint64_t memory_bytes)
{
    const uint8_t *at = payload;
    *reader = (struct tw_record_reader){.at = at,
                                        .end = at + length,
                                        .memory_bytes = memory_bytes,
                                        .zero_pages = memory_bytes / TW_PAGE_SIZE};
}

static enum tw_code bad_record(const struct tw_record_reader *r, struct tw_error *err,
                               enum tw_code code, uint64_t expected, uint64_t given,
                               const char *what)
{
    if (!err)
        return code;
    char where[64], e[32], g[32];
    snprintf(where, sizeof where, "record %" PRIu32, r->index);
    snprintf(e, sizeof e, "%#" PRIx64, expected);
    snprintf(g, sizeof g, "%#" PRIx64, given);
    return tw_fail(err, code, where, e, g, "%s", what);
}

/* Reads the record at `at` without any check, and returns where the next one begins. */
FAST const uint8_t *decode(const uint8_t *at, struct tw_record *record)
{
    struct tw_record_header h;
    memcpy(&h, at, sizeof h);
    at += sizeof h;
    const bool run = (h.place & KIND_MASK) == TW_RECORD_ZERO_PAGES;
    record->kind = (enum tw_record_kind)(h.place & KIND_MASK);
    record->page_address = h.place & ~KIND_MASK;
    record->bitmap = run ? TW_ALL_LINES : h.what;
    record->pages = run ? h.what : 1;
    record->lines = at;
    return record->kind == TW_RECORD_LINES ? at + (size_t)tw_popcount(h.what) * TW_LINE_SIZE : at;
}

static enum tw_code check_run(struct tw_record_reader *r, const struct tw_record *record,
                              struct tw_error *err)
{
    const uint64_t most = (r->memory_bytes - record->page_address) / TW_PAGE_SIZE;
    if (record->pages == 0 || record->pages > most)
        return bad_record(r, err, TW_OUT_OF_RANGE, most, record->pages,
                          "run of zero pages leaves the memory (expected 1 to ..)");
    if (record->pages > r->zero_pages)
        return bad_record(r, err, TW_INVALID_ARGUMENT, r->zero_pages, record->pages,
                          "more zero pages in one chunk than the memory has (expected at most)");
    r->zero_pages -= record->pages;
    return TW_OK;
}

enum tw_code tw_record_next(struct tw_record_reader *r, struct tw_record *record,
                            struct tw_error *err)
{
    const size_t left = (size_t)(r->end - r->at);
    if (left == 0)
        return TW_NOT_FOUND;
    if (left < sizeof(struct tw_record_header))
        return bad_record(r, err, TW_DATA_LOSS, sizeof(struct tw_record_header), left,
                          "record header cut off");
    uint64_t place;
    memcpy(&place, r->at, sizeof place);
    if ((place & KIND_MASK) > TW_RECORD_ZERO_PAGES)
        return bad_record(r, err, TW_INVALID_ARGUMENT, TW_RECORD_ZERO_PAGES, place & KIND_MASK,
                          "unknown kind of record (expected at most)");
    const struct tw_range page = {place & ~KIND_MASK, TW_PAGE_SIZE};
    if (!tw_range_fits(page, r->memory_bytes))
        return bad_record(r, err, TW_OUT_OF_RANGE, r->memory_bytes, page.start,
                          "page outside of the memory (expected below)");
    decode(r->at, record);
    if (record->kind == TW_RECORD_ZERO_PAGES) {
        const enum tw_code code = check_run(r, record, err);
        if (code)
            return code;
    } else if (record->bitmap == 0) {
        return bad_record(r, err, TW_INVALID_ARGUMENT, 1, 0, "record without a line");
    }
    size_t data = 0;
    if (record->kind == TW_RECORD_LINES)
        data = (size_t)tw_popcount(record->bitmap) * TW_LINE_SIZE;
    else
        record->lines = NULL;
    if (left - sizeof(struct tw_record_header) < data)
        return bad_record(r, err, TW_DATA_LOSS, data, left - sizeof(struct tw_record_header),
                          "lines of a record cut off");
    r->at += sizeof(struct tw_record_header) + data;
    r->index++;
    return TW_OK;
}

/* ---- Applying -------------------------------------------------------------------------------- */

FAST void scatter(uint8_t *page, const uint8_t *lines, uint64_t bitmap)
{
    if (bitmap == TW_ALL_LINES) {
        memcpy(page, lines, TW_PAGE_SIZE);
        return;
    }
    for (; bitmap; bitmap &= bitmap - 1, lines += TW_LINE_SIZE)
        memcpy(page + (size_t)lowest(bitmap) * TW_LINE_SIZE, lines, TW_LINE_SIZE);
}

FAST void scatter_zeros(uint8_t *page, uint64_t bitmap)
{
    if (bitmap == TW_ALL_LINES)
        memset(page, 0, TW_PAGE_SIZE);
    else
        for (; bitmap; bitmap &= bitmap - 1)
            memset(page + (size_t)lowest(bitmap) * TW_LINE_SIZE, 0, TW_LINE_SIZE);
}

FAST enum tw_code apply_record(const struct tw_record *record, const struct tw_apply_target *target,
                               struct tw_error *err)
{
    const bool zero = record->kind != TW_RECORD_LINES;
    uint64_t address = record->page_address;
    for (uint64_t n = record->pages; n; n--, address += TW_PAGE_SIZE) {
        bool skip = false;
        if (target->prepare) {
            const enum tw_code code = target->prepare(target->ctx, address, zero, &skip, err);
            if (code)
                return code;
        }
        if (skip)
            continue;
        if (zero)
            scatter_zeros(target->memory + address, record->bitmap);
        else
            scatter(target->memory + address, record->lines, record->bitmap);
    }
    return TW_OK;
}

enum tw_code tw_record_apply(const struct tw_record *record, const struct tw_apply_target *target,
                             struct tw_error *err)
{
    return apply_record(record, target, err);
}

/* "record 7: .." becomes "chunk 4711, record 7: ..". */
static enum tw_code name_chunk(const struct tw_chunk_header *header, enum tw_code code,
                               struct tw_error *err)
{
    if (err) {
        char record[sizeof err->where / 2];
        snprintf(record, sizeof record, "%.*s", (int)sizeof record - 1, err->where);
        snprintf(err->where, sizeof err->where, "chunk %" PRIu64 ", %s", header->sequence, record);
    }
    return code;
}

/* Asks for the lines that a record will write, for ownership: scattered lines would otherwise be
 * waited for one by one. Where a page has many, the hardware's own prefetcher does it. */
FAST void want_lines(const uint8_t *page, uint64_t bitmap)
{
    for (unsigned n = 0; bitmap && n < 8; bitmap &= bitmap - 1, n++)
        __builtin_prefetch(page + (size_t)lowest(bitmap) * TW_LINE_SIZE, 1, 2);
}

/* A well-formed LINES record at r->at, the common case, is passed here without a call. */
FAST bool pass_lines(struct tw_record_reader *r, const uint8_t *memory)
{
    struct tw_record_header h;
    const size_t left = (size_t)(r->end - r->at);
    if (left < sizeof h)
        return false;
    memcpy(&h, r->at, sizeof h);
    const struct tw_range page = {h.place, TW_PAGE_SIZE};
    const size_t size = sizeof h + (size_t)tw_popcount(h.what) * TW_LINE_SIZE;
    if ((h.place & KIND_MASK) != TW_RECORD_LINES || h.what == 0 || left < size ||
        !tw_range_fits(page, r->memory_bytes))
        return false;
    want_lines(memory + h.place, h.what);
    r->at += size;
    r->index++;
    return true;
}

FAST enum tw_code apply(const struct tw_chunk_header *header, const void *payload,
                        const struct tw_apply_target *target, struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record record;
    enum tw_code code = TW_OK;
    tw_record_reader_init(&reader, payload, header->length, target->memory_bytes);
    while (code == TW_OK)
        if (!pass_lines(&reader, target->memory))
            code = tw_record_next(&reader, &record, err);
    if (code != TW_NOT_FOUND)
        return name_chunk(header, code, err);
    if (reader.index != header->count)
        return bad_header(err, TW_DATA_LOSS, header, header->count, reader.index,
                          "number of records differs from the header");
    code = TW_OK;
    for (const uint8_t *at = payload; at < reader.end && code == TW_OK;) {
        at = decode(at, &record);
        code = apply_record(&record, target, err);
    }
    return code;
}

WIDE static enum tw_code apply_wide(const struct tw_chunk_header *header, const void *payload,
                                    const struct tw_apply_target *target, struct tw_error *err)
{
    return apply(header, payload, target, err);
}

enum tw_code tw_chunk_apply(const struct tw_chunk_header *header, const void *payload,
                            const struct tw_apply_target *target, struct tw_error *err)
{
    if (header->kind != TW_CHUNK_LINES)
        return bad_header(err, TW_INVALID_ARGUMENT, header, TW_CHUNK_LINES, header->kind,
                          "no chunk of lines: kind");
    return WIDE_IS_HERE() ? apply_wide(header, payload, target, err)
                          : apply(header, payload, target, err);
}
