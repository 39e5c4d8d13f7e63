#include "rpc/envelope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tw_frame_free(struct tw_frame *frame)
{
    free(frame->data);
    *frame = (struct tw_frame){0};
}

static enum tw_code too_large(struct tw_error *err, size_t size)
{
    char expected[64], given[64];
    snprintf(expected, sizeof expected, "at most %u bytes", TW_RPC_MESSAGE_MAX);
    snprintf(given, sizeof given, "%zu bytes", size);
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, "rpc", expected, given, "message too large");
}

/* Packs the head, whose body field (at `field`) is filled from `body` for the time of the call. */
static enum tw_code pack(const ProtobufCMessage *head, ProtobufCBinaryData *field,
                         const ProtobufCMessage *body, struct tw_frame *frame, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    *frame = (struct tw_frame){0};
    size_t body_size = body ? protobuf_c_message_get_packed_size(body) : 0;
    if (body_size > TW_RPC_MESSAGE_MAX)
        return too_large(err, body_size);
    *field = (ProtobufCBinaryData){body_size, malloc(body_size ? body_size : 1)};
    if (!field->data)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "rpc", NULL, NULL, "out of memory");
    if (body)
        protobuf_c_message_pack(body, field->data);
    size_t size = protobuf_c_message_get_packed_size(head);
    if (size > TW_RPC_MESSAGE_MAX)
        code = too_large(err, size);
    else if (!(frame->data = malloc(size ? size : 1)))
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, "rpc", NULL, NULL, "out of memory");
    else
        frame->size = protobuf_c_message_pack(head, frame->data);
    free(field->data);
    *field = (ProtobufCBinaryData){0};
    return code;
}

enum tw_code tw_envelope_request_pack(Towline__V1__RpcRequest *head, const ProtobufCMessage *body,
                                      struct tw_frame *frame, struct tw_error *err)
{
    return pack(&head->base, &head->body, body, frame, err);
}

enum tw_code tw_envelope_response_pack(Towline__V1__RpcResponse *head, const ProtobufCMessage *body,
                                       struct tw_frame *frame, struct tw_error *err)
{
    return pack(&head->base, &head->body, body, frame, err);
}

static bool characters_ok(const char *text, size_t max, const char *extra)
{
    size_t length = strnlen(text, max + 1);
    if (length == 0 || length > max)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        bool alphanumeric =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alphanumeric && !strchr(extra, c))
            return false;
    }
    return true;
}

bool tw_envelope_id_valid(const char *request_id)
{
    return characters_ok(request_id, TW_RPC_REQUEST_ID_MAX, "._:-");
}

static enum tw_code version_check(uint32_t version, struct tw_rpc_versions accepted,
                                  struct tw_error *err)
{
    char expected[64], given[32];
    if (version >= accepted.oldest && version <= accepted.newest)
        return TW_OK;
    if (accepted.oldest == accepted.newest)
        snprintf(expected, sizeof expected, "version %u", accepted.newest);
    else
        snprintf(expected, sizeof expected, "version %u to %u", accepted.oldest, accepted.newest);
    snprintf(given, sizeof given, "version %u", version);
    return tw_fail(err, TW_FAILED_PRECONDITION, "rpc", expected, given,
                   "protocol version not spoken here");
}

static enum tw_code request_check(const Towline__V1__RpcRequest *request,
                                  struct tw_rpc_versions accepted, struct tw_error *err)
{
    /* The version first: the other fields may mean something else in another version. */
    enum tw_code code = version_check(request->version, accepted, err);
    if (code != TW_OK)
        return code;
    if (!tw_envelope_id_valid(request->request_id))
        return tw_fail(err, TW_INVALID_ARGUMENT, "rpc", "1 to 64 characters of [A-Za-z0-9._:-]",
                       NULL, "request id not usable");
    if (!characters_ok(request->service, TW_RPC_NAME_MAX, "._") ||
        !characters_ok(request->method, TW_RPC_NAME_MAX, "_"))
        return tw_fail(err, TW_INVALID_ARGUMENT, "rpc", "1 to 128 letters, digits, dots", NULL,
                       "name of service or method not usable");
    if (request->deadline_ms == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, "rpc", "a deadline of at least 1 ms", "0",
                       "call without a deadline");
    return TW_OK;
}

enum tw_code tw_envelope_request_unpack(const void *data, size_t size,
                                        struct tw_rpc_versions accepted,
                                        Towline__V1__RpcRequest **request, struct tw_error *err)
{
    *request = NULL;
    if (size > TW_RPC_MESSAGE_MAX)
        return too_large(err, size);
    *request = towline__v1__rpc_request__unpack(NULL, size, data);
    if (!*request)
        return tw_fail(err, TW_INVALID_ARGUMENT, "rpc", "a towline.v1.RpcRequest", NULL,
                       "request frame of %zu bytes cannot be read", size);
    enum tw_code code = request_check(*request, accepted, err);
    if ((*request)->deadline_ms > TW_RPC_DEADLINE_MS_MAX)
        (*request)->deadline_ms = TW_RPC_DEADLINE_MS_MAX;
    return code;
}

enum tw_code tw_envelope_response_unpack(const void *data, size_t size, const char *request_id,
                                         Towline__V1__RpcResponse **response, struct tw_error *err)
{
    *response = NULL;
    if (size > TW_RPC_MESSAGE_MAX)
        return too_large(err, size);
    *response = towline__v1__rpc_response__unpack(NULL, size, data);
    if (!*response)
        return tw_fail(err, TW_INTERNAL, "rpc", "a towline.v1.RpcResponse", NULL,
                       "response frame of %zu bytes cannot be read", size);
    /* A frame that could not be read at all is answered without an id. */
    const char *id = (*response)->request_id;
    if (strcmp(id, request_id) == 0 || (*id == 0 && (*response)->code != 0))
        return TW_OK;
    char given[TW_RPC_REQUEST_ID_MAX + 1];
    snprintf(given, sizeof given, "%s", tw_envelope_id_valid(id) ? id : "an unusable id");
    towline__v1__rpc_response__free_unpacked(*response, NULL);
    *response = NULL;
    return tw_fail(err, TW_INTERNAL, "rpc", request_id, given, "answer to another request");
}
