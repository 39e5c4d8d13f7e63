/* Why nobody answers at a URL. nng dials in the background and keeps the reason to itself, so one
 * connection is tried with plain sockets, and TLS on it. */
#ifndef TOWLINE_RPC_PROBE_H
#define TOWLINE_RPC_PROBE_H

#include "base/error.h"

#include <stdbool.h>

struct tw_rpc_tls;

/* A constant text. Takes at most `ms`; does not ask name servers. */
const char *tw_probe_reason(const char *url, unsigned ms);

/* The error of a call of method `what` that found no connection: UNAVAILABLE, or with `tls` (may
 * be NULL) UNAUTHENTICATED when one end does not believe the other. Takes at most `ms`. *hopeful:
 * somebody listens and has refused nothing; he may only be slow. */
enum tw_code tw_probe(const char *url, struct tw_rpc_tls *tls, const char *what, unsigned ms,
                      bool *hopeful, struct tw_error *err);

#endif
