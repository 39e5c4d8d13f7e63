/* tow run: a program that waits for the agent before its first instruction. */
#include "cli/command.h"
#include "cli/follow.h"
#include "cli/meter.h"
#include "cli/report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXECS_MAX 16u /* of one program, that are followed */

struct child {
    pid_t pid;
    int go;     /* a byte lets it execute */
    int failed; /* an errno when it could not; closed by the kernel when it did */
};

/* Any tracer of this user may attach, as far as a child of ours is concerned (Yama): the agent is
 * not its parent. */
static void child_run(char *const *program, int go, int failed)
{
    char byte;
    int number;
    ssize_t ignored;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    if (read(go, &byte, 1) != 1)
        _exit(127); /* tow has given up */
    execvp(program[0], program);
    number = errno;
    ignored = write(failed, &number, sizeof number);
    (void)ignored;
    _exit(127);
}

static enum tw_code child_start(char *const *program, struct child *child, struct tw_error *err)
{
    int go[2], failed[2];
    if (pipe2(go, O_CLOEXEC) != 0)
        return tw_fail_errno(err, errno, program[0], "no pipe");
    if (pipe2(failed, O_CLOEXEC) != 0) {
        close(go[0]);
        close(go[1]);
        return tw_fail_errno(err, errno, program[0], "no pipe");
    }
    *child = (struct child){.pid = fork(), .go = go[1], .failed = failed[0]};
    if (child->pid == 0)
        child_run(program, go[0], failed[1]);
    close(go[0]);
    close(failed[1]);
    if (child->pid > 0)
        return TW_OK;
    int number = errno;
    close(child->go);
    close(child->failed);
    return tw_fail_errno(err, number, program[0], "cannot be started");
}

/* The program's own end, as a shell tells it. */
static int child_status(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) != pid)
        if (errno != EINTR)
            return TOW_EXIT_FAILED;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Lets the child execute. False when it could not: *number says why. */
static bool executed(struct child *child, int *number)
{
    ssize_t n = write(child->go, "", 1);
    while (n == 1 && (n = read(child->failed, number, sizeof *number)) < 0 && errno == EINTR)
        continue;
    return n == 0; /* the kernel closed its end */
}

static int meter_start(struct tow *tow, struct tow_meter *meter, struct child *child,
                       const char *program)
{
    struct tw_error err;
    int number = EPIPE, status = tow_meter_open(tow, meter, true);
    if (status)
        return status;
    if (executed(child, &number)) {
        status = tow_meter_start(tow, meter);
        meter->ended |= status && !tow_meter_child_lives(child->pid); /* too short to be met */
        return meter->ended ? TOW_EXIT_OK : status;
    }
    tw_fail_errno(&err, number, program, "cannot be executed");
    return tow_fail(tow, &err);
}

/* Until the program ends. One that executes another (a wrapper's script) is met anew, from outside
 * this time: what it wrote in between is not counted. */
static int meter_all(struct tow *tow, struct tow_meter *meter, pid_t pid)
{
    for (unsigned i = 0; i < EXECS_MAX; i++) {
        int status = tow_meter_follow(tow, meter, tow->err);
        if (status || !meter->ended || tow_interrupted() || !tow_meter_child_lives(pid))
            return status;
        tow_meter_close(meter);
        meter->ended = false;
        status = tow_meter_open(tow, meter, false);
        if (!status)
            status = tow_meter_start(tow, meter);
        if (status)
            return tow_meter_child_lives(pid) ? status : TOW_EXIT_OK;
    }
    return TOW_EXIT_OK;
}

static int run(struct tow *tow, struct tow_meter *meter, const struct child *child,
               const char *report)
{
    int status = meter_all(tow, meter, child->pid);
    /* Interrupted: so is the program, by the terminal. It may take its time to end. */
    if (!status && report)
        status = tow_report_write(tow, meter, report);
    tow_meter_close(meter);
    int own = child_status(child->pid);
    return status ? status : own;
}

/* A program of towline-cc finds the agent that was named to us, unless it was told of another: its
 * socket is beside ours. */
static void name_socket(const char *socket)
{
    char path[128];
    if (!socket || !*socket)
        socket = getenv("TOWLINE_SOCKET");
    const char *slash = socket ? strrchr(socket, '/') : NULL;
    if (!slash || (size_t)snprintf(path, sizeof path, "%.*s/instrumented.sock",
                                   (int)(slash - socket), socket) >= sizeof path)
        return;
    if (access(path, F_OK) == 0)
        setenv("TOWLINE_INSTRUMENTED", path, 0);
}

int tow_run(struct tow *tow, const struct tow_arguments *arguments)
{
    struct tw_error err = {0};
    struct tow_heat heat = {0}, accessed = {0};
    struct tow_meter meter = {0};
    struct child child = {.go = -1, .failed = -1};
    const char *report = tow_option_value(arguments, "report");
    int status = tow_meter_options(tow, arguments, &meter);
    if (status)
        return status;
    signal(SIGPIPE, SIG_IGN);
    tow_interrupt_catch();
    name_socket(meter.socket);
    if (child_start(arguments->program, &child, &err))
        return tow_fail(tow, &err);
    meter.pid = child.pid;
    meter.child = child.pid;
    meter.heat = report ? &heat : NULL;
    meter.heat_accessed = report && meter.accessed ? &accessed : NULL;
    status = meter_start(tow, &meter, &child, arguments->program[0]);
    close(child.go);
    if (!status) {
        status = run(tow, &meter, &child, report);
    } else {
        tow_meter_close(&meter);
        kill(child.pid, SIGKILL);
        child_status(child.pid);
    }
    close(child.failed);
    tow_heat_free(&heat);
    tow_heat_free(&accessed);
    tow_sharing_free(&meter.shared);
    return status;
}
