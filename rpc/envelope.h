/* The frame of requests and responses (proto/towline/v1/envelope.proto): packing, unpacking and
 * the checks that stand before anything else looks at a peer's bytes. Knows nothing of nng. */
#ifndef TOWLINE_RPC_ENVELOPE_H
#define TOWLINE_RPC_ENVELOPE_H

#include "rpc/rpc.h"

#include "towline/v1/envelope.pb-c.h"

#define TW_RPC_REQUEST_ID_MAX  64u      /* characters of [A-Za-z0-9._:-] */
#define TW_RPC_NAME_MAX        128u     /* characters of a service's or method's name */
#define TW_RPC_DEADLINE_MS_MAX 3600000u /* longer ones are cut to an hour */

struct tw_rpc_versions {
    uint32_t newest;
    uint32_t oldest;
};

/* malloc'ed bytes of one frame. */
struct tw_frame {
    uint8_t *data;
    size_t size;
};

void tw_frame_free(struct tw_frame *frame);

/* Packs `head` with `body` (may be NULL) as its body field. RESOURCE_EXHAUSTED when the frame is
 * greater than TW_RPC_MESSAGE_MAX or memory is out. */
enum tw_code tw_envelope_request_pack(Towline__V1__RpcRequest *head, const ProtobufCMessage *body,
                                      struct tw_frame *frame, struct tw_error *err);
enum tw_code tw_envelope_response_pack(Towline__V1__RpcResponse *head, const ProtobufCMessage *body,
                                       struct tw_frame *frame, struct tw_error *err);

/* Unpacks and checks a request. On failure *request may still be set (its id is then usable for
 * the answer when tw_envelope_id_valid says so); free it in either case. */
enum tw_code tw_envelope_request_unpack(const void *data, size_t size,
                                        struct tw_rpc_versions accepted,
                                        Towline__V1__RpcRequest **request, struct tw_error *err);

/* Unpacks a response and checks that it answers `request_id`. */
enum tw_code tw_envelope_response_unpack(const void *data, size_t size, const char *request_id,
                                         Towline__V1__RpcResponse **response, struct tw_error *err);

bool tw_envelope_id_valid(const char *request_id);

#endif
