/* Inside the probes: system calls, tried on the machine that this runs on. */
#ifndef TOWLINE_HOSTS_PROBE_ATTEMPT_H
#define TOWLINE_HOSTS_PROBE_ATTEMPT_H

#include "hosts/probe/system.h"

#include <sys/types.h>

/* struct tw_probe_system: attempt, uffd. */
int tw_attempt(void *ctx, enum tw_probe_call call);
int tw_attempt_uffd(void *ctx, struct tw_probe_uffd *out);

/* Waits for a child until the deadline (monotonic), then kills it; false: it had to be killed. */
bool tw_attempt_reap(pid_t pid, uint64_t deadline_ns, int *status);

#endif
