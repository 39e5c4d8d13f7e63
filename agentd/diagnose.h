/* The host's probes (hosts/probe) as the agent serves them. */
#ifndef TOWLINE_AGENTD_DIAGNOSE_H
#define TOWLINE_AGENTD_DIAGNOSE_H

#include "base/error.h"
#include "towline/v1/agent.pb-c.h"

#include <stdint.h>

struct tw_agent;
struct tw_diagnose;

/* NULL: no memory. */
struct tw_diagnose *tw_diagnose_open(struct tw_agent *agent);
/* Runs the probes once, on a thread of its own; a line in the log for each that warns or fails. */
void tw_diagnose_log(struct tw_diagnose *diagnose);
/* After agent->stopping; waits for that thread. NULL is fine. */
void tw_diagnose_close(struct tw_diagnose *diagnose);

/* Any thread but the data thread. Calls wait for each other until the deadline (monotonic). */
enum tw_code tw_diagnose_call(struct tw_diagnose *diagnose, uint64_t deadline_ns,
                              Towline__V1__DiagnoseResponse *response, struct tw_error *err);

#endif
