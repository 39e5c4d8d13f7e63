#include "services/migration/line_hash.h"

#include "services/migration/big_array.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* XXH3_64bits of 64 zero bytes; the test recomputes it. */
#define ZERO_LINE_HASH UINT64_C(0x2ffb6918c12c256e)

static inline uint64_t hash_of(const uint8_t *line)
{
    return XXH3_64bits(line, TW_LINE_SIZE) ^ ZERO_LINE_HASH;
}

/* An odd weight for each place: a line that moves changes the sum. */
static inline uint64_t weighted(uint64_t hash, uint64_t line)
{
    return hash * ((line * UINT64_C(0x9e3779b97f4a7c15)) | 1);
}

uint64_t tw_line_hash(const uint8_t line[TW_LINE_SIZE])
{
    return hash_of(line);
}

uint64_t tw_bytes_hash(const void *bytes, uint64_t size)
{
    return XXH3_64bits(bytes, size);
}

uint64_t tw_page_digest(uint64_t page, const uint8_t *bytes)
{
    uint64_t digest = 0;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++)
        digest += weighted(hash_of(bytes + i * TW_LINE_SIZE), page * TW_LINES_PER_PAGE + i);
    return digest;
}

uint64_t tw_lines_digest(uint64_t page, const uint8_t *bytes, uint64_t lines)
{
    uint64_t digest = 0;
    for (; lines; lines &= lines - 1) {
        unsigned i = (unsigned)__builtin_ctzll(lines);
        digest += weighted(hash_of(bytes + i * TW_LINE_SIZE), page * TW_LINES_PER_PAGE + i);
    }
    return digest;
}

enum tw_code tw_line_hashes_open(struct tw_line_hashes *h, uint64_t memory_bytes,
                                 struct tw_error *err)
{
    uint64_t pages = memory_bytes / TW_PAGE_SIZE;
    *h = (struct tw_line_hashes){.pages = pages};
    h->of_line = tw_big_array_open(pages * TW_LINES_PER_PAGE, "line hashes", err);
    h->sent = h->of_line ? tw_big_array_open(pages / 64 + 1, "line hashes", err) : NULL;
    h->settled = h->sent ? tw_big_array_open(pages / 64 + 1, "line hashes", err) : NULL;
    if (h->settled)
        return TW_OK;
    tw_line_hashes_close(h);
    return TW_RESOURCE_EXHAUSTED;
}

void tw_line_hashes_close(struct tw_line_hashes *h)
{
    tw_big_array_close(h->of_line, h->pages * TW_LINES_PER_PAGE);
    tw_big_array_close(h->sent, h->pages / 64 + 1);
    tw_big_array_close(h->settled, h->pages / 64 + 1);
    *h = (struct tw_line_hashes){0};
}

static bool was_sent(const struct tw_line_hashes *h, uint64_t page)
{
    return (h->sent[page / 64] >> (page % 64)) & 1;
}

void tw_line_hashes_record(struct tw_line_hashes *h, const struct tw_record *record)
{
    uint64_t page = tw_page_of(record->page_address);
    if (record->kind == TW_RECORD_LINES) {
        const uint8_t *line = record->lines;
        uint64_t *of_page = h->of_line + page * TW_LINES_PER_PAGE;
        for (uint64_t rest = record->bitmap; rest; rest &= rest - 1, line += TW_LINE_SIZE)
            of_page[__builtin_ctzll(rest)] = hash_of(line);
        h->sent[page / 64] |= UINT64_C(1) << (page % 64);
        if (h->settling && record->bitmap == TW_ALL_LINES)
            h->settled[page / 64] |= UINT64_C(1) << (page % 64);
        return;
    }
    uint64_t lines = record->kind == TW_RECORD_ZERO_LINES ? record->bitmap : TW_ALL_LINES;
    uint64_t end = page + record->pages;
    for (page = tw_line_hashes_next_sent(h, page, end); page < end;
         page = tw_line_hashes_next_sent(h, page + 1, end))
        for (uint64_t rest = lines; rest; rest &= rest - 1)
            h->of_line[page * TW_LINES_PER_PAGE + (unsigned)__builtin_ctzll(rest)] = 0;
}

void tw_line_hashes_settle(struct tw_line_hashes *h)
{
    h->settling = true;
}

bool tw_line_hashes_is_settled(const struct tw_line_hashes *h, uint64_t page)
{
    return (h->settled[page / 64] >> (page % 64)) & 1;
}

uint64_t tw_line_hashes_digest(const struct tw_line_hashes *h, uint64_t page)
{
    const uint64_t *of_page = h->of_line + page * TW_LINES_PER_PAGE;
    uint64_t digest = 0;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++)
        digest += weighted(of_page[i], page * TW_LINES_PER_PAGE + i);
    return digest;
}

uint64_t tw_line_hashes_differ(const struct tw_line_hashes *h, uint64_t page, const uint8_t *bytes,
                               uint64_t lines)
{
    const uint64_t *of_page = h->of_line + page * TW_LINES_PER_PAGE;
    uint64_t differ = 0;
    for (uint64_t rest = lines; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctzll(rest);
        if (hash_of(bytes + i * TW_LINE_SIZE) != of_page[i])
            differ |= UINT64_C(1) << i;
    }
    return differ;
}

uint64_t tw_line_hashes_compare(const struct tw_line_hashes *h, uint64_t page, const uint8_t *bytes,
                                uint64_t *digest)
{
    const uint64_t *of_page = h->of_line + page * TW_LINES_PER_PAGE;
    uint64_t differ = 0;
    uint64_t sum = 0;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE; i++) {
        uint64_t hash = hash_of(bytes + i * TW_LINE_SIZE);
        differ |= (uint64_t)(hash != of_page[i]) << i;
        sum += weighted(hash, page * TW_LINES_PER_PAGE + i);
    }
    *digest += sum;
    return differ;
}

uint64_t tw_line_hashes_next_sent(const struct tw_line_hashes *h, uint64_t page, uint64_t end)
{
    while (page < end) {
        if (was_sent(h, page))
            return page;
        uint64_t later = h->sent[page / 64] & ~((UINT64_C(2) << (page % 64)) - 1);
        if (later)
            page = page / 64 * 64 + (unsigned)__builtin_ctzll(later);
        else
            page = page / 64 * 64 + 64;
    }
    return end;
}
