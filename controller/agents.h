/* The controller's connections to the agents: one client for each host and URL, kept open.
 * Thread-safe; a call to an agent that does not answer holds up its caller until its timeout,
 * nobody else. */
#ifndef TOWLINE_CONTROLLER_AGENTS_H
#define TOWLINE_CONTROLLER_AGENTS_H

#include "rpc/rpc.h"

#define TW_AGENTS_MAX 1024u /* URLs remembered */

struct tw_agents;

/* `tls` (may be NULL) is held. Under TLS an agent has to be the one of the host that is meant. */
enum tw_code tw_agents_open(struct tw_tls *tls, bool insecure, struct tw_agents **agents,
                            struct tw_error *err);
void tw_agents_close(struct tw_agents *agents);

/* An AgentService call; the caller frees *response. Errors name `host`, not the URL. Calls are
 * repeated inside the timeout: all of AgentService is idempotent. */
enum tw_code tw_agents_call(struct tw_agents *agents, const char *host, const char *url,
                            const char *method, const ProtobufCMessage *request,
                            unsigned timeout_ms, ProtobufCMessage **response, struct tw_error *err);

/* The peer was not reached, did not answer in time, or one end does not believe the other: whether
 * it has acted is not known. */
static inline bool tw_agents_silent(enum tw_code code)
{
    return code == TW_UNAVAILABLE || code == TW_DEADLINE_EXCEEDED || code == TW_UNAUTHENTICATED;
}

#endif
