#include "services/migration/line_hash.h"
#include "services/migration/received.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 100u

/* A host that counts what is reserved. */
struct place {
    struct tw_host host;
    struct tw_range existing;
    uint64_t reserved_pages, calls, room; /* pages */
};

static struct tw_range next_data(void *ctx, uint64_t at)
{
    const struct place *p = ctx;
    uint64_t end = p->existing.start + p->existing.length;
    if (at >= end)
        return (struct tw_range){0, 0};
    uint64_t start = at > p->existing.start ? at : p->existing.start;
    return (struct tw_range){start, end - start};
}

static enum tw_code reserve(void *ctx, struct tw_range range, struct tw_error *err)
{
    struct place *p = ctx;
    p->calls++;
    if (p->reserved_pages + range.length / TW_PAGE_SIZE > p->room)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "disk", NULL, NULL, "full");
    p->reserved_pages += range.length / TW_PAGE_SIZE;
    return TW_OK;
}

static const struct tw_host_ops ops = {.next_data = next_data, .reserve = reserve};

static void place_open(struct place *p, struct tw_received *r)
{
    p->host.ops = &ops;
    p->host.ctx = p;
    p->host.memory_bytes = PAGES * TW_PAGE_SIZE;
    p->host.memory = aligned_alloc(TW_PAGE_SIZE, p->host.memory_bytes);
    memset(p->host.memory, 0, p->host.memory_bytes);
    if (p->existing.length)
        memset(p->host.memory + p->existing.start, 7, p->existing.length);
    cr_assert_eq(tw_received_open(r, &p->host, NULL), TW_OK);
}

static void place_close(struct place *p, struct tw_received *r)
{
    tw_received_close(r);
    free(p->host.memory);
}

static enum tw_code apply(struct tw_received *r, const struct tw_chunk_writer *w,
                          struct tw_error *err)
{
    struct tw_chunk_header h = {.kind = TW_CHUNK_LINES, .length = w->length, .count = w->count};
    return tw_received_apply(r, &h, w->payload, err);
}

static uint8_t payload[TW_CHUNK_PAYLOAD] __attribute__((aligned(64)));
static uint8_t page[TW_PAGE_SIZE] __attribute__((aligned(64)));

static void fill_page(uint8_t value)
{
    memset(page, value, sizeof page);
}

static uint64_t digest_of(const struct place *p)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < PAGES; i++)
        sum += tw_page_digest(i, p->host.memory + i * TW_PAGE_SIZE);
    return sum;
}

Test(received, reserves_runs_and_leaves_holes_alone)
{
    struct place p = {.room = PAGES};
    struct tw_received r;
    struct tw_chunk_writer w;
    place_open(&p, &r);
    tw_chunk_writer_init(&w, payload);
    for (uint64_t i = 10; i < 20; i++) {
        fill_page((uint8_t)i);
        cr_assert_eq(tw_chunk_writer_add(&w, i * TW_PAGE_SIZE, page, TW_ALL_LINES), 0);
    }
    fill_page(0);
    tw_chunk_writer_add(&w, 30 * TW_PAGE_SIZE, page, 0xff);
    tw_chunk_writer_add_zero_pages(&w, 40 * TW_PAGE_SIZE, 5);
    fill_page(1);
    tw_chunk_writer_add(&w, 50 * TW_PAGE_SIZE, page, 1);
    cr_assert_eq(apply(&r, &w, NULL), TW_OK);
    cr_assert_eq(p.calls, 2, "one call for ten neighbours, one for the page apart");
    cr_assert_eq(p.reserved_pages, 11, "zeros over holes need no room");
    cr_assert_eq(r.stale_pages, 11);
    cr_assert_eq(r.totals.lines, 641);
    cr_assert_eq(r.totals.zero_lines, 8);
    cr_assert_eq(r.totals.zero_pages, 5);
    cr_assert_not(tw_received_refresh(&r, 5));
    cr_assert(tw_received_refresh(&r, 50));
    cr_assert_eq(r.digest, digest_of(&p));

    tw_chunk_writer_init(&w, payload);
    tw_chunk_writer_add_zero_pages(&w, 9 * TW_PAGE_SIZE, 3); /* over data now */
    cr_assert_eq(apply(&r, &w, NULL), TW_OK);
    cr_assert_eq(p.calls, 2, "room that is there is not asked for again");
    cr_assert(tw_received_refresh(&r, 50));
    cr_assert_eq(p.host.memory[10 * TW_PAGE_SIZE], 0);
    cr_assert_eq(r.digest, digest_of(&p));
    place_close(&p, &r);
}

Test(received, a_full_disk_is_an_error_before_anything_is_written)
{
    struct place p = {.room = 3};
    struct tw_received r;
    struct tw_chunk_writer w;
    struct tw_error err;
    place_open(&p, &r);
    tw_chunk_writer_init(&w, payload);
    fill_page(9);
    for (uint64_t i = 0; i < 4; i++)
        tw_chunk_writer_add(&w, i * TW_PAGE_SIZE, page, TW_ALL_LINES);
    cr_assert_eq(apply(&r, &w, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert(tw_received_is_own_fault(err.code));
    cr_assert_str_eq(err.what, "full");
    for (uint64_t i = 0; i < p.host.memory_bytes; i++)
        cr_assert_eq(p.host.memory[i], 0);
    place_close(&p, &r);
}

Test(received, malformed_chunks_change_nothing)
{
    struct place p = {.room = PAGES};
    struct tw_received r;
    struct tw_chunk_writer w;
    struct tw_error err;
    place_open(&p, &r);
    tw_chunk_writer_init(&w, payload);
    fill_page(9);
    tw_chunk_writer_add(&w, 0, page, TW_ALL_LINES);
    tw_chunk_writer_add(&w, PAGES * TW_PAGE_SIZE, page, 1); /* one page behind the end */
    cr_assert_neq(apply(&r, &w, &err), TW_OK);
    cr_assert_not(tw_received_is_own_fault(err.code));
    cr_assert_eq(p.host.memory[0], 0);
    cr_assert_eq(r.totals.lines, 0);
    place_close(&p, &r);
}

Test(received, memory_that_was_not_empty_shows_in_the_digest)
{
    struct place p = {.room = PAGES, .existing = {20 * TW_PAGE_SIZE, 3 * TW_PAGE_SIZE}};
    struct tw_received r;
    struct tw_chunk_writer w;
    place_open(&p, &r);
    cr_assert_eq(r.stale_pages, 3);
    cr_assert(tw_received_refresh(&r, 50));
    cr_assert_neq(r.digest, 0);
    cr_assert_eq(r.digest, digest_of(&p));
    tw_chunk_writer_init(&w, payload);
    tw_chunk_writer_add_zero_pages(&w, 0, PAGES);
    cr_assert_eq(apply(&r, &w, NULL), TW_OK);
    cr_assert(tw_received_refresh(&r, 50));
    cr_assert_eq(r.digest, 0, "zeros over what was there are written");
    cr_assert_eq(p.host.memory[20 * TW_PAGE_SIZE], 0);
    place_close(&p, &r);
}
