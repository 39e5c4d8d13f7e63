#include "bench/migration/process.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_TRIES 100u /* of 20 ms */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void bench_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool bench_interrupted(void)
{
    return interrupted != 0;
}

uint64_t bench_now_ns(void)
{
    return tw_now(&tw_monotonic);
}

bool bench_sleep_ms(unsigned ms)
{
    uint64_t end = bench_now_ns() + ms * TW_MS;
    for (uint64_t now; !interrupted && (now = bench_now_ns()) < end;) {
        uint64_t left = end - now < 50 * TW_MS ? end - now : 50 * TW_MS;
        nanosleep(&(struct timespec){0, (long)left}, NULL);
    }
    return !interrupted;
}

/* ---- Children -------------------------------------------------------------------------------- */

static void child(char *const argv[], const char *log, pid_t parent)
{
    int in = open("/dev/null", O_RDONLY), out = open(log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (in < 0 || out < 0 || getppid() != parent)
        _exit(127);
    dup2(in, 0);
    dup2(out, 1);
    dup2(out, 2);
    execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

enum tw_code bench_process_start(struct bench_process *process, char *const argv[], const char *log,
                                 struct tw_error *err)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return tw_fail_errno(err, errno, argv[0], "cannot start it");
    if (pid == 0)
        child(argv, log, parent);
    process->pid = pid;
    return TW_OK;
}

bool bench_process_alive(struct bench_process *process)
{
    if (process->pid > 0 && waitpid(process->pid, NULL, WNOHANG) == process->pid)
        process->pid = 0;
    return process->pid > 0;
}

void bench_process_stop(struct bench_process *process, unsigned grace_ms)
{
    if (!bench_process_alive(process))
        return;
    if (grace_ms > 0)
        kill(process->pid, SIGTERM);
    for (unsigned ms = 0; ms < grace_ms && bench_process_alive(process); ms += 5)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    if (!bench_process_alive(process))
        return;
    kill(process->pid, SIGKILL);
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    process->pid = 0;
}

/* ---- Processes that an agent started --------------------------------------------------------- */

static bool names(pid_t pid, const char *needle)
{
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0 && memmem(text, (size_t)n, needle, strlen(needle));
}

pid_t bench_process_find(const char *dir)
{
    char needle[BENCH_PATH + 1];
    pid_t found = 0;
    snprintf(needle, sizeof needle, "%s/", dir);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && pid != getpid() && names(pid, needle))
            found = pid;
    }
    if (d)
        closedir(d);
    return found;
}

void bench_process_kill_all(const char *dir)
{
    for (unsigned i = 0; i < KILL_TRIES; i++) {
        pid_t pid = bench_process_find(dir);
        if (pid == 0)
            return;
        kill(pid, SIGKILL);
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    fprintf(stderr, "a process with files in %s does not end\n", dir);
}

/* ---- Folders --------------------------------------------------------------------------------- */

enum tw_code bench_folder_make(const char *parent, char path[BENCH_PATH], struct tw_error *err)
{
    snprintf(path, BENCH_PATH, "%s/towline-bench.XXXXXX", parent);
    if (!mkdtemp(path))
        return tw_fail_errno(err, errno, path, "cannot make a folder for the runs");
    return TW_OK;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path) != 0 && errno != ENOENT;
}

void bench_folder_remove(const char *path)
{
    if (path[0] && nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        fprintf(stderr, "cannot remove %s: %s\n", path, strerror(errno));
}
