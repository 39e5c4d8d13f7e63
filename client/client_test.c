/* What a session answers, through a real agent, about a real program. */
#include "client/fixture.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct subject subject;

static void setup(void)
{
    fixture_open();
    subject_start(&subject);
}

static void teardown(void)
{
    subject_end(&subject);
    fixture_close();
}

TestSuite(client, .init = setup, .fini = teardown);

Test(client, written_lines_are_told_once_in_the_programs_own_addresses)
{
    towline_session *s = session_on(&subject, "a");
    size_t pages;
    subject_do(&subject, "s 3");
    subject_do(&subject, "s 66");
    cr_assert_eq(session_lines(s, "a", subject.arena, &pages, NULL), UINT64_C(1) << 3);
    cr_assert_eq(pages, 2);
    cr_assert_eq(session_lines(s, "a", subject.arena, &pages, NULL), 0);
    cr_assert_eq(pages, 0);
    subject_do(&subject, "s 66");
    cr_assert_eq(session_lines(s, "a", subject.arena + 4096, &pages, NULL), UINT64_C(1) << 2);
    towline_close(s);
    subject_well(&subject);
}

Test(client, stores_before_the_start_are_not_told)
{
    subject_do(&subject, "s 5");
    towline_session *s = session_on(&subject, "a");
    size_t pages;
    cr_assert_eq(session_lines(s, "a", subject.arena, &pages, NULL), 0);
    cr_assert_eq(pages, 0);
    towline_close(s);
}

Test(client, epochs_and_overlapping_sessions_stay_apart)
{
    towline_session *s = session_on(&subject, "a"), *t = session_on(&subject, "a");
    cr_assert_eq(towline_start(s, "b"), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "b"), TOWLINE_ALREADY_EXISTS);
    subject_do(&subject, "s 1");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    subject_do(&subject, "s 2");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 4);
    cr_assert_eq(session_lines(s, "b", subject.arena, NULL, NULL), 6);
    cr_assert_eq(session_lines(t, "a", subject.arena, NULL, NULL), 6);
    cr_assert_eq(towline_stop(s, "b"), TOWLINE_OK);
    cr_assert_eq(towline_stop(s, "b"), TOWLINE_NOT_FOUND);
    towline_close(s);
    subject_do(&subject, "s 3");
    cr_assert_eq(session_lines(t, "a", subject.arena, NULL, NULL), 8);
    towline_close(t);
}

Test(client, a_small_buffer_is_filled_in_pieces_and_a_cursor_is_good_once)
{
    towline_session *s = session_on(&subject, "a");
    struct towline_lines one[3];
    uint64_t cursor = 0, old;
    size_t count, all = 0;
    char command[16];
    for (unsigned page = 0; page < 10; page++) {
        snprintf(command, sizeof command, "s %u", page * 64);
        subject_do(&subject, command);
    }
    cr_assert_eq(towline_dirty(s, "a", one, 3, &count, &cursor), TOWLINE_OK);
    cr_assert(count == 3 && cursor != 0);
    all += count;
    old = cursor;
    cr_assert_eq(towline_dirty(s, "a", one, 3, &count, &cursor), TOWLINE_OK);
    all += count;
    cr_assert_eq(towline_dirty(s, "a", one, 3, &count, &old), TOWLINE_OUT_OF_RANGE);
    while (cursor) {
        cr_assert_eq(towline_dirty(s, "a", one, 3, &count, &cursor), TOWLINE_OK);
        all += count;
    }
    cr_assert_eq(all, 10);
    towline_close(s);
}

Test(client, answers_say_how_exact_they_are)
{
    struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid, .exact = 1};
    const struct towline_range arena = {subject.arena, 64 * 4096};
    struct towline_info info;
    towline_session *s, *t;
    bool whole = false;
    subject_do(&subject, "s 1"); /* so that the page is not known to be zeros */
    s = session_on(&subject, "a");
    subject_do(&subject, "s 2");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, &whole), UINT64_MAX);
    cr_assert(whole, "a first report of a page without a copy is the whole page, and says so");
    subject_do(&subject, "s 2");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, &whole), 4);
    cr_assert_not(whole);
    cr_assert_eq(towline_info(s, &info), TOWLINE_OK);
    cr_assert(info.granularity == 64 && info.flags == (TOWLINE_WHOLE_PAGES | TOWLINE_COUNTS_BYTES));
    cr_assert_eq(info.pid, (uint64_t)subject.pid);
    cr_assert(strstr(info.blind_spots, "DMA"), "%s", info.blind_spots);
    cr_assert_eq(towline_open(&options, &t), TOWLINE_OK);
    cr_assert_eq(towline_start(t, NULL), TOWLINE_FAILED_PRECONDITION, "tracked inexactly already");
    towline_close(t);
    towline_close(s);
    cr_assert_eq(towline_open(&options, &t), TOWLINE_OK);
    cr_assert_eq(towline_register(t, &arena, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(t, NULL), TOWLINE_OK, "%s", towline_last_error());
    subject_do(&subject, "s 2");
    cr_assert_eq(session_lines(t, NULL, subject.arena, NULL, &whole), 4, "exact from the start");
    towline_close(t);
}

Test(client, what_cannot_be_seen_is_an_error_with_a_reason)
{
    towline_session *s = session_on(&subject, "a");
    struct towline_lines lines[4];
    uint64_t cursor = 0;
    size_t count;
    cr_assert_eq(towline_accessed(s, "a", lines, 4, &count, &cursor), TOWLINE_UNIMPLEMENTED);
    cr_assert(strstr(towline_last_error(), "loads"), "%s", towline_last_error());
    towline_close(s);
    struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid, .accessed = 1};
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_FAILED_PRECONDITION, "it was not compiled for it");
    cr_expect(strstr(towline_last_error(), "accessed"), "%s", towline_last_error());
    towline_close(s);
    options.attachment = TOWLINE_PROCESS;
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_expect_eq(towline_start(s, "a"), TOWLINE_UNIMPLEMENTED);
    cr_expect(strstr(towline_last_error(), "loaded"), "%s", towline_last_error());
    towline_close(s);
}

Test(client, ranges_have_the_grain_of_lines)
{
    const struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid};
    const struct towline_range two[] = {{subject.arena + 64, 1}, {subject.arena + 130, 70}};
    towline_session *s;
    char command[16];
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_assert_eq(towline_register(s, two, 2), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    for (unsigned line = 0; line < 8; line++) {
        snprintf(command, sizeof command, "s %u", line);
        subject_do(&subject, command);
    }
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2 + 4 + 8);
    cr_assert_eq(towline_register(s, two, 1), TOWLINE_FAILED_PRECONDITION);
    towline_close(s);
}

Test(client, misuse_and_wrong_addresses_are_refused_with_a_text)
{
    struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid};
    const struct towline_range nowhere = {4096, 4096}, absurd = {UINT64_MAX - 10, 100};
    towline_session *s;
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_assert_eq(towline_stop(s, "a"), TOWLINE_NOT_FOUND);
    cr_assert_eq(towline_register(s, &nowhere, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_NOT_FOUND);
    cr_assert(strstr(towline_last_error(), "0x1000"), "%s", towline_last_error());
    towline_close(s);
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_assert_eq(towline_register(s, &absurd, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_INVALID_ARGUMENT);
    towline_close(s);
    options.pid = 999999999;
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_NOT_FOUND, "%s", towline_last_error());
    towline_close(s);
    options.socket = "/nowhere/agent.sock";
    cr_assert_eq(towline_open(&options, &s), TOWLINE_UNAVAILABLE);
    cr_assert_null(s);
    cr_assert_eq(towline_open(&options, NULL), TOWLINE_INVALID_ARGUMENT);
    cr_assert_eq(towline_start(NULL, NULL), TOWLINE_INVALID_ARGUMENT);
    towline_close(NULL);
}

Test(client, the_meter_counts_without_reading)
{
    towline_session *s = session_on(&subject, "a");
    struct towline_sums last, total;
    struct towline_hot hot[4];
    struct towline_listed listed[4];
    size_t count;
    uint32_t ended = 7;
    subject_do(&subject, "s 1");
    subject_do(&subject, "s 2");
    subject_do(&subject, "s 640");
    cr_assert_eq(towline_collect(s, "a", 0, NULL, &ended), TOWLINE_OK);
    cr_assert_eq(ended, 0);
    cr_assert_eq(towline_figures(s, "a", &last, &total, hot, 4, &count), TOWLINE_OK);
    cr_assert(last.lines == 3 && last.pages == 2 && last.epochs == 1 && last.duration_ns > 0);
    cr_assert(count >= 1 && hot[0].lines >= 1 && last.regions == count);
    cr_assert_eq(total.lines, 3);
    /* 2, 3 and 641 in places that were 0. */
    cr_assert(last.changed_bytes == 4 && last.known_lines == 3 && last.clean_pages == 0, "%zu",
              (size_t)last.changed_bytes);
    cr_assert_eq(hot[0].changed_bytes + (count > 1 ? hot[1].changed_bytes : 0), 4);
    subject_do(&subject, "w 1");
    cr_assert_eq(towline_collect(s, "a", 0, NULL, &ended), TOWLINE_OK);
    cr_assert_eq(towline_figures(s, "a", &last, &total, NULL, 0, NULL), TOWLINE_OK);
    cr_assert(last.clean_pages == 1 && last.lines == 0 && last.changed_bytes == 0 &&
              total.changed_bytes == 4);
    cr_assert_eq(towline_list(fixture_socket, listed, 4, &count), TOWLINE_OK);
    cr_assert(count == 1 && listed[0].pid == (uint64_t)subject.pid && listed[0].total.lines == 3);
    cr_assert(listed[0].counts_bytes && listed[0].total.changed_bytes == 4);
    cr_assert_eq(strncmp(listed[0].name, "towline-client-", 15), 0, "%s", listed[0].name);
    towline_close(s);
}

/* A program of another user is not to be looked into; as nobody, root's is out of reach. */
Test(client, programs_of_others_are_refused)
{
    if (getuid() != 0)
        return; /* only root can become somebody else */
    pid_t child = fork();
    if (child == 0) {
        struct towline_options options = {
            .size = sizeof options, .socket = fixture_socket, .pid = subject.pid};
        towline_session *s;
        struct towline_listed listed[4];
        size_t count = 9;
        char folder_of_socket[96];
        strcpy(folder_of_socket, fixture_socket);
        *strrchr(folder_of_socket, '/') = 0;
        if (chmod(folder_of_socket, 0755) || setgid(65534) || setuid(65534))
            _exit(1);
        if (towline_open(&options, &s) || towline_start(s, "a") != TOWLINE_PERMISSION_DENIED)
            _exit(2);
        if (towline_list(fixture_socket, listed, 4, &count) || count != 0)
            _exit(3);
        _exit(0);
    }
    int status;
    towline_session *s = session_on(&subject, "a"); /* not to be listed for nobody */
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    towline_close(s);
}

/* All cores' stores count: what each thread wrote last is in one answer. */
Test(client, threads_that_store_at_once_are_all_told)
{
    towline_session *s = session_on(&subject, "a");
    struct towline_lines lines[80];
    uint64_t cursor = 0;
    size_t count;
    subject_do(&subject, "T");
    cr_assert_eq(towline_dirty(s, "a", lines, 80, &count, &cursor), TOWLINE_OK);
    cr_assert(count == 64 && cursor == 0, "%zu pages", count);
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(lines[i].lines, UINT64_C(0xffffffff), "four threads, eight lines each");
    towline_close(s);
}

/* Not resident at the start, and again later: what is stored afterwards is told, and it alone. */
Test(client, pages_that_are_not_resident)
{
    towline_session *s = session_on(&subject, "a");
    bool whole = true;
    subject_do(&subject, "s 130");
    cr_assert_eq(session_lines(s, "a", subject.arena + 8192, NULL, &whole), 4);
    cr_assert_not(whole, "it was absent: zeros are known");
    subject_do(&subject, "d");
    subject_do(&subject, "s 130"); /* the same value: with the rest of the page, as it was */
    subject_do(&subject, "s 131");
    cr_assert_eq(session_lines(s, "a", subject.arena + 8192, NULL, NULL), 8);
    towline_close(s);
}

Test(client, big_pages_are_told_by_lines)
{
    char line[64];
    subject_tell(&subject, "b");
    cr_assert(fgets(line, sizeof line, subject.out));
    const uint64_t big = strtoull(line, NULL, 16);
    const struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid, .exact = 1};
    const struct towline_range range = {big, 4u << 20};
    towline_session *s;
    size_t pages;
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK);
    cr_assert_eq(towline_register(s, &range, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    subject_do(&subject, "B 3");
    subject_do(&subject, "B 40000");
    cr_assert_eq(session_lines(s, "a", big, &pages, NULL), 8);
    cr_assert_eq(pages, 2, "%zu pages for two lines", pages);
    subject_do(&subject, "B 40000");
    cr_assert_eq(session_lines(s, "a", big + 40000 / 64 * 4096, &pages, NULL), 1);
    towline_close(s);
    subject_well(&subject);
}
