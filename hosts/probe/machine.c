/* The machine that this runs on: files, limits, folders, programs. */
#include "hosts/probe/attempt.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_SIZE 512u
#define REAP_US   1000u
#define LOOK_MS   50 /* between two looks at the wish to stop */

/* ---- Files ------------------------------------------------------------------------------------
 */

bool tw_probe_read(const struct tw_probe_system *system, const char *path, char *text, size_t size)
{
    char whole[PATH_SIZE];
    if (snprintf(whole, sizeof whole, "%s%s", system->root, path) >= (int)sizeof whole)
        return false;
    int fd = open(whole, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

bool tw_probe_number(const struct tw_probe_system *system, const char *path, const char *key,
                     int base, uint64_t *value)
{
    char text[8192], *end;
    *value = 0;
    if (!tw_probe_read(system, path, text, sizeof text))
        return false;
    const char *at = strstr(text, key);
    if (!at)
        return false;
    errno = 0;
    *value = strtoull(at + strlen(key), &end, base);
    return end != at + strlen(key) && errno == 0;
}

int tw_probe_openable(const struct tw_probe_system *system, const char *path)
{
    char whole[PATH_SIZE];
    if (snprintf(whole, sizeof whole, "%s%s", system->root, path) >= (int)sizeof whole)
        return ENAMETOOLONG;
    int fd = open(whole, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* ---- Limits and folders -----------------------------------------------------------------------
 */

static int memlock(void *ctx, uint64_t *soft_bytes, uint64_t *hard_bytes)
{
    struct rlimit limit;
    (void)ctx;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return errno;
    *soft_bytes = limit.rlim_cur == RLIM_INFINITY ? TW_PROBE_NO_LIMIT : limit.rlim_cur;
    *hard_bytes = limit.rlim_max == RLIM_INFINITY ? TW_PROBE_NO_LIMIT : limit.rlim_max;
    return 0;
}

static int space(void *ctx, const char *path, struct tw_probe_space *out)
{
    char at[PATH_SIZE];
    struct statfs fs;
    (void)ctx;
    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return ENAMETOOLONG;
    while (statfs(at, &fs) != 0) {
        char *slash = strrchr(at, '/');
        if (errno != ENOENT || !slash || !at[1])
            return errno;
        slash[slash == at] = 0; /* the root keeps its own */
    }
    *out = (struct tw_probe_space){
        .kind = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ? TW_PROBE_FS_TMPFS
                : fs.f_type == HUGETLBFS_MAGIC                       ? TW_PROBE_FS_HUGE
                                                                     : TW_PROBE_FS_OTHER,
        .writable = access(at, W_OK | X_OK) == 0,
        .total_bytes = (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize,
        .free_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize,
    };
    if (out->kind == TW_PROBE_FS_TMPFS && fs.f_blocks == 0)
        out->total_bytes = out->free_bytes = TW_PROBE_NO_LIMIT;
    return 0;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return tw_wall_ms();
}

/* ---- Programs ---------------------------------------------------------------------------------
 */

/* The child ends with the thread that started it: no program is left behind when the agent dies. */
static _Noreturn void become(char *const argv[], int output)
{
    sigset_t none;
    int null = open("/dev/null", O_RDONLY);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(126);
    execvp(argv[0], argv);
    _exit(127);
}

/* Takes output until the pipe is closed; false: the time is over, or nobody wants to know. */
static bool drain(int fd, const _Atomic bool *stop, uint64_t deadline_ns, char *output, size_t size)
{
    char rest[512];
    size_t used = 0;
    for (;;) {
        uint64_t now_ns = tw_now(&tw_monotonic);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now_ns >= deadline_ns || (stop && atomic_load(stop)))
            return false;
        uint64_t left_ms = (deadline_ns - now_ns) / TW_MS + 1;
        if (poll(&p, 1, left_ms < LOOK_MS ? (int)left_ms : LOOK_MS) <= 0)
            continue;
        bool room = used + 1 < size;
        ssize_t n = read(fd, room ? output + used : rest, room ? size - 1 - used : sizeof rest);
        if (n <= 0)
            return true;
        used += room ? (size_t)n : 0;
        output[used] = 0;
    }
}

bool tw_attempt_reap(pid_t pid, uint64_t deadline_ns, int *status)
{
    pid_t got;
    while ((got = waitpid(pid, status, WNOHANG)) == 0 && tw_now(&tw_monotonic) < deadline_ns)
        usleep(REAP_US);
    if (got == pid)
        return true;
    kill(pid, SIGKILL);
    waitpid(pid, status, 0);
    return false;
}

static bool on_path(const char *program)
{
    char folders[4096], path[PATH_SIZE], *rest = folders;
    const char *all = getenv("PATH");
    if (strchr(program, '/'))
        return access(program, X_OK) == 0;
    snprintf(folders, sizeof folders, "%s", all ? all : "/usr/bin:/bin");
    for (char *folder; (folder = strsep(&rest, ":"));) {
        snprintf(path, sizeof path, "%s/%s", folder, program);
        if (access(path, X_OK) == 0)
            return true;
    }
    errno = ENOENT;
    return false;
}

static int run(void *ctx, char *const argv[], unsigned timeout_ms, char *output, size_t size,
               int *status)
{
    uint64_t deadline_ns = tw_now(&tw_monotonic) + timeout_ms * TW_MS;
    int ends[2], raw = 0;
    output[0] = 0;
    if (!on_path(argv[0]))
        return errno;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    pid_t pid = fork();
    if (pid == 0)
        become(argv, ends[1]);
    int failed = pid < 0 ? errno : 0;
    close(ends[1]);
    bool ended = pid > 0 && drain(ends[0], ctx, deadline_ns, output, size);
    close(ends[0]);
    if (failed)
        return failed;
    if (!tw_attempt_reap(pid, ended ? deadline_ns : 0, &raw) || !ended)
        return ETIMEDOUT;
    *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return 0;
}

const struct tw_probe_system tw_probe_machine = {
    .root = "",
    .memlock = memlock,
    .space = space,
    .attempt = tw_attempt,
    .uffd = tw_attempt_uffd,
    .run = run,
    .wall_ms = wall_ms,
};
