/* A real program's life under the attachment: attach and detach, fork, exec and end, on both sides.
 */
#include "hosts/process/test_session.h"
#include "hosts/process/test_target.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE  ((uint64_t)TW_PAGE_SIZE)
#define LINE  ((uint64_t)TW_LINE_SIZE)
#define MIB   (UINT64_C(1) << 20)
#define TIMED .timeout = 120

/* Descriptors, registers and tracer of the program, as one can see them. */
static unsigned count_fds(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        count += access(path, F_OK) == 0;
    }
    return count;
}

static bool status_says(pid_t pid, const char *line)
{
    char path[64], text[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof text, file))
        found = found || strcmp(text, line) == 0;
    if (file)
        fclose(file);
    return found;
}

/* A mapping of its own can be registered by us only if no other userfaultfd holds it. */
static bool smaps_say(pid_t pid, uint64_t address, const char *flag)
{
    char path[64], text[512];
    uint64_t start, stop;
    bool inside = false, found = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof text, file)) {
        if (sscanf(text, "%lx-%lx ", &start, &stop) == 2)
            inside = start <= address && address < stop;
        if (inside && strncmp(text, "VmFlags:", 8) == 0)
            found = found || strstr(text, flag) != NULL;
    }
    if (file)
        fclose(file);
    return found;
}

Test(life, machine_can_do_it)
{
    struct tw_error err;
    char text[600];
    cr_assert_eq(tw_process_probe(&err), TW_OK, "%s", tw_error_text(&err, text, sizeof text));
}

Test(life, attach_and_detach_leave_no_trace, TIMED)
{
    struct session s;
    struct tw_process_stats stats;
    target_start(&target);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    target_store(&target, memory, 1);
    const unsigned fds = count_fds(target.pid);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
    cr_expect_eq(count_fds(target.pid), fds, "the descriptor is closed in the program");
    cr_expect(status_says(target.pid, "TracerPid:\t0\n"), "nobody traces it");
    session_start(&s, process, "s", 0, 0);
    cr_expect(smaps_say(target.pid, memory, " uw"), "registered");
    tw_process_stats_get(process, &stats);
    cr_expect_gt(stats.stop_ns, 0);
    cr_expect_gt(stats.registered_areas, 3);
    free(s.pages);
    tw_process_detach(process);
    cr_expect_not(smaps_say(target.pid, memory, " uw"), "not registered any more");
    target_store(&target, memory, 2);
    cr_expect_eq(target_do(&target, TARGET_LOAD, memory, 0, 0), 2);
    target_end(&target);
}

Test(life, fork_leaves_the_parent_tracked_and_the_child_alone, TIMED)
{
    struct session s;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    target_store(&target, memory, 1);
    session_start(&s, process, "s", memory, 4 * PAGE);
    cr_assert_eq(target_do(&target, TARGET_FORK, memory + LINE, 0, 5), 0, "the child ran");
    session_collect(&s);
    cr_expect_eq(s.count, 0, "the child's stores are not the parent's");
    target_store(&target, memory + 2 * LINE, 1);
    session_collect(&s);
    cr_expect_eq(s.count, 1);
    session_end(&s);
    end();
}

Test(life, exec_ends_tracking_with_a_clear_state, TIMED)
{
    struct session s;
    struct tw_error err;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    must_pass(process);
    target_do(&target, TARGET_EXEC, 0, 0, 0);
    target_do(&target, TARGET_NONE, 0, 0, 0); /* the new one answers */
    cr_expect_eq(tw_process_pass(process, TW_NEVER, &err), TW_ABORTED);
    cr_expect_str_eq(err.given, "execed");
    cr_expect_eq(tw_process_state_get(process), TW_PROCESS_EXECED);
    session_read(&s);
    cr_expect_eq(s.count, 1, "the last answer can still be read");
    session_end(&s);
    end();
}

/* What a pass had found, but not read, when the memory went away: other memory stands at the same
 * addresses of the same pid now, and must not be taken for it. */
Test(life, pages_found_and_not_read_are_told_as_a_whole, TIMED)
{
    struct session s;
    bool done, whole;
    struct tw_error err;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    cr_assert_not(done);
    target_do(&target, TARGET_EXEC, 0, 0, 0);
    target_do(&target, TARGET_NONE, 0, 0, 0);
    cr_expect_eq(tw_process_step(process, TW_SEC, &done, &err), TW_ABORTED);
    session_read(&s);
    cr_expect_eq(s.count, 1);
    cr_expect_eq(session_lines(&s, memory, &whole), TW_ALL_LINES);
    cr_expect(whole);
    session_end(&s);
    end();
}

Test(life, exit_leaves_the_last_answer, TIMED)
{
    struct session s;
    struct tw_error err;
    bool done;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4 * PAGE);
    session_start(&s, process, "s", memory, 4 * PAGE);
    target_store(&target, memory, 1);
    must_pass(process);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    target_begin(&target, TARGET_EXIT, 0, 0, 0);
    waitpid(target.pid, NULL, 0);
    target.pid = 0;
    cr_expect_eq(tw_process_step(process, TW_SEC, &done, &err), TW_ABORTED);
    cr_expect_not(done);
    cr_expect_eq(tw_process_state_get(process), TW_PROCESS_EXITED);
    cr_expect_eq(tw_process_pass_begin(process, &err), TW_ABORTED);
    session_read(&s);
    cr_expect_eq(s.count, 1);
    session_end(&s);
    end();
}

Test(life, spawned_programs_are_tracked_from_their_first_store, TIMED)
{
    char *argv[3];
    struct session s;
    struct tw_error err;
    target_prepare(&target, argv);
    cr_assert_eq(tw_process_spawn(NULL, argv, &process, &err), TW_OK);
    target.pid = tw_process_pid(process);
    session_start(&s, process, "s", 0, 0);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, PAGE);
    target_store(&target, memory, 1);
    session_collect(&s);
    cr_expect_eq(session_lines(&s, memory, NULL), 1);
    session_end(&s);
    end();
    argv[0] = (char *)"/nonexistent/program";
    cr_expect_eq(tw_process_spawn(NULL, argv, &process, &err), TW_NOT_FOUND);
}

Test(life, attach_refuses_what_it_must, TIMED)
{
    struct tw_error err;
    struct tw_process *second;
    cr_expect_eq(tw_process_attach(NULL, -1, &process, &err), TW_NOT_FOUND);
    cr_expect_eq(tw_process_attach(NULL, 0, &process, &err), TW_NOT_FOUND);
    const struct tw_process_config odd = {.device_bytes_max = MIB};
    attach();
    cr_expect_eq(tw_process_attach(&odd, target.pid, &second, &err), TW_INVALID_ARGUMENT);
    /* A second attachment gets a userfaultfd of its own, but memory has only one. */
    struct session s, t;
    struct tw_process_stats stats;
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, PAGE);
    session_start(&s, process, "s", memory, PAGE);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &second, &err), TW_OK);
    session_start(&t, second, "t", memory, PAGE);
    tw_process_stats_get(second, &stats);
    cr_expect_eq(stats.skipped_areas, 1, "and says that it cannot follow it");
    session_end(&t);
    tw_process_detach(second);
    session_end(&s);
    end();
}

static bool install_filter(void)
{
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {1, allow};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool drop_sys_admin(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data))
        return false;
    data[CAP_SYS_ADMIN / 32].effective &= ~(UINT32_C(1) << CAP_SYS_ADMIN % 32);
    return syscall(SYS_capset, &header, data) == 0;
}

/* A filter may kill a program for calls that it never makes: it is suspended, or known to be ours.
 */
Test(life, system_call_filters_are_respected, TIMED)
{
    char *argv[3];
    struct tw_error err;
    target_prepare(&target, argv);
    target.pid = fork();
    if (target.pid == 0) {
        if (install_filter())
            execv(argv[0], argv);
        _exit(127);
    }
    target_do(&target, TARGET_NONE, 0, 0, 0);
    const enum tw_code suspended = tw_process_attach(NULL, target.pid, &process, &err);
    cr_expect(suspended == TW_OK || suspended == TW_FAILED_PRECONDITION);
    if (suspended == TW_OK)
        tw_process_detach(process);
    cr_assert(drop_sys_admin());
    cr_expect_eq(tw_process_attach(NULL, target.pid, &process, &err), TW_FAILED_PRECONDITION);
    cr_assert(install_filter());
    cr_expect_eq(tw_process_attach(NULL, target.pid, &process, &err), TW_OK, "the same filter");
    target_do(&target, TARGET_NONE, 0, 0, 0);
    end();
}

/* Attached to while it sleeps in a system call: that goes on as if nothing had been. */
Test(life, interrupted_system_calls_are_restarted, TIMED)
{
    target_start(&target);
    target_begin(&target, TARGET_SLEEP, 0, 0, 300);
    usleep(50000);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
        tw_process_detach(process);
    }
    target_wait(&target);
    cr_expect_geq(target.control->result, 300000, "slept to the end, was %lu us",
                  (unsigned long)target.control->result);
    target_end(&target);
}

Test(life, stopped_programs_stay_stopped, TIMED)
{
    char path[64], text[256] = "";
    target_start(&target);
    kill(target.pid, SIGSTOP);
    waitpid(target.pid, NULL, WUNTRACED);
    cr_assert_eq(tw_process_attach(NULL, target.pid, &process, NULL), TW_OK);
    usleep(20000);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)target.pid);
    FILE *file = fopen(path, "r");
    cr_assert(file && fgets(text, sizeof text, file));
    fclose(file);
    cr_expect_eq(strrchr(text, ')')[2], 'T', "%s", text);
    kill(target.pid, SIGCONT);
    target_do(&target, TARGET_NONE, 0, 0, 0);
    end();
}

/* The tracker is killed in the middle of it: the program must not notice. */
Test(life, program_survives_the_death_of_its_tracker, TIMED)
{
    int ready[2];
    char byte;
    target_start(&target);
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 64 * PAGE);
    target.control->threads = 2;
    cr_assert_eq(pipe(ready), 0);
    const pid_t tracker = fork();
    if (tracker == 0) {
        struct session s;
        if (tw_process_attach(NULL, target.pid, &process, NULL))
            _exit(1);
        session_start(&s, process, "s", 0, 0);
        for (unsigned i = 0;; i++) {
            session_collect(&s);
            if (i == 3 && write(ready[1], "", 1) != 1)
                _exit(1);
        }
    }
    target_begin(&target, TARGET_THREADS, memory, 64, 1);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    kill(tracker, SIGKILL);
    waitpid(tracker, NULL, 0);
    for (unsigned i = 0; i < 1000 && smaps_say(target.pid, memory, " uw"); i++)
        usleep(10000);
    cr_expect_not(smaps_say(target.pid, memory, " uw"), "the kernel took everything back");
    atomic_store(&target.control->stop, 1);
    target_wait(&target);
    target_store(&target, memory, 1);
    cr_expect_eq(target_do(&target, TARGET_LOAD, memory, 0, 0), 1);
    target_end(&target);
}

Test(life, broken_off_pass_loses_nothing, TIMED)
{
    struct session s;
    bool done;
    attach();
    const uint64_t memory = target_map(&target, TARGET_ANONYMOUS, 4096 * PAGE);
    session_start(&s, process, "s", memory, 4096 * PAGE);
    for (unsigned i = 0; i < 64; i++)
        target_store(&target, memory + i * 64 * PAGE, 1);
    cr_assert_eq(tw_process_pass_begin(process, NULL), TW_OK);
    cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    cr_assert_not(done, "protected, not read");
    cr_expect_eq(tw_process_pass_begin(process, NULL), TW_FAILED_PRECONDITION);
    cr_expect_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    tw_process_detach(NULL);
    while (!done)
        cr_assert_eq(tw_process_step(process, 0, &done, NULL), TW_OK);
    for (unsigned i = 0; i < 64; i++)
        target_store(&target, memory + i * 64 * PAGE + LINE, 1);
    cr_expect_eq(tw_process_pass(process, 0, NULL), TW_DEADLINE_EXCEEDED);
    session_collect(&s);
    cr_expect_eq(s.count, 64);
    cr_expect_eq(session_lines(&s, memory, NULL), 3);
    session_end(&s);
    end();
}
