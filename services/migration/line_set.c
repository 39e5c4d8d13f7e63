#include "services/migration/line_set.h"

#include "services/migration/big_array.h"

#include <string.h>

enum tw_code tw_line_set_open(struct tw_line_set *s, uint64_t pages, struct tw_error *err)
{
    *s = (struct tw_line_set){.pages = pages};
    s->of_page = tw_big_array_open(pages, "bitmaps of lines to come", err);
    return s->of_page ? TW_OK : TW_RESOURCE_EXHAUSTED;
}

void tw_line_set_close(struct tw_line_set *s)
{
    if (!s->lent)
        tw_big_array_close(s->of_page, s->pages);
    *s = (struct tw_line_set){0};
}

void tw_line_set_open_in(struct tw_line_set *s, uint64_t pages, uint64_t *of_page)
{
    *s = (struct tw_line_set){.of_page = of_page, .pages = pages, .lent = true};
    for (uint64_t page = 0; page < pages; page++)
        s->count += tw_popcount(of_page[page]);
}

uint64_t tw_line_set_add(struct tw_line_set *s, uint64_t page, uint64_t lines)
{
    uint64_t fresh = lines & ~s->of_page[page];
    s->of_page[page] |= lines;
    s->count += tw_popcount(fresh);
    return fresh;
}

uint64_t tw_line_set_take(struct tw_line_set *s, uint64_t page, uint64_t lines)
{
    uint64_t there = lines & s->of_page[page];
    __atomic_store_n(&s->of_page[page], s->of_page[page] & ~there, __ATOMIC_RELEASE);
    s->count -= tw_popcount(there);
    return there;
}

uint64_t tw_line_set_next(const struct tw_line_set *s, uint64_t page)
{
    while (page < s->pages && s->of_page[page] == 0)
        page++;
    return page < s->pages ? page : s->pages;
}

static bool put_bitmap(struct tw_chunk_writer *w, uint64_t page, uint64_t lines)
{
    struct tw_record_header h = {page * TW_PAGE_SIZE | TW_RECORD_ZERO_LINES, lines};
    if (w->length + sizeof h > TW_CHUNK_PAYLOAD)
        return false;
    memcpy(w->payload + w->length, &h, sizeof h);
    w->length += (uint32_t)sizeof h;
    w->count++;
    return true;
}

void tw_line_set_pack(const struct tw_line_set *s, uint64_t *page, struct tw_chunk_writer *writer)
{
    uint64_t at = tw_line_set_next(s, *page);
    while (at < s->pages) {
        uint64_t end = at;
        while (end < s->pages && s->of_page[end] == TW_ALL_LINES)
            end++;
        bool fits = end > at ? tw_chunk_writer_add_zero_pages(writer, at * TW_PAGE_SIZE, end - at)
                             : put_bitmap(writer, at, s->of_page[at]);
        if (!fits)
            break;
        at = tw_line_set_next(s, end > at ? end : at + 1);
    }
    *page = at;
}

/* Bitmap that a record names for each of its pages; 0 = it carries data. */
static uint64_t named(const struct tw_record *r)
{
    if (r->kind == TW_RECORD_ZERO_PAGES)
        return TW_ALL_LINES;
    return r->kind == TW_RECORD_ZERO_LINES ? r->bitmap : 0;
}

enum tw_code tw_line_set_unpack(struct tw_line_set *s, const uint8_t *payload, uint32_t length,
                                struct tw_error *err)
{
    struct tw_record_reader reader;
    struct tw_record r;
    enum tw_code code;
    tw_record_reader_init(&reader, payload, length, s->pages * TW_PAGE_SIZE);
    while ((code = tw_record_next(&reader, &r, err)) == TW_OK) {
        uint64_t lines = named(&r), page = tw_page_of(r.page_address);
        if (lines == 0)
            return tw_fail(err, TW_INVALID_ARGUMENT, "lines to come", "records without data", NULL,
                           "a record carries data");
        for (uint64_t end = page + r.pages; page < end; page++)
            if (tw_line_set_add(s, page, lines) != lines)
                return tw_fail(err, TW_INVALID_ARGUMENT, "lines to come", "each line once", NULL,
                               "a line is named twice");
    }
    return code == TW_NOT_FOUND ? TW_OK : code;
}
