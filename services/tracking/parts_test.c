#include "services/tracking/figures.h"
#include "services/tracking/ranges.h"

#include <criterion/criterion.h>

static struct tw_error err;

Test(ranges, are_sorted_joined_and_rounded)
{
    const struct tw_range in[] = {{0x5000, 64}, {0x1001, 1}, {0x1030, 0x20}, {0x2000, 0x1000}};
    struct tw_tracked_ranges r;
    cr_assert_eq(tw_tracked_ranges_set(&r, in, 4, &err), TW_OK);
    cr_assert_eq(r.page_count, 2);
    cr_assert(r.pages[0].start == 0x1000 && r.pages[0].length == 0x2000);
    cr_assert(r.pages[1].start == 0x5000 && r.pages[1].length == 0x1000);
    cr_assert_eq(r.line_count, 3);
    cr_assert_eq(tw_tracked_ranges_mask(&r, 0x1000), 3u);
    cr_assert_eq(tw_tracked_ranges_mask(&r, 0x2000), TW_ALL_LINES);
    cr_assert_eq(tw_tracked_ranges_mask(&r, 0x3000), 0u);
    cr_assert_eq(tw_tracked_ranges_mask(&r, 0x5000), 1u);
    tw_tracked_ranges_free(&r);
}

/* Against the plain way: a line is in the mask when some range touches it. */
Test(ranges, masks_are_right)
{
    uint64_t seed = 1;
    for (unsigned round = 0; round < 200; round++) {
        struct tw_range in[5];
        struct tw_tracked_ranges r;
        for (unsigned i = 0; i < 5; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1;
            in[i] = (struct tw_range){(seed >> 40) % 0x4000, 1 + (seed >> 20) % 0x1100};
        }
        cr_assert_eq(tw_tracked_ranges_set(&r, in, 5, &err), TW_OK);
        for (uint64_t line = 0; line < 6 * 64; line++) {
            bool inside = false;
            for (unsigned i = 0; i < 5; i++)
                inside |= in[i].start < line * 64 + 64 && in[i].start + in[i].length > line * 64;
            uint64_t mask = tw_tracked_ranges_mask(&r, line / 64 * TW_PAGE_SIZE);
            cr_assert_eq((mask >> (line % 64)) & 1, inside, "round %u line %u", round,
                         (unsigned)line);
        }
        tw_tracked_ranges_free(&r);
    }
}

Test(ranges, hostile_ones_are_refused)
{
    const struct tw_range bad[] = {
        {0, 0}, {UINT64_MAX, 2}, {1, UINT64_MAX}, {UINT64_C(1) << 47, 1}};
    struct tw_tracked_ranges r;
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(tw_tracked_ranges_set(&r, &bad[i], 1, &err), TW_INVALID_ARGUMENT);
}

Test(regions, are_bounded_and_ordered)
{
    struct tw_regions r = {0};
    struct tw_region hot[3];
    for (uint64_t i = 0; i < TW_REGIONS_MAX; i++)
        cr_assert(tw_regions_add(&r, i * TW_REGION_SIZE + 4096, 1, 8));
    cr_assert_not(tw_regions_add(&r, TW_REGIONS_MAX * TW_REGION_SIZE, 1, 8));
    cr_assert(tw_regions_add(&r, 7 * TW_REGION_SIZE, 60, 8), "a known one has room");
    cr_assert(tw_regions_add(&r, 3 * TW_REGION_SIZE, 9, 8));
    cr_assert_eq(tw_regions_hottest(&r, hot, 3), 3);
    cr_assert(hot[0].address == 7 * TW_REGION_SIZE && hot[0].lines == 61 && hot[0].pages == 2);
    cr_assert_eq(hot[1].address, 3 * TW_REGION_SIZE);
    cr_assert_eq(hot[2].address, 0);
    cr_assert_eq(tw_regions_hottest(&r, hot, 0), 0);
    cr_assert_eq(tw_regions_find(&r, 7 * TW_REGION_SIZE + 4096)->bytes, 16);
    cr_assert_null(tw_regions_find(&r, TW_REGIONS_MAX * TW_REGION_SIZE));
    tw_regions_free(&r);
}
