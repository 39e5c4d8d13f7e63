#include "hosts/qemu/qemu_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

/* The sum of some fields of /proc/PID/stat, from the third on; 0 as below. */
static uint64_t stat_sum(pid_t pid, int first, int last)
{
    uint64_t sum = 0;
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    /* The second field is the program's name in parentheses, which may hold anything. */
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (int field = 3; field <= last; field++) {
        at = strchr(at + 1, ' ');
        if (!at)
            return 0;
        if (field >= first)
            sum += strtoull(at + 1, NULL, 10);
    }
    return sum;
}

uint64_t tw_process_start_ticks(pid_t pid)
{
    return stat_sum(pid, 22, 22);
}

uint64_t tw_process_cpu_ticks(pid_t pid)
{
    return stat_sum(pid, 14, 15);
}

void tw_process_hold(struct tw_qemu_process *p, pid_t pid, uint64_t start_ticks)
{
    *p = (struct tw_qemu_process){.pid = pid, .start_ticks = start_ticks};
    p->pidfd = pidfd_open(pid, 0);
    if (p->pidfd >= 0)
        fcntl(p->pidfd, F_SETFD, FD_CLOEXEC);
}

/* The last line of a log, without control characters. */
static void last_line(const char *path, char *out, size_t size)
{
    char text[2048];
    out[0] = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    const off_t end = lseek(fd, 0, SEEK_END);
    const off_t from = end > (off_t)sizeof text - 1 ? end - ((off_t)sizeof text - 1) : 0;
    const ssize_t n = pread(fd, text, sizeof text - 1, from);
    close(fd);
    size_t length = n > 0 ? (size_t)n : 0;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = 0;
    const char *newline = memrchr(text, '\n', length);
    const char *line = newline ? newline + 1 : text;
    const size_t kept = strnlen(line, size - 1);
    memcpy(out, line, kept);
    out[kept] = 0;
    for (char *c = out; *c; c++)
        if (iscntrl((unsigned char)*c))
            *c = ' ';
}

static void set_reason(struct tw_qemu_process *p, bool known, int status, const char *log_path)
{
    char line[160], what[64];
    last_line(log_path, line, sizeof line);
    if (!known)
        snprintf(what, sizeof what, "ended, status unknown");
    else if (WIFSIGNALED(status))
        snprintf(what, sizeof what, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(what, sizeof what, "exit status %d", WEXITSTATUS(status));
    snprintf(p->reason, sizeof p->reason, "%s%s%s", what, line[0] ? ": " : "", line);
    p->ended = true;
}

bool tw_qemu_process_check(struct tw_qemu_process *p, const char *log_path)
{
    if (p->ended || p->pid <= 0)
        return p->ended;
    if (p->pidfd >= 0) {
        struct pollfd f = {.fd = p->pidfd, .events = POLLIN};
        if (poll(&f, 1, 0) <= 0)
            return false;
    }
    int status = 0;
    const pid_t got = waitpid(p->pid, &status, WNOHANG);
    if (got == p->pid)
        set_reason(p, true, status, log_path);
    else if (got < 0 && tw_process_start_ticks(p->pid) != p->start_ticks)
        set_reason(p, false, 0, log_path); /* not our child, and gone */
    return p->ended;
}

bool tw_process_kill(struct tw_qemu_process *p, const char *log_path, int wait_ms)
{
    if (tw_qemu_process_check(p, log_path) || p->pid <= 0)
        return true;
    /* By descriptor: an adopted process' number may be someone else's by now. */
    if (p->pidfd >= 0)
        pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0);
    else if (tw_process_start_ticks(p->pid) == p->start_ticks)
        kill(p->pid, SIGKILL);
    for (int waited = 0; waited <= wait_ms; waited += 5) {
        struct pollfd f = {.fd = p->pidfd, .events = POLLIN};
        poll(&f, p->pidfd >= 0 ? 1 : 0, 5);
        if (tw_qemu_process_check(p, log_path))
            return true;
    }
    return false;
}

void tw_qemu_end_strays(const char *run_dir)
{
    char needle[600], path[64], text[8192];
    const int n = snprintf(needle, sizeof needle, "%s/", run_dir);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        const long pid = strtol(e->d_name, NULL, 10);
        snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
        const int fd = pid > 1 && pid != getpid() ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        const ssize_t got = fd >= 0 ? read(fd, text, sizeof text) : -1;
        if (fd >= 0)
            close(fd);
        if (got > 0 && memmem(text, (size_t)got, needle, (size_t)n)) {
            tw_log(TW_LOG_WARN, "qemu", "ended a process that no record knows", "pid=%ld folder=%s",
                   pid, run_dir);
            kill((pid_t)pid, SIGKILL);
        }
    }
    if (d)
        closedir(d);
}

void tw_qemu_process_let_go(struct tw_qemu_process *p)
{
    if (p->pidfd >= 0)
        close(p->pidfd);
    p->pidfd = -1;
}

void tw_log_file_bound(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || (uint64_t)st.st_size <= TW_LOG_FILE_MAX)
        return;
    const int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    char *kept = malloc(TW_LOG_FILE_KEPT);
    ssize_t n = -1;
    if (fd >= 0 && kept)
        n = pread(fd, kept, TW_LOG_FILE_KEPT, st.st_size - (off_t)TW_LOG_FILE_KEPT);
    /* What the writer appends between these two calls stands before what is kept: better than to
     * stop it. */
    if (n > 0 && ftruncate(fd, 0) == 0 && write(fd, kept, (size_t)n) != n)
        tw_log(TW_LOG_WARN, path, "log was shortened to nothing", "bytes=%lld", (long long)n);
    free(kept);
    if (fd >= 0)
        close(fd);
}
