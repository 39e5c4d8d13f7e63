/* What the files of the tracking thread share. All but the mailbox belongs to that thread. */
#ifndef TOWLINE_AGENTD_TRACKING_IMPL_H
#define TOWLINE_AGENTD_TRACKING_IMPL_H

#include "agentd/attacher.h"
#include "agentd/local.h"
#include "agentd/tracking.h"
#include "services/tracking/tracking.h"

#include <pthread.h>
#include <stdatomic.h>

/* A session that an operator started; its epochs are collected and counted by themselves. */
struct tw_operated {
    struct tw_tracking_session *session;
    unsigned epoch;
    uint64_t id;
    uint64_t every_ns, next_ns; /* when the present epoch is to end */
    enum tw_operated_phase {
        TW_OPERATED_WAITING,
        TW_OPERATED_COLLECTING,
        TW_OPERATED_READING
    } phase;
    struct tw_operated *next;
};

struct tw_agent_tracking {
    struct tw_mailbox *mailbox;
    pthread_t thread;
    bool thread_runs;
    _Atomic bool stopping;
    struct tw_tracking *tracking;
    struct tw_attacher attacher;
    struct tw_local *local; /* NULL = no door */
    struct tw_operated *operated;
};

/* Goes on with all of them; returns when it wants to be called again. */
uint64_t tw_operated_step(struct tw_agent_tracking *t, uint64_t now_ns);
void tw_operated_close_all(struct tw_agent_tracking *t);

#endif
