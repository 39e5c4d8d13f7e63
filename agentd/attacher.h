/* Attaches to programs of this host for the tracking service, and to programs that are about to
 * start; chooses the kind of attachment. Tracking thread only. */
#ifndef TOWLINE_AGENTD_ATTACHER_H
#define TOWLINE_AGENTD_ATTACHER_H

#include "hosts/attachment.h"
#include "hosts/instrumented/lobby.h"
#include "hosts/process/process.h"
#include "services/tracking/tracking.h"

#define TW_ATTACHER_CATCHES_MAX 8u

struct tw_attacher {
    uint64_t copy_bytes_max; /* of one program; 0 = the attachment's own default */
    struct tw_lobby *lobby;  /* of instrumented programs; NULL = there is none */
    struct {
        uint64_t pid; /* 0 = free */
        struct tw_process_catch *caught;
        struct tw_process *process; /* attached to, for the session that is being opened */
        uint64_t until_ns;          /* let go then */
    } catches[TW_ATTACHER_CATCHES_MAX];
};

/* For struct tw_tracking_env; `ctx` is the attacher. Choosing waits, where the program was caught,
 * until it has executed, and if it has the runtime, until it has come; attaching waits for the
 * program's stop or for its answer. Each at most about two seconds. */
enum tw_code tw_attacher_choose(void *ctx, uint64_t pid, struct tw_tracking_wish *wish,
                                char why[TW_TRACKING_WHY_SIZE], struct tw_error *err);
enum tw_code tw_attacher_attach(void *ctx, uint64_t pid, const struct tw_tracking_wish *wish,
                                struct tw_attachment *out, struct tw_error *err);

/* `pid` waits before its execve; it may go on when this has returned. */
enum tw_code tw_attacher_catch(struct tw_attacher *a, uint64_t pid,
                               const struct tw_tracking_wish *wish, struct tw_error *err);
void tw_attacher_let_go(struct tw_attacher *a, uint64_t pid); /* none of it is fine */
/* Lets go what nobody came for. */
void tw_attacher_tidy(struct tw_attacher *a, uint64_t now_ns);

#endif
