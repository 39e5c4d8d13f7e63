/* Why nobody answers at a URL. nng dials in the background and keeps the reason to itself, so one
 * connection is tried with plain sockets. For the text of an error only. */
#ifndef TOWLINE_RPC_PROBE_H
#define TOWLINE_RPC_PROBE_H

/* A constant text. Takes at most `ms`; does not ask name servers. */
const char *tw_probe_reason(const char *url, unsigned ms);

#endif
