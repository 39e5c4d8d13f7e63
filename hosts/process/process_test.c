/* A real program under the attachment, one case after the other. */
#include "hosts/process/test_session.h"
#include "hosts/process/test_target.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  ((uint64_t)TW_PAGE_SIZE)
#define LINE  ((uint64_t)TW_LINE_SIZE)
#define MIB   (UINT64_C(1) << 20)
#define TIMED .timeout = 120

static struct target target;
static struct tw_process *process;

static void attach_with(const struct tw_process_config *config)
{
    struct tw_error err;
    char text[600];
    target_start(&target);
    cr_assert_eq(tw_process_attach(config, target.pid, &process, &err), TW_OK, "%s",
                 tw_error_text(&err, text, sizeof text));
}

static void attach(void)
{
    attach_with(NULL);
}

static void end(void)
{
    tw_process_detach(process);
    target_end(&target);
}

/* Descriptors, registers and tracer of the program, as one can see them. */
static unsigned count_fds(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        count += access(path, F_OK) == 0;
    }
    return count;
}

static bool status_says(pid_t pid, const char *line)
{
    char path[64], text[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof text, file))
        found = found || strcmp(text, line) == 0;
    if (file)
        fclose(file);
    return found;
}

/* A mapping of its own can be registered by us only if no other userfaultfd holds it. */
static bool smaps_say(pid_t pid, uint64_t address, const char *flag)
{
    char path[64], text[512];
    uint64_t start, stop;
    bool inside = false, found = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof text, file)) {
        if (sscanf(text, "%lx-%lx ", &start, &stop) == 2)
            inside = start <= address && address < stop;
        if (inside && strncmp(text, "VmFlags:", 8) == 0)
            found = found || strstr(text, flag) != NULL;
    }
    if (file)
        fclose(file);
    return found;
}

static uint64_t line_bit(uint64_t address)
{
    return tw_line_bit(address);
}

Test(process, machine_can_do_it)
{
    struct tw_error err;
    char text[600];
    cr_assert_eq(tw_process_probe(&err), TW_OK, "%s", tw_error_text(&err, text, sizeof text));
}

Test(process, attach_and_detach_leave_no_trace, TIMED)
{
    struct session s;
    struct tw_process_stats stats;
    target_start(&target);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    target_store(&target, memory, 1);
    const unsigned fds = count_fds(target.pid);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
    cr_expect_eq(count_fds(target.pid), fds, "the descriptor is closed in the program");
    cr_expect(status_says(target.pid, "TracerPid:\t0\n"), "nobody traces it");
    session_start(&s, process, "s", 0, 0);
    cr_expect(smaps_say(target.pid, memory, " uw"), "registered");
    tw_process_stats_get(process, &stats);
    cr_expect_gt(stats.stop_ns, 0);
    cr_expect_gt(stats.registered_areas, 3);
    free(s.pages);
    tw_process_detach(process);
    cr_expect_not(smaps_say(target.pid, memory, " uw"), "not registered any more");
    target_store(&target, memory, 2);
    cr_expect_eq(target_do(&target, TARGET_LOAD, memory, 0, 0), 2);
    target_end(&target);
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

Test(process, fork_leaves_the_parent_tracked_and_the_child_alone, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    target_store(&target, memory, 1);
    session_start(&s, process, "s", memory, 4 * PAGE);
    cr_assert_eq(target_do(&target, TARGET_FORK, memory + LINE, 0, 5), 0, "the child ran");
    session_collect(&s);
    cr_expect_eq(s.count, 0, "the child's stores are not the parent's");
    target_store(&target, memory + 2 * LINE, 1);
    session_collect(&s);
    cr_expect_eq(s.count, 1);
    session_end(&s);
    end();
}

Test(process, exec_ends_tracking_with_a_clear_state, TIMED)
{
    struct session s;
    struct tw_error err;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    must_pass(process);
    target_do(&target, TARGET_EXEC, 0, 0, 0);
    target_do(&target, TARGET_NONE, 0, 0, 0); /* the new one answers */
    cr_expect_eq(tw_process_pass(process, TW_NEVER, &err), TW_ABORTED);
    cr_expect_str_eq(err.given, "execed");
    cr_expect_eq(tw_process_state_get(process), TW_PROCESS_EXECED);
    session_read(&s);
    cr_expect_eq(s.count, 1, "the last answer can still be read");
    session_end(&s);
    end();
}

/* What a pass had found, but not read, when the memory went away: other memory stands at the same
 * addresses of the same pid now, and must not be taken for it. */
Test(process, pages_found_and_not_read_are_told_as_a_whole, TIMED)
{
    struct session s;
    bool done, whole;
    struct tw_error err;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    cr_assert_not(done);
    target_do(&target, TARGET_EXEC, 0, 0, 0);
    target_do(&target, TARGET_NONE, 0, 0, 0);
    cr_expect_eq(tw_process_step(process, TW_SEC, &done, &err), TW_ABORTED);
    session_read(&s);
    cr_expect_eq(s.count, 1);
    cr_expect_eq(session_lines(&s, memory, &whole), TW_ALL_LINES);
    cr_expect(whole);
    session_end(&s);
    end();
}

Test(process, exit_leaves_the_last_answer, TIMED)
{
    struct session s;
    struct tw_error err;
    bool done;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    must_pass(process);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    target_begin(&target, TARGET_EXIT, 0, 0, 0);
    waitpid(target.pid, NULL, 0);
    target.pid = 0;
    cr_expect_eq(tw_process_step(process, TW_SEC, &done, &err), TW_ABORTED);
    cr_expect_not(done);
    cr_expect_eq(tw_process_state_get(process), TW_PROCESS_EXITED);
    cr_expect_eq(tw_process_pass_begin(process, &err), TW_ABORTED);
    session_read(&s);
    cr_expect_eq(s.count, 1);
    session_end(&s);
    end();
}

Test(process, spawned_programs_are_tracked_from_their_first_store, TIMED)
{
    char *argv[3];
    struct session s;
    struct tw_error err;
    target_prepare(&target, argv);
    cr_assert_eq(tw_process_spawn(NULL, argv, &process, &err), TW_OK);
    target.pid = tw_process_pid(process);
    session_start(&s, process, "s", 0, 0);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, PAGE);
    target_store(&target, memory, 1);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory, NULL), 1);
    session_end(&s);
    end();
    argv[0] = (char *)"/nonexistent/program";
    cr_expect_eq(tw_process_spawn(NULL, argv, &process, &err), TW_NOT_FOUND);
}

Test(process, attach_refuses_what_it_must, TIMED)
{
    struct tw_error err;
    struct tw_process *second;
    cr_expect_eq(tw_process_attach(NULL, -1, &process, &err), TW_NOT_FOUND);
    cr_expect_eq(tw_process_attach(NULL, 0, &process, &err), TW_NOT_FOUND);
    const struct tw_process_config odd = {.device_bytes_max = MIB};
    attach();
    cr_expect_eq(tw_process_attach(&odd, target.pid, &second, &err), TW_INVALID_ARGUMENT);
    /* A second attachment gets a userfaultfd of its own, but memory has only one. */
    struct session s, t;
    struct tw_process_stats stats;
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, PAGE);
    session_start(&s, process, "s", memory, PAGE);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &second, &err), TW_OK);
    session_start(&t, second, "t", memory, PAGE);
    tw_process_stats_get(second, &stats);
    cr_expect_eq(stats.skipped_areas, 1, "and says that it cannot follow it");
    session_end(&t);
    tw_process_detach(second);
    session_end(&s);
    end();
}

static bool install_filter(void)
{
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {1, allow};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool drop_sys_admin(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data))
        return false;
    data[CAP_SYS_ADMIN / 32].effective &= ~(UINT32_C(1) << CAP_SYS_ADMIN % 32);
    return syscall(SYS_capset, &header, data) == 0;
}

/* A filter may kill a program for calls that it never makes: it is suspended, or known to be ours.
 */
Test(process, system_call_filters_are_respected, TIMED)
{
    char *argv[3];
    struct tw_error err;
    target_prepare(&target, argv);
    target.pid = fork();
    if (target.pid == 0) {
        if (install_filter())
            execv(argv[0], argv);
        _exit(127);
    }
    target_do(&target, TARGET_NONE, 0, 0, 0);
    const enum tw_code suspended = tw_process_attach(NULL, target.pid, &process, &err);
    cr_expect(suspended == TW_OK || suspended == TW_FAILED_PRECONDITION);
    if (suspended == TW_OK)
        tw_process_detach(process);
    cr_assert(drop_sys_admin());
    cr_expect_eq(tw_process_attach(NULL, target.pid, &process, &err), TW_FAILED_PRECONDITION);
    cr_assert(install_filter());
    cr_expect_eq(tw_process_attach(NULL, target.pid, &process, &err), TW_OK, "the same filter");
    target_do(&target, TARGET_NONE, 0, 0, 0);
    end();
}

/* Attached to while it sleeps in a system call: that goes on as if nothing had been. */
Test(process, interrupted_system_calls_are_restarted, TIMED)
{
    target_start(&target);
    target_begin(&target, TARGET_SLEEP, 0, 0, 300);
    usleep(50000);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
        tw_process_detach(process);
    }
    target_wait(&target);
    cr_expect_geq(target.control->result, 300000, "slept to the end, was %lu us",
                  (unsigned long)target.control->result);
    target_end(&target);
}

Test(process, stopped_programs_stay_stopped, TIMED)
{
    char path[64], text[256] = "";
    target_start(&target);
    kill(target.pid, SIGSTOP);
    waitpid(target.pid, NULL, WUNTRACED);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
    usleep(20000);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)target.pid);
    FILE *file = fopen(path, "r");
    cr_assert(file && fgets(text, sizeof text, file));
    fclose(file);
    cr_expect_eq(strrchr(text, ')')[2], 'T', "%s", text);
    kill(target.pid, SIGCONT);
    target_do(&target, TARGET_NONE, 0, 0, 0);
    end();
}

/* The tracker is killed in the middle of it: the program must not notice. */
Test(process, program_survives_the_death_of_its_tracker, TIMED)
{
    int ready[2];
    char byte;
    target_start(&target);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 64 * PAGE);
    target.control->threads = 2;
    cr_assert_eq(pipe(ready), 0);
    const pid_t tracker = fork();
    if (tracker == 0) {
        struct session s;
        if (tw_process_attach(NULL, target.pid, &process, NULL))
            _exit(1);
        session_start(&s, process, "s", 0, 0);
        for (unsigned i = 0;; i++) {
            session_collect(&s);
            if (i == 3 && write(ready[1], "", 1) != 1)
                _exit(1);
        }
    }
    target_begin(&target, TARGET_THREADS, memory, 64, 1);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    kill(tracker, SIGKILL);
    waitpid(tracker, NULL, 0);
    usleep(20000);
    cr_expect_not(smaps_say(target.pid, memory, " uw"), "the kernel took everything back");
    atomic_store(&target.control->stop, 1);
    target_wait(&target);
    target_store(&target, memory, 1);
    cr_expect_eq(target_do(&target, TARGET_LOAD, memory, 0, 0), 1);
    target_end(&target);
}

Test(process, broken_off_pass_loses_nothing, TIMED)
{
    struct session s;
    bool done;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4096 * PAGE);
    session_start(&s, process, "s", memory, 4096 * PAGE);
    for (unsigned i = 0; i < 64; i++)
        target_store(&target, memory + i * 64 * PAGE, 1);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    cr_assert_not(done, "protected, not read");
    cr_expect_eq(tw_process_pass_begin(process, NULL), TW_FAILED_PRECONDITION);
    cr_expect_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    tw_process_detach(NULL);
    while (!done)
        cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    for (unsigned i = 0; i < 64; i++)
        target_store(&target, memory + i * 64 * PAGE + LINE, 1);
    cr_expect_eq(tw_process_pass(process, 0, NULL), TW_DEADLINE_EXCEEDED);
    session_collect(&s);
    cr_expect_eq(s.count, 64);
    cr_expect_eq(session_lines(&s, memory, NULL), 3);
    session_end(&s);
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
