/* From a request's bytes to a response's bytes: the table of services, the call of the handler,
 * the error details. Knows nothing of nng; thread-safe once the table is complete. */
#ifndef TOWLINE_RPC_DISPATCH_H
#define TOWLINE_RPC_DISPATCH_H

#include "rpc/envelope.h"
#include "rpc/rpc.h"

#include "proto/access.h"

#define TW_RPC_SERVICES_MAX 16u

struct tw_dispatch_method {
    const ProtobufCMethodDescriptor *descriptor;
    tw_rpc_handler handler;
    const struct tw_access *access; /* who may call it */
    char *full_name;                /* "towline.v1.VmService/Create" */
};

struct tw_dispatch_service {
    const ProtobufCServiceDescriptor *descriptor;
    struct tw_dispatch_method *methods; /* descriptor->n_methods of them */
    void *ctx;
};

struct tw_dispatch {
    struct tw_rpc_versions versions;
    struct tw_dispatch_service services[TW_RPC_SERVICES_MAX];
    unsigned count;
};

enum tw_code tw_dispatch_add(struct tw_dispatch *dispatch,
                             const ProtobufCServiceDescriptor *service,
                             const struct tw_rpc_method *methods, size_t count, void *ctx,
                             struct tw_error *err);
void tw_dispatch_clear(struct tw_dispatch *dispatch);

/* Handles one call that was received at `received_ns` and always yields an answer, but when
 * memory is out (then `answer->data` is NULL). With `refuse` set no handler is called and that
 * error is the answer. `caller` NULL: behind a plain door, where everything is allowed; else what
 * the contract does not allow him is answered with PERMISSION_DENIED. */
void tw_dispatch_call(const struct tw_dispatch *dispatch, const void *data, size_t size,
                      uint64_t received_ns, const struct tw_error *refuse,
                      const struct tw_identity *caller, struct tw_frame *answer);

#endif
