/* Frames from a hostile peer: first byte picks the side, the rest is the frame. Whatever passes
 * the checks is packed again and must pass them again. */
#include "rpc/dispatch.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "towline/v1/agent.pb-c.h"
#include "towline/v1/common.pb-c.h"
#include "towline/v1/event.pb-c.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/migration.pb-c.h"
#include "towline/v1/vm.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tw_rpc_versions accepted = {.newest = 1, .oldest = 1};

static const ProtobufCServiceDescriptor *const services[] = {
    &towline__v1__agent_service__descriptor, &towline__v1__event_service__descriptor,
    &towline__v1__host_service__descriptor, &towline__v1__migration_service__descriptor,
    &towline__v1__vm_service__descriptor};

static void request_again(Towline__V1__RpcRequest *request)
{
    struct tw_frame frame;
    Towline__V1__RpcRequest *again;
    ProtobufCBinaryData body = request->body;
    request->body = (ProtobufCBinaryData){0};
    enum tw_code code = tw_envelope_request_pack(request, NULL, &frame, NULL);
    request->body = body;
    assert(code == TW_OK);
    code = tw_envelope_request_unpack(frame.data, frame.size, accepted, &again, NULL);
    assert(code == TW_OK && strcmp(again->request_id, request->request_id) == 0);
    towline__v1__rpc_request__free_unpacked(again, NULL);
    tw_frame_free(&frame);
}

static void request_try(const uint8_t *data, size_t size)
{
    Towline__V1__RpcRequest *request;
    struct tw_error err = {0};
    enum tw_code code = tw_envelope_request_unpack(data, size, accepted, &request, &err);
    assert((code == TW_OK) == (err.code == TW_OK));
    if (code == TW_OK)
        request_again(request);
    if (request)
        towline__v1__rpc_request__free_unpacked(request, NULL);
}

static void response_try(const uint8_t *data, size_t size)
{
    Towline__V1__RpcResponse *response;
    struct tw_error err = {0};
    if (tw_envelope_response_unpack(data, size, "r-1", &response, &err) != TW_OK) {
        assert(!response);
        return;
    }
    tw_error_from_proto(response->error, &err);
    assert(memchr(err.where, 0, sizeof err.where) && memchr(err.what, 0, sizeof err.what));
    towline__v1__rpc_response__free_unpacked(response, NULL);
}

static enum tw_code nothing(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err)
{
    (void)ctx;
    (void)call;
    (void)response;
    (void)err;
    assert(protobuf_c_message_check(request));
    return TW_OK;
}

/* A valid head around the bytes, so that bodies of every method are reached. */
static void body_try(const struct tw_dispatch *dispatch, uint8_t pick, const uint8_t *data,
                     size_t size)
{
    const ProtobufCServiceDescriptor *service = services[pick % 5];
    Towline__V1__RpcRequest head = TOWLINE__V1__RPC_REQUEST__INIT;
    struct tw_frame frame, answer;
    head.version = 1;
    char id[] = "r-1";
    head.request_id = id;
    head.deadline_ms = 1000;
    head.service = (char *)(uintptr_t)service->name;
    head.method = (char *)(uintptr_t)service->methods[pick / 5 % service->n_methods].name;
    head.body = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
    static const struct tw_identity agent = {TW_ROLE_AGENT, "a", 0};
    const struct tw_identity *caller = size % 2 ? &agent : NULL;
    frame.data = malloc(towline__v1__rpc_request__get_packed_size(&head));
    frame.size = towline__v1__rpc_request__pack(&head, frame.data);
    tw_dispatch_call(dispatch, frame.data, frame.size, UINT64_MAX / 2, NULL, caller, &answer);
    assert(answer.data);
    response_try(answer.data, answer.size);
    tw_frame_free(&answer);
    tw_frame_free(&frame);
}

static struct tw_dispatch *dispatch_once(void)
{
    static struct tw_dispatch dispatch;
    struct tw_rpc_method methods[16];
    for (unsigned s = 0; dispatch.count < 5; s++) {
        for (unsigned m = 0; m < services[s]->n_methods; m++)
            methods[m] = (struct tw_rpc_method){services[s]->methods[m].name, nothing};
        tw_dispatch_add(&dispatch, services[s], methods, services[s]->n_methods, NULL, NULL);
    }
    dispatch.versions = accepted;
    tw_log_configure("fuzz", TW_LOG_OFF);
    return &dispatch;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    switch (data[0] % 3) {
    case 0:
        request_try(data + 1, size - 1);
        break;
    case 1:
        response_try(data + 1, size - 1);
        break;
    default:
        body_try(dispatch_once(), data[1], data + 2, size - 2);
    }
    return 0;
}
