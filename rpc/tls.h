/* TLS under nng: one end of connections (a server's door or a client) with its material and with
 * what it expects of the other end.
 *
 * nng 1.5 lets a program bring its own TLS engine (nng/supplemental/tls/engine.h). Ours is OpenSSL
 * over the material of pki/tls.h. nng's built-in one ends at TLS 1.2, cannot tell who the peer is
 * and reads its files once for ever. Thread-safe. */
#ifndef TOWLINE_RPC_TLS_H
#define TOWLINE_RPC_TLS_H

#include "rpc/rpc.h"

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#define TW_RPC_HANDSHAKES_MAX                                                                      \
    256u /* under way at once at one end; further peers are hung up on                             \
          */

struct ssl_st;
struct tw_rpc_tls;

/* `url`: where a client dials; NULL for a server. The end holds `tls` while it lives. */
enum tw_code tw_rpc_tls_open(struct tw_tls *tls, const struct tw_rpc_expected *expected,
                             const char *url, struct tw_rpc_tls **end, struct tw_error *err);
/* The connections of the end keep what they need. NULL is fine. */
void tw_rpc_tls_close(struct tw_rpc_tls *end);

struct tw_tls *tw_rpc_tls_material(struct tw_rpc_tls *end);

/* For NNG_OPT_TLS_CONFIG; the caller frees its reference (nng_tls_config_free). */
int tw_rpc_tls_config(struct tw_rpc_tls *end, nng_tls_config **config);

struct tw_rpc_peer {
    uint64_t generation;         /* of our material when the connection was opened */
    struct tw_identity identity; /* role NONE when `error` is set */
    struct tw_error error;       /* why the peer is not, or no longer, to be believed */
};
/* Who is at the other end of a pipe. False when it is gone or has no TLS. */
bool tw_rpc_tls_peer(nng_pipe pipe, struct tw_rpc_peer *peer);

/* Without nng, for the probe: a new client's SSL, and after its handshake whether the server is
 * the expected one. */
struct ssl_st *tw_rpc_tls_client(struct tw_rpc_tls *end);
enum tw_code tw_rpc_tls_check(struct tw_rpc_tls *end, const struct ssl_st *connection,
                              struct tw_identity *identity, struct tw_error *err);

#endif
