/* The agent's tracking thread: it owns the tracking service, the attachments, the door for local
 * programs and the operators' sessions. The data thread knows nothing of it. */
#ifndef TOWLINE_AGENTD_TRACKING_H
#define TOWLINE_AGENTD_TRACKING_H

#include "agentd/mailbox.h"
#include "base/error.h"

#include <stdint.h>
#include <stdio.h>

struct tw_agent_tracking;
struct tw_guests;
struct tw_rpc_server;

struct tw_agent_tracking_config {
    const char *socket;       /* path of the door; empty = none */
    const char *instrumented; /* path of the socket for programs of towline-cc; empty = none */
    uint64_t copy_bytes_max;  /* of copies, a program; 0 = the attachment's default */
    struct tw_guests *guests; /* what the VMs here write; NULL = not to be told */
};

/* Starts the thread. */
enum tw_code tw_agent_tracking_open(const struct tw_agent_tracking_config *config,
                                    struct tw_agent_tracking **tracking, struct tw_error *err);
/* Ends it; all programs run on, untracked. After the RPC and HTTP servers. NULL is fine. */
void tw_agent_tracking_close(struct tw_agent_tracking *tracking);

/* Any thread: its part of /metrics. Nothing when the thread does not answer in time. */
void tw_agent_tracking_metrics(struct tw_agent_tracking *tracking, FILE *out);

/* TrackingService. */
enum tw_code tw_agent_tracking_serve(struct tw_agent_tracking *tracking,
                                     struct tw_rpc_server *server, struct tw_error *err);

#endif
