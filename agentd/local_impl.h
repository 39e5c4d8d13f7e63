/* What the files of the local door share. */
#ifndef TOWLINE_AGENTD_LOCAL_IMPL_H
#define TOWLINE_AGENTD_LOCAL_IMPL_H

#include "agentd/local.h"
#include "agentd/local_access.h"
#include "agentd/local_request.h"

#define TW_LOCAL_MESSAGE_MAX (sizeof(struct tw_local_header) + TW_LOCAL_BODY_MAX)

/* A connection reads a request, works at it, answers, reads the next. */
enum tw_local_phase { TW_LOCAL_READING, TW_LOCAL_WORKING, TW_LOCAL_ANSWERING };

struct tw_local_conn {
    struct tw_local *local;
    int fd;
    struct tw_local_caller caller;
    enum tw_local_phase phase;
    uint8_t *in, *out; /* TW_LOCAL_MESSAGE_MAX each */
    size_t have;       /* bytes of `in` */
    size_t length;     /* of the answer in `out` */
    size_t sent;
    uint64_t since_ns; /* when the peer last did something */
    bool closing;      /* after the answer */
    struct tw_local_request request;
    bool begun;      /* WORKING: the service has been asked */
    unsigned arming; /* EPOCH: which */
    struct tw_tracking_session *session;
    uint64_t caught; /* pid of a program that is to start; 0 = none */
    uint64_t cursor[TW_TRACKING_EPOCHS_MAX], cursor_accessed[TW_TRACKING_EPOCHS_MAX];
    struct tw_local_conn *next;
};

struct tw_local {
    int fd;
    char path[108];
    struct tw_tracking *tracking;
    struct tw_attacher *attacher;
    struct tw_guests *guests; /* NULL = none to be told of */
    struct tw_local_conn *conns;
    unsigned count;
};

static inline void *tw_local_body(struct tw_local_conn *c)
{
    return c->out + sizeof(struct tw_local_header);
}
/* The answer of the request at hand: its body is in place. */
void tw_local_answer(struct tw_local_conn *c, size_t body_length);
void tw_local_refuse(struct tw_local_conn *c, enum tw_code code, const struct tw_error *err);

/* Goes on with the request at hand; answers it, or leaves it WORKING. True when it wants to go on
 * without waiting. */
bool tw_local_work(struct tw_local_conn *c);

#endif
