#include "cli/run.h"

#include "base/clock.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 24u

static void must(bool good, const char *what)
{
    if (good)
        return;
    perror(what);
    abort();
}

static void pair_open(int *read_end, int *write_end, bool terminal)
{
    if (terminal) {
        struct winsize size = {.ws_row = 24, .ws_col = 100};
        must(openpty(read_end, write_end, NULL, NULL, &size) == 0, "openpty");
        fcntl(*read_end, F_SETFD, FD_CLOEXEC);
        fcntl(*write_end, F_SETFD, FD_CLOEXEC);
        return;
    }
    int ends[2];
    must(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    *read_end = ends[0];
    *write_end = ends[1];
}

void run_start(struct run *run, const char *controller, const char *const *arguments, bool terminal)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)(uintptr_t)TOW_PROGRAM};
    char variable[128], path[512], zone[] = "TZ=UTC", term[] = "TERM=xterm";
    int out, err;
    for (unsigned i = 0; arguments[i]; i++) {
        must(i < ARGUMENTS_MAX, "arguments");
        argv[i + 1] = (char *)(uintptr_t)arguments[i];
    }
    snprintf(variable, sizeof variable, "TOWLINE_CONTROLLER=%s", controller);
    snprintf(path, sizeof path, "PATH=%s", getenv("PATH"));
    char insecure[] = "TOWLINE_INSECURE=1";
    char door[128];
    snprintf(door, sizeof door, "TOWLINE_SOCKET=%s",
             getenv("TOWLINE_SOCKET") ? getenv("TOWLINE_SOCKET") : "");
    char *environment[] = {variable, path, zone, term, insecure, door, NULL};
    *run = (struct run){.terminal = terminal, .status = -1};
    pair_open(&run->out, &out, false);
    pair_open(&run->err, &err, terminal);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, err, 2);
    must(posix_spawn(&run->pid, TOW_PROGRAM, &actions, NULL, argv, environment) == 0, "spawn");
    posix_spawn_file_actions_destroy(&actions);
    close(out);
    close(err);
}

static void take(int *fd, char *text, size_t *size, size_t room)
{
    ssize_t n = read(*fd, text + *size, room - 1 - *size);
    if (n <= 0) { /* a terminal whose other side is gone gives an error */
        close(*fd);
        *fd = -1;
        return;
    }
    *size += (size_t)n;
    text[*size] = 0;
}

static bool read_some(struct run *run, uint64_t deadline_ns)
{
    struct pollfd fds[2] = {{.fd = run->out, .events = POLLIN}, {.fd = run->err, .events = POLLIN}};
    uint64_t now_ns = tw_now(&tw_monotonic);
    if ((run->out < 0 && run->err < 0) || now_ns >= deadline_ns)
        return false;
    if (poll(fds, 2, (int)((deadline_ns - now_ns) / TW_MS) + 1) <= 0)
        return false;
    if (fds[0].revents)
        take(&run->out, run->out_text, &run->out_size, sizeof run->out_text);
    if (fds[1].revents)
        take(&run->err, run->err_text, &run->err_size, sizeof run->err_text);
    return true;
}

bool run_wait_for(struct run *run, const char *text)
{
    uint64_t deadline_ns = tw_now(&tw_monotonic) + 20 * TW_SEC;
    while (!strstr(run->out_text, text) && !strstr(run->err_text, text))
        if (!read_some(run, deadline_ns))
            return false;
    return true;
}

void run_interrupt(struct run *run)
{
    kill(run->pid, SIGINT);
}

int run_finish(struct run *run)
{
    int status;
    uint64_t deadline_ns = tw_now(&tw_monotonic) + 20 * TW_SEC;
    while (read_some(run, deadline_ns))
        continue;
    bool ended = run->out < 0 && run->err < 0;
    if (!ended)
        kill(run->pid, SIGKILL);
    waitpid(run->pid, &status, 0);
    if (run->out >= 0)
        close(run->out);
    if (run->err >= 0)
        close(run->err);
    if (ended)
        run->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return run->status;
}

int run_tow(struct run *run, const char *controller, const char *const *arguments)
{
    run_start(run, controller, arguments, false);
    return run_finish(run);
}
