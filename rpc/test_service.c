#include "rpc/test_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void test_sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void begin(struct test_service *service)
{
    atomic_fetch_add(&service->calls, 1);
    unsigned now = atomic_fetch_add(&service->running, 1) + 1;
    unsigned most = atomic_load(&service->running_max);
    while (now > most && !atomic_compare_exchange_weak(&service->running_max, &most, now))
        continue;
}

static Towline__V1__Vm *vm_new(const char *name, const char *reason)
{
    Towline__V1__Vm *vm = malloc(sizeof *vm);
    towline__v1__vm__init(vm);
    vm->spec = malloc(sizeof *vm->spec);
    towline__v1__vm_spec__init(vm->spec);
    vm->spec->name = strdup(name);
    vm->reason = strdup(reason);
    return vm;
}

/* Bounded, so that a test that fails ends. */
static void hold(struct test_service *service)
{
    for (unsigned ms = 0; ms < 30000 && !atomic_load(&service->let_go); ms++)
        test_sleep_ms(1);
}

static enum tw_code act(struct test_service *service, const char *name,
                        const struct tw_rpc_call *call, Towline__V1__Vm **vm, struct tw_error *err)
{
    unsigned n = 0;
    *vm = vm_new(name, call->request_id);
    if (sscanf(name, "fail:%u", &n) == 1)
        return tw_fail(err, (enum tw_code)n, "vm web-1", "4 KiB", "3 bytes", "number %u", n);
    if (sscanf(name, "bare:%u", &n) == 1)
        return (enum tw_code)n;
    if (sscanf(name, "sleep:%u", &n) == 1)
        test_sleep_ms(n);
    if (strcmp(name, "hold") == 0)
        hold(service);
    if (sscanf(name, "large:%u", &n) == 1) {
        (*vm)->spec->command_line = malloc(n + 1);
        memset((*vm)->spec->command_line, 'x', n);
        (*vm)->spec->command_line[n] = 0;
    }
    return TW_OK;
}

static enum tw_code on_get(void *ctx, const struct tw_rpc_call *call,
                           const ProtobufCMessage *request, ProtobufCMessage *response,
                           struct tw_error *err)
{
    struct test_service *service = ctx;
    begin(service);
    const char *name = ((const Towline__V1__GetVmRequest *)request)->name;
    enum tw_code code =
        act(service, name, call, &((Towline__V1__GetVmResponse *)response)->vm, err);
    atomic_fetch_sub(&service->running, 1);
    return code;
}

static enum tw_code on_stop(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err)
{
    struct test_service *service = ctx;
    begin(service);
    const char *name = ((const Towline__V1__StopVmRequest *)request)->name;
    enum tw_code code =
        act(service, name, call, &((Towline__V1__StopVmResponse *)response)->vm, err);
    atomic_fetch_sub(&service->running, 1);
    return code;
}

static enum tw_code on_create(void *ctx, const struct tw_rpc_call *call,
                              const ProtobufCMessage *request, ProtobufCMessage *response,
                              struct tw_error *err)
{
    (void)ctx;
    (void)err;
    const Towline__V1__VmSpec *spec = ((const Towline__V1__CreateVmRequest *)request)->spec;
    Towline__V1__Vm *vm = vm_new(spec ? spec->name : "", call->method);
    if (spec)
        vm->spec->command_line = strdup(spec->command_line);
    ((Towline__V1__CreateVmResponse *)response)->vm = vm;
    return TW_OK;
}

static enum tw_code on_other(void *ctx, const struct tw_rpc_call *call,
                             const ProtobufCMessage *request, ProtobufCMessage *response,
                             struct tw_error *err)
{
    (void)ctx;
    (void)call;
    (void)request;
    (void)response;
    (void)err;
    return TW_OK;
}

struct tw_rpc_server *test_server(const struct tw_rpc_server_config *config,
                                  struct test_service *service)
{
    static const struct tw_rpc_method methods[] = {{"Create", on_create},
                                                   {"List", on_other},
                                                   {"Get", on_get},
                                                   {"Stop", on_stop},
                                                   {"Delete", on_other}};
    struct tw_rpc_server *server;
    struct tw_error err;
    char text[512];
    struct tw_rpc_server_config plain = *config;
    plain.insecure = !config->tls;
    if (tw_rpc_server_open(&plain, &server, &err) != TW_OK ||
        tw_rpc_server_add(server, VM_SERVICE, methods, 5, service, &err) != TW_OK ||
        tw_rpc_server_start(server, &err) != TW_OK) {
        fprintf(stderr, "%s\n", tw_error_text(&err, text, sizeof text));
        abort();
    }
    return server;
}

struct tw_rpc_client *test_client(const char *url)
{
    struct tw_rpc_client *client;
    struct tw_rpc_client_config config = {.url = url, .insecure = true};
    if (tw_rpc_client_open(&config, &client, NULL) != TW_OK)
        abort();
    return client;
}

enum tw_code test_get(struct tw_rpc_client *client, const char *name, unsigned timeout_ms,
                      enum tw_rpc_flags flags, char **reason, struct tw_error *err)
{
    Towline__V1__GetVmRequest request = TOWLINE__V1__GET_VM_REQUEST__INIT;
    ProtobufCMessage *response;
    request.name = test_text(name);
    enum tw_code code =
        tw_rpc_call(client, VM_SERVICE, "Get", &request.base, timeout_ms, flags, &response, err);
    if (reason)
        *reason = NULL;
    if (code == TW_OK && reason)
        *reason = strdup(((Towline__V1__GetVmResponse *)response)->vm->reason);
    if (response)
        protobuf_c_message_free_unpacked(response, NULL);
    return code;
}
