/* A program of towline-cc, tracked through the agent's sessions: exact from its first line on, and
 * alive whatever happens to agent, session and itself. */
#include "client/fixture.h"

#include "hosts/instrumented/shared.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct subject subject;

static void setup(void)
{
    fixture_open();
    subject_start_instrumented(&subject);
}

static void teardown(void)
{
    subject_end(&subject);
    fixture_close();
}

TestSuite(instrumented, .init = setup, .fini = teardown);

static struct towline_options options_for(pid_t pid, uint32_t attachment)
{
    return (struct towline_options){.size = sizeof(struct towline_options),
                                    .socket = fixture_socket,
                                    .pid = pid,
                                    .timeout_ms = 60000,
                                    .attachment = attachment};
}

static towline_session *open_as(const struct towline_options *options)
{
    const struct towline_range arena = {subject.arena, 64 * 4096};
    towline_session *session;
    cr_assert_eq(towline_open(options, &session), TOWLINE_OK, "%s", towline_last_error());
    cr_assert_eq(towline_register(session, &arena, 1), TOWLINE_OK);
    return session;
}

static struct towline_info info_of(towline_session *session)
{
    struct towline_info info;
    cr_assert_eq(towline_info(session, &info), TOWLINE_OK, "%s", towline_last_error());
    return info;
}

/* A store may be told once more, of the next epoch: it was announced, and perhaps not made. */
static void expect_calm(towline_session *s, const char *epoch)
{
    size_t pages = 1;
    for (unsigned i = 0; i < 100 && pages; i++)
        session_lines(s, epoch, subject.arena, &pages, NULL);
    cr_expect_eq(pages, 0);
}

/* Stores, and expects exactly this line; not the page around it. */
static void expect_exact(towline_session *s, const char *epoch)
{
    size_t pages;
    bool whole = true;
    expect_calm(s, epoch);
    subject_do(&subject, "s 5");
    cr_expect_eq(session_lines(s, epoch, subject.arena, &pages, &whole), 1 << 5);
    cr_expect(!whole && pages == 1, "%zu pages", pages);
    expect_calm(s, epoch);
}

Test(instrumented, is_preferred_and_exact_at_the_first_report)
{
    towline_session *s = session_on(&subject, "a");
    const struct towline_info info = info_of(s);
    cr_expect_eq(info.attachment, TOWLINE_INSTRUMENTED, "%s", info.why);
    cr_expect_eq(info.flags, TOWLINE_SAME_VALUE);
    cr_expect_eq(info.granularity, 64);
    cr_expect(strstr(info.why, "towline-cc"), "%s", info.why);
    cr_expect(strstr(info.blind_spots, "without instrumentation") &&
                  strstr(info.blind_spots, "libc.so.6"),
              "%s", info.blind_spots);
    expect_exact(s, "a");
    towline_close(s);
    subject_well(&subject);
}

/* ---- Accessed lines -------------------------------------------------------------------------- */

static towline_session *session_with_loads(const char *epoch)
{
    struct towline_options options = options_for(subject.pid, TOWLINE_ANY);
    options.accessed = 1;
    towline_session *s = open_as(&options);
    cr_assert_eq(towline_start(s, epoch), TOWLINE_OK, "%s", towline_last_error());
    return s;
}

/* The accessed lines of a page, of the answer that *cursor says. */
static uint64_t accessed_lines(towline_session *s, const char *epoch, uint64_t page,
                               uint64_t cursor)
{
    struct towline_lines some[3];
    uint64_t lines = 0;
    size_t count;
    do {
        cr_assert_eq(towline_accessed(s, epoch, some, 3, &count, &cursor), TOWLINE_OK, "%s",
                     towline_last_error());
        for (size_t i = 0; i < count; i++) {
            cr_expect_eq(some[i].flags, 0);
            lines |= some[i].address == page ? some[i].lines : 0;
        }
    } while (cursor);
    return lines;
}

Test(instrumented, accessed_lines_are_told_and_cleared_for_each_epoch)
{
    towline_session *s = session_with_loads("a");
    cr_expect_eq(info_of(s).flags, TOWLINE_SAME_VALUE | TOWLINE_LOADS);
    cr_expect_str_eq(info_of(s).why, "accessed lines were asked for");
    cr_assert_eq(towline_start(s, "b"), TOWLINE_OK);
    expect_calm(s, "a");
    accessed_lines(s, "a", subject.arena, 0);
    subject_do(&subject, "l 5");
    subject_do(&subject, "l 6");
    subject_do(&subject, "s 7");
    cr_expect_eq(accessed_lines(s, "a", subject.arena, 0), 0xe0);
    /* The store may be told once more, it may just be being made. */
    cr_expect_eq(accessed_lines(s, "a", subject.arena, 0) & 0x7f, 0);
    subject_do(&subject, "l 5");
    cr_expect_eq(accessed_lines(s, "a", subject.arena, 0) & 0x7f, 0x20,
                 "it counts in each epoch anew");
    cr_expect_eq(session_lines(s, "a", subject.arena, NULL, NULL), 0x80, "loads are no stores");
    cr_expect_eq(accessed_lines(s, "b", subject.arena, 0) & 0xe0, 0xe0, "another epoch has them");
    towline_close(s);
    subject_well(&subject);
}

/* Lines of a page that is asked for in part: the others are loaded, too, and nobody's business. */
Test(instrumented, accessed_lines_are_those_of_the_ranges)
{
    struct towline_options options = options_for(subject.pid, TOWLINE_ANY);
    const struct towline_range some = {subject.arena + 4 * 64, 3 * 64};
    towline_session *s;
    options.accessed = 1;
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK, "%s", towline_last_error());
    cr_assert_eq(towline_register(s, &some, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    subject_do(&subject, "l 3");
    subject_do(&subject, "l 5");
    subject_do(&subject, "l 7");
    cr_expect_eq(accessed_lines(s, "a", subject.arena, 0), 1 << 5);
    towline_close(s);
}

/* The two lists of one epoch, and a cursor of each that is good once. */
Test(instrumented, both_lists_of_an_epoch_can_be_read_in_pieces)
{
    towline_session *s = session_with_loads(NULL);
    struct towline_lines some[4];
    struct towline_sums last, total;
    uint64_t cursor, again, old;
    size_t count;
    char command[16];
    cr_assert_eq(towline_collect(s, NULL, 0, &cursor, NULL), TOWLINE_OK);
    accessed_lines(s, NULL, subject.arena, cursor);
    for (unsigned page = 0; page < 10; page++) {
        snprintf(command, sizeof command, "l %u", page * 64);
        subject_do(&subject, command);
    }
    subject_do(&subject, "s 1");
    cr_assert_eq(towline_collect(s, NULL, 0, &cursor, NULL), TOWLINE_OK);
    again = cursor;
    cr_assert_eq(towline_accessed(s, NULL, some, 4, &count, &again), TOWLINE_OK);
    cr_expect(count == 4 && again != 0);
    old = cursor;
    cr_expect_eq(towline_accessed(s, NULL, some, 4, &count, &old), TOWLINE_OUT_OF_RANGE);
    cr_assert_eq(towline_dirty(s, NULL, some, 4, &count, &cursor), TOWLINE_OK);
    cr_expect(count >= 1 && cursor == 0, "the dirty list of the same epoch");
    cr_assert_eq(towline_accessed(s, NULL, some, 1, &count, &again), TOWLINE_OK);
    cr_assert_eq(towline_figures(s, NULL, &last, &total, NULL, 0, NULL), TOWLINE_OK);
    cr_expect_eq(last.accessed_pages, 10);
    cr_expect_eq(last.accessed_lines, 11);
    cr_expect_geq(total.accessed_lines, 11);
    /* What was not read of it comes with the next. */
    subject_do(&subject, "l 70");
    cr_assert_eq(towline_collect(s, NULL, 0, &cursor, NULL), TOWLINE_OK);
    subject_do(&subject, "l 71");
    cr_expect_eq(accessed_lines(s, NULL, subject.arena + 4096, 0), 0xc0);
    towline_close(s);
}

/* Who does not ask for loads is not told of them, nor does the program pay for them any longer. */
Test(instrumented, sessions_with_and_without_loads_share_a_program)
{
    towline_session *plain = session_on(&subject, "a");
    struct towline_lines lines[4];
    uint64_t cursor = 0;
    size_t count;
    cr_expect_eq(towline_accessed(plain, "a", lines, 4, &count, &cursor),
                 TOWLINE_FAILED_PRECONDITION);
    for (unsigned round = 0; round < 3; round++) {
        towline_session *s = session_with_loads("a");
        accessed_lines(s, "a", subject.arena, 0);
        subject_do(&subject, "l 9");
        cr_expect_eq(accessed_lines(s, "a", subject.arena, 0), 1 << 9);
        towline_close(s);
    }
    expect_exact(plain, "a");
    towline_close(plain);
    subject_well(&subject);
}

/* ---- Contents -------------------------------------------------------------------------------- */

static struct towline_sums sums_after(towline_session *s, const char *command)
{
    struct towline_sums last;
    if (command)
        subject_do(&subject, command);
    cr_assert_eq(towline_collect(s, "a", 0, NULL, NULL), TOWLINE_OK);
    cr_assert_eq(towline_figures(s, "a", &last, NULL, NULL, 0, NULL), TOWLINE_OK);
    return last;
}

/* A store that may just be being made leaves it open: then once more. */
static struct towline_sums known_after(towline_session *s, const char *command)
{
    struct towline_sums last = {0};
    for (unsigned i = 0; i < 100 && last.known_lines == 0; i++)
        last = sums_after(s, command);
    cr_expect_eq(last.known_lines, 1, "%s: %zu lines, %zu known", command, (size_t)last.lines,
                 (size_t)last.known_lines);
    return last;
}

Test(instrumented, a_line_rewritten_with_what_it_held_is_told_apart)
{
    struct towline_options options = options_for(subject.pid, TOWLINE_ANY);
    options.bytes = 1;
    towline_session *s = open_as(&options);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    cr_expect_eq(info_of(s).flags, TOWLINE_SAME_VALUE | TOWLINE_COUNTS_BYTES);
    struct towline_sums sums = sums_after(s, "s 5");
    cr_expect(sums.lines == 1 && sums.known_lines == 0 && sums.same_lines == 0,
              "there was nothing to compare it with");
    sums = known_after(s, "s 5");
    cr_expect(sums.same_lines == 0 && sums.changed_bytes > 0 && sums.changed_bytes <= 8);
    sums = known_after(s, "w 5");
    cr_expect(sums.same_lines == 1 && sums.changed_bytes == 0 && sums.clean_pages == 0);
    sums = known_after(s, "w 6");
    cr_expect(sums.same_lines == 1, "the page's other lines are known since its first report");
    sums = known_after(s, "s 7");
    cr_expect(sums.same_lines == 0 && sums.changed_bytes > 0);
    towline_close(s);
    s = session_on(&subject, "a");
    cr_expect_eq(info_of(s).flags, TOWLINE_SAME_VALUE, "who does not ask does not know");
    towline_close(s);
    subject_well(&subject);
}

/* While threads store all the time, each store another value: nothing of it was in vain. */
Test(instrumented, no_store_that_changed_a_line_is_said_to_have_been_in_vain)
{
    struct towline_options options = options_for(subject.pid, TOWLINE_ANY);
    options.bytes = 1;
    towline_session *s = open_as(&options);
    struct towline_sums sums;
    uint64_t known = 0;
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    subject_tell(&subject, "h");
    const uint64_t until = tw_after(tw_now(&tw_monotonic), 60 * TW_SEC);
    for (unsigned i = 0; i < 30 || (known < 10000 && tw_now(&tw_monotonic) < until); i++) {
        sums = sums_after(s, NULL);
        known += sums.known_lines;
        cr_expect_eq(sums.same_lines, 0, "epoch %u: %zu of %zu", i, (size_t)sums.same_lines,
                     (size_t)sums.known_lines);
        cr_expect_leq(sums.known_lines, sums.lines);
    }
    cr_expect_geq(known, 10000);
    towline_close(s);
}

Test(instrumented, from_outside_where_that_is_asked_for_at_the_same_time)
{
    const struct towline_options outside = options_for(subject.pid, TOWLINE_PROCESS);
    towline_session *s = open_as(&outside), *t = session_on(&subject, "a");
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    cr_expect_eq(info_of(s).attachment, TOWLINE_PROCESS);
    cr_expect_str_eq(info_of(s).why, "asked for");
    cr_expect_eq(info_of(t).attachment, TOWLINE_INSTRUMENTED);
    subject_do(&subject, "s 70");
    cr_expect_eq(session_lines(s, "a", subject.arena + 4096, NULL, NULL) & 1 << 6, 1 << 6);
    cr_expect_eq(session_lines(t, "a", subject.arena + 4096, NULL, NULL), 1 << 6);
    towline_close(s);
    towline_close(t);
}

Test(instrumented, an_ordinary_program_is_none_and_that_is_said)
{
    struct subject ordinary;
    subject_start(&ordinary);
    struct towline_options o = options_for(ordinary.pid, TOWLINE_INSTRUMENTED);
    towline_session *s;
    cr_assert_eq(towline_open(&o, &s), TOWLINE_OK);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_FAILED_PRECONDITION);
    cr_expect(strstr(towline_last_error(), "is none"), "%s", towline_last_error());
    towline_close(s);
    s = session_on(&ordinary, "a");
    cr_expect_eq(info_of(s).attachment, TOWLINE_PROCESS);
    cr_expect(strstr(info_of(s).why, "not made by towline-cc"), "%s", info_of(s).why);
    towline_close(s);
    subject_end(&ordinary);
}

/* What a peer says of itself counts for nothing: it is who the kernel says. */
Test(instrumented, nobody_can_come_as_another)
{
    struct subject ordinary;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct tw_inst_order order;
    subject_start(&ordinary);
    const struct tw_inst_hello lie = {
        .magic = TW_INST_MAGIC, .version = TW_INST_VERSION, .pid = (uint32_t)ordinary.pid};
    strcpy(address.sun_path, fixture_instrumented);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(write(fd, &lie, sizeof lie), sizeof lie);
    cr_assert_eq(read(fd, &order, sizeof order), sizeof order);
    cr_expect_eq(order.mode, TW_INST_DETACHED);
    towline_session *s = session_on(&ordinary, "a");
    cr_expect_eq(info_of(s).attachment, TOWLINE_PROCESS, "%s", info_of(s).why);
    towline_close(s);
    close(fd);
    subject_end(&ordinary);
}

Test(instrumented, unmapped_ranges_are_refused)
{
    struct towline_options o = options_for(subject.pid, TOWLINE_INSTRUMENTED);
    const struct towline_range nowhere = {4096, 4096};
    towline_session *s;
    cr_assert_eq(towline_open(&o, &s), TOWLINE_OK);
    cr_assert_eq(towline_register(s, &nowhere, 1), TOWLINE_OK);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_NOT_FOUND, "%s", towline_last_error());
    towline_close(s);
    subject_well(&subject);
}

Test(instrumented, everything_is_what_it_stores_to)
{
    struct towline_options o = options_for(subject.pid, TOWLINE_ANY);
    towline_session *s;
    cr_assert_eq(towline_open(&o, &s), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    subject_do(&subject, "s 65");
    cr_expect_eq(session_lines(s, "a", subject.arena + 4096, NULL, NULL), 2);
    towline_close(s);
}

/* ---- Lives on -------------------------------------------------------------------------------- */

Test(instrumented, agent_killed_and_started_again)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "s 1");
    fixture_agent_kill();
    subject_well(&subject);
    towline_close(s);
    fixture_agent_start();
    const struct towline_options o = options_for(subject.pid, TOWLINE_INSTRUMENTED);
    const uint64_t until = tw_after(tw_now(&tw_monotonic), 60 * TW_SEC);
    for (;;) { /* it looks for an agent twice a second */
        s = open_as(&o);
        if (towline_start(s, "a") == TOWLINE_OK)
            break;
        towline_close(s);
        cr_assert_lt(tw_now(&tw_monotonic), until, "%s", towline_last_error());
        usleep(20000);
    }
    expect_exact(s, "a");
    towline_close(s);
}

Test(instrumented, comes_back_at_once_when_its_session_is_abandoned)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        session_on(&subject, "a");
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    subject_well(&subject);
    for (unsigned i = 0; i < 5; i++) { /* and whenever one is closed */
        towline_session *s = session_on(&subject, "a");
        cr_expect_eq(info_of(s).attachment, TOWLINE_INSTRUMENTED, "%s", info_of(s).why);
        expect_exact(s, "a");
        towline_close(s);
    }
    subject_well(&subject);
}

Test(instrumented, range_unmapped_while_it_is_tracked)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "s 1");
    subject_do(&subject, "s 4000");
    subject_do(&subject, "u");
    cr_expect_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    expect_exact(s, "a");
    towline_close(s);
    subject_well(&subject);
}

Test(instrumented, fork_leaves_the_parent_tracked_and_the_child_not)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "f"); /* the child stores to line 0 */
    cr_expect_eq(session_lines(s, "a", subject.arena, NULL, NULL), 0);
    expect_exact(s, "a");
    towline_close(s);
    subject_well(&subject);
}

/* As of a server that goes into the background. */
Test(instrumented, a_child_that_stays_makes_itself_known)
{
    char line[64];
    subject_tell(&subject, "c");
    cr_assert(fgets(line, sizeof line, subject.out));
    const pid_t child = (pid_t)strtol(line, NULL, 10);
    const uint64_t until = tw_after(tw_now(&tw_monotonic), 60 * TW_SEC);
    const struct towline_options o = options_for(child, TOWLINE_INSTRUMENTED);
    towline_session *s;
    for (;;) {
        s = open_as(&o);
        if (towline_start(s, "a") == TOWLINE_OK)
            break;
        towline_close(s);
        cr_assert_lt(tw_now(&tw_monotonic), until, "%s", towline_last_error());
        usleep(20000);
    }
    expect_exact(s, "a");
    subject_tell(&subject, "q");
    towline_close(s);
}

static int dirty_code(towline_session *s)
{
    struct towline_lines lines[16];
    uint64_t cursor = 0;
    size_t count;
    return towline_dirty(s, "a", lines, 16, &count, &cursor);
}

Test(instrumented, exec_ends_the_tracking_and_the_next_program_comes_by_itself)
{
    towline_session *s = session_on(&subject, "a");
    char line[64];
    subject_do(&subject, "s 3");
    subject_tell(&subject, "x");
    cr_assert(fgets(line, sizeof line, subject.out)); /* the new arena's address */
    cr_expect_eq(session_lines(s, "a", subject.arena, NULL, NULL), 1 << 3, "stored before");
    cr_expect_eq(dirty_code(s), TOWLINE_ABORTED);
    towline_close(s);
    subject.arena = strtoull(line, NULL, 16);
    s = session_on(&subject, "a");
    cr_expect_eq(info_of(s).attachment, TOWLINE_INSTRUMENTED, "%s", info_of(s).why);
    expect_exact(s, "a");
    towline_close(s);
}

/* The marks outlive the program: its very last stores are told. */
Test(instrumented, exit_in_the_middle)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "s 9");
    subject_tell(&subject, "q");
    waitid(P_PID, (id_t)subject.pid, &(siginfo_t){0}, WEXITED | WNOWAIT);
    cr_expect_eq(session_lines(s, "a", subject.arena, NULL, NULL), 1 << 9);
    collected_until_ended(s);
    towline_close(s);
}

Test(instrumented, hot_program_under_several_sessions)
{
    hot_program_survives(&subject);
}

/* ---- A program that lies --------------------------------------------------------------------- */

#define LIAR_PAGES 16u

static int liar_connect(void)
{
    const struct tw_inst_hello hello = {.magic = TW_INST_MAGIC, .version = TW_INST_VERSION};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, fixture_instrumented);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) ||
        write(fd, &hello, sizeof hello) != sizeof hello)
        _exit(1);
    return fd;
}

/* The next order, and its file. */
static int liar_hear(int fd, struct tw_inst_order *order)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = order, .iov_len = sizeof *order};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    int file = -1;
    if (recvmsg(fd, &message, 0) != sizeof *order)
        _exit(1);
    if (CMSG_FIRSTHDR(&message))
        memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
    return file;
}

/* Fills what it is handed with nonsense, until killed. */
static _Noreturn void liar_main(const void *arena, int ready)
{
    struct tw_inst_order order;
    const struct tw_inst_ready answer = {TW_INST_MAGIC};
    const int fd = liar_connect();
    liar_hear(fd, &order);
    if (write(ready, "", 1) != 1)
        _exit(1);
    const int file = liar_hear(fd, &order);
    if (write(fd, &answer, sizeof answer) != sizeof answer)
        _exit(1);
    const uint64_t line = (uintptr_t)arena / 64;
    const uint64_t parts[][2] = {
        {0, TW_INST_THREADS_AT},
        {TW_INST_THREADS_AT, 65536},
        {TW_INST_RECENT_AT, 4 * TW_INST_RECENT_STRIDE},
        {TW_INST_SUMMARY_AT + line / 64 - 64, 256},
        {TW_INST_MARKS_AT + line - 4096, 65536},
        {TW_INST_LINES_AT + line - 4096, 65536},
    };
    for (uint64_t seed = 1;; seed++) {
        uint64_t noise[64];
        for (unsigned i = 0; i < 64; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            noise[i] = seed | (seed & 2 ? UINT64_C(0x0101010101010101) : 0);
        }
        const uint64_t *p = parts[(seed >> 20) % 6];
        if (pwrite(file, noise, sizeof noise, (off_t)(p[0] + (seed >> 30) % p[1])) < 0)
            _exit(1);
    }
}

static void expect_within(towline_session *s, uint64_t start, uint64_t length)
{
    struct towline_lines lines[64];
    struct towline_shared_line shared[64];
    uint64_t cursor = 0;
    size_t count;
    cr_assert_eq(towline_dirty(s, "a", lines, 64, &count, &cursor), TOWLINE_OK, "%s",
                 towline_last_error());
    cr_expect_eq(cursor, 0);
    for (size_t i = 0; i < count; i++)
        cr_expect(lines[i].address - start < length, "%#lx", (unsigned long)lines[i].address);
    cr_assert_eq(towline_shared(s, "a", shared, 64, &count, NULL), TOWLINE_OK);
    for (size_t i = 0; i < count; i++)
        cr_expect(shared[i].address - start < length, "%#lx", (unsigned long)shared[i].address);
}

Test(instrumented, one_that_scribbles_over_its_file_harms_only_itself)
{
    int ready[2];
    char byte;
    void *arena =
        mmap(NULL, LIAR_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(pipe(ready), 0);
    const pid_t liar = fork();
    if (liar == 0)
        liar_main(arena, ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    struct towline_options o = options_for(liar, TOWLINE_INSTRUMENTED);
    const struct towline_range range = {(uintptr_t)arena + 4096, 8 * 4096};
    towline_session *s;
    o.sharing = 1;
    cr_assert_eq(towline_open(&o, &s), TOWLINE_OK);
    cr_assert_eq(towline_register(s, &range, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    towline_session *honest = session_on(&subject, "a");
    for (unsigned i = 0; i < 50; i++)
        expect_within(s, range.start, range.length);
    expect_exact(honest, "a");
    kill(liar, SIGKILL);
    waitpid(liar, NULL, 0);
    expect_within(s, range.start, range.length);
    towline_close(s);
    towline_close(honest);
}

/* ---- False sharing --------------------------------------------------------------------------- */

static const struct towline_shared_line *find(const struct towline_shared_line *lines, size_t count,
                                              unsigned line)
{
    for (size_t i = 0; i < count; i++)
        if (lines[i].address == subject.arena + line * 64)
            return &lines[i];
    return NULL;
}

Test(instrumented, lines_that_threads_share_are_told_of_the_epoch)
{
    struct towline_options o = options_for(subject.pid, TOWLINE_ANY);
    struct towline_shared_line lines[64];
    struct towline_listed listed;
    size_t count;
    uint64_t total;
    o.sharing = 1;
    towline_session *s = open_as(&o);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    cr_expect_eq(info_of(s).sharing, 1);
    subject_do(&subject, "t");
    session_lines(s, "a", subject.arena, NULL, NULL);
    cr_assert_eq(towline_shared(s, "a", lines, 64, &count, &total), TOWLINE_OK);
    cr_expect(count == 2 && total == 2, "%zu", count);
    const struct towline_shared_line *apart = find(lines, count, 100),
                                     *both = find(lines, count, 101);
    cr_assert(apart && both);
    cr_expect(apart->falsely && !both->falsely && apart == lines);
    cr_assert_eq(apart->thread_count, 2, "also when the threads have ended");
    cr_expect_neq(apart->threads[0].tid, apart->threads[1].tid);
    cr_expect_eq(apart->threads[0].bytes | apart->threads[1].bytes, 0xff000000ff);
    cr_assert_eq(towline_list(fixture_socket, &listed, 1, &count), TOWLINE_OK);
    cr_expect(listed.sharing && listed.shared == 2 && listed.shared_falsely == 1);
    session_lines(s, "a", subject.arena, NULL, NULL);
    cr_assert_eq(towline_shared(s, "a", lines, 64, &count, &total), TOWLINE_OK);
    cr_expect(count == 0 && total == 0, "of another epoch");
    towline_close(s);
}

Test(instrumented, sharing_is_refused_where_it_cannot_be_known)
{
    struct towline_options o = options_for(subject.pid, TOWLINE_PROCESS);
    struct towline_shared_line line;
    size_t count;
    o.sharing = 1;
    towline_session *s = open_as(&o);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_INVALID_ARGUMENT);
    towline_close(s);
    towline_session *without = session_on(&subject, "a");
    cr_expect_eq(towline_shared(without, "a", &line, 1, &count, NULL), TOWLINE_FAILED_PRECONDITION);
    o.attachment = TOWLINE_ANY;
    s = open_as(&o);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_FAILED_PRECONDITION, "others track it without");
    towline_close(s);
    towline_close(without);
}
