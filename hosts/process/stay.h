/* A program that stays traced from its execve to its end, so that not a store of it goes uncounted:
 * it is held before its first instruction until it is watched, and once more before its end, when
 * its memory is still there, until that was read.
 *
 *   START --go--> LATER --it is about to end--> END --go--> NONE
 *
 * A hold ends by itself after five seconds; a tracer that dies lets the program go at once. While
 * it stays, signals take a detour over us, and no debugger can attach. It is let go when it
 * executes another program. */
#ifndef TOWLINE_HOSTS_PROCESS_STAY_H
#define TOWLINE_HOSTS_PROCESS_STAY_H

#include "hosts/attachment.h"
#include "hosts/process/tracee.h"

#include <pthread.h>

struct tw_stay {
    atomic_int hold; /* enum tw_hold */
    atomic_bool go;
    atomic_bool quit;
    atomic_bool over; /* tw_stay_run has returned */
};

/* On the tracing thread, whose tracee is stopped. When it returns, the thread must end: the kernel
 * then lets the program go. */
void tw_stay_run(struct tw_stay *stay, const struct tw_tracee *t);

/* From outside. */
enum tw_hold tw_stay_hold(const struct tw_stay *stay);
void tw_stay_go(struct tw_stay *stay);
void tw_stay_end(struct tw_stay *stay, pthread_t tracer); /* returns when `over` */

#endif
