/* A program of our own, attached to before its first instruction. */
#include "base/clock.h"
#include "hosts/process/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXEC_TIMEOUT (20 * TW_SEC)

/* In the child: waits until it is traced, then becomes the program. Says its errno if it cannot. */
static _Noreturn void child_main(char *const argv[], int go, int failed)
{
    char byte;
    int number = EPIPE;
    if (read(go, &byte, 1) == 1) {
        execvp(argv[0], argv);
        number = errno;
    }
    if (write(failed, &number, sizeof number) < 0)
        _exit(126);
    _exit(127);
}

static void end_child(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
}

static enum tw_code catch_child(const struct tw_process_config *config, pid_t pid, int go,
                                int failed, const char *name, struct tw_process **process,
                                struct tw_error *err)
{
    struct tw_process_catch *caught;
    int number;
    enum tw_code code = tw_process_catch_begin(config, pid, &caught, err);
    if (code)
        return code;
    if (write(go, "", 1) != 1) {
        code = tw_fail_errno(err, errno, name, "cannot be started");
        tw_process_let_go(caught);
        return code;
    }
    code = tw_process_catch_finish(caught, tw_after(tw_now(&tw_monotonic), EXEC_TIMEOUT), process,
                                   err);
    if (code && read(failed, &number, sizeof number) == sizeof number)
        return tw_fail_errno(err, number, name, "cannot be executed");
    return code;
}

enum tw_code tw_process_spawn(const struct tw_process_config *config, char *const argv[],
                              struct tw_process **process, struct tw_error *err)
{
    int go[2], failed[2];
    if (!argv[0])
        return tw_fail(err, TW_INVALID_ARGUMENT, "process", "a program", "none",
                       "nothing to start");
    if (pipe2(go, O_CLOEXEC))
        return tw_fail_errno(err, errno, argv[0], "no pipe");
    if (pipe2(failed, O_CLOEXEC | O_NONBLOCK)) {
        close(go[0]);
        close(go[1]);
        return tw_fail_errno(err, errno, argv[0], "no pipe");
    }
    enum tw_code code = TW_OK;
    const pid_t pid = fork();
    if (pid == 0)
        child_main(argv, go[0], failed[1]);
    if (pid < 0)
        code = tw_fail_errno(err, errno, argv[0], "cannot be started");
    else
        code = catch_child(config, pid, go[1], failed[0], argv[0], process, err);
    if (code && pid > 0)
        end_child(pid);
    for (int i = 0; i < 2; i++) {
        close(go[i]);
        close(failed[i]);
    }
    return code;
}
