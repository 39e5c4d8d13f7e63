/* An end for handshakes that do not end by themselves.
 *
 * nng 1.5 has a timeout for them, but it does not reach a TLS connection that waits for its peer's
 * bytes: whoever connects and keeps silent would hold a connection for ever, and a client would
 * wait for such a server for ever. So a thread of ours has those connections fail whose handshake
 * takes too long, and the oldest of them when there are too many. */
#ifndef TOWLINE_RPC_TLS_SHAKE_H
#define TOWLINE_RPC_TLS_SHAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TW_RPC_HANDSHAKE_MS   10000u
#define TW_RPC_HANDSHAKES_MAX 256u /* in the process; with more, the oldest is hung up on */

/* A part of the connection. */
struct tw_rpc_shake {
    void *stream; /* nng's */
    uint64_t deadline_ns;
    _Atomic bool expired; /* the engine gives up at the next step */
    bool listed;
    bool closing; /* the thread uses the stream */
    struct tw_rpc_shake *next, *previous;
};

/* `shake` is zeroed. False when the thread cannot be started, or twice as many as may be are under
 * way. */
bool tw_rpc_shake_begin(struct tw_rpc_shake *shake, void *stream);
/* The handshake is over, either way. May be called again, and with nng's lock held. */
void tw_rpc_shake_end(struct tw_rpc_shake *shake);
/* Before the connection is freed: waits until the thread has let go of it. Not with nng's lock. */
void tw_rpc_shake_leave(struct tw_rpc_shake *shake);

#endif
