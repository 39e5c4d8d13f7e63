/* What the engine (tls_engine.c) needs of an end (tls.c). */
#ifndef TOWLINE_RPC_TLS_END_H
#define TOWLINE_RPC_TLS_END_H

#include "rpc/tls.h"

#include <nng/supplemental/tls/engine.h>
#include <stdatomic.h>

struct tw_rpc_tls {
    _Atomic unsigned references; /* the owner, and nng's configuration object */
    struct tw_tls *tls;
    struct tw_rpc_expected expected; /* role NONE: a server, which takes everybody it can trust */
    char name[TW_IDENTITY_NAME];     /* what expected.name points to */
    char host[256];                  /* of the URL; empty when the name is known, or for a server */
    bool server;
};

void tw_rpc_tls_hold(struct tw_rpc_tls *end);

/* What nng is handed on the calling thread's stack, for the engine's functions that nng calls
 * before it returns: nng has no argument of its own for them. */
struct tw_rpc_handed {
    struct tw_rpc_tls *end;   /* to nng_tls_engine_config_ops.init */
    struct tw_rpc_peer *peer; /* to nng_tls_engine_conn_ops.verified, which fills it */
    bool filled;
};
extern _Thread_local struct tw_rpc_handed *tw_rpc_handed;

extern const nng_tls_engine tw_rpc_tls_engine;

#endif
