/* Inside the controller: what the RPC handlers work with. */
#ifndef TOWLINE_CONTROLLER_SERVICES_H
#define TOWLINE_CONTROLLER_SERVICES_H

#include "controller/catalogue.h"
#include "controller/events.h"
#include "controller/metrics.h"
#include "controller/migrations.h"
#include "controller/vms.h"
#include "rpc/rpc.h"

struct tw_services {
    struct tw_store *store;
    struct tw_catalogue *catalogue;
    struct tw_vms *vms;
    struct tw_migrations *migrations;
    struct tw_events *events;
    struct tw_reach reach;
    struct tw_call_counts counts;
    uint64_t controller_id; /* of this start */
    uint64_t started_ns, started_unix_ms;
};

/* Adds HostService, VmService, MigrationService, EventService and HealthService. */
enum tw_code tw_services_add(struct tw_services *services, struct tw_rpc_server *server,
                             struct tw_error *err);

/* One line an item; false: the controller cannot do what it is for. */
bool tw_services_ready(struct tw_services *services, FILE *out);

enum tw_code tw_host_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                 struct tw_error *err);
enum tw_code tw_vm_service_add(struct tw_services *services, struct tw_rpc_server *server,
                               struct tw_error *err);
enum tw_code tw_migration_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                      struct tw_error *err);
enum tw_code tw_event_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                  struct tw_error *err);
enum tw_code tw_health_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                   struct tw_error *err);

/* The handler NAME_served of a service's method: calls NAME and counts the outcome. NAME has the
 * handler's signature with the services as context. */
#define TW_SERVED(name, counted)                                                                   \
    static enum tw_code name##_served(void *ctx, const struct tw_rpc_call *call,                   \
                                      const ProtobufCMessage *request, ProtobufCMessage *response, \
                                      struct tw_error *err)                                        \
    {                                                                                              \
        struct tw_services *services = ctx;                                                        \
        enum tw_code code = name(services, call, (const void *)request, (void *)response, err);    \
        tw_call_count(&services->counts, counted, code);                                           \
        return code;                                                                               \
    }

/* The answer could not be put together. */
static inline enum tw_code tw_no_memory(const char *where, struct tw_error *err)
{
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, NULL, NULL, "no memory for the answer");
}

#endif
