/* A userfaultfd of another program's memory: made by a few system calls that we run inside it.
 *
 * Only the program's own system calls can make one. So one of its threads is stopped by ptrace, its
 * registers are put aside, the calls are run through the `syscall` instruction of the vdso, the
 * descriptor is fetched with pidfd_getfd and closed again over there, and everything is put back.
 * A system call that the stop interrupted is restarted by the kernel as after any signal.
 *
 * ptrace belongs to a thread, and a stop that never comes cannot be called off, except by the end
 * of the tracing thread: so all of it runs in a thread of its own, which lives for as long as it
 * takes. Thread-safe. */
#ifndef TOWLINE_HOSTS_PROCESS_INJECT_H
#define TOWLINE_HOSTS_PROCESS_INJECT_H

#include "base/error.h"
#include "hosts/attachment.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tw_inject;

/* Begins. AT_EXEC: the program is stopped at its next execve, not now; this returns when it can
 * be let go to it. `leave` (may be NULL) is then asked, on another thread: true leaves the program
 * alone, and finish answers CANCELLED. `stop_timeout_ns` bounds the wait for the stop, and each
 * step after it. */
enum tw_inject_when {
    TW_INJECT_NOW,
    TW_INJECT_AT_EXEC,
    TW_INJECT_AT_EXEC_AND_STAY,
};
enum tw_code tw_inject_begin(pid_t pid, enum tw_inject_when when, bool (*leave)(pid_t pid),
                             uint64_t stop_timeout_ns, struct tw_inject **inject,
                             struct tw_error *err);

/* Waits for the end, at most until the deadline (then it is called off), and frees `inject`.
 * *userfaultfd is the caller's, *stop_ns how long the thread was stopped. */
enum tw_code tw_inject_finish(struct tw_inject *inject, uint64_t deadline_ns, int *userfaultfd,
                              uint64_t *stop_ns, struct tw_error *err);

/* The same for one that waited for the execve, if the program is to stay (hosts/process/stay.h): it
 * is held then, and `inject` stays until tw_inject_end(). Frees it on failure. */
enum tw_code tw_inject_stay(struct tw_inject *inject, uint64_t deadline_ns, int *userfaultfd,
                            uint64_t *stop_ns, struct tw_error *err);
enum tw_hold tw_inject_hold(const struct tw_inject *inject);
void tw_inject_go(struct tw_inject *inject);
void tw_inject_end(struct tw_inject *inject); /* lets it go, frees */

/* Calls it off. The program goes on as it was. NULL is fine. */
void tw_inject_cancel(struct tw_inject *inject);

#endif
