/* Attaches to programs of this host for the tracking service, and to programs that are about to
 * start. Tracking thread only. */
#ifndef TOWLINE_AGENTD_ATTACHER_H
#define TOWLINE_AGENTD_ATTACHER_H

#include "hosts/attachment.h"
#include "hosts/process/process.h"

#define TW_ATTACHER_CATCHES_MAX 8u

struct tw_attacher {
    uint64_t copy_bytes_max; /* of one program; 0 = the attachment's own default */
    struct {
        uint64_t pid;
        bool exact;
        struct tw_process_catch *caught; /* NULL = free */
        uint64_t until_ns;               /* let go then */
    } catches[TW_ATTACHER_CATCHES_MAX];
};

/* For struct tw_tracking_env; `ctx` is the attacher. Finishes the catch of this pid if there is
 * one. Waits at most about two seconds for the program's stop. */
enum tw_code tw_attacher_attach(void *ctx, uint64_t pid, bool exact, struct tw_attachment *out,
                                struct tw_error *err);

/* `pid` waits before its execve; it may go on when this has returned. */
enum tw_code tw_attacher_catch(struct tw_attacher *a, uint64_t pid, bool exact,
                               struct tw_error *err);
void tw_attacher_let_go(struct tw_attacher *a, uint64_t pid); /* none of it is fine */
/* Lets go what nobody came for. */
void tw_attacher_tidy(struct tw_attacher *a, uint64_t now_ns);

#endif
