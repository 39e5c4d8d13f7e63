/* What client and server share about nng and about threads. */
#ifndef TOWLINE_RPC_TRANSPORT_H
#define TOWLINE_RPC_TRANSPORT_H

#include "base/error.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A failed nng call as an error: maps the number to a code and appends nng's text. */
enum tw_code tw_fail_nng(struct tw_error *err, int number, const char *where, const char *what);

/* Until `deadline_ns` (monotonic) in whole milliseconds, rounded up: 0 only when it has passed. */
uint32_t tw_remaining_ms(uint64_t deadline_ns);

/* A condition variable on the monotonic clock. */
void tw_cond_init(pthread_cond_t *cond);
/* False when the deadline has passed. */
bool tw_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns);

/* A named thread that takes no signals: those belong to the program's own threads. Returns an
 * errno value, 0 = started. `name`: at most 15 characters. */
int tw_thread_start(pthread_t *thread, const char *name, void *(*main)(void *), void *arg);

#endif
