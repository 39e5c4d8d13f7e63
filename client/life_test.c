/* The tracked program lives on, whatever happens to agent and sessions; and what happens to the
 * program is told. */
#include "client/fixture.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <signal.h>
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

TestSuite(life, .init = setup, .fini = teardown);

Test(life, agent_killed_and_started_again)
{
    towline_session *s = session_on(&subject, "a");
    struct towline_lines lines[4];
    uint64_t cursor = 0;
    size_t count;
    subject_do(&subject, "s 1");
    fixture_agent_kill();
    subject_well(&subject);
    cr_assert_eq(towline_dirty(s, "a", lines, 4, &count, &cursor), TOWLINE_UNAVAILABLE);
    cr_assert_eq(towline_start(s, "b"), TOWLINE_UNAVAILABLE);
    towline_close(s);
    subject_well(&subject);
    fixture_agent_start();
    s = session_on(&subject, "a");
    subject_do(&subject, "s 2");
    cr_assert_neq(session_lines(s, "a", subject.arena, NULL, NULL) & 4, 0);
    towline_close(s);
    subject_well(&subject);
}

static size_t sessions(void)
{
    struct towline_listed listed[8];
    size_t count;
    cr_assert_eq(towline_list(fixture_socket, listed, 8, &count), TOWLINE_OK);
    return count;
}

/* By a child that is killed in the middle of its session. */
Test(life, abandoned_session_is_let_go)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        session_on(&subject, "a");
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(sessions(), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    uint64_t until = tw_now(&tw_monotonic) + 60 * TW_SEC;
    while (sessions() > 0) {
        cr_assert_lt(tw_now(&tw_monotonic), until);
        usleep(10000);
    }
    subject_well(&subject);
    towline_session *s = session_on(&subject, "a"); /* its memory is free to be tracked again */
    towline_close(s);
}

Test(life, range_unmapped_while_it_is_tracked)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "s 1");
    subject_do(&subject, "s 4000");
    subject_do(&subject, "u");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    subject_do(&subject, "s 2");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 4);
    towline_close(s);
    subject_well(&subject);
}

Test(life, fork_leaves_the_parent_tracked_and_the_child_not)
{
    towline_session *s = session_on(&subject, "a");
    size_t pages;
    subject_do(&subject, "f");
    cr_assert_eq(session_lines(s, "a", subject.arena, &pages, NULL), 0);
    subject_do(&subject, "s 1");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    towline_close(s);
    subject_well(&subject);
}

Test(life, exec_ends_the_tracking_and_not_the_program)
{
    towline_session *s = session_on(&subject, "a");
    subject_do(&subject, "x"); /* the answer is the new arena's address */
    collected_until_ended(s);
    subject_well(&subject);
    towline_close(s);
    subject_well(&subject);
}

Test(life, exit_in_the_middle)
{
    towline_session *s = session_on(&subject, "a"), *t = session_on(&subject, "a");
    subject_do(&subject, "s 1");
    cr_assert_eq(session_lines(t, "a", subject.arena, NULL, NULL), 2); /* a pass that both have */
    subject_tell(&subject, "q");
    waitid(P_PID, (id_t)subject.pid, &(siginfo_t){0}, WEXITED | WNOWAIT);
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2, "what was known is told");
    collected_until_ended(s);
    collected_until_ended(t);
    towline_close(s);
    towline_close(t);
}

/* A busy program under several collectors; then the agent dies in the middle of it. */
Test(life, hot_program_under_several_sessions)
{
    hot_program_survives(&subject);
}

Test(life, a_forked_child_cannot_use_its_parents_session)
{
    towline_session *s = session_on(&subject, "a");
    pid_t child = fork();
    if (child == 0)
        _exit(towline_start(s, "b") == TOWLINE_FAILED_PRECONDITION ? 0 : 1);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    subject_do(&subject, "s 1");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    towline_close(s);
}

/* The agent has let go when close returns: an exact session may follow at once. */
Test(life, close_waits_until_the_agent_has_let_go)
{
    struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = subject.pid, .exact = 1};
    for (unsigned round = 0; round < 20; round++) {
        towline_session *s = session_on(&subject, "a"), *exact;
        subject_do(&subject, "s 1");
        session_lines(s, "a", subject.arena, NULL, NULL);
        towline_close(s);
        cr_assert_eq(sessions(), 0);
        cr_assert_eq(towline_open(&options, &exact), TOWLINE_OK, "%s", towline_last_error());
        cr_assert_eq(towline_start(exact, "a"), TOWLINE_OK, "%s", towline_last_error());
        towline_close(exact);
    }
    subject_well(&subject);
}

/* In a child, the parent's session is neither ended nor waited for. */
Test(life, a_forked_child_closes_nothing_of_its_parents)
{
    towline_session *s = session_on(&subject, "a");
    pid_t child = fork();
    if (child == 0) {
        towline_close(s);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    subject_do(&subject, "s 1");
    cr_assert_eq(session_lines(s, "a", subject.arena, NULL, NULL), 2);
    towline_close(s);
}
