#include "agentd/hook.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define ENVIRONMENT_MAX 16u

struct tw_hook {
    pid_t pid;
    char program[128];
    uint64_t deadline_ns;
};

enum tw_code tw_hook_start(const char *program, const char *const *environment, uint64_t timeout_ns,
                           struct tw_hook **hook, struct tw_error *err)
{
    char path[1024];
    char *envp[ENVIRONMENT_MAX + 2];
    unsigned n = 0;
    const char *old = getenv("PATH");
    snprintf(path, sizeof path, "PATH=%s", old ? old : "/usr/bin:/bin");
    envp[n++] = path;
    for (; *environment && n <= ENVIRONMENT_MAX; environment++)
        envp[n++] = (char *)(uintptr_t)*environment; /* posix_spawn does not write to them */
    envp[n] = NULL;

    struct tw_hook *h = calloc(1, sizeof *h);
    if (!h)
        return tw_fail_errno(err, ENOMEM, program, "cannot run the switch-over hook");
    snprintf(h->program, sizeof h->program, "%s", program);
    h->deadline_ns = tw_after(tw_now(&tw_monotonic), timeout_ns);
    char *argv[] = {h->program, NULL};
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attr, &none);
    int failed = posix_spawn(&h->pid, program, NULL, &attr, argv, envp);
    posix_spawnattr_destroy(&attr);
    if (failed) {
        free(h);
        return tw_fail_errno(err, failed, program, "cannot run the switch-over hook");
    }
    *hook = h;
    return TW_OK;
}

bool tw_hook_poll(struct tw_hook *hook, enum tw_code *code, struct tw_error *err)
{
    int status;
    pid_t ended = waitpid(hook->pid, &status, WNOHANG);
    if (ended == 0 && tw_now(&tw_monotonic) < hook->deadline_ns)
        return false;
    if (ended == 0) {
        *code = tw_fail(err, TW_DEADLINE_EXCEEDED, hook->program, NULL, NULL,
                        "the switch-over hook did not end in time");
        return true;
    }
    hook->pid = 0;
    char given[32];
    if (ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        *code = TW_OK;
        return true;
    }
    if (ended > 0 && WIFSIGNALED(status))
        snprintf(given, sizeof given, "signal %d", WTERMSIG(status));
    else
        snprintf(given, sizeof given, "%d", ended > 0 ? WEXITSTATUS(status) : -1);
    *code = tw_fail(err, TW_ABORTED, hook->program, "exit status 0", given,
                    "the switch-over hook refused");
    return true;
}

void tw_hook_free(struct tw_hook *hook)
{
    if (!hook)
        return;
    if (hook->pid > 0) {
        kill(-hook->pid, SIGKILL);
        kill(hook->pid, SIGKILL);
        waitpid(hook->pid, NULL, 0);
    }
    free(hook);
}
