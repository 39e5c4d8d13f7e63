#include "rpc/dispatch.h"

#include "base/clock.h"
#include "base/log.h"

#include "towline/v1/common.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The table ------------------------------------------------------------------------------ */

static const struct tw_rpc_method *method_named(const struct tw_rpc_method *methods, size_t count,
                                                const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

static enum tw_code methods_check(const ProtobufCServiceDescriptor *service,
                                  const struct tw_rpc_method *methods, size_t count,
                                  struct tw_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!protobuf_c_service_descriptor_get_method_by_name(service, methods[i].name))
            return tw_fail(err, TW_INVALID_ARGUMENT, service->name, "a method of the service",
                           methods[i].name, "handler for an unknown method");
        if (method_named(methods, i, methods[i].name))
            return tw_fail(err, TW_INVALID_ARGUMENT, service->name, NULL, methods[i].name,
                           "two handlers for one method");
    }
    for (unsigned i = 0; i < service->n_methods; i++) {
        const char *name = service->methods[i].name;
        const struct tw_rpc_method *method = method_named(methods, count, name);
        if (!method || !method->handler)
            return tw_fail(err, TW_INVALID_ARGUMENT, service->name, name, NULL,
                           "method without a handler");
        if (!tw_access_find(service->name, name))
            return tw_fail(err, TW_INVALID_ARGUMENT, service->name, "option (access)", name,
                           "the contract does not say who may call the method");
    }
    return TW_OK;
}

static const struct tw_dispatch_service *service_named(const struct tw_dispatch *dispatch,
                                                       const char *name)
{
    for (unsigned i = 0; i < dispatch->count; i++)
        if (strcmp(dispatch->services[i].descriptor->name, name) == 0)
            return &dispatch->services[i];
    return NULL;
}

static void service_clear(struct tw_dispatch_service *entry)
{
    for (unsigned i = 0; entry->methods && i < entry->descriptor->n_methods; i++)
        free(entry->methods[i].full_name);
    free(entry->methods);
    entry->methods = NULL;
}

enum tw_code tw_dispatch_add(struct tw_dispatch *dispatch,
                             const ProtobufCServiceDescriptor *service,
                             const struct tw_rpc_method *methods, size_t count, void *ctx,
                             struct tw_error *err)
{
    enum tw_code code = methods_check(service, methods, count, err);
    if (code != TW_OK)
        return code;
    if (dispatch->count == TW_RPC_SERVICES_MAX || service_named(dispatch, service->name))
        return tw_fail(err, TW_ALREADY_EXISTS, service->name, NULL, NULL,
                       "service added twice, or too many services");
    struct tw_dispatch_service *entry = &dispatch->services[dispatch->count];
    *entry = (struct tw_dispatch_service){
        service, calloc(service->n_methods ? service->n_methods : 1, sizeof *entry->methods), ctx};
    for (unsigned i = 0; entry->methods && i < service->n_methods; i++) {
        const char *name = service->methods[i].name;
        struct tw_dispatch_method *method = &entry->methods[i];
        method->descriptor = &service->methods[i];
        method->handler = method_named(methods, count, name)->handler;
        method->access = tw_access_find(service->name, name);
        if (asprintf(&method->full_name, "%s/%s", service->name, name) < 0) {
            method->full_name = NULL;
            service_clear(entry);
        }
    }
    if (!entry->methods)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, service->name, NULL, NULL, "out of memory");
    dispatch->count++;
    return TW_OK;
}

void tw_dispatch_clear(struct tw_dispatch *dispatch)
{
    for (unsigned i = 0; i < dispatch->count; i++)
        service_clear(&dispatch->services[i]);
    dispatch->count = 0;
}

/* ---- One call ------------------------------------------------------------------------------- */

struct found {
    const struct tw_dispatch_service *service;
    const struct tw_dispatch_method *method;
};

static enum tw_code find(const struct tw_dispatch *dispatch, const Towline__V1__RpcRequest *request,
                         struct found *found, struct tw_error *err)
{
    found->service = service_named(dispatch, request->service);
    if (!found->service)
        return tw_fail(err, TW_UNIMPLEMENTED, "rpc", NULL, request->service,
                       "service not offered here");
    const ProtobufCServiceDescriptor *descriptor = found->service->descriptor;
    for (unsigned i = 0; i < descriptor->n_methods; i++) {
        found->method = &found->service->methods[i];
        if (strcmp(descriptor->methods[i].name, request->method) == 0)
            return TW_OK;
    }
    return tw_fail(err, TW_UNIMPLEMENTED, request->service, NULL, request->method,
                   "method not offered here");
}

/* ---- Who may -------------------------------------------------------------------------------- */

/* The one place where a role decides. */
static enum tw_code role_check(const struct tw_access *access, const struct tw_rpc_call *call,
                               struct tw_error *err)
{
    char expected[64] = "", given[TW_IDENTITY_TEXT];
    size_t used = 0;
    if (access->roles & (1u << call->caller->role))
        return TW_OK;
    for (unsigned role = TW_ROLE_NONE + 1; role < TW_ROLE_COUNT; role++)
        if (access->roles & (1u << role))
            used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                     used ? ", " : "", tw_role_name((enum tw_identity_role)role));
    return tw_fail(err, TW_PERMISSION_DENIED, call->method, expected,
                   tw_identity_text(call->caller, given), "the role does not allow this call");
}

/* The string field at the end of a path like "host.name"; NULL when a message on it is not set. */
static const char *text_at(const ProtobufCMessage *message, const char *path)
{
    char name[64];
    const char *dot;
    for (; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
        if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE ||
            field->label == PROTOBUF_C_LABEL_REPEATED)
            return NULL;
        message = *(ProtobufCMessage *const *)(const void *)((const char *)message + field->offset);
        if (!message)
            return NULL;
    }
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, path);
    if (!field || field->type != PROTOBUF_C_TYPE_STRING ||
        field->label == PROTOBUF_C_LABEL_REPEATED)
        return NULL;
    return *(const char *const *)(const void *)((const char *)message + field->offset);
}

/* Where the contract names a field: the caller speaks for itself only. */
static enum tw_code self_check(const struct tw_access *access, const struct tw_rpc_call *call,
                               const ProtobufCMessage *input, struct tw_error *err)
{
    if (!access->self)
        return TW_OK;
    const char *named = text_at(input, access->self);
    if (named && strcmp(named, call->caller->name) == 0)
        return TW_OK;
    char who[TW_IDENTITY_TEXT];
    return tw_fail(err, TW_PERMISSION_DENIED, call->method, call->caller->name,
                   named ? named : "nobody", "%s may speak for itself only",
                   tw_identity_text(call->caller, who));
}

/* ---- The handler ---------------------------------------------------------------------------- */

static enum tw_code handle(const struct found *found, const struct tw_rpc_call *call,
                           const Towline__V1__RpcRequest *request, ProtobufCMessage *output,
                           struct tw_error *err)
{
    const ProtobufCMessageDescriptor *type = found->method->descriptor->input;
    ProtobufCMessage *input =
        protobuf_c_message_unpack(type, NULL, request->body.len, request->body.data);
    if (!input)
        return tw_fail(err, TW_INVALID_ARGUMENT, call->method, type->name, NULL,
                       "request body of %zu bytes cannot be read", request->body.len);
    enum tw_code code = call->caller ? self_check(found->method->access, call, input, err) : TW_OK;
    if (code == TW_OK)
        code = found->method->handler(found->service->ctx, call, input, output, err);
    protobuf_c_message_free_unpacked(input, NULL);
    /* The code decides; an error that a handler filled on the way to success is not one. */
    if (code != TW_OK && err->code != code) {
        if (err->code == TW_OK)
            tw_fail(err, code, call->method, NULL, NULL, "%s", tw_code_name(code));
        err->code = code;
    }
    return code;
}

static ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = calloc(1, type->sizeof_message);
    if (message)
        protobuf_c_message_init(type, message);
    return message;
}

static void refusal_log(const struct tw_rpc_call *call, const struct tw_error *err)
{
    char who[TW_IDENTITY_TEXT];
    if (err->code == TW_PERMISSION_DENIED && call->caller)
        tw_log(TW_LOG_WARN, "rpc.server", "call denied", "caller=\"%s\" method=%s request=%s",
               tw_identity_text(call->caller, who), call->method, call->request_id);
}

static enum tw_code run(const struct tw_dispatch *dispatch, const Towline__V1__RpcRequest *request,
                        uint64_t received_ns, const struct tw_identity *caller,
                        ProtobufCMessage **output, struct tw_error *err)
{
    struct found found = {0};
    enum tw_code code = find(dispatch, request, &found, err);
    if (code != TW_OK)
        return code;
    struct tw_rpc_call call = {request->request_id, found.method->full_name,
                               tw_after(received_ns, request->deadline_ms * TW_MS), caller};
    uint64_t start_ns = tw_now(&tw_monotonic);
    if (caller && role_check(found.method->access, &call, err) != TW_OK) {
        refusal_log(&call, err);
        return err->code;
    }
    if (start_ns >= call.deadline_ns)
        return tw_fail(err, TW_DEADLINE_EXCEEDED, call.method, NULL, NULL,
                       "waited for a worker until its deadline of %u ms had passed",
                       request->deadline_ms);
    *output = message_new(found.method->descriptor->output);
    if (!*output)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, call.method, NULL, NULL, "out of memory");
    code = handle(&found, &call, request, *output, err);
    refusal_log(&call, err);
    tw_log(TW_LOG_DEBUG, "rpc.server", "call", "method=%s request=%s code=%s us=%llu", call.method,
           call.request_id, tw_code_name(code),
           (unsigned long long)((tw_now(&tw_monotonic) - start_ns) / TW_US));
    return code;
}

static void answer_pack(const struct tw_dispatch *dispatch, char *request_id,
                        const ProtobufCMessage *output, const struct tw_error *failed,
                        struct tw_frame *answer)
{
    Towline__V1__RpcResponse head = TOWLINE__V1__RPC_RESPONSE__INIT;
    head.version = dispatch->versions.newest;
    head.request_id = request_id;
    head.code = failed ? (uint32_t)failed->code : 0;
    head.error = tw_error_to_proto(failed);
    struct tw_error too_large = {0};
    enum tw_code code = tw_envelope_response_pack(&head, output, answer, &too_large);
    if (head.error)
        towline__v1__error_detail__free_unpacked(head.error, NULL);
    /* An answer that does not fit becomes an error, which does. */
    if (code != TW_OK && !failed)
        answer_pack(dispatch, request_id, NULL, &too_large, answer);
}

void tw_dispatch_call(const struct tw_dispatch *dispatch, const void *data, size_t size,
                      uint64_t received_ns, const struct tw_error *refuse,
                      const struct tw_identity *caller, struct tw_frame *answer)
{
    struct tw_error err = {0};
    Towline__V1__RpcRequest *request = NULL;
    ProtobufCMessage *output = NULL;
    enum tw_code code = tw_envelope_request_unpack(data, size, dispatch->versions, &request, &err);
    if (code != TW_OK) {
        tw_log(TW_LOG_WARN, "rpc.server", "request refused", "code=%s bytes=%zu why=\"%s\"",
               tw_code_name(code), size, err.what);
    } else if (refuse) {
        err = *refuse;
        code = err.code;
    } else {
        code = run(dispatch, request, received_ns, caller, &output, &err);
    }
    char no_id[] = "";
    bool has_id = request && tw_envelope_id_valid(request->request_id);
    answer_pack(dispatch, has_id ? request->request_id : no_id, code == TW_OK ? output : NULL,
                code == TW_OK ? NULL : &err, answer);
    if (output)
        protobuf_c_message_free_unpacked(output, NULL);
    if (request)
        towline__v1__rpc_request__free_unpacked(request, NULL);
}
