#include "client/fixture.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE (60 * TW_SEC)

char fixture_socket[96], fixture_instrumented[96];
pid_t fixture_agent;
static char folder[64];

/* A child that does not outlive us. */
static pid_t child_of_ours(void)
{
    pid_t parent = getpid(), pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

static void await_agent(void)
{
    struct towline_listed none[1];
    size_t count;
    uint64_t until = tw_now(&tw_monotonic) + PATIENCE;
    while (towline_list(fixture_socket, none, 1, &count)) {
        cr_assert_lt(tw_now(&tw_monotonic), until, "agent: %s", towline_last_error());
        usleep(20000);
    }
}

void fixture_agent_start(void)
{
    char config[96], log[96];
    snprintf(config, sizeof config, "%s/agent.yaml", folder);
    snprintf(log, sizeof log, "%s/agent.log", folder);
    fixture_agent = child_of_ours();
    if (fixture_agent == 0) {
        if (freopen(log, "a", stderr))
            execl(TEST_AGENT, TEST_AGENT, "--config", config, (char *)NULL);
        _exit(127);
    }
    await_agent();
}

void fixture_agent_kill(void)
{
    kill(fixture_agent, SIGKILL);
    waitpid(fixture_agent, NULL, 0);
}

void fixture_open(void)
{
    char config[96];
    strcpy(folder, "/tmp/towline-client-XXXXXX");
    cr_assert(mkdtemp(folder));
    snprintf(fixture_socket, sizeof fixture_socket, "%s/agent.sock", folder);
    snprintf(fixture_instrumented, sizeof fixture_instrumented, "%s/instrumented.sock", folder);
    snprintf(config, sizeof config, "%s/agent.yaml", folder);
    FILE *f = fopen(config, "w");
    cr_assert(f);
    fprintf(f,
            "name: here\nlisten: tcp://127.0.0.1:0\ninsecure: true\n"
            "fabric: tcp\nfabric_listen: 127.0.0.1:0\nplugin: /bin/sh\nstate_dir: %s/state\n"
            "run_dir: %s/run\nhttp: \"\"\ntracking_socket: %s\n",
            folder, folder, fixture_socket);
    fclose(f);
    fixture_agent_start();
}

void fixture_close(void)
{
    char command[128];
    kill(fixture_agent, SIGTERM);
    waitpid(fixture_agent, NULL, 0);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

/* ---- The program ---------------------------------------------------------------------------- */

static void start(struct subject *s, const char *path)
{
    int to[2], from[2];
    char line[64];
    cr_assert(pipe(to) == 0 && pipe(from) == 0);
    s->pid = child_of_ours();
    if (s->pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        setenv("TOWLINE_INSTRUMENTED", fixture_instrumented, 1);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    s->in = fdopen(to[1], "w");
    s->out = fdopen(from[0], "r");
    cr_assert(s->in && s->out && fgets(line, sizeof line, s->out));
    s->arena = strtoull(line, NULL, 16);
    cr_assert_neq(s->arena, 0);
}

void subject_start(struct subject *s)
{
    start(s, TEST_SUBJECT);
}

void subject_start_instrumented(struct subject *s)
{
    start(s, TEST_INSTRUMENTED);
}

void subject_tell(struct subject *s, const char *command)
{
    fprintf(s->in, "%s\n", command);
    fflush(s->in);
}

void subject_do(struct subject *s, const char *command)
{
    char line[64];
    subject_tell(s, command);
    cr_assert(fgets(line, sizeof line, s->out), "%s: no answer", command);
}

void subject_well(struct subject *s)
{
    subject_do(s, "s 1");
}

void subject_end(struct subject *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    fclose(s->in);
    fclose(s->out);
}

/* ---- Sessions ------------------------------------------------------------------------------- */

towline_session *session_on(const struct subject *s, const char *epoch)
{
    const struct towline_options options = {
        .size = sizeof options, .socket = fixture_socket, .pid = s->pid, .timeout_ms = 60000};
    const struct towline_range arena = {s->arena, 64 * 4096};
    towline_session *session;
    cr_assert_eq(towline_open(&options, &session), TOWLINE_OK, "%s", towline_last_error());
    cr_assert_eq(towline_register(session, &arena, 1), TOWLINE_OK);
    cr_assert_eq(towline_start(session, epoch), TOWLINE_OK, "%s", towline_last_error());
    return session;
}

uint64_t session_lines(towline_session *session, const char *epoch, uint64_t page_address,
                       size_t *pages, bool *whole)
{
    struct towline_lines lines[16];
    uint64_t cursor = 0, found = 0;
    size_t count, all = 0;
    do {
        cr_assert_eq(towline_dirty(session, epoch, lines, 16, &count, &cursor), TOWLINE_OK, "%s",
                     towline_last_error());
        for (size_t i = 0; i < count; i++) {
            if (lines[i].address == page_address) {
                found |= lines[i].lines;
                if (whole)
                    *whole = lines[i].flags & TOWLINE_WHOLE;
            }
        }
        all += count;
    } while (cursor);
    if (pages)
        *pages = all;
    return found;
}

void collected_until_ended(towline_session *s)
{
    struct towline_lines lines[16];
    uint64_t cursor = 0, until = tw_now(&tw_monotonic) + 60 * TW_SEC;
    size_t count;
    int code;
    do {
        code = towline_dirty(s, "a", lines, 16, &count, &cursor);
        cr_assert(code == TOWLINE_OK || code == TOWLINE_ABORTED, "%s", towline_last_error());
        cr_assert_lt(tw_now(&tw_monotonic), until);
    } while (code == TOWLINE_OK);
    cr_assert_eq(towline_start(s, "late"), TOWLINE_ABORTED);
}

void hot_program_survives(struct subject *subject)
{
    towline_session *s[4];
    size_t pages;
    for (unsigned i = 0; i < 4; i++)
        s[i] = session_on(subject, "a");
    subject_tell(subject, "h");
    for (unsigned round = 0; round < 20; round++) {
        usleep(5000);
        session_lines(s[round % 4], "a", subject->arena, &pages, NULL);
    }
    cr_assert_gt(pages, 0);
    fixture_agent_kill();
    usleep(50000);
    cr_assert_eq(waitpid(subject->pid, NULL, WNOHANG), 0, "it runs on");
    for (unsigned i = 0; i < 4; i++)
        towline_close(s[i]);
    fixture_agent_start();
}
