#include "controller/convert.h"
#include "controller/services.h"
#include "controller/spec.h"

#include <stdlib.h>
#include <string.h>

static Towline__V1__Vm *answer(struct tw_services *s, const struct tw_vm_record *vm)
{
    char url[TW_URL_SIZE];
    bool alive;
    tw_catalogue_locate(s->catalogue, vm->host, url, &alive);
    return tw_vm_to_proto(vm, alive);
}

static enum tw_code create(struct tw_services *s, const struct tw_rpc_call *call,
                           const Towline__V1__CreateVmRequest *request,
                           Towline__V1__CreateVmResponse *response, struct tw_error *err)
{
    struct tw_vm_record vm;
    enum tw_code code =
        tw_vms_create(s->vms, request->spec, request->host, call->deadline_ns, &vm, err);
    if (code != TW_OK)
        return code;
    response->vm = answer(s, &vm);
    return response->vm ? TW_OK : tw_no_memory(vm.name, err);
}

/* VMs are collected before the catalogue is asked about their hosts: it is never asked inside a
 * transaction. */
struct list {
    struct tw_vm_record *vms;
    size_t count, room;
    bool full;
};

static void collect(void *ctx, const struct tw_vm_record *vm)
{
    struct list *list = ctx;
    if (tw_vm_forgotten(vm) || list->full)
        return;
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        struct tw_vm_record *bigger = realloc(list->vms, room * sizeof *bigger);
        if (!bigger) {
            list->full = true;
            return;
        }
        list->vms = bigger;
        list->room = room;
    }
    list->vms[list->count++] = *vm;
}

static enum tw_code collect_all(struct tw_services *s, const char *host, struct list *list,
                                struct tw_error *err)
{
    enum tw_code code = tw_store_begin(s->store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(s->store, tw_store_vms_each(s->store, host, collect, list, err), err);
    return code == TW_OK && list->full ? tw_no_memory("vms", err) : code;
}

static enum tw_code list(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__ListVmsRequest *request,
                         Towline__V1__ListVmsResponse *response, struct tw_error *err)
{
    (void)call;
    struct list found = {0};
    char url[TW_URL_SIZE], where[80];
    bool alive;
    enum tw_code code = request->host[0] ? tw_name_check("host name", request->host, err) : TW_OK;
    snprintf(where, sizeof where, "host %.63s", request->host);
    if (code == TW_OK && request->host[0] &&
        !tw_catalogue_locate(s->catalogue, request->host, url, &alive))
        code = tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such host");
    if (code == TW_OK)
        code = collect_all(s, request->host, &found, err);
    for (size_t i = 0; i < found.count && code == TW_OK; i++) {
        Towline__V1__Vm *vm = answer(s, &found.vms[i]);
        if (!tw_append(&response->vms, &response->n_vms, vm ? &vm->base : NULL))
            code = tw_no_memory("vms", err);
    }
    free(found.vms);
    return code;
}

static enum tw_code get(struct tw_services *s, const struct tw_rpc_call *call,
                        const Towline__V1__GetVmRequest *request,
                        Towline__V1__GetVmResponse *response, struct tw_error *err)
{
    (void)call;
    struct tw_vm_record vm;
    enum tw_code code = tw_name_check("VM name", request->name, err);
    if (code == TW_OK)
        code = tw_vms_get(s->vms, request->name, &vm, err);
    if (code != TW_OK)
        return code;
    response->vm = answer(s, &vm);
    return response->vm ? TW_OK : tw_no_memory(vm.name, err);
}

static enum tw_code stop(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__StopVmRequest *request,
                         Towline__V1__StopVmResponse *response, struct tw_error *err)
{
    struct tw_vm_record vm;
    enum tw_code code = tw_vms_stop(s->vms, request->name, call->deadline_ns, &vm, err);
    if (code != TW_OK)
        return code;
    response->vm = answer(s, &vm);
    return response->vm ? TW_OK : tw_no_memory(vm.name, err);
}

static enum tw_code delete_vm(struct tw_services *s, const struct tw_rpc_call *call,
                              const Towline__V1__DeleteVmRequest *request,
                              Towline__V1__DeleteVmResponse *response, struct tw_error *err)
{
    (void)response;
    return tw_vms_delete(s->vms, request->name, call->deadline_ns, err);
}

TW_SERVED(create, "VmService/Create")
TW_SERVED(list, "VmService/List")
TW_SERVED(get, "VmService/Get")
TW_SERVED(stop, "VmService/Stop")
TW_SERVED(delete_vm, "VmService/Delete")

enum tw_code tw_vm_service_add(struct tw_services *services, struct tw_rpc_server *server,
                               struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {{"Create", create_served},
                                                   {"List", list_served},
                                                   {"Get", get_served},
                                                   {"Stop", stop_served},
                                                   {"Delete", delete_vm_served}};
    return tw_rpc_server_add(server, &towline__v1__vm_service__descriptor, methods, 5, services,
                             err);
}
