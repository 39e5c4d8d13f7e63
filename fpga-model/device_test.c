#include "fpga-model/device.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGES 16u
#define LINE  TW_LINE_SIZE
#define PAGE  TW_PAGE_SIZE

/* A host whose modified lines the test sets by hand. */
struct host {
    uint64_t modified[PAGES];
    uint64_t asked[PAGES]; /* lines snooped since the test looked last */
    uint64_t taken[PAGES]; /* of these, lines that it must not hold any more */
};

static uint64_t answer(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct host *host = ctx;
    host->asked[page] |= lines;
    if (kind == TW_BI_SNP_INV)
        host->taken[page] |= lines;
    uint64_t modified = host->modified[page];
    host->modified[page] = 0;
    return modified; /* perhaps more than was asked for: the device must not believe that */
}

static struct tw_device *open_device(struct host *host)
{
    struct tw_device *device;
    struct tw_snoop_ops snoop = {answer, host};
    struct tw_device_config config = {PAGES * PAGE, host ? &snoop : NULL};
    cr_assert_eq(tw_device_open(&config, &device, NULL), TW_OK);
    return device;
}

static struct tw_tracker *start_over(struct tw_device *device, const char *name, uint64_t page,
                                     uint64_t pages, uint32_t buffer_pages)
{
    struct tw_range range = {page * PAGE, pages * PAGE};
    struct tw_tracker_config config = {name, &range, 1, buffer_pages, false};
    struct tw_tracker *tracker;
    cr_assert_eq(tw_tracker_start(device, &config, &tracker, NULL), TW_OK);
    return tracker;
}

/* The host takes a line for writing and modifies it. */
static void own(struct tw_device *device, struct host *host, uint64_t page, uint64_t line)
{
    tw_device_message(device, TW_MEM_RD_INV, page * PAGE + line * LINE);
    host->modified[page] |= UINT64_C(1) << line;
}

/* Collects and reads all into `out`, indexed by page; returns the number of pages. */
static size_t gather(struct tw_tracker *tracker, struct tw_dirty_page out[PAGES])
{
    size_t promised = tw_tracker_collect(tracker);
    size_t total = 0;
    struct tw_dirty_page some[3];
    memset(out, 0, PAGES * sizeof out[0]);
    for (size_t n; (n = tw_tracker_read(tracker, some, 3)) > 0; total += n) {
        for (size_t i = 0; i < n; i++) {
            cr_assert_lt(some[i].page, PAGES);
            cr_expect_eq(out[some[i].page].lines, 0, "a page once only");
            out[some[i].page] = some[i];
        }
    }
    cr_expect_eq(total, promised);
    return total;
}

Test(device, refuses_unusable_sizes)
{
    const uint64_t bad[] = {0, 4095, 4097, TW_DEVICE_MEMORY_MAX + PAGE, UINT64_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tw_error err;
        struct tw_device *device;
        struct tw_device_config config = {bad[i], NULL};
        cr_expect_eq(tw_device_open(&config, &device, &err), TW_INVALID_ARGUMENT);
        cr_expect_neq(err.expected[0], 0);
        cr_expect_neq(err.given[0], 0);
    }
    tw_device_close(NULL);
}

Test(device, messages_move_lines_between_states)
{
    static const enum tw_line_state after[TW_MEM_CLN_EVCT + 1][3] = {
        /* from:              I          S          A */
        [TW_MEM_RD_DATA] = {TW_LINE_S, TW_LINE_S, TW_LINE_A},
        [TW_MEM_RD_INV] = {TW_LINE_A, TW_LINE_A, TW_LINE_A},
        [TW_MEM_INV] = {TW_LINE_A, TW_LINE_A, TW_LINE_A},
        [TW_MEM_WR] = {TW_LINE_I, TW_LINE_I, TW_LINE_I},
        [TW_MEM_WR_KEEP] = {TW_LINE_S, TW_LINE_S, TW_LINE_S},
        [TW_MEM_CLN_EVCT] = {TW_LINE_I, TW_LINE_I, TW_LINE_I},
    };
    static const enum tw_link_message into[3] = {TW_MEM_CLN_EVCT, TW_MEM_WR_KEEP, TW_MEM_RD_INV};
    struct host host = {0};
    struct tw_device *device = open_device(&host);
    for (unsigned m = 0; m <= TW_MEM_CLN_EVCT; m++) {
        for (unsigned from = 0; from < 3; from++) {
            tw_device_message(device, into[from], 2 * PAGE + 5 * LINE);
            tw_device_message(device, (enum tw_link_message)m, 2 * PAGE + 5 * LINE + 1);
            cr_expect_eq(tw_device_line_state(device, 2 * PAGE + 5 * LINE), after[m][from],
                         "message %u from state %u", m, from);
            cr_expect_eq(tw_device_line_state(device, 2 * PAGE + 4 * LINE), TW_LINE_I);
        }
    }
    tw_device_close(device);
}

Test(device, ignores_and_counts_what_is_outside)
{
    struct host host = {0};
    struct tw_device *device = open_device(&host);
    struct tw_device_counters c;
    tw_device_message(device, TW_MEM_WR, PAGES * PAGE);
    tw_device_message(device, TW_MEM_RD_INV, UINT64_MAX);
    tw_device_message_page(device, TW_MEM_WR, PAGES, 7);
    tw_device_message_page(device, TW_MEM_WR, UINT64_MAX, 1);
    tw_device_message_page(device, TW_MEM_WR, 0, 0);
    tw_device_message(device, TW_MEM_WR, PAGES * PAGE - 1);
    tw_device_message_page(device, TW_MEM_RD_DATA, 1, 0xff);
    tw_device_counters_get(device, &c);
    cr_expect_eq(c.out_of_range, 6);
    cr_expect_eq(c.messages[TW_MEM_WR], 1);
    cr_expect_eq(c.messages[TW_MEM_RD_INV], 0);
    cr_expect_eq(c.messages[TW_MEM_RD_DATA], 8);
    cr_expect_eq(tw_device_line_state(device, UINT64_MAX), TW_LINE_I);
    tw_device_close(device);
}

/* Single messages may wait inside the device; nobody who looks can tell. */
Test(device, posted_messages_are_seen_by_whoever_looks)
{
    struct host host = {0};
    struct tw_device_counters c;
    struct tw_device *device = open_device(&host);
    tw_device_message(device, TW_MEM_RD_INV, 0);
    tw_device_counters_get(device, &c);
    cr_expect_eq(c.messages[TW_MEM_RD_INV], 1);
    tw_device_message(device, TW_MEM_RD_INV, LINE);
    tw_device_message_page(device, TW_MEM_WR, 0, 3); /* later than the posted ones */
    cr_expect_eq(tw_device_line_state(device, 0), TW_LINE_I);
    cr_expect_eq(tw_device_line_state(device, LINE), TW_LINE_I);
    struct tw_tracker *tracker = start_over(device, "t", 0, PAGES, 0);
    tw_device_mutate(device, (struct tw_device_mutations){.skip_collect_sweep = true});
    tw_device_message(device, TW_MEM_WR, 5 * PAGE);
    cr_expect_eq(tw_tracker_collect(tracker), 1, "collected without a sweep's help");
    tw_device_message(device, TW_MEM_WR, 6 * PAGE);
    tw_device_close(device);
}

Test(tracker, refuses_bad_configs)
{
    struct tw_device *device = open_device(NULL);
    const struct tw_range ok = {0, PAGE};
    const struct tw_range overlap[] = {{4 * PAGE, 4 * PAGE}, {0, 5 * PAGE}};
    const struct tw_range half = {2048, PAGE};
    const struct tw_range odd = {0, 100};
    const struct tw_range empty = {PAGE, 0};
    const struct tw_range beyond = {15 * PAGE, 2 * PAGE};
    const struct tw_range wraps = {UINT64_MAX - PAGE + 1, 2 * PAGE};
    char name_64[65] = {0};
    memset(name_64, 'n', 64);
    const struct {
        struct tw_tracker_config config;
        enum tw_code code;
    } bad[] = {
        {{NULL, &ok, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"", &ok, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{name_64, &ok, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"a", &ok, 1, 0, false}, TW_ALREADY_EXISTS},
        {{"b", &ok, 0, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", NULL, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", overlap, 2, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", &half, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", &odd, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", &empty, 1, 0, false}, TW_INVALID_ARGUMENT},
        {{"b", &beyond, 1, 0, false}, TW_OUT_OF_RANGE},
        {{"b", &wraps, 1, 0, false}, TW_OUT_OF_RANGE},
    };
    struct tw_tracker *a = start_over(device, "a", 0, 1, 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tw_error err;
        struct tw_tracker *tracker = NULL;
        cr_expect_eq(tw_tracker_start(device, &bad[i].config, &tracker, &err), bad[i].code,
                     "case %zu", i);
        cr_expect_eq(err.code, bad[i].code);
        cr_expect_null(tracker);
    }
    cr_expect_eq(tw_tracker_find(device, "a"), a);
    cr_expect_null(tw_tracker_find(device, "b"));
    tw_tracker_stop(a);
    tw_tracker_stop(NULL);
    cr_expect_null(tw_tracker_find(device, "a"));
    tw_device_close(device);
}

Test(tracker, start_sweep_is_not_counted_for_the_one_that_starts) /* R1 */
{
    struct host host = {0};
    struct tw_dirty_page got[PAGES];
    struct tw_device *device = open_device(&host);
    struct tw_tracker *old = start_over(device, "old", 0, PAGES, 0);
    own(device, &host, 3, 7);
    own(device, &host, 9, 0); /* outside the ranges of the one that starts */
    struct tw_tracker *new = start_over(device, "new", 2, 4, 0);
    cr_expect_eq(host.asked[3], UINT64_C(1) << 7);
    cr_expect_eq(host.asked[9], 0);
    cr_expect_eq(tw_device_line_state(device, 3 * PAGE + 7 * LINE), TW_LINE_S);
    cr_expect_eq(gather(new, got), 0);
    cr_expect_eq(gather(old, got), 2);
    cr_expect_eq(got[3].lines, UINT64_C(1) << 7);
    cr_expect_eq(got[9].lines, 1);
    tw_device_close(device);
}

Test(tracker, collect_sweeps_what_may_be_dirty) /* R2 */
{
    struct host host = {0};
    struct tw_dirty_page got[PAGES];
    struct tw_device_counters c;
    struct tw_device *device = open_device(&host);
    struct tw_tracker *tracker = start_over(device, "t", 1, 4, 0);
    own(device, &host, 1, 0);
    own(device, &host, 4, 63);
    tw_device_message(device, TW_MEM_RD_INV, 2 * PAGE); /* owned, and never modified */
    tw_device_message(device, TW_MEM_RD_DATA, 3 * PAGE);
    host.modified[2] |= 2; /* not owned: the device did not ask for it */
    own(device, &host, 5, 1);
    cr_expect_eq(gather(tracker, got), 2);
    cr_expect_eq(got[1].lines, 1);
    cr_expect_eq(got[4].lines, UINT64_C(1) << 63);
    cr_expect_eq(host.asked[3], 0, "a shared line is not snooped");
    cr_expect_eq(host.asked[5], 0, "nor one outside the ranges");
    tw_device_counters_get(device, &c);
    cr_expect_eq(c.snooped_lines, 3);
    cr_expect_eq(c.snoop_write_backs, 2);
    cr_expect_eq(gather(tracker, got), 0);
    tw_device_counters_get(device, &c);
    cr_expect_eq(c.snooped_lines, 3, "what was swept is swept once");
    tw_device_close(device);
}

/* Collect, read one page, then a write-back of it arrives before the next read. */
static size_t late_write_back(struct tw_device_mutations mutations)
{
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *tracker = start_over(device, "t", 0, PAGES, 0);
    struct tw_dirty_page page;
    tw_device_mutate(device, mutations);
    tw_device_message(device, TW_MEM_WR, 0);
    cr_assert_eq(tw_tracker_collect(tracker), 1);
    cr_assert_eq(tw_tracker_read(tracker, &page, 1), 1);
    tw_device_message(device, TW_MEM_WR, LINE);
    cr_assert_eq(tw_tracker_read(tracker, &page, 1), 0);
    size_t pages = tw_tracker_collect(tracker);
    tw_device_close(device);
    return pages;
}

Test(tracker, entry_is_cleared_before_the_data_is_read) /* R3 */
{
    cr_expect_eq(late_write_back((struct tw_device_mutations){0}), 1);
    cr_expect_eq(late_write_back((struct tw_device_mutations){.clear_after_read = true}), 0,
                 "the mutation loses it");
}

Test(tracker, full_buffer_degrades_to_whole_pages) /* R4 */
{
    struct tw_dirty_page got[PAGES];
    struct tw_tracker_stats stats;
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *tracker = start_over(device, "t", 0, PAGES, 2);
    for (uint64_t page = 4; page < 8; page++) {
        tw_device_message(device, TW_MEM_WR, page * PAGE + LINE);
        tw_device_message(device, TW_MEM_WR, page * PAGE + 2 * LINE);
    }
    tw_tracker_stats_get(tracker, &stats);
    cr_expect_eq(stats.dirty_pages, 4);
    cr_expect_eq(stats.dirty_lines, 2 * 2 + 2 * 64);
    cr_expect_eq(stats.overflowed_pages, 2);
    cr_expect_eq(gather(tracker, got), 4);
    for (uint64_t page = 4; page < 8; page++) {
        cr_expect_eq(got[page].whole_page, page >= 6);
        cr_expect_eq(got[page].lines, page >= 6 ? TW_ALL_LINES : 6);
    }
    tw_device_mutate(device, (struct tw_device_mutations){.drop_on_overflow = true});
    tw_device_message_page(device, TW_MEM_WR, 1, 1);
    tw_device_message_page(device, TW_MEM_WR, 2, 1);
    tw_device_message_page(device, TW_MEM_WR, 3, 1);
    cr_expect_eq(gather(tracker, got), 2, "the mutation drops the third");
    tw_device_close(device);
}

Test(tracker, page_without_known_lines_is_dirty_as_a_whole)
{
    struct tw_dirty_page got[PAGES];
    struct tw_tracker_stats stats;
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *tracker = start_over(device, "t", 1, PAGES - 1, 0);
    tw_device_message_page(device, TW_MEM_WR, 2, 6);
    tw_device_message_page(device, TW_MEM_WR, 3, 6);
    tw_device_message_whole(device, 0); /* not watched */
    tw_device_message_whole(device, 2);
    tw_device_message_whole(device, 2);
    tw_device_message_whole(device, 4);
    tw_device_message_page(device, TW_MEM_WR, 4, 1);
    tw_device_message_page(device, TW_MEM_WR, 2, 1);
    tw_tracker_stats_get(tracker, &stats);
    cr_expect_eq(stats.dirty_pages, 3);
    cr_expect_eq(stats.dirty_lines, 64 + 2 + 64);
    cr_expect_eq(stats.overflowed_pages, 2);
    cr_expect_eq(tw_tracker_collect(tracker), 3);
    tw_device_message_page(device, TW_MEM_WR, 4, 1); /* left unread as a whole */
    tw_device_message_whole(device, 3);              /* left unread with lines */
    cr_expect_eq(gather(tracker, got), 3);
    for (uint64_t page = 2; page < 5; page++) {
        cr_expect(got[page].whole_page, "page %llu", (unsigned long long)page);
        cr_expect_eq(got[page].lines, TW_ALL_LINES);
    }
    cr_expect_eq(gather(tracker, got), 0);
    tw_device_message_page(device, TW_MEM_WR, 2, 1);
    cr_expect_eq(gather(tracker, got), 1);
    cr_expect_eq(got[2].lines, 1, "whole in its epoch only");
    cr_expect_not(got[2].whole_page);
    tw_device_message_whole(device, PAGES);
    struct tw_device_counters counters;
    tw_device_counters_get(device, &counters);
    cr_expect_eq(counters.out_of_range, 64);
    tw_device_close(device);
}

Test(tracker, unread_pages_are_merged_into_the_next_epoch)
{
    struct tw_dirty_page got[PAGES], first;
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *tracker = start_over(device, "t", 0, PAGES, 3);
    for (uint64_t page = 0; page < 5; page++)
        tw_device_message_page(device, TW_MEM_WR, page, 1); /* 3 and 4 overflow */
    cr_expect_eq(tw_tracker_collect(tracker), 5);
    cr_expect_eq(tw_tracker_read(tracker, &first, 1), 1);
    for (uint64_t page = 4; page-- > 2;)
        tw_device_message_page(device, TW_MEM_WR, page, 4);
    tw_device_message_page(device, TW_MEM_WR, first.page, 8);
    cr_expect_eq(gather(tracker, got), 5);
    for (uint64_t page = 0; page < 5; page++) {
        uint64_t expected = page == 2 ? 5 : 1;
        if (page == first.page)
            expected = page == 2 ? 12 : 8;
        cr_expect(got[page].whole_page || got[page].lines == expected, "page %llu",
                  (unsigned long long)page);
    }
    cr_expect(got[3].whole_page, "a page that was whole stays whole, though it has an entry now");
    cr_expect(got[4].whole_page);
    cr_expect_eq(gather(tracker, got), 0);
    tw_device_close(device);
}

Test(tracker, lines_put_back_are_dirty_again)
{
    struct tw_dirty_page got[PAGES];
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *tracker = start_over(device, "t", 2, 4, 0);
    tw_tracker_put_back(tracker, 3, 0x11);
    tw_tracker_put_back(tracker, 3, 0);
    tw_tracker_put_back(tracker, 1, 1); /* not tracked */
    tw_tracker_put_back(tracker, UINT64_MAX, 1);
    tw_device_message_page(device, TW_MEM_WR, 3, 2);
    cr_expect_eq(gather(tracker, got), 1);
    cr_expect_eq(got[3].lines, 0x13);
    tw_device_close(device);
}

Test(tracker, overlapping_trackers_stay_apart)
{
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *trackers[TW_DEVICE_TRACKERS_MAX];
    struct tw_dirty_page got[PAGES];
    struct tw_error err;
    char name[16];
    for (unsigned i = 0; i < TW_DEVICE_TRACKERS_MAX; i++) {
        snprintf(name, sizeof name, "t%u", i);
        trackers[i] = start_over(device, name, i % PAGES, PAGES - i % PAGES, 0);
    }
    struct tw_range range = {0, PAGE};
    struct tw_tracker_config more = {"more", &range, 1, 0, false};
    struct tw_tracker *tracker;
    cr_expect_eq(tw_tracker_start(device, &more, &tracker, &err), TW_RESOURCE_EXHAUSTED);
    tw_device_message(device, TW_MEM_WR, 5 * PAGE);
    for (unsigned i = 0; i < TW_DEVICE_TRACKERS_MAX; i += 2)
        cr_expect_eq(gather(trackers[i], got), i % PAGES <= 5);
    tw_device_message(device, TW_MEM_WR, 6 * PAGE);
    tw_tracker_stop(trackers[2]);
    for (unsigned i = 0; i < TW_DEVICE_TRACKERS_MAX; i++) {
        if (i != 2)
            cr_expect_eq(gather(trackers[i], got), (i % PAGES <= 6) + (i % 2 && i % PAGES <= 5));
    }
    tw_device_close(device);
}

Test(tracker, several_ranges_in_any_order)
{
    struct tw_dirty_page got[PAGES];
    struct tw_device *device = open_device(NULL);
    struct tw_range ranges[] = {{12 * PAGE, 2 * PAGE}, {2 * PAGE, PAGE}, {5 * PAGE, 3 * PAGE}};
    struct tw_tracker_config config = {"t", ranges, 3, 0, false};
    struct tw_tracker *tracker;
    cr_assert_eq(tw_tracker_start(device, &config, &tracker, NULL), TW_OK);
    for (uint64_t page = 0; page < PAGES; page++)
        tw_device_message_page(device, TW_MEM_WR, page, TW_ALL_LINES);
    cr_expect_eq(gather(tracker, got), 6);
    const uint64_t tracked = 1 << 2 | 7 << 5 | 3 << 12;
    for (uint64_t page = 0; page < PAGES; page++)
        cr_expect_eq(got[page].lines, (tracked >> page) & 1 ? TW_ALL_LINES : 0);
    tw_device_close(device);
}

Test(tracker, stats_tell_epoch_and_uncollected_lines)
{
    struct host host = {0};
    struct tw_dirty_page got[PAGES];
    struct tw_tracker_stats stats;
    struct tw_device *device = open_device(&host);
    struct tw_tracker *tracker = start_over(device, "t", 0, PAGES, 0);
    tw_device_message_page(device, TW_MEM_WR, 1, 0xf0);
    tw_device_message_page(device, TW_MEM_WR_KEEP, 1, 0x3c);
    tw_device_message(device, TW_MEM_WR, 2 * PAGE);
    tw_tracker_stats_get(tracker, &stats);
    cr_expect_eq(stats.epoch, 0);
    cr_expect_eq(stats.dirty_pages, 2);
    cr_expect_eq(stats.dirty_lines, 7);
    gather(tracker, got);
    tw_tracker_stats_get(tracker, &stats);
    cr_expect_eq(stats.epoch, 1);
    cr_expect_eq(stats.dirty_pages, 0);
    cr_expect_eq(stats.dirty_lines, 0);
    tw_device_close(device);
}

static long resident_pages(void)
{
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%ld %ld", &size, &resident), 2);
    fclose(f);
    return resident;
}

Test(device, big_memory_costs_what_is_touched)
{
    struct host host = {0};
    struct tw_snoop_ops snoop = {answer, &host};
    struct tw_device_config config = {UINT64_C(1) << 40, &snoop};
    struct tw_device *device;
    struct tw_dirty_page page;
    long before = resident_pages();
    cr_assert_eq(tw_device_open(&config, &device, NULL), TW_OK);
    struct tw_tracker *tracker = start_over(device, "t", 0, config.memory_bytes / PAGE, 0);
    tw_device_message(device, TW_MEM_WR, config.memory_bytes - 1);
    cr_expect_eq(tw_tracker_collect(tracker), 1);
    cr_expect_eq(tw_tracker_read(tracker, &page, 1), 1);
    cr_expect_eq(page.page, config.memory_bytes / PAGE - 1);
    cr_expect_lt((resident_pages() - before) * sysconf(_SC_PAGESIZE), 8 << 20);
    tw_device_close(device);
}

/* ---- Accessed lines -------------------------------------------------------------------------- */

static struct tw_tracker *watch_accesses(struct tw_device *device, uint64_t page, uint64_t pages)
{
    const struct tw_range range = {page * PAGE, pages * PAGE};
    const struct tw_tracker_config config = {
        .name = "accessed", .ranges = &range, .range_count = 1, .accessed = true};
    struct tw_tracker *tracker;
    cr_assert_eq(tw_tracker_start(device, &config, &tracker, NULL), TW_OK);
    return tracker;
}

Test(accessed, requests_and_write_backs_are_told_to_who_asked_for_accesses_only)
{
    struct host host = {0};
    struct tw_dirty_page out[PAGES];
    struct tw_device *device = open_device(&host);
    struct tw_tracker *dirty = start_over(device, "dirty", 0, PAGES, 0);
    struct tw_tracker *accessed = watch_accesses(device, 2, 4);
    tw_device_message(device, TW_MEM_RD_DATA, 2 * PAGE + 1 * LINE);
    tw_device_message(device, TW_MEM_RD_INV, 2 * PAGE + 2 * LINE);
    tw_device_message(device, TW_MEM_INV, 2 * PAGE + 3 * LINE);
    tw_device_message(device, TW_MEM_WR, 2 * PAGE + 4 * LINE);
    tw_device_message(device, TW_MEM_CLN_EVCT, 2 * PAGE + 5 * LINE);
    tw_device_message_page(device, TW_MEM_RD_DATA, 3, 0xf0);
    tw_device_message(device, TW_MEM_RD_DATA, 6 * PAGE);
    cr_expect_eq(gather(accessed, out), 2);
    cr_expect_eq(out[2].lines, 0x1e);
    cr_expect_eq(out[3].lines, 0xf0);
    cr_expect_eq(gather(dirty, out), 1);
    cr_expect_eq(out[2].lines, 0x10);
    tw_device_close(device);
}

/* R1 and R2 for loads: a host says nothing about a line that it holds. */
Test(accessed, what_the_host_holds_is_taken_from_it_when_an_epoch_begins)
{
    struct host host = {0};
    struct tw_dirty_page out[PAGES];
    struct tw_device *device = open_device(&host);
    struct tw_tracker *dirty = start_over(device, "dirty", 0, PAGES, 0);
    tw_device_message(device, TW_MEM_RD_DATA, 2 * PAGE + 1 * LINE);
    tw_device_message(device, TW_MEM_RD_DATA, 9 * PAGE);
    own(device, &host, 2, 2);
    struct tw_tracker *accessed = watch_accesses(device, 2, 1);
    cr_expect_eq(host.taken[2], 0x6);
    cr_expect_eq(host.taken[9], 0, "nobody asks about it");
    cr_expect_eq(tw_device_line_state(device, 2 * PAGE + 1 * LINE), TW_LINE_I);
    cr_expect_eq(tw_device_line_state(device, 2 * PAGE + 2 * LINE), TW_LINE_I);
    cr_expect_eq(gather(accessed, out), 0, "not accessed since");
    tw_device_message(device, TW_MEM_RD_DATA, 2 * PAGE + 1 * LINE);
    host.taken[2] = 0;
    cr_expect_eq(gather(accessed, out), 1);
    cr_expect_eq(out[2].lines, 0x2);
    cr_expect_eq(host.taken[2], 0x2, "so that the next access is told, too");
    cr_expect_eq(gather(dirty, out), 1, "what was written back meanwhile is dirty for others");
    cr_expect_eq(out[2].lines, 0x4);
    tw_device_close(device);
}

Test(accessed, a_host_without_caches_says_what_it_loads)
{
    struct tw_dirty_page out[PAGES];
    struct tw_device *device = open_device(NULL);
    struct tw_tracker *accessed = watch_accesses(device, 0, PAGES);
    tw_device_message_page(device, TW_MEM_RD_DATA, 1, 0x3);
    tw_device_message_page(device, TW_MEM_WR, 1, 0x6);
    cr_expect_eq(gather(accessed, out), 1);
    cr_expect_eq(out[1].lines, 0x7);
    tw_tracker_stop(accessed);
    tw_device_message_page(device, TW_MEM_RD_DATA, 1, 0x3);
    tw_device_close(device);
}
