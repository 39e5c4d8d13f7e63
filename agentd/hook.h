/* The switch-over hook: a program of the operator's, run while both sides hold the whole VM and
 * neither runs it (fencing, network re-plumbing, an independent check). Exit status 0 lets the
 * hand-over go on; anything else, and the time limit, aborts it. */
#ifndef TOWLINE_AGENTD_HOOK_H
#define TOWLINE_AGENTD_HOOK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tw_hook;

/* `environment`: NAME=VALUE strings, NULL-terminated, added to PATH and nothing else. */
enum tw_code tw_hook_start(const char *program, const char *const *environment, uint64_t timeout_ns,
                           struct tw_hook **hook, struct tw_error *err);
/* True when it has ended; *code is TW_OK for exit status 0. */
bool tw_hook_poll(struct tw_hook *hook, enum tw_code *code, struct tw_error *err);
void tw_hook_free(struct tw_hook *hook); /* kills it if it still runs; NULL is fine */

#endif
