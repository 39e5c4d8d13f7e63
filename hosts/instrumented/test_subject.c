#include "hosts/instrumented/test_subject.h"

#include "base/clock.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what)
{
    fprintf(stderr, "subject: %s failed\n", what);
    abort();
}

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[512];
    if (code == TW_OK)
        return;
    fail(tw_error_text(err, text, sizeof text));
}

static uint64_t deadline(void)
{
    return tw_after(tw_now(&tw_monotonic), SUBJECT_PATIENCE_NS);
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

void subject_listen(struct subject *s)
{
    struct tw_error err;
    must(tw_instrumented_listen(s->socket, false, &s->server, &err), &err);
}

void subject_prepare(struct subject *s)
{
    *s = (struct subject){.to = -1, .from = -1};
    snprintf(s->folder, sizeof s->folder, "/tmp/towline-subject-XXXXXX");
    if (mkdtemp(s->folder) == NULL)
        fail("mkdtemp");
    snprintf(s->socket, sizeof s->socket, "%s/agent.sock", s->folder);
}

void subject_start(struct subject *s, const char *path)
{
    int in[2], out[2];
    posix_spawn_file_actions_t actions;
    char name[256];
    if (s->folder[0] == 0)
        subject_prepare(s);
    if (pipe(in) || pipe(out))
        fail("pipe");
    setenv(TW_INST_SOCKET_ENV, s->socket, 1);
    setenv("SUBJECT_FOREIGN", TEST_FOREIGN, 1);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    const int unwanted[] = {in[0], in[1], out[0], out[1]};
    for (unsigned i = 0; i < 4; i++)
        posix_spawn_file_actions_addclose(&actions, unwanted[i]);
    snprintf(name, sizeof name, "%s", path);
    char *argv[] = {name, NULL};
    if (posix_spawn(&s->pid, path, &actions, NULL, argv, environ))
        fail(path);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    s->to = in[1];
    s->from = out[0];
}

void subject_attach(struct subject *s, const struct tw_instrumented_config *config)
{
    struct tw_error err;
    must(tw_instrumented_accept(s->server, config, deadline(), &s->program, &err), &err);
    if (tw_instrumented_pid(s->program) != s->pid)
        fail("another program came");
}

static void read_bytes(struct subject *s, char *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        struct pollfd p = {.fd = s->from, .events = POLLIN};
        if (poll(&p, 1, (int)(SUBJECT_PATIENCE_NS / TW_MS)) <= 0)
            fail("answer in time");
        const ssize_t n = read(s->from, bytes + got, size - got);
        if (n <= 0)
            fail("the program's end");
        got += (size_t)n;
    }
}

void subject_region(struct subject *s)
{
    char text[17] = {0};
    read_bytes(s, text, 16);
    s->region = strtoull(text, NULL, 16);
}

void subject_track(struct subject *s)
{
    const struct tw_range range = {s->region, SUBJECT_BYTES};
    struct tw_error err;
    must(tw_instrumented_watch(s->program, &range, 1, &s->watch, &err), &err);
    tw_instrumented_sync(s->program);
    struct tw_tracker_config config = {.name = "test"};
    config.ranges = tw_instrumented_watch_ranges(s->watch, &config.range_count);
    must(tw_tracker_start(tw_instrumented_device(s->program), &config, &s->tracker, &err), &err);
    /* Its last store was announced long ago; until it waits for us, that cannot be told. */
    const uint64_t end = deadline();
    while (tw_instrumented_settle(s->program) > 0 && tw_now(&tw_monotonic) < end)
        pause_ms(1);
    static uint8_t dirty[SUBJECT_LINES];
    subject_collect(s, dirty);
}

void subject_open(struct subject *s, const char *path, const struct tw_instrumented_config *config)
{
    subject_prepare(s);
    subject_listen(s);
    subject_start(s, path);
    subject_attach(s, config);
    subject_region(s);
    subject_track(s);
}

void subject_close(struct subject *s)
{
    close(s->to);
    close(s->from);
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    tw_instrumented_unwatch(s->watch);
    tw_instrumented_close(s->program);
    tw_instrumented_server_close(s->server);
    if (rmdir(s->folder))
        fail("an empty folder");
}

void subject_tell(struct subject *s, char scenario)
{
    if (write(s->to, &scenario, 1) != 1)
        fail("telling the program");
}

void subject_wait(struct subject *s)
{
    char answer;
    read_bytes(s, &answer, 1);
    if (answer != '.')
        fail("the right answer");
    /* It is on its way into the next read; the last store it announced was made long before. */
}

size_t subject_collect(struct subject *s, uint8_t dirty[SUBJECT_LINES])
{
    struct tw_dirty_page pages[64];
    size_t count = 0;
    memset(dirty, 0, SUBJECT_LINES);
    tw_instrumented_sync(s->program);
    tw_tracker_collect(s->tracker);
    tw_instrumented_settle(s->program);
    for (size_t n; (n = tw_tracker_read(s->tracker, pages, 64)) > 0;) {
        for (size_t i = 0; i < n; i++) {
            const uint64_t at = tw_instrumented_address(s->program, pages[i].page) - s->region;
            if (at >= SUBJECT_BYTES || pages[i].whole_page)
                fail("a page of the region, line by line");
            for (uint64_t lines = pages[i].lines; lines; lines &= lines - 1, count++)
                dirty[tw_line_of(at) + (uint64_t)__builtin_ctzll(lines)] = 1;
        }
    }
    return count;
}

void subject_read(const struct subject *s, void *copy)
{
    struct tw_error err;
    must(tw_instrumented_read(s->program, s->region, copy, SUBJECT_BYTES, &err), &err);
}

uint64_t subject_peek(const struct subject *s, uint64_t line)
{
    struct tw_error err;
    uint64_t value;
    must(tw_instrumented_read(s->program, s->region + line * 64, &value, sizeof value, &err), &err);
    return value;
}

void subject_poke(const struct subject *s, uint64_t line, uint64_t value)
{
    const struct iovec local = {&value, sizeof value};
    const struct iovec remote = {(void *)(uintptr_t)(s->region + line * 64), sizeof value};
    if (process_vm_writev(s->pid, &local, 1, &remote, 1, 0) != sizeof value)
        fail("writing to the program");
}

void subject_await(const struct subject *s, uint64_t line, uint64_t value)
{
    const uint64_t end = deadline();
    while (subject_peek(s, line) != value) {
        if (tw_now(&tw_monotonic) > end)
            fail("the program's sign in time");
        pause_ms(1);
    }
}
