#include "hosts/process/process_impl.h"

#include <criterion/criterion.h>
#include <stdalign.h>
#include <string.h>

static alignas(64) uint8_t now[TW_PAGE_SIZE];

Test(copies, what_is_known_decides_what_is_told)
{
    struct tw_copies c;
    cr_assert(tw_copies_open(&c, 16, 2 * TW_PAGE_SIZE));
    memset(now, 0, sizeof now);
    struct tw_page_report r = tw_copies_report(&c, 0, true, now);
    cr_expect(!r.whole && r.lines == 0, "absent anonymous memory was zeros");
    r = tw_copies_report(&c, 1, false, now);
    cr_expect(r.whole, "of other memory nothing was known");
    r = tw_copies_report(&c, 1, false, now);
    cr_expect(!r.whole && r.lines == 0, "now it is: zeros");
    cr_expect_eq(tw_copies_bytes(&c), 0, "which cost no room");
    now[64] = 1;
    r = tw_copies_report(&c, 1, false, now);
    cr_expect(!r.whole && r.lines == 2);
    now[128] = 1;
    r = tw_copies_report(&c, 1, false, now);
    cr_expect(!r.whole && r.lines == 4);
    tw_copies_start(&c, 2, NULL);
    r = tw_copies_report(&c, 2, true, now);
    cr_expect(r.whole, "it held something at the start");
    cr_expect_eq(tw_copies_bytes(&c), 2 * TW_PAGE_SIZE);
    tw_copies_close(&c);
}

Test(copies, full_store_keeps_nothing_wrong)
{
    struct tw_copies c;
    cr_assert(tw_copies_open(&c, 16, TW_PAGE_SIZE));
    memset(now, 1, sizeof now);
    cr_expect_eq(tw_copies_report(&c, 0, true, now).lines, TW_ALL_LINES);
    struct tw_page_report r = tw_copies_report(&c, 1, true, now);
    cr_expect(!r.whole, "compared with zeros");
    cr_expect_eq(c.refused, 1);
    memset(now, 0, sizeof now);
    r = tw_copies_report(&c, 1, true, now);
    cr_expect(r.whole, "the zeros are long gone");
    tw_copies_drop(&c, 0);
    tw_copies_drop(&c, 2);
    cr_expect_eq(tw_copies_bytes(&c), 0);
    now[0] = 1;
    r = tw_copies_report(&c, 2, true, now);
    cr_expect(!r.whole && r.lines == 1, "dropping what has no copy changes nothing");
    cr_expect(tw_copies_report(&c, 0, true, now).whole, "what was dropped may be anything");
    tw_copies_close(&c);
}

Test(budget, pause_follows_from_the_cost)
{
    const struct tw_process_config config = {.fault_permille = 50, .own_permille = 100};
    /* 10 ms of faults, and 20 of their aftermath, are 5 % of 600 ms of a program that is always
     * busy. */
    cr_expect_eq(tw_budget_interval_ns(&config, 10 * TW_MS, 0, TW_SEC, TW_SEC), 600 * TW_MS);
    cr_expect_eq(tw_budget_interval_ns(&config, 10 * TW_MS, 0, TW_SEC / 2, TW_SEC), 1200 * TW_MS,
                 "half busy, twice as long");
    cr_expect_eq(tw_budget_interval_ns(&config, 10 * TW_MS, 0, 4 * TW_SEC, TW_SEC), 150 * TW_MS,
                 "four threads, a quarter");
    cr_expect_eq(tw_budget_interval_ns(&config, 0, 30 * TW_MS, TW_SEC, TW_SEC), 300 * TW_MS,
                 "our own time counts, too");
    cr_expect_eq(tw_budget_interval_ns(&config, 0, 0, 0, 0), TW_MS);
    cr_expect_eq(tw_budget_interval_ns(&config, TW_SEC, 0, 0, TW_SEC), 30 * TW_SEC, "bounded");
}

Test(copies, some_lines_of_a_page_are_compared_and_the_others_left)
{
    static _Alignas(64) uint8_t page[TW_PAGE_SIZE];
    struct tw_page_report report;
    struct tw_copies c;
    cr_assert(tw_copies_open(&c, 4, TW_PAGE_SIZE));
    cr_expect_not(tw_copies_compare_lines(&c, 1, 1, page, &report),
                  "there is nothing to compare with");
    tw_copies_start(&c, 1, page); /* zeros, which take no room */
    page[0] = page[1] = page[64] = page[640] = 1;
    cr_assert(tw_copies_compare_lines(&c, 1, 1 | 1 << 5 | 1 << 10, page, &report));
    cr_expect_eq(report.lines, 1 | 1 << 10);
    cr_expect_eq(report.bytes, 3);
    cr_assert(tw_copies_compare_lines(&c, 1, TW_ALL_LINES, page, &report));
    cr_expect_eq(report.lines, 1 << 1, "what was left is found now, and nothing twice");
    tw_copies_start(&c, 2, page);
    cr_expect_not(tw_copies_compare_lines(&c, 2, 1, page, &report), "no room for another copy");
    tw_copies_close(&c);
}

Test(windows, give_out_places_until_they_are_used_up)
{
    struct tw_windows w;
    const uint64_t window = TW_PROCESS_WINDOW;
    cr_assert(tw_windows_open(&w, 2 * window));
    cr_expect_eq(tw_windows_find(&w, 5), TW_NEVER);
    cr_expect_eq(tw_windows_place(&w, 7 * window + 5), 5);
    cr_expect_eq(tw_windows_place(&w, 3 * window + 9), window + 9);
    cr_expect_eq(tw_windows_place(&w, 7 * window + 6), 6);
    cr_expect_eq(tw_windows_place(&w, 4 * window), TW_NEVER);
    cr_expect_eq(tw_windows_place(&w, TW_PROCESS_ADDRESS_LIMIT), TW_NEVER);
    cr_expect_eq(tw_windows_find(&w, UINT64_MAX), TW_NEVER);
    cr_expect_eq(tw_windows_back(&w, window + 9), 3 * window + 9);
    cr_expect_eq(tw_windows_back(&w, 2 * window), TW_NEVER);
    tw_windows_close(&w);
}
