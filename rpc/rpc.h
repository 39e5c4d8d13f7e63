/* Protobuf services over nng request/reply: gRPC's status codes, deadlines that travel, request
 * ids, typed error details, bounded messages, a version window. Frame: envelope.proto.
 *
 * Server: handlers run on the server's worker threads, several at once; they must be thread-safe
 * and return before the call's deadline. Client: thread-safe, one client for each peer. nng's own
 * resend is off; the client repeats a call only when it is marked idempotent and its deadline has
 * not passed.
 *
 * Doors. tls+tcp:// is for everybody else's machines: TLS 1.3, certificates on both sides. tcp://
 * is plain and has to be asked for (`insecure`), on loopback only; ipc:// (a socket of mode 0600)
 * and inproc:// are plain too. Behind a plain door everything is allowed; behind TLS the contract
 * says who may call what (proto/towline/v1/access.proto). */
#ifndef TOWLINE_RPC_RPC_H
#define TOWLINE_RPC_RPC_H

#include "base/error.h"
#include "pki/tls.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_RPC_VERSION     1u                  /* spoken by this build */
#define TW_RPC_VERSION_MIN 1u                  /* oldest accepted: the one before, from 2 on */
#define TW_RPC_MESSAGE_MAX (UINT32_C(4) << 20) /* bytes; greater ones are refused unread */

struct tw_rpc_server;
struct tw_rpc_client;

struct tw_rpc_call {
    const char *request_id;
    const char *method;               /* "towline.v1.VmService/Create" */
    uint64_t deadline_ns;             /* monotonic; the caller has gone by then */
    const struct tw_identity *caller; /* NULL behind a plain door */
};

/* `response` is initialised; whatever the handler puts in is malloc'ed and freed by the server
 * (protobuf_c_message_free_unpacked). On an error code the response is dropped. */
typedef enum tw_code (*tw_rpc_handler)(void *ctx, const struct tw_rpc_call *call,
                                       const ProtobufCMessage *request, ProtobufCMessage *response,
                                       struct tw_error *err);

struct tw_rpc_method {
    const char *name; /* "Create" */
    tw_rpc_handler handler;
};

/* INVALID_ARGUMENT with a text for people when a door of that URL may not be opened: TLS without
 * material (or the reverse), plain text that was not asked for or is not on loopback. */
enum tw_code tw_rpc_url_check(const char *url, bool has_tls, bool insecure, struct tw_error *err);

struct tw_rpc_server_config {
    const char *url;      /* "tls+tcp://0.0.0.0:7100", "ipc:///run/x.sock", "inproc://x" */
    struct tw_tls *tls;   /* for tls+tcp://, held by the server; else NULL */
    bool insecure;        /* tcp:// on loopback is meant */
    unsigned workers;     /* calls handled at once; 0 = 8 */
    uint32_t version;     /* 0 = TW_RPC_VERSION; tests set another */
    uint32_t version_min; /* 0 = TW_RPC_VERSION_MIN */
};

enum tw_code tw_rpc_server_open(const struct tw_rpc_server_config *config,
                                struct tw_rpc_server **server, struct tw_error *err);
/* Before start. Every method of `service` must be in `methods`, and no other. */
enum tw_code tw_rpc_server_add(struct tw_rpc_server *server,
                               const ProtobufCServiceDescriptor *service,
                               const struct tw_rpc_method *methods, size_t count, void *ctx,
                               struct tw_error *err);
enum tw_code tw_rpc_server_start(struct tw_rpc_server *server, struct tw_error *err);
const char *tw_rpc_server_url(const struct tw_rpc_server *server); /* with the real port */
/* Waits for running handlers, bounded. NULL is fine. */
void tw_rpc_server_close(struct tw_rpc_server *server);

/* Who is expected to answer. Without a name its certificate has to have the URL's host. */
struct tw_rpc_expected {
    enum tw_identity_role role; /* NONE: of any role */
    const char *name;           /* NULL or empty: of any name */
};

struct tw_rpc_client_config {
    const char *url;
    struct tw_tls *tls; /* for tls+tcp://, held by the client; else NULL */
    struct tw_rpc_expected expected;
    bool insecure;    /* tcp:// on loopback is meant */
    uint32_t version; /* 0 = TW_RPC_VERSION */
};

enum tw_code tw_rpc_client_open(const struct tw_rpc_client_config *config,
                                struct tw_rpc_client **client, struct tw_error *err);
void tw_rpc_client_close(struct tw_rpc_client *client);

enum tw_rpc_flags { TW_RPC_ONCE = 0, TW_RPC_IDEMPOTENT = 1 };

/* A client whose certificates were read again opens a new connection as soon as no call is under
 * way on the old one.
 *
 * One call. `response` is of the method's output type; free it with
 * protobuf_c_message_free_unpacked. UNAVAILABLE: could not be delivered or no answer came;
 * DEADLINE_EXCEEDED: not in time; UNAUTHENTICATED, PERMISSION_DENIED: the server does not believe
 * us, or not that we may. */
enum tw_code tw_rpc_call(struct tw_rpc_client *client, const ProtobufCServiceDescriptor *service,
                         const char *method, const ProtobufCMessage *request, unsigned timeout_ms,
                         enum tw_rpc_flags flags, ProtobufCMessage **response,
                         struct tw_error *err);

/* ---- Conversions that every service needs --------------------------------------------------- */

struct Towline__V1__ErrorDetail;
/* malloc'ed; NULL when err is NULL or OK. */
struct Towline__V1__ErrorDetail *tw_error_to_proto(const struct tw_error *err);
void tw_error_from_proto(const struct Towline__V1__ErrorDetail *detail, struct tw_error *err);

#endif
