#include "bench/tracking/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS (2 * TW_MS)

static _Noreturn void become(const char *path, const char *const argv[], const char *environment,
                             int in, int out)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(in >= 0 ? in : null, STDIN_FILENO) < 0 ||
        dup2(out >= 0 ? out : null, STDOUT_FILENO) < 0)
        _exit(127);
    if (environment && putenv((char *)(uintptr_t)environment))
        _exit(127);
    execvp(path, (char *const *)(uintptr_t)argv);
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    _exit(127);
}

enum tw_code child_start(struct child *child, const char *path, const char *const argv[],
                         const char *environment, bool piped, struct tw_error *err)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    *child = (struct child){.to = -1, .from = -1};
    if (piped && (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))) {
        const int number = errno;
        if (to[0] >= 0) {
            close(to[0]);
            close(to[1]);
        }
        return tw_fail_errno(err, number, path, "pipe");
    }
    child->pid = fork();
    if (child->pid == 0)
        become(path, argv, environment, to[0], from[1]);
    if (piped) {
        close(to[0]);
        close(from[1]);
        child->to = to[1];
        child->from = from[0];
    }
    if (child->pid < 0) {
        const int number = errno;
        child->pid = 0;
        child_end(child);
        return tw_fail_errno(err, number, path, "fork");
    }
    return TW_OK;
}

static void close_pipes(struct child *child)
{
    if (child->to >= 0)
        close(child->to);
    if (child->from >= 0)
        close(child->from);
    child->to = child->from = -1;
}

void child_end(struct child *child)
{
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        close_pipes(child);
    }
    child->pid = 0;
}

enum tw_code child_line(struct child *child, char *line, size_t size, uint64_t deadline_ns,
                        struct tw_error *err)
{
    for (size_t at = 0; at + 1 < size; at++) {
        struct pollfd p = {.fd = child->from, .events = POLLIN};
        const uint64_t now = tw_now(&tw_monotonic);
        const int ms = now < deadline_ns ? (int)((deadline_ns - now) / TW_MS) + 1 : 0;
        if (poll(&p, 1, ms) <= 0)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, "a program", "a line", NULL, "says nothing");
        if (read(child->from, &line[at], 1) != 1)
            return tw_fail(err, TW_UNAVAILABLE, "a program", "a line", NULL, "has ended");
        if (line[at] == '\n') {
            line[at] = 0;
            return TW_OK;
        }
    }
    return tw_fail(err, TW_OUT_OF_RANGE, "a program", NULL, NULL, "its line is too long");
}

enum tw_code child_wait(struct child *child, uint64_t deadline_ns, int *status,
                        struct tw_error *err)
{
    for (;;) {
        const pid_t got = waitpid(child->pid, status, WNOHANG);
        if (got == child->pid)
            break;
        if (got < 0 && errno != EINTR)
            return tw_fail_errno(err, errno, "a program", "waitpid");
        if (tw_now(&tw_monotonic) > deadline_ns)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, "a program", NULL, NULL, "does not end");
        nanosleep(&(struct timespec){0, (long)POLL_NS}, NULL);
    }
    close_pipes(child);
    child->pid = 0;
    return TW_OK;
}

enum tw_code child_stop(const struct child *child, struct tw_error *err)
{
    int status = 0;
    if (kill(child->pid, SIGSTOP) || waitpid(child->pid, &status, WUNTRACED) != child->pid)
        return tw_fail_errno(err, errno, "a program", "cannot be stopped");
    return WIFSTOPPED(status) ? TW_OK
                              : tw_fail(err, TW_UNAVAILABLE, "a program", NULL, NULL, "has ended");
}

enum tw_code child_go_on(const struct child *child, struct tw_error *err)
{
    return kill(child->pid, SIGCONT) ? tw_fail_errno(err, errno, "a program", "SIGCONT") : TW_OK;
}

enum tw_code child_beside(const char *name, char *path, size_t size, struct tw_error *err)
{
    char self[400];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return tw_fail_errno(err, errno, "/proc/self/exe", "readlink");
    self[length] = 0;
    *strrchr(self, '/') = 0;
    snprintf(path, size, "%s/%s", self, name);
    return TW_OK;
}
