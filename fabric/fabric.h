/* Lines between hosts: one interface, several back ends (tcp, verbs, sim).
 *
 * An endpoint belongs to one thread, which calls tw_fabric_poll(); every callback comes from inside
 * that call. Nothing here blocks but poll, and that only until its deadline.
 *
 * A connection carries, each way, an ordered stream of chunks on two lanes. Bulk is bounded by
 * credits (chunks in flight that the receiver has not consumed); urgent overtakes bulk and has its
 * own small credit. A receiver consumes a chunk by returning from on_chunk. One-sided reads go to
 * memory that the peer has registered for the connection's token and are answered by its fabric,
 * not by its service.
 *
 * Who may connect: a hello carries the owner token of the migration or lease that the connection
 * belongs to; on_accept decides before anything else of the peer is looked at. Chunks with another
 * token, version, or out of sequence close the connection. */
#ifndef TOWLINE_FABRIC_FABRIC_H
#define TOWLINE_FABRIC_FABRIC_H

#include "base/clock.h"
#include "base/error.h"
#include "fabric/record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_fabric;
struct tw_conn;
struct tw_tls;

enum tw_lane { TW_LANE_BULK, TW_LANE_URGENT, TW_LANES };

/* First bytes of a connection, both ways. Fixed size on the wire (fabric/hello.h). */
struct tw_hello {
    uint16_t version;      /* newest that the sender speaks */
    uint16_t version_min;  /* oldest */
    uint32_t capabilities; /* bits; unknown ones are ignored */
    uint64_t epoch;
    uint8_t owner[TW_OWNER_SIZE]; /* token of the migration or lease */
    char name[64];                /* host name of the sender, zero-terminated, for messages */
};

struct tw_fabric_events {
    /* A peer has said hello. TW_OK accepts (set *conn_ctx); anything else refuses, and the peer
     * sees code and text; there is no on_down then. Chunks may be sent from here on. */
    enum tw_code (*on_accept)(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err);
    /* An outgoing connection was accepted by the peer. */
    void (*on_up)(void *conn_ctx, struct tw_conn *conn);
    /* A checked chunk (header, crc32c, owner, epoch and sequence are right). `payload` is valid
     * during the call, until the connection is closed. Anything but TW_OK closes the connection
     * with that error. */
    enum tw_code (*on_chunk)(void *conn_ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err);
    /* A one-sided read has ended; code tells how. Every read ends here once, at the latest before
     * on_down, unless its connection is closed by its owner. May be NULL without reads. */
    void (*on_read)(void *conn_ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code);
    /* The connection is gone (refused, closed by the peer, cut, protocol error). The last callback
     * for it; `conn` is freed when it returns. Not called after tw_conn_close() by its owner. */
    void (*on_down)(void *conn_ctx, struct tw_conn *conn, const struct tw_error *why);
};

struct tw_fabric_config {
    const char *name; /* host name for hello and messages */
    const struct tw_clock *clock;
    const struct tw_fabric_events *events;
    void *ctx;                     /* for on_accept */
    uint32_t bulk_credits;         /* chunks in flight a connection; 0 = 16 */
    uint64_t handshake_timeout_ns; /* hello must be complete by then; 0 = 5 s */
    uint64_t idle_timeout_ns;      /* silence (not even a keepalive) for so long = down; 0 = 5 s */
    uint32_t max_connections;      /* 0 = 64 */
    int wake_fd;                   /* poll returns when it is readable; <= 0 = none; stays yours */
};

/* What a back end provides. Callers use the tw_fabric_* functions below. */
struct tw_fabric_backend;
extern const struct tw_fabric_backend tw_fabric_tcp;
/* RDMA: fabric/verbs.h. The simulated one is made from a network: fabric/sim.h. */

/* backend_arg of tcp; NULL is the same as one without TLS: plain text, and then only between
 * loopback addresses. With it, every connection is TLS 1.3 between agents: both sides show a
 * certificate of the authority with the role agent, and its name is the one in the hello. `tls` is
 * kept current by its owner, who closes it after the fabric; connections go on with what they
 * began with. */
struct tw_fabric_tcp_settings {
    struct tw_tls *tls; /* pki/tls.h */
};

enum tw_code tw_fabric_open(const struct tw_fabric_backend *backend, void *backend_arg,
                            const struct tw_fabric_config *config, struct tw_fabric **fabric,
                            struct tw_error *err);
void tw_fabric_close(struct tw_fabric *fabric); /* closes its connections silently; NULL is fine */

/* "127.0.0.1:7202", "[::1]:0"; the address really bound (port filled in) is in tw_fabric_address.
 * Addresses are numbers: names are resolved by who calls, as that may take long. */
enum tw_code tw_fabric_listen(struct tw_fabric *fabric, const char *address, struct tw_error *err);
const char *tw_fabric_address(const struct tw_fabric *fabric);

/* How long a silent peer is waited for, ns: what waits for several of its answers waits longer. */
uint64_t tw_fabric_patience(const struct tw_fabric *fabric);
const char *tw_fabric_kind(const struct tw_fabric *fabric); /* "tcp", "verbs", "sim" */

/* Begins to connect; on_up or on_down follows inside `deadline_ns`. Of `hello`, epoch and owner
 * count; versions and name, where they are 0 or empty, are filled in. */
enum tw_code tw_fabric_connect(struct tw_fabric *fabric, const char *address,
                               const struct tw_hello *hello, uint64_t deadline_ns, void *conn_ctx,
                               struct tw_conn **conn, struct tw_error *err);

/* Handles what is ready; waits for something until `deadline_ns` at most (a past deadline = just
 * look). Also returns when `wake_fd` given at open becomes readable. Returns events handled. */
unsigned tw_fabric_poll(struct tw_fabric *fabric, uint64_t deadline_ns);

/* A descriptor that is readable when poll has something to do, for an outer poll loop; -1 = none
 * (sim). An outer loop must still call tw_fabric_poll at least every 100 ms. */
int tw_fabric_fd(const struct tw_fabric *fabric);

/* ---- Sending ------------------------------------------------------------------------------- */

/* A payload buffer of TW_CHUNK_PAYLOAD bytes to gather into, straight from the back end's send
 * ring; NULL when the lane has no credit or buffer now (poll, then try again). One at a time a
 * lane; it stays the caller's until sent or released. */
uint8_t *tw_conn_chunk_begin(struct tw_conn *conn, enum tw_lane lane);
/* Sends it: fills sequence, owner, epoch, crc32c; `header` gives kind, length, count and tag.
 * A chunk begun can always be sent (its credit is held), unless the connection went down. */
enum tw_code tw_conn_chunk_send(struct tw_conn *conn, enum tw_lane lane,
                                const struct tw_chunk_header *header, struct tw_error *err);
void tw_conn_chunk_release(struct tw_conn *conn, enum tw_lane lane);

/* begin + copy + send; TW_RESOURCE_EXHAUSTED when there is no credit now. */
enum tw_code tw_conn_send(struct tw_conn *conn, enum tw_lane lane, enum tw_chunk_kind kind,
                          uint32_t tag, uint32_t count, const void *payload, uint32_t length,
                          struct tw_error *err);

/* True when everything sent on the lane was consumed by the peer (all credits are back). */
bool tw_conn_drained(const struct tw_conn *conn, enum tw_lane lane);
/* Chunks sent on the lane that the peer is not known to have consumed. It tells of a quarter of its
 * credits at a time, so the last few of a group stay in this number until more follow. */
uint32_t tw_conn_in_flight(const struct tw_conn *conn, enum tw_lane lane);

/* ---- Registered memory and one-sided reads --------------------------------------------------- */

/* Exposes memory for reading to connections whose hello carries `token`. Returns its key. */
enum tw_code tw_fabric_register(struct tw_fabric *fabric, const void *memory, uint64_t length,
                                const uint8_t token[TW_OWNER_SIZE], uint32_t *key,
                                struct tw_error *err);
void tw_fabric_unregister(struct tw_fabric *fabric, uint32_t key);

/* Reads [address, address+length) of the peer's region `key` into `into`; on_read follows.
 * length <= TW_CHUNK_PAYLOAD. Out of range or a foreign key ends in on_read(TW_OUT_OF_RANGE). */
enum tw_code tw_conn_read(struct tw_conn *conn, uint32_t key, uint64_t address, uint32_t length,
                          void *into, uint64_t cookie, struct tw_error *err);

/* ---- The rest ------------------------------------------------------------------------------ */

/* Closes without a callback. The peer sees on_down. What was sent and not yet consumed may be lost:
 * wait for tw_conn_drained() where that matters. Also inside callbacks. NULL is fine. */
void tw_conn_close(struct tw_conn *conn);
void *tw_conn_ctx(const struct tw_conn *conn);
const struct tw_hello *tw_conn_peer(const struct tw_conn *conn);
const char *tw_conn_kind(const struct tw_conn *conn); /* back end that it runs on: "tcp" */

struct tw_conn_stats {
    uint64_t bytes_sent; /* on the wire, headers and protocol included */
    uint64_t bytes_received;
    uint64_t chunks_sent;
    uint64_t chunks_received;
    uint64_t credit_stalls; /* begins refused for want of credit */
    uint64_t reads;         /* one-sided reads begun here */
    uint64_t reconnects;    /* queue pairs lost and replaced, with nothing lost (verbs) */
};
void tw_conn_stats_get(const struct tw_conn *conn, struct tw_conn_stats *out);

#endif
