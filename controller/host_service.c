#include "controller/convert.h"
#include "controller/services.h"
#include "controller/spec.h"

#include <stdlib.h>
#include <string.h>

static enum tw_code heartbeat(struct tw_services *s, const struct tw_rpc_call *call,
                              const Towline__V1__HeartbeatRequest *request,
                              Towline__V1__HeartbeatResponse *response, struct tw_error *err)
{
    (void)call;
    enum tw_code code = tw_catalogue_heartbeat(s->catalogue, request, err);
    response->lease_ms = (uint32_t)tw_catalogue_lease_ms(s->catalogue);
    response->interval_ms = (uint32_t)tw_catalogue_heartbeat_ms(s->catalogue);
    response->controller_id = s->controller_id;
    return code;
}

static enum tw_code list(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__ListHostsRequest *request,
                         Towline__V1__ListHostsResponse *response, struct tw_error *err)
{
    (void)call, (void)request;
    struct tw_host_view *hosts;
    size_t count;
    enum tw_code code = tw_catalogue_hosts(s->catalogue, &hosts, &count, err);
    for (size_t i = 0; i < count && code == TW_OK; i++) {
        Towline__V1__Host *h = tw_host_to_proto(&hosts[i]);
        if (!tw_append(&response->hosts, &response->n_hosts, h ? &h->base : NULL))
            code = tw_no_memory("hosts", err);
    }
    free(hosts);
    return code;
}

static enum tw_code get_host(struct tw_services *s, const char *name,
                             Towline__V1__GetHostResponse *response, struct tw_error *err)
{
    struct tw_host_view *hosts;
    size_t count;
    enum tw_code code = tw_catalogue_hosts(s->catalogue, &hosts, &count, err);
    for (size_t i = 0; i < count && code == TW_OK; i++) {
        if (strcmp(hosts[i].record.name, name) != 0)
            continue;
        response->host = tw_host_to_proto(&hosts[i]);
        if (!response->host)
            code = tw_no_memory(name, err);
    }
    free(hosts);
    return code;
}

static enum tw_code get(struct tw_services *s, const struct tw_rpc_call *call,
                        const Towline__V1__GetHostRequest *request,
                        Towline__V1__GetHostResponse *response, struct tw_error *err)
{
    (void)call;
    struct tw_report *reports = NULL;
    size_t count = 0;
    enum tw_code code = tw_name_check("host name", request->name, err);
    if (code == TW_OK)
        code = tw_catalogue_reports(s->catalogue, request->name, &reports, &count, err);
    if (code == TW_OK)
        code = get_host(s, request->name, response, err);
    for (size_t i = 0; i < count && code == TW_OK; i++) {
        Towline__V1__VmReport *r = tw_report_to_proto(&reports[i]);
        if (!tw_append(&response->vms, &response->n_vms, r ? &r->base : NULL))
            code = tw_no_memory(request->name, err);
    }
    free(reports);
    return code;
}

TW_SERVED(heartbeat, "HostService/Heartbeat")
TW_SERVED(list, "HostService/List")
TW_SERVED(get, "HostService/Get")

enum tw_code tw_host_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                 struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {
        {"Heartbeat", heartbeat_served}, {"List", list_served}, {"Get", get_served}};
    return tw_rpc_server_add(server, &towline__v1__host_service__descriptor, methods, 3, services,
                             err);
}
