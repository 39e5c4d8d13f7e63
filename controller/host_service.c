#include "base/clock.h"
#include "controller/convert.h"
#include "controller/services.h"
#include "controller/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIAGNOSE_MS 30000u        /* that an agent's probes may take */
#define ANSWER_NS   (200 * TW_MS) /* kept for telling the caller that they took too long */

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

/* The host's agent is asked; its answer becomes part of ours. */
static enum tw_code diagnose_host(struct tw_services *s, const char *host, unsigned timeout_ms,
                                  Towline__V1__Diagnosis *diagnosis,
                                  Towline__V1__ClockExchange *clock, struct tw_error *err)
{
    Towline__V1__DiagnoseResponse *answer;
    clock->asked_unix_us = tw_wall_us();
    enum tw_code code = tw_reach_diagnose(&s->reach, host, timeout_ms, &answer, err);
    if (code != TW_OK)
        return code;
    clock->returned_unix_us = tw_wall_us();
    clock->received_unix_us = answer->received_unix_us;
    clock->answered_unix_us = answer->answered_unix_us;
    diagnosis->host = strdup(host);
    diagnosis->results = answer->results;
    diagnosis->n_results = answer->n_results;
    answer->results = NULL;
    answer->n_results = 0;
    protobuf_c_message_free_unpacked(&answer->base, NULL);
    return diagnosis->host ? TW_OK : tw_no_memory(host, err);
}

static enum tw_code diagnose(struct tw_services *s, const struct tw_rpc_call *call,
                             const Towline__V1__DiagnoseHostRequest *request,
                             Towline__V1__DiagnoseHostResponse *response, struct tw_error *err)
{
    uint64_t now_ns = tw_now(&tw_monotonic), end_ns = call->deadline_ns;
    char url[TW_URL_SIZE], where[80];
    bool alive;
    response->received_unix_us = tw_wall_us();
    enum tw_code code = tw_name_check("host name", request->name, err);
    if (code != TW_OK)
        return code;
    snprintf(where, sizeof where, "host %.63s", request->name);
    if (!tw_catalogue_locate(s->catalogue, request->name, url, &alive))
        return tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such host");
    response->diagnosis = malloc(sizeof *response->diagnosis);
    response->agent_clock = malloc(sizeof *response->agent_clock);
    if (response->diagnosis)
        towline__v1__diagnosis__init(response->diagnosis);
    if (response->agent_clock)
        towline__v1__clock_exchange__init(response->agent_clock);
    if (!response->diagnosis || !response->agent_clock)
        return tw_no_memory(request->name, err);
    uint64_t left_ms = end_ns > now_ns + ANSWER_NS ? (end_ns - now_ns - ANSWER_NS) / TW_MS : 1;
    code = diagnose_host(s, request->name, left_ms < DIAGNOSE_MS ? (unsigned)left_ms : DIAGNOSE_MS,
                         response->diagnosis, response->agent_clock, err);
    response->answered_unix_us = tw_wall_us();
    return code;
}

TW_SERVED(heartbeat, "HostService/Heartbeat")
TW_SERVED(list, "HostService/List")
TW_SERVED(get, "HostService/Get")
TW_SERVED(diagnose, "HostService/Diagnose")

enum tw_code tw_host_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                 struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {{"Heartbeat", heartbeat_served},
                                                   {"List", list_served},
                                                   {"Get", get_served},
                                                   {"Diagnose", diagnose_served}};
    return tw_rpc_server_add(server, &towline__v1__host_service__descriptor, methods,
                             sizeof methods / sizeof *methods, services, err);
}
