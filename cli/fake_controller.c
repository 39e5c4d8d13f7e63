#include "cli/fake_inside.h"

#include "base/clock.h"

#include "towline/v1/event.pb-c.h"
#include "towline/v1/health.pb-c.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void fake_copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* ---- Health and hosts ----------------------------------------------------------------------- */

HANDLER(on_check)
{
    struct fake_controller *fake = ctx;
    Towline__V1__HealthResponse *r = (Towline__V1__HealthResponse *)response;
    UNUSED(call, request, err);
    pthread_mutex_lock(&fake->lock);
    r->ready = !fake->not_ready;
    pthread_mutex_unlock(&fake->lock);
    r->component = strdup("controller");
    r->version = strdup("0.1.0");
    r->uptime_ms = 61000;
    r->n_items = 1;
    r->items = malloc(sizeof *r->items);
    r->items[0] = NEW(Towline__V1__HealthItem, towline__v1__health_item);
    r->items[0]->name = strdup("store");
    r->items[0]->ok = r->ready;
    r->items[0]->detail = strdup(r->ready ? "writable" : "disk is full");
    return TW_OK;
}

static Towline__V1__FabricPath *path_new(const char *peer, const char *fabric, const char *reason,
                                         const char *migration)
{
    Towline__V1__FabricPath *path = NEW(Towline__V1__FabricPath, towline__v1__fabric_path);
    path->peer = strdup(peer);
    path->fabric = strdup(fabric);
    path->reason = strdup(reason);
    path->migration = strdup(migration);
    return path;
}

static Towline__V1__Host *host_new(const char *name, Towline__V1__HostState state)
{
    Towline__V1__Host *host = NEW(Towline__V1__Host, towline__v1__host);
    host->description = NEW(Towline__V1__HostDescription, towline__v1__host_description);
    host->description->name = strdup(name);
    host->description->rpc_url = strdup("tcp://127.0.0.1:7102");
    host->description->fabric = strdup("verbs");
    host->description->fabric_reason = strdup("mlx5_0 port 1 (RoCE) is usable");
    host->description->verbs_address = strdup("10.0.0.1:7203");
    host->description->n_paths = 2;
    host->description->paths = malloc(2 * sizeof *host->description->paths);
    host->description->paths[0] = path_new("node-c", "tcp", "node-c offers no verbs", "m-9");
    host->description->paths[1] = path_new("node-d", "verbs", "mlx5_0 port 1 is usable", "");
    host->description->fabric_address = strdup("127.0.0.1:7202");
    host->description->memory_capacity_bytes = UINT64_C(2) << 30;
    host->description->cpus = 2;
    host->description->instance = INT64_MAX;
    host->memory_free_bytes = UINT64_C(1) << 30;
    host->state = state;
    host->vms = 1;
    return host;
}

HANDLER(on_hosts)
{
    Towline__V1__ListHostsResponse *r = (Towline__V1__ListHostsResponse *)response;
    UNUSED(ctx, call, request, err);
    r->n_hosts = 2;
    r->hosts = malloc(2 * sizeof *r->hosts);
    r->hosts[0] = host_new("node-a", TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE);
    r->hosts[1] = host_new("node-b", TOWLINE__V1__HOST_STATE__HOST_STATE_DEAD);
    return TW_OK;
}

HANDLER(on_host)
{
    Towline__V1__GetHostResponse *r = (Towline__V1__GetHostResponse *)response;
    const char *name = ((const Towline__V1__GetHostRequest *)request)->name;
    UNUSED(ctx, call);
    if (strcmp(name, "node-a") != 0)
        return tw_fail(err, TW_NOT_FOUND, "host", "node-a or node-b", name, "no such host");
    r->host = host_new(name, TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE);
    r->n_vms = 1;
    r->vms = malloc(sizeof *r->vms);
    r->vms[0] = NEW(Towline__V1__VmReport, towline__v1__vm_report);
    r->vms[0]->name = strdup("web-1");
    r->vms[0]->state = TOWLINE__V1__VM_STATE__VM_STATE_RUNNING;
    r->vms[0]->lines_written = 4711;
    r->vms[0]->dirty = NEW(Towline__V1__VmDirty, towline__v1__vm_dirty);
    r->vms[0]->dirty->duration_us = 500000;
    r->vms[0]->dirty->lines = 1024;
    r->vms[0]->dirty->pages = 64;
    r->vms[0]->dirty->regions = 1;
    return TW_OK;
}

static Towline__V1__ProbeResult *probe_new(const char *name, Towline__V1__ProbeVerdict verdict,
                                           const char *found, const char *mend)
{
    Towline__V1__ProbeResult *probe = NEW(Towline__V1__ProbeResult, towline__v1__probe_result);
    probe->name = strdup(name);
    probe->verdict = verdict;
    probe->found = strdup(found);
    probe->needed = strdup("what the test needs");
    probe->mend = strdup(mend);
    return probe;
}

HANDLER(on_diagnose)
{
    struct fake_controller *fake = ctx;
    Towline__V1__DiagnoseHostResponse *r = (Towline__V1__DiagnoseHostResponse *)response;
    const char *name = ((const Towline__V1__DiagnoseHostRequest *)request)->name;
    uint64_t now_us = tw_wall_us();
    UNUSED(call);
    if (strcmp(name, "node-b") == 0)
        return tw_fail(err, TW_UNAVAILABLE, "host node-b", NULL, NULL, "does not answer");
    if (strcmp(name, "node-a") != 0)
        return tw_fail(err, TW_NOT_FOUND, "host", "node-a or node-b", name, "no such host");
    r->diagnosis = NEW(Towline__V1__Diagnosis, towline__v1__diagnosis);
    r->diagnosis->host = strdup(name);
    r->diagnosis->results = malloc(2 * sizeof *r->diagnosis->results);
    pthread_mutex_lock(&fake->lock);
    r->diagnosis->results[r->diagnosis->n_results++] =
        probe_new("memlock", fake->memlock_verdict, "8.0 MiB \033[2J", "ulimit -l unlimited");
    r->diagnosis->results[r->diagnosis->n_results++] =
        probe_new("rdma", TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_SKIPPED, "no RDMA device", "");
    r->agent_clock = NEW(Towline__V1__ClockExchange, towline__v1__clock_exchange);
    r->agent_clock->asked_unix_us = r->agent_clock->returned_unix_us = now_us;
    r->agent_clock->received_unix_us = r->agent_clock->answered_unix_us =
        now_us + fake->host_clock_ahead_us;
    pthread_mutex_unlock(&fake->lock);
    r->received_unix_us = now_us;
    r->answered_unix_us = tw_wall_us();
    return TW_OK;
}

HANDLER(on_heartbeat)
{
    UNUSED(ctx, call, request, response, err);
    return TW_OK;
}

/* ---- VMs ------------------------------------------------------------------------------------ */

static Towline__V1__Vm *vm_new(const char *name, const char *host, Towline__V1__VmState state,
                               const char *reason)
{
    Towline__V1__Vm *vm = NEW(Towline__V1__Vm, towline__v1__vm);
    vm->spec = NEW(Towline__V1__VmSpec, towline__v1__vm_spec);
    vm->spec->name = strdup(name);
    vm->spec->memory_bytes = UINT64_C(256) << 20;
    vm->spec->kernel = strdup("/boot/vmlinuz");
    vm->host = strdup(host);
    vm->state = state;
    vm->epoch = 3;
    vm->reason = strdup(reason);
    return vm;
}

HANDLER(on_create)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__CreateVmRequest *q = (const Towline__V1__CreateVmRequest *)request;
    UNUSED(call);
    if (strcmp(q->spec->name, "taken") == 0)
        return tw_fail(err, TW_ALREADY_EXISTS, "vm taken", NULL, NULL, "name is in use");
    if (strcmp(q->host, "ghost") == 0)
        return tw_fail(err, TW_NOT_FOUND, "host ghost", NULL, NULL, "no such host");
    pthread_mutex_lock(&fake->lock);
    fake_copy(fake->created_name, sizeof fake->created_name, q->spec->name);
    fake_copy(fake->created_kernel, sizeof fake->created_kernel, q->spec->kernel);
    fake_copy(fake->created_host, sizeof fake->created_host, q->host);
    fake->created_memory = q->spec->memory_bytes;
    pthread_mutex_unlock(&fake->lock);
    bool bad = strcmp(q->spec->name, "bad") == 0;
    ((Towline__V1__CreateVmResponse *)response)->vm = vm_new(
        q->spec->name, q->host[0] ? q->host : "node-a",
        bad ? TOWLINE__V1__VM_STATE__VM_STATE_FAILED : TOWLINE__V1__VM_STATE__VM_STATE_RUNNING,
        bad ? "kernel not found" : "");
    return TW_OK;
}

HANDLER(on_vms)
{
    Towline__V1__ListVmsResponse *r = (Towline__V1__ListVmsResponse *)response;
    const char *host = ((const Towline__V1__ListVmsRequest *)request)->host;
    UNUSED(ctx, call, err);
    if (strcmp(host, "node-b") == 0)
        return TW_OK;
    r->n_vms = 2;
    r->vms = malloc(2 * sizeof *r->vms);
    r->vms[0] = vm_new("web-1", "node-a", TOWLINE__V1__VM_STATE__VM_STATE_RUNNING, "");
    r->vms[1] = vm_new("db-1", "node-a", TOWLINE__V1__VM_STATE__VM_STATE_FAILED,
                       "killed\033[2J by signal 9");
    return TW_OK;
}

enum tw_code fake_vm_find(const char *name, struct tw_error *err)
{
    char where[80];
    snprintf(where, sizeof where, "vm %.60s", name);
    return strcmp(name, "web-1") == 0 ? TW_OK
                                      : tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such VM");
}

HANDLER(on_vm)
{
    const char *name = ((const Towline__V1__GetVmRequest *)request)->name;
    UNUSED(ctx, call);
    if (fake_vm_find(name, err) != TW_OK)
        return TW_NOT_FOUND;
    ((Towline__V1__GetVmResponse *)response)->vm =
        vm_new(name, "node-a", TOWLINE__V1__VM_STATE__VM_STATE_RUNNING, "");
    return TW_OK;
}

HANDLER(on_stop)
{
    const char *name = ((const Towline__V1__StopVmRequest *)request)->name;
    UNUSED(ctx, call);
    if (fake_vm_find(name, err) != TW_OK)
        return TW_NOT_FOUND;
    ((Towline__V1__StopVmResponse *)response)->vm =
        vm_new(name, "node-a", TOWLINE__V1__VM_STATE__VM_STATE_STOPPED, "");
    return TW_OK;
}

HANDLER(on_delete)
{
    struct fake_controller *fake = ctx;
    const char *name = ((const Towline__V1__DeleteVmRequest *)request)->name;
    UNUSED(call, response);
    if (fake_vm_find(name, err) != TW_OK)
        return TW_NOT_FOUND;
    pthread_mutex_lock(&fake->lock);
    fake_copy(fake->removed, sizeof fake->removed, name);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

/* ---- Events --------------------------------------------------------------------------------- */

#define EVENT_LAST 5u

static Towline__V1__Event *event_new(unsigned revision)
{
    static const char *const kinds[] = {"host.alive", "vm.running", "migration.state"};
    static const char *const subjects[] = {"node-a", "web-1", "m-1"};
    Towline__V1__Event *event = NEW(Towline__V1__Event, towline__v1__event);
    char text[32];
    snprintf(text, sizeof text, "event number %u", revision);
    event->revision = revision;
    event->unix_ms = UINT64_C(1790000000000) + revision;
    event->kind = strdup(kinds[revision % 3]);
    event->subject = strdup(subjects[revision % 3]);
    event->text = strdup(text);
    return event;
}

/* Two in an answer at most, so that the caller has to ask again. */
HANDLER(on_watch)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__WatchEventsRequest *q = (const void *)request;
    Towline__V1__WatchEventsResponse *r = (Towline__V1__WatchEventsResponse *)response;
    UNUSED(call, err);
    pthread_mutex_lock(&fake->lock);
    r->oldest_revision = fake->events_oldest;
    pthread_mutex_unlock(&fake->lock);
    uint64_t revision = q->after_revision + 1;
    if (revision < r->oldest_revision)
        revision = r->oldest_revision;
    r->next_revision = q->after_revision;
    r->events = malloc(2 * sizeof *r->events);
    for (; revision <= EVENT_LAST && r->n_events < 2; revision++) {
        Towline__V1__Event *event = event_new((unsigned)revision);
        r->next_revision = revision;
        if (q->subject[0] && strcmp(q->subject, event->subject) != 0)
            towline__v1__event__free_unpacked(event, NULL);
        else
            r->events[r->n_events++] = event;
    }
    if (r->n_events == 0 && q->wait_ms > 0) {
        struct timespec pause = {.tv_nsec = (q->wait_ms < 50 ? q->wait_ms : 50) * 1000000l};
        nanosleep(&pause, NULL);
    }
    return TW_OK;
}

/* ---- Server --------------------------------------------------------------------------------- */

static const struct tw_rpc_method health[] = {{"Check", on_check}};
static const struct tw_rpc_method hosts[] = {
    {"Heartbeat", on_heartbeat}, {"List", on_hosts}, {"Get", on_host}, {"Diagnose", on_diagnose}};
static const struct tw_rpc_method vms[] = {{"Create", on_create},
                                           {"List", on_vms},
                                           {"Get", on_vm},
                                           {"Stop", on_stop},
                                           {"Delete", on_delete}};
static const struct tw_rpc_method events[] = {{"Watch", on_watch}};

static void serve(struct fake_controller *fake, const char *url)
{
    struct tw_rpc_server *s;
    struct tw_rpc_server_config config = {.url = url, .insecure = true};
    if (tw_rpc_server_open(&config, &s, NULL) != TW_OK ||
        tw_rpc_server_add(s, &towline__v1__health_service__descriptor, health, 1, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__host_service__descriptor, hosts, 4, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__vm_service__descriptor, vms, 5, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__migration_service__descriptor, fake_migrations,
                          fake_migration_count, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__event_service__descriptor, events, 1, fake, NULL) ||
        tw_rpc_server_start(s, NULL) != TW_OK)
        abort();
    fake->server = s;
}

void fake_controller_open(struct fake_controller *fake)
{
    memset(fake, 0, sizeof *fake);
    pthread_mutex_init(&fake->lock, NULL);
    fake->looks = 2;
    fake->memlock_verdict = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_OK;
    fake->end_state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
    fake->events_oldest = 1;
    serve(fake, "tcp://127.0.0.1:0");
    fake_copy(fake->url, sizeof fake->url, tw_rpc_server_url(fake->server));
}

void fake_controller_stop(struct fake_controller *fake)
{
    tw_rpc_server_close(fake->server);
    fake->server = NULL;
}

void fake_controller_restart(struct fake_controller *fake)
{
    serve(fake, fake->url);
}

void fake_controller_close(struct fake_controller *fake)
{
    fake_controller_stop(fake);
    pthread_mutex_destroy(&fake->lock);
}
