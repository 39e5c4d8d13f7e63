/* One connection to the agent: a question, an answer, with a deadline. Not thread-safe. */
#ifndef TOWLINE_CLIENT_CONNECTION_H
#define TOWLINE_CLIENT_CONNECTION_H

#include "proto/local.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tw_client_connection {
    int fd; /* -1 = none, or given up */
    uint32_t timeout_ms;
    int interruptible; /* a signal ends a wait */
    int broken;        /* a wait was ended: good for nothing but leaving */
    pid_t agent;       /* as the kernel says */
    uid_t agent_uid;
    uint64_t *body;  /* of the last answer, TW_LOCAL_BODY_MAX bytes */
    uint32_t length; /* of it */
};

/* Fills the calling thread's error text; returns `code`. */
int tw_client_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

int tw_client_connect(struct tw_client_connection *c, const char *path, uint32_t timeout_ms);
/* Says goodbye, and waits, up to ten seconds, until the agent has let go of everything. */
void tw_client_leave(struct tw_client_connection *c);
void tw_client_disconnect(struct tw_client_connection *c);

/* Sends `head` and `tail` (may be empty) as one body. The answer is in c->body when this returns 0;
 * its length is at least `answer_min`. */
int tw_client_ask(struct tw_client_connection *c, enum tw_local_kind kind, const void *head,
                  size_t head_length, const void *tail, size_t tail_length, size_t answer_min);

#endif
