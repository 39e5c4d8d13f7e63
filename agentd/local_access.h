/* Which programs a local caller may track: those that he could debug. */
#ifndef TOWLINE_AGENTD_LOCAL_ACCESS_H
#define TOWLINE_AGENTD_LOCAL_ACCESS_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* Who stands at the other end of a socket, as the kernel says. */
struct tw_local_caller {
    uid_t uid;
    gid_t gid;
    pid_t pid;
};

/* PERMISSION_DENIED, or NOT_FOUND when there is no such program. */
enum tw_code tw_local_may_track(const struct tw_local_caller *caller, uint64_t pid,
                                struct tw_error *err);

#endif
