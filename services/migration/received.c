#include "services/migration/received.h"

#include "services/migration/big_array.h"
#include "services/migration/line_hash.h"

static bool has(const uint64_t *bitmap, uint64_t page)
{
    return (bitmap[page / 64] >> (page % 64)) & 1;
}

static void add(uint64_t *bitmap, uint64_t page)
{
    bitmap[page / 64] |= UINT64_C(1) << (page % 64);
}

static void mark_stale(struct tw_received *r, uint64_t page)
{
    r->stale_pages += !has(r->stale, page);
    add(r->stale, page);
}

/* An incoming machine starts with memory of zeros. What its host cannot vouch for is read: should
 * it hold anything, the digest tells. */
static void mark_existing(struct tw_received *r)
{
    uint64_t size = r->pages * TW_PAGE_SIZE;
    for (uint64_t at = 0; at < size;) {
        struct tw_range range = r->host->ops->next_data(r->host->ctx, at);
        if (range.length == 0 || range.start >= size)
            return;
        uint64_t page = (range.start > at ? range.start : at) / TW_PAGE_SIZE;
        uint64_t end = tw_range_fits(range, size)
                           ? (range.start + range.length + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE
                           : r->pages;
        do {
            add(r->touched, page);
            mark_stale(r, page++);
        } while (page < end);
        at = page * TW_PAGE_SIZE;
    }
}

enum tw_code tw_received_open(struct tw_received *r, struct tw_host *host, struct tw_error *err)
{
    *r = (struct tw_received){.host = host, .pages = host->memory_bytes / TW_PAGE_SIZE};
    uint64_t words = r->pages / 64 + 1;
    r->reserved = tw_big_array_open(words, "page bitmaps", err);
    r->touched = r->reserved ? tw_big_array_open(words, "page bitmaps", err) : NULL;
    r->stale = r->touched ? tw_big_array_open(words, "page bitmaps", err) : NULL;
    r->digest_of = r->stale ? tw_big_array_open(r->pages, "page digests", err) : NULL;
    if (!r->digest_of) {
        tw_received_close(r);
        return TW_RESOURCE_EXHAUSTED;
    }
    mark_existing(r);
    return TW_OK;
}

void tw_received_close(struct tw_received *r)
{
    uint64_t words = r->pages / 64 + 1;
    tw_big_array_close(r->reserved, words);
    tw_big_array_close(r->touched, words);
    tw_big_array_close(r->stale, words);
    tw_big_array_close(r->digest_of, r->pages);
    *r = (struct tw_received){0};
}

static enum tw_code reserve(struct tw_received *r, uint64_t page, uint64_t end,
                            struct tw_error *err)
{
    struct tw_range range = {page * TW_PAGE_SIZE, (end - page) * TW_PAGE_SIZE};
    struct tw_error why = {0};
    if (r->host->ops->reserve(r->host->ctx, range, &why) != TW_OK)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, why.where, why.expected, why.given, "%s",
                       why.what[0] ? why.what : "no room for the memory of the VM");
    for (; page < end; page++)
        add(r->reserved, page);
    return TW_OK;
}

/* Reserves in runs what a chunk will write: one call for neighbours, not one a page. A malformed
 * rest is left to the apply, which says what is wrong with it. */
static enum tw_code reserve_all(struct tw_received *r, const struct tw_chunk_header *header,
                                const uint8_t *payload, struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record record;
    uint64_t start = 0, end = 0;
    tw_record_reader_init(&reader, payload, header->length, r->pages * TW_PAGE_SIZE);
    while (tw_record_next(&reader, &record, NULL) == TW_OK) {
        uint64_t page = tw_page_of(record.page_address);
        if (record.kind != TW_RECORD_LINES || has(r->reserved, page))
            continue;
        if (page == end && start < end) {
            end++;
            continue;
        }
        enum tw_code code = start < end ? reserve(r, start, end, err) : TW_OK;
        if (code != TW_OK)
            return code;
        start = page;
        end = page + 1;
    }
    return start < end ? reserve(r, start, end, err) : TW_OK;
}

static enum tw_code prepare(void *ctx, uint64_t page_address, bool zero, bool *skip,
                            struct tw_error *err)
{
    struct tw_received *r = ctx;
    uint64_t page = tw_page_of(page_address);
    if (zero && !has(r->touched, page)) {
        *skip = true; /* a hole stays a hole */
        return TW_OK;
    }
    if (!has(r->reserved, page)) {
        enum tw_code code = reserve(r, page, page + 1, err);
        if (code != TW_OK)
            return code;
    }
    add(r->touched, page);
    mark_stale(r, page);
    return TW_OK;
}

static void count(struct tw_received *r, const struct tw_chunk_header *header,
                  const uint8_t *payload)
{
    struct tw_record_reader reader;
    struct tw_record record;
    tw_record_reader_init(&reader, payload, header->length, r->pages * TW_PAGE_SIZE);
    while (tw_record_next(&reader, &record, NULL) == TW_OK) {
        if (record.kind == TW_RECORD_LINES)
            r->totals.lines += tw_popcount(record.bitmap);
        else if (record.kind == TW_RECORD_ZERO_LINES)
            r->totals.zero_lines += tw_popcount(record.bitmap);
        else
            r->totals.zero_pages += record.pages;
    }
}

enum tw_code tw_received_apply(struct tw_received *r, const struct tw_chunk_header *header,
                               const uint8_t *payload, struct tw_error *err)
{
    struct tw_apply_target target = {.memory = r->host->memory,
                                     .memory_bytes = r->pages * TW_PAGE_SIZE,
                                     .prepare = prepare,
                                     .ctx = r};
    enum tw_code code = reserve_all(r, header, payload, err);
    if (code == TW_OK)
        code = tw_chunk_apply(header, payload, &target, err);
    if (code == TW_OK)
        count(r, header, payload);
    return code;
}

enum tw_code tw_received_make_room(struct tw_received *r, uint64_t page, uint64_t end,
                                   struct tw_error *err)
{
    while (page < end && has(r->reserved, page))
        page++;
    return page < end ? reserve(r, page, end, err) : TW_OK;
}

void tw_received_touch(struct tw_received *r, uint64_t page)
{
    add(r->touched, page);
    mark_stale(r, page);
}

bool tw_received_may_hold(const struct tw_received *r, uint64_t page)
{
    return has(r->touched, page);
}

bool tw_received_is_own_fault(enum tw_code code)
{
    return code == TW_RESOURCE_EXHAUSTED;
}

static void refresh_page(struct tw_received *r, uint64_t page)
{
    uint64_t digest = tw_page_digest(page, r->host->memory + page * TW_PAGE_SIZE);
    r->digest += digest - r->digest_of[page];
    r->digest_of[page] = digest;
    r->stale[page / 64] &= ~(UINT64_C(1) << (page % 64));
    r->stale_pages--;
}

bool tw_received_refresh(struct tw_received *r, uint64_t max_pages)
{
    uint64_t words = r->pages / 64 + 1;
    while (r->stale_pages && max_pages) {
        uint64_t word = r->stale[r->cursor];
        if (!word) {
            r->cursor = r->cursor + 1 < words ? r->cursor + 1 : 0;
            continue;
        }
        refresh_page(r, r->cursor * 64 + (unsigned)__builtin_ctzll(word));
        max_pages--;
    }
    return r->stale_pages == 0;
}
