/* The door for local programs: a unix socket, its connections, and their requests (proto/local.h).
 * Never waits for anybody: a peer that sends half a request, or does not take its answer, is
 * dropped after ten seconds. Tracking thread only. */
#ifndef TOWLINE_AGENTD_LOCAL_H
#define TOWLINE_AGENTD_LOCAL_H

#include "agentd/attacher.h"
#include "services/tracking/tracking.h"

#include <poll.h>

#define TW_LOCAL_CONNECTIONS_MAX 96u
#define TW_LOCAL_USER_MAX        32u /* connections of one user who is not root */

struct tw_local;
struct tw_guests;

/* `path` is absolute, in a folder that exists. A socket that nobody serves is replaced;
 * FAILED_PRECONDITION: somebody serves it. */
enum tw_code tw_local_open(const char *path, struct tw_tracking *tracking,
                           struct tw_attacher *attacher, struct tw_local **local,
                           struct tw_error *err);
/* Before it serves: root may see these, too. */
void tw_local_show_guests(struct tw_local *local, struct tw_guests *guests);
void tw_local_close(struct tw_local *local); /* before the tracking; NULL is fine */

/* What to poll for; returns how many. */
nfds_t tw_local_poll(const struct tw_local *local, struct pollfd fds[1 + TW_LOCAL_CONNECTIONS_MAX]);
/* Does all that can be done at once. True when there is more to do without waiting. */
bool tw_local_serve(struct tw_local *local, uint64_t now_ns);

#endif
