#include "hosts/process/tracee.h"

#include "base/clock.h"
#include "base/line.h"
#include "hosts/process/maps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Of ptrace, by number where the C library's headers differ. */
#define REQUEST_GETSIGMASK ((enum __ptrace_request)0x420a)
#define REQUEST_SETSIGMASK ((enum __ptrace_request)0x420b)
#define REQUEST_GET_RSEQ   ((enum __ptrace_request)0x420f)
#define EVENT_STOP         128
#define SUSPEND_SECCOMP    (1L << 21)

#define SYSCALL_STOP  (SIGTRAP | 0x80)
#define CODE_64_BITS  0x33u /* the code segment of programs of 64 bits */
#define THREADS_TRIED 16u
#define STOPS_PASSED  1000u  /* signals and group stops on the way to the stop that we want */
#define SPINS         4000u  /* a stop usually comes within microseconds */
#define GADGET_SEARCH 65536u /* bytes of one mapping */

static long request(const struct tw_tracee *t, enum __ptrace_request what, long address, long data)
{
    return ptrace(what, t->tid, (void *)(uintptr_t)address, (void *)(uintptr_t)data);
}

static enum tw_code fail_request(const struct tw_tracee *t, const char *what, struct tw_error *err)
{
    if (errno == ESRCH)
        return tw_fail(err, TW_ABORTED, t->where, NULL, NULL, "program ended (%s)", what);
    return tw_fail_errno(err, errno, t->where, "cannot %s", what);
}

/* Waits for the next stop. The end of the program is left for its parent to see. */
static enum tw_code wait_stop(const struct tw_tracee *t, uint64_t deadline_ns, int *status,
                              struct tw_error *err)
{
    for (unsigned i = 0;; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)t->tid, &info, WSTOPPED | WEXITED | WNOWAIT | WNOHANG | __WALL) !=
                0 &&
            errno != EINTR)
            return tw_fail(err, TW_ABORTED, t->where, NULL, NULL, "thread ended");
        if (info.si_pid == t->tid) {
            if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED)
                return tw_fail(err, TW_ABORTED, t->where, NULL, NULL, "program ended");
            if (waitpid(t->tid, status, __WALL | WNOHANG) == t->tid && WIFSTOPPED(*status))
                return TW_OK;
        }
        if (t->cancel && atomic_load(t->cancel))
            return tw_fail(err, TW_CANCELLED, t->where, NULL, NULL, "called off");
        if (tw_now(&tw_monotonic) >= deadline_ns)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, t->where, NULL, NULL,
                           "thread %d did not stop in time", (int)t->tid);
        if (i < SPINS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
}

static uint64_t step_deadline(const struct tw_tracee *t)
{
    return tw_after(tw_now(&tw_monotonic), t->step_timeout_ns);
}

static bool is_signal(int status)
{
    return status >> 16 == 0 && WSTOPSIG(status) != SYSCALL_STOP;
}

/* Resumes with `how` and waits for a stop for which wanted() holds; signals go to the program. */
static enum tw_code resume_until(const struct tw_tracee *t, enum __ptrace_request how,
                                 bool (*wanted)(int status), struct tw_error *err)
{
    const uint64_t deadline = step_deadline(t);
    long signal_number = 0;
    int status;
    for (unsigned i = 0; i < STOPS_PASSED; i++) {
        if (request(t, how, 0, signal_number))
            return fail_request(t, "resume a thread", err);
        enum tw_code code = wait_stop(t, deadline, &status, err);
        if (code || wanted(status))
            return code;
        signal_number = is_signal(status) ? WSTOPSIG(status) : 0;
    }
    return tw_fail(err, TW_UNAVAILABLE, t->where, NULL, NULL,
                   "the program gets too many signals to be attached to");
}

static bool is_event_stop(int status)
{
    return status >> 16 == EVENT_STOP;
}

static bool is_syscall_stop(int status)
{
    return WSTOPSIG(status) == SYSCALL_STOP;
}

/* ---- System call filters --------------------------------------------------------------------- */

struct filters {
    unsigned mode, count;
};

static struct filters filters_of(pid_t pid)
{
    struct filters f = {0};
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "Seccomp:", 8) == 0)
            f.mode = (unsigned)strtoul(line + 8, NULL, 10);
        if (strncmp(line, "Seccomp_filters:", 16) == 0)
            f.count = (unsigned)strtoul(line + 16, NULL, 10);
    }
    if (file)
        fclose(file);
    return f;
}

/* A filter may kill the program for a call that it never makes itself. We can have it suspended, or
 * live under the same one (a container's) and know that it lets these calls through. */
static enum tw_code seize(struct tw_tracee *t, long options, struct tw_error *err)
{
    const struct filters theirs = filters_of(t->pid), ours = filters_of(getpid());
    options |= PTRACE_O_TRACESYSGOOD;
    t->filtered = false;
    if (theirs.mode && request(t, PTRACE_SEIZE, 0, options | SUSPEND_SECCOMP) == 0)
        return TW_OK;
    t->filtered = theirs.mode != 0;
    if (theirs.mode && (theirs.mode != ours.mode || theirs.count != ours.count))
        return tw_fail(err, TW_FAILED_PRECONDITION, t->where,
                       "no filter, or the agent's own, or CAP_SYS_ADMIN", "a seccomp filter",
                       "program is under a system call filter that cannot be suspended");
    if (request(t, PTRACE_SEIZE, 0, options) == 0)
        return TW_OK;
    if (errno == EPERM)
        return tw_fail(err, TW_PERMISSION_DENIED, t->where, "CAP_SYS_PTRACE, and no other tracer",
                       NULL, "program cannot be traced");
    if (errno == ESRCH)
        return tw_fail(err, TW_NOT_FOUND, t->where, NULL, NULL, "no such process");
    return tw_fail_errno(err, errno, t->where, "program cannot be traced");
}

/* ---- Stops ----------------------------------------------------------------------------------- */

static enum tw_code stop_thread(struct tw_tracee *t, struct tw_error *err)
{
    int status;
    enum tw_code code = seize(t, 0, err);
    if (code)
        return code;
    t->stopped_ns = tw_now(&tw_monotonic);
    if (request(t, PTRACE_INTERRUPT, 0, 0))
        return fail_request(t, "stop it", err);
    code = wait_stop(t, step_deadline(t), &status, err);
    if (code || is_event_stop(status))
        return code;
    /* A signal was on its way: it is delivered first. */
    if (request(t, PTRACE_CONT, 0, is_signal(status) ? WSTOPSIG(status) : 0))
        return fail_request(t, "resume a thread", err);
    code = wait_stop(t, step_deadline(t), &status, err);
    if (!code && !is_event_stop(status))
        code = resume_until(t, PTRACE_CONT, is_event_stop, err);
    return code;
}

/* The main thread first; it may have ended, or wait where it cannot be interrupted. What could not
 * be stopped is let go when the tracing thread ends. */
enum tw_code tw_tracee_stop(struct tw_tracee *t, struct tw_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)t->pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return tw_fail(err, TW_NOT_FOUND, t->where, NULL, NULL, "no such process");
    t->tid = t->pid;
    enum tw_code code = stop_thread(t, err);
    struct dirent *entry;
    for (unsigned tried = 0; code && tried < THREADS_TRIED && (entry = readdir(tasks)); tried++) {
        if (code == TW_CANCELLED || code == TW_FAILED_PRECONDITION)
            break;
        t->tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (t->tid > 0 && t->tid != t->pid && stop_thread(t, NULL) == TW_OK)
            code = TW_OK;
    }
    closedir(tasks);
    return code;
}

enum tw_code tw_tracee_follow(struct tw_tracee *t, struct tw_error *err)
{
    t->tid = t->pid;
    return seize(t, PTRACE_O_TRACEEXEC, err);
}

enum tw_code tw_tracee_stop_at_exec(struct tw_tracee *t, uint64_t deadline_ns, struct tw_error *err)
{
    int status;
    for (unsigned i = 0; i < STOPS_PASSED; i++) {
        enum tw_code code = wait_stop(t, deadline_ns, &status, err);
        if (code)
            return code;
        if (status >> 16 == PTRACE_EVENT_EXEC) {
            t->stopped_ns = tw_now(&tw_monotonic);
            /* From inside execve to the way back out of it, where registers may be set. */
            if (request(t, PTRACE_INTERRUPT, 0, 0))
                return fail_request(t, "stop it", err);
            return resume_until(t, PTRACE_CONT, is_event_stop, err);
        }
        const bool group_stop = is_event_stop(status) && WSTOPSIG(status) != SIGTRAP;
        if (request(t, group_stop ? PTRACE_LISTEN : PTRACE_CONT, 0,
                    is_signal(status) ? WSTOPSIG(status) : 0))
            return fail_request(t, "resume it", err);
    }
    return tw_fail(err, TW_UNAVAILABLE, t->where, NULL, NULL, "too many signals before its execve");
}

/* ---- A place to run system calls ------------------------------------------------------------- */

static bool search(struct tw_tracee *t, const struct tw_map_area *area)
{
    static const uint8_t instruction[] = {0x0f, 0x05};
    const uint64_t bytes = area->end - area->start;
    uint8_t *code = malloc(GADGET_SEARCH);
    ssize_t got = 0;
    if (code)
        got =
            pread(t->mem, code, bytes < GADGET_SEARCH ? bytes : GADGET_SEARCH, (off_t)area->start);
    const uint8_t *found =
        got > 0 ? memmem(code, (size_t)got, instruction, sizeof instruction) : NULL;
    if (found)
        t->gadget = area->start + (uint64_t)(found - code);
    free(code);
    return found != NULL;
}

static enum tw_code find_gadget(struct tw_tracee *t, struct tw_error *err)
{
    struct tw_maps maps = {0};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)t->pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "cannot be opened");
    enum tw_code code = tw_maps_read(fd, &maps, err);
    close(fd);
    bool found = false;
    for (size_t i = 0; !code && !found && i < maps.count; i++)
        found = strcmp(maps.areas[i].name, "[vdso]") == 0 && search(t, &maps.areas[i]);
    for (size_t i = 0; !code && !found && i < maps.count; i++) {
        const struct tw_map_area *area = &maps.areas[i];
        found = area->executable && area->readable && area->end <= TW_PROCESS_ADDRESS_LIMIT &&
                search(t, area);
    }
    if (!code && !found)
        code = tw_fail(err, TW_UNIMPLEMENTED, t->where, NULL, NULL,
                       "no system call instruction in its code");
    tw_maps_free(&maps);
    return code;
}

/* A thread in a restartable sequence begins it anew after any interruption; our detour hides the
 * interruption from the kernel, so we send it to the sequence's abort handler ourselves. */
static void abort_sequence(struct tw_tracee *t)
{
    struct {
        uint64_t pointer;
        uint32_t size, signature, flags, pad;
    } rseq = {0};
    struct {
        uint32_t version, flags;
        uint64_t start, length, abort;
    } section;
    uint64_t at = 0;
    if (request(t, REQUEST_GET_RSEQ, sizeof rseq, (long)(uintptr_t)&rseq) <= 0 || !rseq.pointer)
        return;
    if (pread(t->mem, &at, sizeof at, (off_t)(rseq.pointer + 8)) != sizeof at || !at)
        return;
    if (pread(t->mem, &section, sizeof section, (off_t)at) != sizeof section)
        return;
    if (t->saved.rip - section.start < section.length)
        t->saved.rip = section.abort;
}

enum tw_code tw_tracee_enter(struct tw_tracee *t, struct tw_error *err)
{
    const uint64_t all_signals = UINT64_MAX;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)t->pid);
    t->mem = open(path, O_RDWR | O_CLOEXEC);
    if (t->mem < 0)
        return tw_fail_errno(err, errno, path, "cannot be opened");
    if (request(t, PTRACE_GETREGS, 0, (long)(uintptr_t)&t->saved))
        return fail_request(t, "read registers", err);
    if (t->saved.cs != CODE_64_BITS)
        return tw_fail(err, TW_UNIMPLEMENTED, t->where, "a program of 64 bits", "one of 32 bits",
                       "program cannot be attached to");
    enum tw_code code = find_gadget(t, err);
    if (code)
        return code;
    abort_sequence(t);
    /* A signal in the middle would run its handler on our registers. */
    if (request(t, REQUEST_GETSIGMASK, sizeof t->saved_mask, (long)(uintptr_t)&t->saved_mask) ||
        request(t, REQUEST_SETSIGMASK, sizeof all_signals, (long)(uintptr_t)&all_signals))
        return fail_request(t, "block signals", err);
    return TW_OK;
}

enum tw_code tw_tracee_call(struct tw_tracee *t, long number, const uint64_t args[3],
                            int64_t *result, struct tw_error *err)
{
    struct user_regs_struct regs = t->saved;
    regs.rip = t->gadget;
    regs.rax = (unsigned long long)number;
    regs.orig_rax = (unsigned long long)-1; /* nothing to restart */
    regs.rdi = args[0];
    regs.rsi = args[1];
    regs.rdx = args[2];
    regs.r10 = regs.r8 = regs.r9 = 0;
    if (request(t, PTRACE_SETREGS, 0, (long)(uintptr_t)&regs))
        return fail_request(t, "set registers", err);
    for (int half = 0; half < 2; half++) { /* into the call, out of it */
        enum tw_code code = resume_until(t, PTRACE_SYSCALL, is_syscall_stop, err);
        if (code)
            return code;
    }
    if (request(t, PTRACE_GETREGS, 0, (long)(uintptr_t)&regs))
        return fail_request(t, "read registers", err);
    *result = (int64_t)regs.rax;
    return TW_OK;
}

static enum tw_code put_back(struct tw_tracee *t, struct tw_error *err)
{
    /* Registers are put back in a stop where the kernel then looks whether the interrupted system
     * call has to be restarted; at the end of our own calls it would not. */
    enum tw_code code = TW_OK;
    if (request(t, PTRACE_INTERRUPT, 0, 0))
        code = fail_request(t, "stop it", err);
    if (!code)
        code = resume_until(t, PTRACE_CONT, is_event_stop, err);
    if (!code &&
        (request(t, PTRACE_SETREGS, 0, (long)(uintptr_t)&t->saved) ||
         request(t, REQUEST_SETSIGMASK, sizeof t->saved_mask, (long)(uintptr_t)&t->saved_mask)))
        code = fail_request(t, "put registers back", err);
    return code;
}

enum tw_code tw_tracee_leave(struct tw_tracee *t, struct tw_error *err)
{
    enum tw_code code = put_back(t, err);
    if (!code && request(t, PTRACE_DETACH, 0, 0))
        code = fail_request(t, "let it go", err);
    return code;
}

/* A filter that was suspended for our calls is in force again. */
enum tw_code tw_tracee_keep(struct tw_tracee *t, struct tw_error *err)
{
    enum tw_code code = put_back(t, err);
    if (!code && request(t, PTRACE_SETOPTIONS, 0, PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT))
        code = fail_request(t, "keep it", err);
    return code;
}
