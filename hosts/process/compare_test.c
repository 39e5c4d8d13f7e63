#include "hosts/process/compare.h"

#include "base/line.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <stdalign.h>
#include <string.h>

static alignas(64) uint8_t now[TW_PAGE_SIZE], copy[TW_PAGE_SIZE];

static void check_way(const struct tw_compare *way, struct tw_random *r)
{
    uint64_t expected = 0, differ = 0, bytes = 0;
    for (unsigned i = 0; i < TW_PAGE_SIZE; i++)
        now[i] = copy[i] = (uint8_t)tw_random_next(r);
    for (uint64_t n = tw_random_below(r, 70); n > 0; n--) {
        const uint64_t at = tw_random_below(r, TW_PAGE_SIZE); /* one bit is enough */
        now[at] = copy[at] ^ (uint8_t)(1u << tw_random_below(r, 8));
        expected |= tw_line_bit(at);
    }
    for (unsigned i = 0; i < TW_PAGE_SIZE; i++)
        differ += now[i] != copy[i];
    cr_assert_eq(way->update(now, copy, &bytes), expected, "%s", way->name);
    cr_assert_eq(bytes, differ, "%s: bytes", way->name);
    cr_assert_eq(memcmp(now, copy, sizeof now), 0, "%s: the copy is up to date", way->name);
    cr_assert_eq(way->update(now, copy, &bytes), 0, "%s", way->name);
    cr_assert_eq(bytes, differ);
}

static void check_nonzero(const struct tw_compare *way, struct tw_random *r)
{
    uint64_t expected = 0;
    memset(now, 0, sizeof now);
    for (uint64_t n = tw_random_below(r, 70); n > 0; n--) {
        const uint64_t at = tw_random_below(r, TW_PAGE_SIZE);
        now[at] = (uint8_t)(1u << tw_random_below(r, 8));
        expected |= tw_line_bit(at);
    }
    cr_assert_eq(way->nonzero(now), expected, "%s", way->name);
}

Test(compare, every_way_finds_the_lines_that_differ)
{
    for (unsigned w = 0; w < TW_COMPARE_WAYS; w++) {
        struct tw_random r = {w};
        if (!tw_compare_ways[w].supported())
            continue;
        for (unsigned i = 0; i < 2000; i++) {
            check_way(&tw_compare_ways[w], &r);
            check_nonzero(&tw_compare_ways[w], &r);
        }
    }
}

Test(compare, every_byte_of_a_line_counts)
{
    const struct tw_compare *best = tw_compare_best();
    uint64_t bytes = 0;
    memset(now, 0, sizeof now);
    memset(copy, 0, sizeof copy);
    for (unsigned i = 0; i < TW_PAGE_SIZE; i++) {
        now[i] = 1;
        cr_assert_eq(best->nonzero(now), tw_line_bit(i));
        cr_assert_eq(best->update(now, copy, &bytes), tw_line_bit(i));
        now[i] = 0;
        cr_assert_eq(best->update(now, copy, &bytes), tw_line_bit(i));
    }
}
