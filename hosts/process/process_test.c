/* What is told of a real program's memory, one case after the other. */
#include "hosts/process/test_session.h"
#include "hosts/process/test_target.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE  ((uint64_t)TW_PAGE_SIZE)
#define LINE  ((uint64_t)TW_LINE_SIZE)
#define MIB   (UINT64_C(1) << 20)
#define TIMED .timeout = 120

static uint64_t line_bit(uint64_t address)
{
    return tw_line_bit(address);
}

Test(process, first_report_is_the_whole_page_then_lines, TIMED)
{
    struct session s;
    bool whole;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 8 * PAGE);
    for (unsigned i = 0; i < 4; i++)
        target_store(&target, memory + i * PAGE, 1);
    session_start(&s, process, "s", memory, 8 * PAGE);
    session_collect(&s);
    cr_expect_eq(s.count, 0, "stores before the start are not its own");
    target_store(&target, memory + 5 * LINE, 9);
    target_store(&target, memory + 5 * PAGE + 3 * LINE, 9); /* was absent: known to be zeros */
    session_collect(&s);
    cr_expect_eq(s.count, 2);
    cr_expect_eq(session_lines(&s, memory, &whole), TW_ALL_LINES);
    cr_expect(whole, "no copy yet, and it says so");
    cr_expect_eq(session_lines(&s, memory + 5 * PAGE, &whole), line_bit(3 * LINE));
    cr_expect_not(whole);
    target_store(&target, memory + 7 * LINE, 9);
    target_store(&target, memory + 5 * PAGE + 63 * LINE, 9);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory, &whole), line_bit(7 * LINE));
    cr_expect_not(whole);
    cr_expect_eq(session_lines(&s, memory + 5 * PAGE, NULL), line_bit(63 * LINE));
    session_collect(&s);
    cr_expect_eq(s.count, 0);
    session_end(&s);
    end();
}

Test(process, exact_takes_its_copies_at_the_start, TIMED)
{
    struct session s;
    bool whole;
    const struct tw_process_config config = {.exact = true};
    attach_with(&config);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 8 * PAGE);
    const uint64_t shared = target_map(&target, TARGET_SHARED, 8 * PAGE);
    target_store(&target, memory, 1);
    target_store(&target, shared, 1);
    session_start(&s, process, "s", 0, 0);
    target_store(&target, memory + LINE, 2);
    target_store(&target, shared + LINE, 2);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory, &whole), line_bit(LINE));
    cr_expect_not(whole);
    cr_expect_eq(session_lines(&s, shared, &whole), line_bit(LINE));
    cr_expect_not(whole);
    session_end(&s);
    end();
}

Test(process, bytes_that_changed_are_counted, TIMED)
{
    struct session s;
    struct tw_process_stats before, after;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 2 * PAGE);
    session_start(&s, process, "s", memory, 2 * PAGE);
    target_store(&target, memory, 0x0102); /* was absent, so zeros: two bytes */
    session_collect(&s);
    tw_process_stats_get(process, &before);
    cr_expect_eq(before.changed_bytes, 2);
    target_store(&target, memory, 0x010203); /* differs in the lower three */
    target_store(&target, memory + 5 * LINE, 7);
    session_collect(&s);
    tw_process_stats_get(process, &after);
    cr_expect_eq(after.changed_bytes - before.changed_bytes, 4);
    cr_expect_eq(after.changed_lines - before.changed_lines, 2);
    session_end(&s);
    end();
}

Test(process, rewritten_with_the_same_value_is_not_seen, TIMED) /* R7 */
{
    struct session s;
    struct tw_process_stats stats;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, PAGE);
    session_start(&s, process, "s", memory, PAGE);
    target_store(&target, memory, 5);
    session_collect(&s);
    cr_expect_eq(s.count, 1);
    target_store(&target, memory, 5);
    session_collect(&s);
    cr_expect_eq(s.count, 0);
    tw_process_stats_get(process, &stats);
    cr_expect_eq(stats.same_pages, 1, "but it is counted");
    session_end(&s);
    end();
}

Test(process, full_store_of_copies_degrades_to_whole_pages, TIMED) /* R4 */
{
    struct session s;
    bool whole;
    const struct tw_process_config config = {.copy_bytes_max = 2 * PAGE};
    struct tw_process_stats stats;
    attach_with(&config);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    for (unsigned round = 1; round < 4; round++) {
        for (unsigned i = 0; i < 4; i++)
            target_store(&target, memory + i * PAGE, round);
        session_collect(&s);
        cr_expect_eq(s.count, 4, "nothing is lost");
        for (unsigned i = 0; i < 4; i++) {
            const bool has_none = i >= 2 && round > 1;
            cr_expect_eq(session_lines(&s, memory + i * PAGE, &whole),
                         has_none ? TW_ALL_LINES : line_bit(0));
            cr_expect_eq(whole, has_none, "page %u round %u", i, round);
        }
    }
    tw_process_stats_get(process, &stats);
    cr_expect_eq(stats.copy_bytes, 2 * PAGE);
    cr_expect_geq(stats.copies_refused, 2);
    target_do(&target, TARGET_UNMAP, memory, PAGE, 0); /* its copy is given up */
    target_store(&target, memory + 3 * PAGE, 77);
    session_collect(&s);
    target_store(&target, memory + 3 * PAGE, 78);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory + 3 * PAGE, &whole), line_bit(0), "there is room again");
    session_end(&s);
    end();
}

Test(process, sessions_that_overlap_stay_apart, TIMED)
{
    struct session a, b;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 8 * PAGE);
    session_start(&a, process, "a", memory, 6 * PAGE);
    target_store(&target, memory + 4 * PAGE, 1);
    session_start(&b, process, "b", memory + 4 * PAGE, 4 * PAGE);
    session_collect(&b);
    cr_expect_eq(b.count, 0, "written before it began");
    session_read(&a);
    cr_expect_eq(a.count, 1);
    target_store(&target, memory + 5 * PAGE, 1);
    target_store(&target, memory + 7 * PAGE, 1);
    target_store(&target, memory + 0 * PAGE, 1);
    session_collect(&a);
    cr_expect_eq(a.count, 2);
    target_store(&target, memory + 4 * PAGE + LINE, 1);
    session_collect(&b);
    cr_expect_eq(b.count, 3);
    cr_expect_eq(session_lines(&b, memory + 7 * PAGE, NULL), 1);
    cr_expect_eq(session_lines(&b, memory + 4 * PAGE, NULL), line_bit(LINE));
    session_end(&b);
    session_read(&a);
    cr_expect_eq(a.count, 1, "the end of the one does not disturb the other");
    target_store(&target, memory + 5 * PAGE + LINE, 1);
    session_collect(&a);
    cr_expect_eq(session_lines(&a, memory + 5 * PAGE, NULL), line_bit(LINE));
    session_end(&a);
    end();
}

Test(process, whole_address_space_follows_the_program, TIMED)
{
    struct session s;
    attach();
    session_start(&s, process, "s", 0, 0);
    const uint64_t fresh = target_map(&target, TARGET_ANONYMOUS, 16 * PAGE);
    target_store(&target, fresh + 3 * PAGE + LINE, 1);
    const uint64_t heap = target_do(&target, TARGET_BREAK, 0, 64 * PAGE, 0);
    target_store(&target, heap + 32 * PAGE, 1);
    const uint64_t stack = target_do(&target, TARGET_DEEP, 0, MIB, 0);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, fresh + 3 * PAGE, NULL), line_bit(LINE), "new: zeros before");
    cr_expect_eq(session_lines(&s, fresh, NULL), 0);
    cr_expect_neq(session_lines(&s, heap + 32 * PAGE, NULL), 0);
    cr_expect_neq(session_lines(&s, stack, NULL) & line_bit(stack), 0, "the stack grew");
    target_store(&target, heap + 32 * PAGE + 2 * LINE, 1);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, heap + 32 * PAGE, NULL), line_bit(heap + 2 * LINE));
    session_end(&s);
    end();
}

Test(process, moved_memory_is_written_where_it_comes_to_stand, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    target_store(&target, memory + LINE, 1);
    session_start(&s, process, "s", 0, 0);
    const uint64_t moved = target_do(&target, TARGET_REMAP, memory, 4 * PAGE, 0);
    cr_assert_neq(moved, 0);
    session_collect(&s);
    cr_expect_neq(session_lines(&s, moved, NULL) & line_bit(moved + LINE), 0);
    target_store(&target, moved + PAGE, 1);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, moved + PAGE, NULL), line_bit(moved));
    session_end(&s);
    end();
}

Test(process, other_memory_at_the_same_place, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    target_store(&target, memory + PAGE, 1);
    session_collect(&s);
    target_do(&target, TARGET_UNMAP, memory, 4 * PAGE, 0);
    session_collect(&s);
    cr_expect_eq(s.count, 0, "what is gone is not written");
    /* The kernel gives the same place again for the same size, or we cannot test this. */
    if (target_map(&target, TARGET_ANONYMOUS, 4 * PAGE) == memory) {
        target_store(&target, memory + LINE, 2);
        session_collect(&s);
        cr_expect_neq(session_lines(&s, memory, NULL) & line_bit(LINE), 0);
        cr_expect_eq(session_lines(&s, memory + 2 * PAGE, NULL), 0);
        /* Once more, without a pass in between, and with the value that our copy has. */
        target_do(&target, TARGET_UNMAP, memory, 4 * PAGE, 0);
        cr_assert_eq(target_map(&target, TARGET_ANONYMOUS, 4 * PAGE), memory);
        session_collect(&s);
        target_store(&target, memory + LINE, 2);
        session_collect(&s);
        cr_expect_neq(session_lines(&s, memory, NULL) & line_bit(LINE), 0);
    }
    session_end(&s);
    end();
}

Test(process, memory_given_back_counts_when_it_is_touched, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory + LINE, 1);
    session_collect(&s);
    target_do(&target, TARGET_GIVE_BACK, memory, 4 * PAGE, 0);
    session_collect(&s);
    cr_expect_eq(s.count, 0);
    cr_expect_eq(target_do(&target, TARGET_LOAD, memory + LINE, 0, 0), 0);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory, NULL), line_bit(LINE), "it is zeros now");
    session_end(&s);
    end();
}

Test(process, protection_of_the_program_itself, TIMED)
{
    struct session s;
    attach();
    const uint64_t reserved = target_map(&target, TARGET_RESERVED, 64 * PAGE);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", 0, 0);
    target_do(&target, TARGET_PROTECT, reserved, 8 * PAGE, PROT_READ | PROT_WRITE);
    target_store(&target, reserved + 2 * PAGE, 1);
    target_store(&target, memory, 1);
    target_do(&target, TARGET_PROTECT, memory, 4 * PAGE, PROT_NONE);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, reserved + 2 * PAGE, NULL), line_bit(0));
    cr_expect_eq(session_lines(&s, memory, NULL), line_bit(0), "read though it may not itself");
    session_end(&s);
    end();
}

Test(process, shared_memory_and_files, TIMED)
{
    static const enum target_kind kinds[] = {TARGET_SHARED, TARGET_FILE_SHARED,
                                             TARGET_FILE_PRIVATE};
    for (size_t i = 0; i < 3; i++) {
        struct session s;
        bool whole;
        attach();
        const uint64_t memory = target_map(&target, kinds[i], 16 * PAGE);
        target_store(&target, memory, 1);
        session_start(&s, process, "s", memory, 16 * PAGE);
        target_do(&target, TARGET_LOAD, memory + 5 * PAGE, 0, 0);
        session_collect(&s);
        cr_expect_eq(s.count, 0, "kind %zu: reading is not writing", i);
        target_store(&target, memory + LINE, 1);
        target_store(&target, memory + 5 * PAGE, 1);
        target_store(&target, memory + 9 * PAGE, 1);
        session_collect(&s);
        cr_expect_eq(s.count, 3, "kind %zu", i);
        cr_expect_eq(session_lines(&s, memory + 9 * PAGE, &whole), TW_ALL_LINES);
        cr_expect(whole);
        target_store(&target, memory + 9 * PAGE + 8 * LINE, 1);
        session_collect(&s);
        cr_expect_eq(session_lines(&s, memory + 9 * PAGE, &whole), line_bit(8 * LINE));
        cr_expect_not(whole);
        session_end(&s);
        end();
    }
}

Test(process, new_shared_memory_is_found, TIMED)
{
    struct session s;
    attach();
    session_start(&s, process, "s", 0, 0);
    const uint64_t memory = target_map(&target, TARGET_SHARED, 16 * PAGE);
    target_store(&target, memory + 2 * PAGE, 1);
    session_collect(&s);
    cr_expect_neq(session_lines(&s, memory + 2 * PAGE, NULL), 0);
    cr_expect_eq(session_lines(&s, memory + 3 * PAGE, NULL), 0);
    target_store(&target, memory + 2 * PAGE + LINE, 1);
    target_store(&target, memory + 3 * PAGE, 1);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory + 2 * PAGE, NULL), line_bit(LINE));
    cr_expect_neq(session_lines(&s, memory + 3 * PAGE, NULL), 0);
    session_end(&s);
    end();
}

Test(process, the_kernels_own_writes_for_the_program_are_seen, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 8 * PAGE);
    session_start(&s, process, "s", memory, 8 * PAGE);
    cr_assert_eq(target_do(&target, TARGET_READ, memory + PAGE, PAGE, 0), PAGE);
    session_collect(&s);
    cr_expect_eq(s.count, 1);
    cr_expect_neq(session_lines(&s, memory + PAGE, NULL) & 1, 0);
    session_end(&s);
    end();
}

Test(process, foreign_and_unmapped_addresses_are_clear_errors, TIMED)
{
    struct tw_process_watch *watch;
    struct tw_error err;
    struct tw_process_area area;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 2 * PAGE);
    target_do(&target, TARGET_UNMAP, memory + PAGE, PAGE, 0);
    const struct {
        struct tw_range range;
        enum tw_code code;
    } bad[] = {
        {{memory, 0}, TW_INVALID_ARGUMENT},
        {{memory + 1, PAGE}, TW_INVALID_ARGUMENT},
        {{memory, PAGE + 1}, TW_INVALID_ARGUMENT},
        {{UINT64_C(1) << 47, PAGE}, TW_OUT_OF_RANGE},
        {{UINT64_MAX - PAGE + 1, PAGE}, TW_OUT_OF_RANGE},
        {{0, PAGE}, TW_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(tw_process_watch(process, &bad[i].range, 1, &watch, &err), bad[i].code);
        cr_expect_neq(err.given[0], 0, "it names the address");
    }
    const struct tw_range twice[] = {{memory, PAGE}, {memory, PAGE}};
    cr_expect_eq(tw_process_watch(process, twice, 2, &watch, &err), TW_INVALID_ARGUMENT);
    unsigned skipped = 0;
    for (uint64_t at = 0; tw_process_next_area(process, at, &area);
         at = area.range.start + area.range.length) {
        if (area.reason != TW_AREA_KERNEL)
            continue;
        skipped++;
        cr_expect_eq(tw_process_watch(process, &area.range, 1, &watch, &err),
                     TW_FAILED_PRECONDITION);
        cr_expect(strstr(err.given, tw_area_reason_text(TW_AREA_KERNEL)));
    }
    cr_expect_geq(skipped, 2, "vdso and vvar");
    end();
}

Test(process, unmapped_while_it_is_collected, TIMED)
{
    struct session s;
    bool done = false;
    struct tw_process_stats stats;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 256 * PAGE);
    session_start(&s, process, "s", memory, 256 * PAGE);
    for (unsigned i = 0; i < 256; i++)
        target_store(&target, memory + i * PAGE, 1);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    target_do(&target, TARGET_UNMAP, memory, 256 * PAGE, 0);
    while (!done)
        cr_assert_eq(tw_process_step(process, TW_SEC, &done, NULL), TW_OK);
    session_read(&s);
    cr_expect_eq(s.count, 256, "written before they went");
    tw_process_stats_get(process, &stats);
    cr_expect_gt(stats.unread_pages, 0);
    session_collect(&s);
    cr_expect_eq(s.count, 0);
    session_end(&s);
    end();
}

Test(process, big_pages_are_split_by_stores_only_and_counted, TIMED)
{
    struct session s;
    struct tw_process_stats stats;
    attach();
    const uint64_t memory = target_map(&target, TARGET_BIG, 4 * TW_PROCESS_WINDOW / 32);
    for (unsigned i = 0; i < 4; i++)
        target_store(&target, memory + i * 2 * MIB, 1);
    /* A watch whose ends lie within big pages must not split them. */
    session_start(&s, process, "s", memory + 16 * PAGE, 7 * MIB);
    tw_process_stats_get(process, &stats);
    if (stats.big_pages == 0) { /* memory is fragmented, or they are switched off here */
        session_end(&s);
        end();
        cr_skip_test("no big pages to be had");
    }
    cr_expect_eq(stats.big_pages_split, 0);
    session_collect(&s);
    tw_process_stats_get(process, &stats);
    cr_expect_eq(stats.big_pages_split, 0, "a pass does not split them");
    const uint64_t big = stats.big_pages;
    target_store(&target, memory + 2 * MIB + 5 * PAGE, 1);
    session_collect(&s);
    cr_expect_neq(session_lines(&s, memory + 2 * MIB + 5 * PAGE, NULL), 0);
    cr_expect_eq(s.count, 1);
    tw_process_stats_get(process, &stats);
    cr_expect_eq(stats.big_pages_split, 1, "a store does");
    cr_expect_eq(stats.big_pages, big - 1);
    session_end(&s);
    end();
}

Test(process, hugetlb_pages, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_HUGETLB, 2 * MIB);
    if (!memory) {
        end();
        cr_skip_test("no huge pages are reserved here");
    }
    target_store(&target, memory, 1);
    session_start(&s, process, "s", memory, 2 * MIB);
    target_store(&target, memory + 7 * PAGE, 1);
    session_collect(&s);
    cr_expect_neq(session_lines(&s, memory + 7 * PAGE, NULL), 0);
    target_store(&target, memory + 9 * PAGE + LINE, 1);
    session_collect(&s);
    cr_expect_eq(s.count, 1);
    cr_expect_eq(session_lines(&s, memory + 9 * PAGE, NULL), line_bit(LINE));
    session_end(&s);
    end();
}

Test(process, device_that_is_full_says_so, TIMED)
{
    struct session s;
    struct tw_process_watch *watch;
    struct tw_process_stats stats;
    const struct tw_process_config config = {.device_bytes_max = TW_PROCESS_WINDOW};
    attach_with(&config);
    const uint64_t one = target_map(&target, TARGET_ANONYMOUS, PAGE);
    const uint64_t far = target_map(&target, TARGET_ANONYMOUS, 4 * TW_PROCESS_WINDOW);
    session_start(&s, process, "s", one, PAGE);
    const struct tw_range range = {far + TW_PROCESS_WINDOW, PAGE};
    cr_expect_eq(tw_process_watch(process, &range, 1, &watch, NULL), TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(tw_process_watch(process, NULL, 0, &watch, NULL), TW_OK);
    must_pass(process);
    target_store(&target, far + TW_PROCESS_WINDOW, 1);
    must_pass(process);
    tw_process_stats_get(process, &stats);
    cr_expect_gt(stats.unplaced_pages, 0);
    tw_process_unwatch(watch);
    session_end(&s);
    end();
}

Test(process, many_windows_lead_there_and_back, TIMED)
{
    struct session s;
    attach();
    const uint64_t far = target_map(&target, TARGET_ANONYMOUS, 8 * TW_PROCESS_WINDOW);
    session_start(&s, process, "s", far, 8 * TW_PROCESS_WINDOW);
    for (unsigned i = 0; i < 8; i++)
        target_store(&target, far + (7 - i) * TW_PROCESS_WINDOW + i * PAGE, 1);
    session_collect(&s);
    cr_expect_eq(s.count, 8);
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t at = far + (7 - i) * TW_PROCESS_WINDOW + i * PAGE;
        cr_expect_eq(session_lines(&s, at, NULL), 1);
        cr_expect_eq(tw_process_address(process, tw_process_device_address(process, at) / PAGE),
                     at);
    }
    cr_expect_eq(tw_process_address(process, UINT64_MAX), TW_NEVER);
    cr_expect_eq(tw_process_device_address(process, UINT64_MAX), TW_NEVER);
    session_end(&s);
    end();
}

/* A pass through the table, in slices so short that each is one piece. */
static void pass_by_table(const struct tw_attachment *a)
{
    bool done = false;
    cr_assert_eq(a->ops->pass_begin(a->ctx, NULL), TW_OK);
    while (!done)
        cr_assert_eq(a->ops->step(a->ctx, 0, &done, NULL), TW_OK);
    cr_expect_eq(a->ops->settle(a->ctx), 0);
}

Test(process, as_the_table_that_all_attachments_have, TIMED)
{
    struct tw_tracker_config config = {.name = "table"};
    struct tw_tracker *tracker;
    struct tw_dirty_page page;
    void *watch;
    attach();
    struct tw_attachment a = tw_process_attachment(process);
    const struct tw_range range = {target_map(&target, TARGET_ANONYMOUS, 4 * PAGE), 4 * PAGE};
    cr_assert_eq(a.ops->watch(a.ctx, &range, 1, &watch, NULL), TW_OK);
    pass_by_table(&a);
    config.ranges = a.ops->watch_ranges(watch, &config.range_count);
    cr_assert_eq(tw_tracker_start(a.device, &config, &tracker, NULL), TW_OK);
    target_store(&target, range.start + 2 * PAGE + 3 * LINE, 1);
    pass_by_table(&a);
    cr_expect_gt(a.ops->due_ns(a.ctx), tw_now(&tw_monotonic) - 60 * TW_SEC);
    cr_expect_eq(tw_tracker_collect(tracker), 1);
    cr_assert_eq(tw_tracker_read(tracker, &page, 1), 1);
    cr_expect_eq(page.lines, line_bit(3 * LINE));
    cr_expect_eq(a.ops->address(a.ctx, page.page), range.start + 2 * PAGE);
    cr_expect_eq(a.ops->device_address(a.ctx, range.start + 2 * PAGE), page.page * PAGE);
    cr_expect_not(a.same_value_is_dirty);
    cr_expect(a.whole_pages);
    cr_expect_not_null(a.blind_spots[0]);
    tw_tracker_stop(tracker);
    a.ops->unwatch(a.ctx, watch);
    cr_expect(a.ops->alive(a.ctx));
    target_end(&target);
    cr_expect_not(a.ops->alive(a.ctx));
    a.ops->close(a.ctx);
}
