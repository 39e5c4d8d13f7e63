/* tow track, run and top: the real command, a real agent, a real program. */
#include "cli/run.h"
#include "client/fixture.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct subject subject;
static struct run run;
static char pid[16];

static void setup(void)
{
    fixture_open();
    setenv("TOWLINE_SOCKET", fixture_socket, 1);
    subject_start(&subject);
    snprintf(pid, sizeof pid, "%d", (int)subject.pid);
}

static void teardown(void)
{
    subject_end(&subject);
    fixture_close();
}

TestSuite(track, .init = setup, .fini = teardown);

static int tow(const char *const *arguments)
{
    return run_tow(&run, "tcp://127.0.0.1:1", arguments);
}
#define TOW_HERE(...) tow((const char *const[]){__VA_ARGS__, NULL})

Test(track, shows_the_meter_until_interrupted_and_leaves_the_program_as_it_was)
{
    size_t count;
    struct towline_listed listed[2];
    subject_tell(&subject, "h");
    run_start(&run, "tcp://127.0.0.1:1", (const char *const[]){"track", pid, "-e", "50ms", NULL},
              false);
    cr_assert(run_wait_for(&run, "lines"), "%s", run.err_text);
    run_interrupt(&run);
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    cr_assert(strstr(run.out_text, "pages, 2 MiB"), "the summary: %s", run.out_text);
    cr_assert_eq(kill(subject.pid, 0), 0);
    for (unsigned i = 0; towline_list(fixture_socket, listed, 2, &count) == 0 && count > 0; i++) {
        cr_assert_lt(i, 6000, "still tracked");
        usleep(10000);
    }
}

Test(track, json_has_a_line_for_each_epoch)
{
    subject_tell(&subject, "h");
    cr_assert_eq(TOW_HERE("track", pid, "-e", "50ms", "--for", "1s", "-o", "json"), 0, "%s",
                 run.err_text);
    *strchr(run.out_text, '\n') = 0;
    json_t *line = json_loads(run.out_text, 0, NULL), *total, *lines;
    cr_assert(line, "%s", run.out_text);
    total = json_object_get(line, "total");
    lines = json_object_get(total, "lines");
    cr_assert_eq(json_integer_value(json_object_get(line, "pid")), subject.pid);
    cr_assert_gt(json_integer_value(lines), 0);
    cr_assert_eq(json_integer_value(json_object_get(total, "line_bytes")),
                 64 * json_integer_value(lines));
    cr_assert(json_is_integer(json_object_get(total, "bytes_changed")), "%s", run.out_text);
    cr_assert(json_is_integer(json_object_get(total, "clean_pages")), "%s", run.out_text);
    cr_assert(json_is_null(json_object_get(total, "same_lines")), "not known, and said so");
    cr_assert(json_is_integer(json_object_get(total, "unchanged_lines")), "%s", run.out_text);
    json_decref(line);
}

Test(track, the_programs_end_ends_it)
{
    run_start(&run, "tcp://127.0.0.1:1", (const char *const[]){"track", pid, "-e", "20ms", NULL},
              false);
    cr_assert(run_wait_for(&run, "lines"), "%s", run.err_text);
    subject_tell(&subject, "q");
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    cr_assert(strstr(run.out_text, "it has ended"), "%s", run.out_text);
}

Test(track, report_is_a_page)
{
    char path[96], text[200000];
    snprintf(path, sizeof path, "%s.html", fixture_socket);
    subject_tell(&subject, "h");
    cr_assert_eq(TOW_HERE("track", "report", pid, "-e", "50ms", "--for", "500ms", "--out", path), 0,
                 "%s", run.err_text);
    FILE *f = fopen(path, "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    cr_assert(strstr(text, "towline-client-") && strstr(text, "</html>"));
    cr_assert_eq(TOW_HERE("track", "report", pid, "--for", "10ms", "--out", "/nowhere/x"), 1);
}

Test(track, run_starts_it_meters_it_and_has_its_status)
{
    cr_assert_eq(TOW_HERE("run", "-e", "50ms", "--", "sh", "-c", "echo hello; exit 7"), 7, "%s",
                 run.err_text);
    cr_assert_str_eq(run.out_text, "hello\n");
    cr_assert(strstr(run.err_text, "pages, 4 KiB"), "%s", run.err_text);
    cr_assert_eq(TOW_HERE("run", "sh", "-c", "kill -9 $$"), 128 + SIGKILL);
    cr_assert_eq(TOW_HERE("run", "--", "/nowhere/program"), 4);
    cr_assert(strstr(run.err_text, "cannot be executed"), "%s", run.err_text);
}

/* Its whole life is shorter than an epoch, and than the way to the agent. */
Test(track, run_counts_the_shortest_program)
{
    cr_assert_eq(TOW_HERE("run", "-o", "json", "--", TEST_SUBJECT, "1000"), 3, "%s", run.err_text);
    const char *last = NULL;
    for (const char *p = run.err_text; (p = strstr(p, "{\"pid\"")); p++)
        last = p;
    json_t *line = json_loads(last ? last : "", JSON_DISABLE_EOF_CHECK, NULL);
    cr_assert(line, "%s", run.err_text);
    json_t *total = json_object_get(line, "total");
    cr_assert_geq(json_integer_value(json_object_get(total, "lines")), 1000, "%s", run.err_text);
    cr_assert_geq(json_integer_value(json_object_get(total, "bytes_changed")), 8000, "%s",
                  run.err_text);
    json_decref(line);
}

/* It is traced for its life: that changes nothing about its signals. */
Test(track, run_lets_signals_and_stops_through)
{
    cr_assert_eq(TOW_HERE("run", "--", "sh", "-c", "trap 'exit 9' TERM; kill -TERM $$; exit 1"), 9,
                 "%s", run.err_text);
    cr_assert_eq(TOW_HERE("run", "--", "sh", "-c",
                          "p=$$; (sleep 0.2; kill -CONT $p) & kill -STOP $$; wait; exit 4"),
                 4, "%s", run.err_text);
}

Test(track, run_survives_the_agents_death)
{
    run_start(&run, "tcp://127.0.0.1:1",
              (const char *const[]){"run", "-e", "50ms", "--", "sh", "-c",
                                    "for i in 1 2 3 4 5; do sleep 0.2; done; echo whole", NULL},
              false);
    cr_assert(run_wait_for(&run, "lines"), "%s", run.err_text);
    fixture_agent_kill();
    cr_assert_neq(run_finish(&run), -1, "it waits for an agent that is dead");
    cr_assert_str_eq(run.out_text, "whole\n");
    fixture_agent_start();
}

Test(track, run_follows_a_wrapper_into_its_program)
{
    cr_assert_eq(TOW_HERE("run", "-e", "20ms", "--", "sh", "-c", "sleep 0.1; exec sleep 1"), 0,
                 "%s", run.err_text);
    cr_assert(strstr(run.err_text, "sleep, pid"), "%s", run.err_text);
}

Test(track, top_lists_sessions)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "s 1");
    session_lines(s, "a", subject.arena, NULL, NULL);
    cr_assert_eq(TOW_HERE("top", "-n", "1"), 0, "%s", run.err_text);
    cr_assert(strstr(run.out_text, pid) && strstr(run.out_text, "64.0 times"), "%s", run.out_text);
    cr_assert_eq(TOW_HERE("top", "-n", "1", "-o", "json"), 0);
    json_t *top = json_loads(run.out_text, 0, NULL), *sessions;
    cr_assert(top, "%s", run.out_text);
    sessions = json_object_get(top, "sessions");
    cr_assert_eq(json_array_size(sessions), 1);
    cr_assert_eq(json_integer_value(json_object_get(json_array_get(sessions, 0), "lines")), 1);
    json_decref(top);
    towline_close(s);
}

/* ---- Programs of towline-cc ------------------------------------------------------------------ */

static json_t *first_line_of(const char *text)
{
    char line[65536];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    json_t *json = json_loads(line, 0, NULL);
    cr_assert(json, "%s", text);
    return json;
}

Test(track, run_takes_the_instrumentation_and_counts_from_the_first_store)
{
    setenv("TOWLINE_INSTRUMENTED", fixture_instrumented, 1);
    cr_assert_eq(TOW_HERE("run", "-e", "20ms", "--", TEST_INSTRUMENTED), 0, "%s", run.err_text);
    cr_assert(strstr(run.err_text, "instrumented attachment: it was made by towline-cc"), "%s",
              run.err_text);
    /* It stored to a few lines only, and ended at once: all of that is in the answer. */
    cr_assert_null(strstr(run.err_text, "lines not known"), "%s", run.err_text);
    cr_assert_null(strstr(run.err_text, " 0 epochs"), "%s", run.err_text);
    cr_assert_eq(TOW_HERE("run", "-e", "20ms", "--attachment", "process", "--", TEST_INSTRUMENTED),
                 0);
    cr_assert(strstr(run.err_text, "process attachment: asked for"), "%s", run.err_text);
    cr_assert_neq(TOW_HERE("run", "--attachment", "instrumented", "--", "sleep", "60"), 0);
    cr_assert(strstr(run.err_text, "is none"), "%s", run.err_text);
}

static void expect_shared_line(const json_t *shared, uint64_t address)
{
    const json_t *lines = json_object_get(shared, "lines"), *line, *thread;
    size_t i, k, found = 0;
    json_array_foreach(lines, i, line)
    {
        if ((uint64_t)json_integer_value(json_object_get(line, "address")) != address)
            continue;
        found++;
        cr_assert(json_is_true(json_object_get(line, "falsely")));
        json_array_foreach(json_object_get(line, "threads"), k, thread)
        {
            const char *symbol = json_string_value(json_object_get(thread, "symbol"));
            cr_assert(strstr(symbol, "half at test_subject.c:"), "%s", symbol);
        }
        cr_assert_eq(k, 2);
    }
    cr_assert_eq(found, 1);
}

Test(track, sharing_has_lines_threads_and_symbols)
{
    struct subject shared;
    char number[16], path[96], text[200000];
    subject_start_instrumented(&shared);
    snprintf(number, sizeof number, "%d", (int)shared.pid);
    snprintf(path, sizeof path, "%s.html", fixture_socket);
    run_start(&run, "tcp://127.0.0.1:1",
              (const char *const[]){"track", number, "--sharing", "-e", "3s", "--for", "3s", "-o",
                                    "json", NULL},
              false);
    struct towline_listed listed[2];
    size_t count = 0;
    for (unsigned i = 0; count == 0; i++) {
        cr_assert_lt(i, 6000);
        usleep(10000);
        cr_assert_eq(towline_list(fixture_socket, listed, 2, &count), 0);
    }
    usleep(500000); /* from the session to its epoch */
    subject_do(&shared, "t");
    cr_assert_eq(run_finish(&run), 0, "%s", run.err_text);
    json_t *line = first_line_of(run.out_text);
    cr_assert_str_eq(json_string_value(json_object_get(line, "attachment")), "instrumented");
    expect_shared_line(json_object_get(line, "shared"), shared.arena + 100 * 64);
    json_decref(line);
    cr_assert_eq(TOW_HERE("track", "report", number, "--sharing", "--for", "200ms", "--out", path),
                 0, "%s", run.err_text);
    FILE *f = fopen(path, "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    cr_assert(strstr(text, "several threads wrote") && strstr(text, "instrumented attachment"));
    subject_end(&shared);
}

Test(track, accessed_lines_are_counted_where_they_are_seen)
{
    struct subject used;
    char number[16];
    subject_start_instrumented(&used);
    snprintf(number, sizeof number, "%d", (int)used.pid);
    subject_tell(&used, "h"); /* loads a line before it stores to it, and its own variables */
    cr_assert_eq(
        TOW_HERE("track", number, "--accessed", "-e", "100ms", "--for", "2s", "-o", "json"), 0,
        "%s", run.err_text);
    json_t *line = first_line_of(run.out_text), *total = json_object_get(line, "total");
    const json_int_t accessed = json_integer_value(json_object_get(total, "accessed_lines"));
    cr_expect_geq(accessed, json_integer_value(json_object_get(total, "lines")));
    cr_expect_gt(json_integer_value(json_object_get(total, "accessed_pages")), 0);
    cr_expect_eq(json_integer_value(json_object_get(total, "accessed_line_bytes")), 64 * accessed);
    json_decref(line);
    cr_assert_eq(TOW_HERE("track", number, "--accessed", "-e", "100ms", "--for", "500ms"), 0);
    cr_expect(strstr(run.out_text, "lines accessed"), "%s", run.out_text);
    subject_end(&used);
    cr_expect_neq(TOW_HERE("track", pid, "--accessed", "--for", "200ms"), 0);
    cr_expect(strstr(run.err_text, "accessed lines"), "%s", run.err_text);
    cr_assert_eq(TOW_HERE("track", pid, "-e", "50ms", "--for", "200ms", "-o", "json"), 0);
    line = first_line_of(run.out_text);
    cr_expect(json_is_null(json_object_get(json_object_get(line, "total"), "accessed_lines")),
              "not seen, and said so");
    json_decref(line);
}

/* Rewrites a line with what it held, again and again, until the test ends. */
static void expect_same_lines(const char *number)
{
    cr_assert_eq(TOW_HERE("track", number, "--bytes", "-e", "100ms", "--for", "1s", "-o", "json"),
                 0, "%s", run.err_text);
    const char *last = run.out_text;
    for (const char *p = last; (p = strstr(p, "{\"pid\"")); p++)
        last = p;
    json_t *line = first_line_of(last), *total = json_object_get(line, "total");
    const json_int_t known = json_integer_value(json_object_get(total, "compared_lines"));
    const json_int_t same = json_integer_value(json_object_get(total, "same_lines"));
    cr_expect(json_is_integer(json_object_get(total, "bytes_changed")) && known > 0 && same > 0 &&
                  same <= known,
              "%s", last);
    cr_expect(json_is_null(json_object_get(total, "clean_pages")), "%s", last);
    json_decref(line);
}

Test(track, lines_rewritten_with_what_they_held_are_counted_where_they_are_seen)
{
    struct subject rewriter;
    char number[16], path[96], text[200000];
    subject_start_instrumented(&rewriter);
    snprintf(number, sizeof number, "%d", (int)rewriter.pid);
    snprintf(path, sizeof path, "%s.html", fixture_socket);
    cr_assert_eq(TOW_HERE("track", number, "-e", "50ms", "--for", "200ms", "-o", "json"), 0);
    json_t *line = first_line_of(run.out_text), *total = json_object_get(line, "total");
    cr_expect(json_is_null(json_object_get(total, "same_lines")) &&
                  json_is_null(json_object_get(total, "bytes_changed")),
              "not asked for: not known, and said so");
    json_decref(line);
    subject_tell(&rewriter, "W");
    expect_same_lines(number);
    cr_assert_eq(TOW_HERE("track", number, "--bytes", "-e", "100ms", "--for", "500ms"), 0);
    cr_expect(strstr(run.out_text, "rewritten same"), "%s", run.out_text);
    cr_assert_eq(TOW_HERE("track", "report", number, "--bytes", "--accessed", "-e", "50ms", "--for",
                          "300ms", "--out", path),
                 0, "%s", run.err_text);
    FILE *f = fopen(path, "r");
    cr_assert(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    cr_expect(strstr(text, "were rewritten with what they held") &&
              strstr(text, "draw('accessed'"));
    subject_end(&rewriter);
}

Test(track, top_shows_accesses_and_what_was_rewritten_where_that_is_known)
{
    struct subject used;
    subject_start_instrumented(&used);
    const struct towline_options options = {.size = sizeof options,
                                            .socket = fixture_socket,
                                            .pid = used.pid,
                                            .accessed = 1,
                                            .bytes = 1};
    const struct towline_range arena = {used.arena, 64 * 4096};
    towline_session *s, *t = session_on(&subject, "a");
    cr_assert_eq(towline_open(&options, &s), TOWLINE_OK, "%s", towline_last_error());
    cr_assert_eq(towline_register(s, &arena, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(s, "a"), TOWLINE_OK, "%s", towline_last_error());
    subject_do(&used, "l 5");
    subject_do(&used, "l 6");
    cr_assert_eq(towline_collect(s, "a", 0, NULL, NULL), TOWLINE_OK);
    cr_assert_eq(towline_figures(s, "a", NULL, NULL, NULL, 0, NULL), TOWLINE_OK);
    cr_assert_eq(TOW_HERE("top", "-n", "1"), 0, "%s", run.err_text);
    cr_expect(strstr(run.out_text, "ACCESSED/S") && strstr(run.out_text, "SAME"), "%s",
              run.out_text);
    cr_expect(strstr(run.out_text, "3 %"), "2 of a page's 64 lines: %s", run.out_text);
    cr_assert_eq(TOW_HERE("top", "-n", "1", "-o", "json"), 0);
    json_t *top = json_loads(run.out_text, 0, NULL), *one;
    size_t i, seen = 0;
    cr_assert(top, "%s", run.out_text);
    json_array_foreach(json_object_get(top, "sessions"), i, one)
    {
        const bool knows = json_integer_value(json_object_get(one, "pid")) == used.pid;
        const json_t *accessed = json_object_get(one, "accessed_lines");
        seen += knows;
        cr_expect(knows ? json_integer_value(accessed) == 2 : json_is_null(accessed), "%s",
                  run.out_text);
        cr_expect_eq(json_is_integer(json_object_get(one, "same_lines")), knows);
        cr_expect_eq(json_is_integer(json_object_get(one, "clean_pages")), !knows);
    }
    cr_expect(i == 2 && seen == 1, "%s", run.out_text);
    json_decref(top);
    towline_close(s);
    towline_close(t);
    subject_end(&used);
}

Test(track, failures_have_their_exit_codes)
{
    cr_assert_eq(TOW_HERE("track", "999999999"), 4);
    cr_assert_eq(TOW_HERE("track", "abc"), 2);
    cr_assert_eq(TOW_HERE("track", "lines", pid), 2);
    cr_assert_eq(TOW_HERE("track", pid, "--every", "soon"), 2);
    cr_assert_eq(TOW_HERE("track", pid, "--socket", "/nowhere/agent.sock"), 3);
    cr_assert(strstr(run.err_text, "/nowhere/agent.sock"), "%s", run.err_text);
    cr_assert_eq(TOW_HERE("run"), 2);
    cr_assert_eq(TOW_HERE("top", "--socket", "/nowhere/agent.sock"), 3);
}
