#include "controller/services.h"

static const char *const methods[] = {
    "HostService/Heartbeat",
    "HostService/List",
    "HostService/Get",
    "HostService/Diagnose",
    "VmService/Create",
    "VmService/List",
    "VmService/Get",
    "VmService/Stop",
    "VmService/Delete",
    "MigrationService/Start",
    "MigrationService/List",
    "MigrationService/Get",
    "MigrationService/Cancel",
    "MigrationService/SwitchNow",
    "MigrationService/Recover",
    "MigrationService/Adjust",
    "MigrationService/Plan",
    "MigrationService/GetPlan",
    "MigrationService/Why",
    "EventService/Watch",
    "HealthService/Check",
};
_Static_assert(sizeof methods / sizeof *methods <= TW_METHODS_MAX, "room for every method");

enum tw_code tw_services_add(struct tw_services *services, struct tw_rpc_server *server,
                             struct tw_error *err)
{
    for (unsigned i = 0; i < sizeof methods / sizeof *methods; i++)
        services->counts.methods[i].method = methods[i];
    enum tw_code code = tw_host_service_add(services, server, err);
    if (code == TW_OK)
        code = tw_vm_service_add(services, server, err);
    if (code == TW_OK)
        code = tw_migration_service_add(services, server, err);
    if (code == TW_OK)
        code = tw_event_service_add(services, server, err);
    return code == TW_OK ? tw_health_service_add(services, server, err) : code;
}
