#include "base/random.h"
#include "services/migration/found.h"
#include "services/migration/line_hash.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 200u

static uint8_t *filled(uint64_t seed)
{
    uint8_t *m = aligned_alloc(TW_PAGE_SIZE, PAGES * TW_PAGE_SIZE);
    struct tw_random r = {seed};
    for (size_t i = 0; i < PAGES * TW_PAGE_SIZE; i += 8) {
        uint64_t v = tw_random_next(&r);
        memcpy(m + i, &v, 8);
    }
    return m;
}

static void note(struct tw_line_hashes *h, const uint8_t *m, uint64_t page, uint64_t lines)
{
    uint8_t data[TW_PAGE_SIZE];
    struct tw_record r = {TW_RECORD_LINES, page * TW_PAGE_SIZE, lines, 1, data};
    size_t n = 0;
    for (uint64_t rest = lines; rest; rest &= rest - 1)
        memcpy(data + TW_LINE_SIZE * n++,
               m + page * TW_PAGE_SIZE + (unsigned)__builtin_ctzll(rest) * TW_LINE_SIZE,
               TW_LINE_SIZE);
    tw_line_hashes_record(h, &r);
}

Test(line_hash, zero_is_zero_and_every_bit_counts)
{
    uint8_t line[TW_LINE_SIZE] = {0};
    cr_assert_eq(tw_line_hash(line), 0);
    for (unsigned bit = 0; bit < 512; bit++) {
        line[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        cr_assert_neq(tw_line_hash(line), 0);
        line[bit / 8] = 0;
    }
}

Test(line_hash, finds_exactly_the_lines_that_differ)
{
    struct tw_line_hashes h;
    uint8_t *m = filled(1);
    uint64_t digest = 0, sum = 0;
    cr_assert_eq(tw_line_hashes_open(&h, PAGES * TW_PAGE_SIZE, NULL), TW_OK);
    for (uint64_t p = 0; p < PAGES; p++) {
        note(&h, m, p, TW_ALL_LINES);
        cr_assert_eq(tw_line_hashes_compare(&h, p, m + p * TW_PAGE_SIZE, &digest), 0);
        sum += tw_page_digest(p, m + p * TW_PAGE_SIZE);
    }
    cr_assert_eq(digest, sum, "both ways to the digest agree");
    struct tw_random r = {2};
    for (unsigned n = 0; n < 500; n++) {
        uint64_t p = tw_random_below(&r, PAGES), lines = tw_random_next(&r) & tw_random_next(&r);
        for (uint64_t rest = lines; rest; rest &= rest - 1)
            m[p * TW_PAGE_SIZE + (unsigned)__builtin_ctzll(rest) * TW_LINE_SIZE +
              tw_random_below(&r, TW_LINE_SIZE)] ^= (uint8_t)(1 + tw_random_below(&r, 255));
        cr_assert_eq(tw_line_hashes_compare(&h, p, m + p * TW_PAGE_SIZE, &digest), lines);
        uint64_t some = tw_random_next(&r);
        cr_assert_eq(tw_line_hashes_differ(&h, p, m + p * TW_PAGE_SIZE, some), lines & some);
        note(&h, m, p, lines);
        cr_assert_eq(tw_line_hashes_compare(&h, p, m + p * TW_PAGE_SIZE, &digest), 0);
    }
    free(m);
    tw_line_hashes_close(&h);
}

Test(line_hash, memory_never_sent_counts_as_zero)
{
    struct tw_line_hashes h;
    uint64_t digest = 0;
    static uint8_t page[TW_PAGE_SIZE];
    memset(page, 0, sizeof page);
    tw_line_hashes_open(&h, PAGES * TW_PAGE_SIZE, NULL);
    cr_assert_eq(tw_line_hashes_compare(&h, 7, page, &digest), 0);
    cr_assert_eq(digest, 0);
    page[64] = 1;
    cr_assert_eq(tw_line_hashes_compare(&h, 7, page, &digest), 2);
    cr_assert_neq(digest, 0);
    tw_line_hashes_close(&h);
}

Test(line_hash, zero_records_clear)
{
    struct tw_line_hashes h;
    uint8_t *m = filled(3), zero[TW_PAGE_SIZE] = {0};
    uint64_t digest = 0;
    tw_line_hashes_open(&h, PAGES * TW_PAGE_SIZE, NULL);
    for (uint64_t p = 10; p < 20; p++)
        note(&h, m, p, TW_ALL_LINES);
    struct tw_record r = {TW_RECORD_ZERO_PAGES, 5 * TW_PAGE_SIZE, 0, 10, NULL}; /* 5..14 */
    tw_line_hashes_record(&h, &r);
    r = (struct tw_record){TW_RECORD_ZERO_LINES, 15 * TW_PAGE_SIZE, 0xff, 1, NULL};
    tw_line_hashes_record(&h, &r);
    for (uint64_t p = 0; p < 15; p++)
        cr_assert_eq(tw_line_hashes_compare(&h, p, zero, &digest), 0);
    cr_assert_eq(tw_line_hashes_compare(&h, 15, zero, &digest), ~UINT64_C(0xff));
    cr_assert_eq(tw_line_hashes_compare(&h, 16, zero, &digest), TW_ALL_LINES);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 0, PAGES), 10);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 12, PAGES), 12);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 20, PAGES), PAGES);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 0, 5), 5);
    note(&h, m, 63, 1);
    note(&h, m, 64, 1);
    note(&h, m, 199, 1);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 20, PAGES), 63);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 64, PAGES), 64);
    cr_assert_eq(tw_line_hashes_next_sent(&h, 65, PAGES), 199);
    free(m);
    tw_line_hashes_close(&h);
}

Test(line_hash, digest_knows_where_a_line_is)
{
    uint8_t *m = filled(4), line[TW_LINE_SIZE];
    uint64_t before = tw_page_digest(3, m);
    memcpy(line, m, TW_LINE_SIZE);
    memcpy(m, m + 17 * TW_LINE_SIZE, TW_LINE_SIZE);
    memcpy(m + 17 * TW_LINE_SIZE, line, TW_LINE_SIZE);
    cr_assert_neq(tw_page_digest(3, m), before, "two lines have changed places");
    cr_assert_neq(tw_page_digest(4, m), tw_page_digest(3, m), "another page");
    free(m);
}

Test(found, merges_takes_and_is_bounded)
{
    struct tw_found f = {0};
    struct tw_found_page p;
    for (uint64_t i = 0; i < 1000; i++)
        cr_assert(tw_found_put(&f, 3 * i, i + 1));
    cr_assert_eq(tw_found_take(&f, 30), 11);
    cr_assert_eq(tw_found_take(&f, 30), 0, "taken is taken");
    cr_assert_eq(tw_found_take(&f, 31), 0);
    cr_assert_eq(tw_found_take(&f, 99999), 0);
    unsigned left = 0;
    while (tw_found_next(&f, &p)) {
        cr_assert_neq(p.page, 30);
        left++;
    }
    cr_assert_eq(left, 999);
    cr_assert_eq(f.count, 0);
    uint64_t n = 0;
    while (tw_found_put(&f, n, 1))
        n++;
    cr_assert_eq(n, TW_FOUND_PAGES_MAX);
    tw_found_close(&f);
}

Test(line_hash, settled_pages_need_no_look_at_memory)
{
    struct tw_line_hashes h;
    uint8_t *m = filled(5);
    uint64_t digest = 0;
    tw_line_hashes_open(&h, PAGES * TW_PAGE_SIZE, NULL);
    note(&h, m, 3, TW_ALL_LINES);
    cr_assert_not(tw_line_hashes_is_settled(&h, 3), "the guest still runs");
    tw_line_hashes_settle(&h);
    cr_assert_not(tw_line_hashes_is_settled(&h, 3));
    note(&h, m, 3, TW_ALL_LINES >> 1);
    cr_assert_not(tw_line_hashes_is_settled(&h, 3), "not whole");
    note(&h, m, 70, TW_ALL_LINES);
    cr_assert(tw_line_hashes_is_settled(&h, 70));
    cr_assert_not(tw_line_hashes_is_settled(&h, 6));
    tw_line_hashes_compare(&h, 70, m + 70 * TW_PAGE_SIZE, &digest);
    cr_assert_eq(tw_line_hashes_digest(&h, 70), digest);
    free(m);
    tw_line_hashes_close(&h);
}
