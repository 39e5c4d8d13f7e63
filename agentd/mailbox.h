/* How other threads ask the data thread for something: a bounded queue of functions that it runs
 * between two turns of its loop. The caller waits for the end, until a deadline. */
#ifndef TOWLINE_AGENTD_MAILBOX_H
#define TOWLINE_AGENTD_MAILBOX_H

#include "base/error.h"

#include <stdint.h>

struct tw_mailbox;

/* Runs on the data thread; short (a few milliseconds). */
typedef enum tw_code (*tw_mailbox_fn)(void *owner, void *arg, struct tw_error *err);

struct tw_mailbox *tw_mailbox_open(unsigned capacity);
void tw_mailbox_close(struct tw_mailbox *mailbox); /* after every caller has gone */

/* Any thread. `arg` is used only until this returns. RESOURCE_EXHAUSTED when the queue is full,
 * DEADLINE_EXCEEDED when the data thread did not come to it in time (then it was not run),
 * UNAVAILABLE after tw_mailbox_shut. */
enum tw_code tw_mailbox_call(struct tw_mailbox *mailbox, tw_mailbox_fn fn, void *arg,
                             uint64_t deadline_ns, struct tw_error *err);

/* Data thread: readable when something waits; runs all that waits. */
int tw_mailbox_fd(const struct tw_mailbox *mailbox);
void tw_mailbox_run(struct tw_mailbox *mailbox, void *owner);

/* Refuses what waits and what comes. */
void tw_mailbox_shut(struct tw_mailbox *mailbox);

#endif
