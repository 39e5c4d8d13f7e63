/* One stopped thread of another program, and system calls run in it. Every function belongs to the
 * thread that traces. */
#ifndef TOWLINE_HOSTS_PROCESS_TRACEE_H
#define TOWLINE_HOSTS_PROCESS_TRACEE_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct tw_tracee {
    pid_t pid, tid;
    char where[32];            /* "pid 4711", for errors */
    uint64_t step_timeout_ns;  /* of each wait */
    const atomic_bool *cancel; /* ends every wait */
    bool filtered;       /* a system call filter is in force, and is not ours alone to judge */
    uint64_t stopped_ns; /* when the stop was asked for */
    int mem;             /* /proc/PID/mem; -1 = none */
    uint64_t gadget;     /* address of a syscall instruction */
    struct user_regs_struct saved;
    uint64_t saved_mask; /* of signals */
};

/* Traces a thread of the program that can be stopped, and stops it. */
enum tw_code tw_tracee_stop(struct tw_tracee *t, struct tw_error *err);
/* Traces the program's only thread and returns at once; it runs on towards its execve. */
enum tw_code tw_tracee_follow(struct tw_tracee *t, struct tw_error *err);
/* Waits until it has executed, and stops it before its first instruction. */
enum tw_code tw_tracee_stop_at_exec(struct tw_tracee *t, uint64_t deadline_ns,
                                    struct tw_error *err);

/* Between these two the thread is ours. `leave` puts everything back and lets the thread go, traced
 * by nobody; it returns when that is done. */
enum tw_code tw_tracee_enter(struct tw_tracee *t, struct tw_error *err);
enum tw_code tw_tracee_leave(struct tw_tracee *t, struct tw_error *err);
/* The same, but it stays stopped and ours; execve and the end of the thread will stop it. */
enum tw_code tw_tracee_keep(struct tw_tracee *t, struct tw_error *err);

/* Runs a system call; *result as the kernel leaves it in rax (-errno on failure). */
enum tw_code tw_tracee_call(struct tw_tracee *t, long number, const uint64_t args[3],
                            int64_t *result, struct tw_error *err);

#endif
