#include "cli/fake_controller.h"

#include "base/clock.h"

#include "towline/v1/event.pb-c.h"
#include "towline/v1/health.pb-c.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every handler: ctx is the fake, the lock is held. */
#define HANDLER(name)                                                                              \
    static enum tw_code name(void *ctx, const struct tw_rpc_call *call,                            \
                             const ProtobufCMessage *request, ProtobufCMessage *response,          \
                             struct tw_error *err)
#define UNUSED(...) use_nothing((const void *[]){__VA_ARGS__})

static void use_nothing(const void *const *pointers)
{
    (void)pointers;
}

static void *made(size_t size, void (*init)(void *))
{
    void *message = malloc(size);
    init(message);
    return message;
}

#define NEW(type, prefix) ((type *)made(sizeof(type), (void (*)(void *))prefix##__init))

static void copy(char *to, size_t size, const char *from)
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
    copy(fake->created_name, sizeof fake->created_name, q->spec->name);
    copy(fake->created_kernel, sizeof fake->created_kernel, q->spec->kernel);
    copy(fake->created_host, sizeof fake->created_host, q->host);
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

static enum tw_code vm_find(const char *name, struct tw_error *err)
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
    if (vm_find(name, err) != TW_OK)
        return TW_NOT_FOUND;
    ((Towline__V1__GetVmResponse *)response)->vm =
        vm_new(name, "node-a", TOWLINE__V1__VM_STATE__VM_STATE_RUNNING, "");
    return TW_OK;
}

HANDLER(on_stop)
{
    const char *name = ((const Towline__V1__StopVmRequest *)request)->name;
    UNUSED(ctx, call);
    if (vm_find(name, err) != TW_OK)
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
    if (vm_find(name, err) != TW_OK)
        return TW_NOT_FOUND;
    pthread_mutex_lock(&fake->lock);
    copy(fake->removed, sizeof fake->removed, name);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

/* ---- Migrations ----------------------------------------------------------------------------- */

static Towline__V1__Round *round_new(uint32_t index, uint64_t lines, bool final)
{
    Towline__V1__Round *round = NEW(Towline__V1__Round, towline__v1__round);
    round->index = index;
    round->lines = lines;
    round->pages = lines / 2;
    round->bytes = lines * 72;
    round->duration_us = 1500;
    round->final = final;
    return round;
}

static Towline__V1__MigrationProgress *progress_new(const struct fake_controller *fake)
{
    Towline__V1__MigrationProgress *p =
        NEW(Towline__V1__MigrationProgress, towline__v1__migration_progress);
    bool done = fake->looked >= fake->looks;
    p->phase = strdup(done ? "committed" : "round");
    p->memory_bytes = UINT64_C(256) << 20;
    p->full_copy_bytes_done = done ? p->memory_bytes : p->memory_bytes / 2;
    p->n_rounds = done ? 3 : 2;
    p->rounds = malloc(p->n_rounds * sizeof *p->rounds);
    for (uint32_t i = 0; i < p->n_rounds; i++)
        p->rounds[i] = round_new(i, 1000 >> i, i == 2);
    p->bytes_sent = UINT64_C(10) << 20;
    p->bytes_if_pages = UINT64_C(200) << 20;
    p->rate_bytes_per_s = UINT64_C(100) << 20;
    p->eta_ms = fake->eta_up_at && fake->looked >= fake->eta_up_at ? 9000 : 2000;
    p->downtime_us = done ? 12300 : 0;
    p->total_us = done ? 4200000 : 0;
    p->memory_compared = p->memory_equal = done;
    p->lines_found_by_compare_only = 7;
    return p;
}

static Towline__V1__Migration *migration_new(const struct fake_controller *fake)
{
    Towline__V1__Migration *m = NEW(Towline__V1__Migration, towline__v1__migration);
    bool done = fake->looked >= fake->looks;
    m->id = strdup("m-1");
    m->vm = strdup("web-1");
    m->source = strdup("node-a");
    m->destination = strdup("node-b");
    m->state = done ? fake->end_state : TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING;
    m->progress = progress_new(fake);
    m->created_unix_ms = UINT64_C(1790000000000);
    if (m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED) {
        struct tw_error err;
        tw_fail(&err, TW_ABORTED, "vm web-1", "2 MiB", "9 MiB", "the rounds did not converge");
        m->error = tw_error_to_proto(&err);
    }
    return m;
}

HANDLER(on_start)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__StartMigrationRequest *q = (const void *)request;
    UNUSED(call);
    if (q->plan[0]) {
        pthread_mutex_lock(&fake->lock);
        copy(fake->migrated_plan, sizeof fake->migrated_plan, q->plan);
        ((Towline__V1__StartMigrationResponse *)response)->migration = migration_new(fake);
        pthread_mutex_unlock(&fake->lock);
        return TW_OK;
    }
    if (vm_find(q->vm, err) != TW_OK)
        return TW_NOT_FOUND;
    if (strcmp(q->destination, "node-a") == 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, "vm web-1", "another host", "node-a",
                       "the VM runs there already");
    pthread_mutex_lock(&fake->lock);
    fake->starts++;
    copy(fake->migrated_vm, sizeof fake->migrated_vm, q->vm);
    copy(fake->migrated_to, sizeof fake->migrated_to, q->destination);
    fake->limits = *q->limits;
    ((Towline__V1__StartMigrationResponse *)response)->migration = migration_new(fake);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_migrations)
{
    struct fake_controller *fake = ctx;
    Towline__V1__ListMigrationsResponse *r = (Towline__V1__ListMigrationsResponse *)response;
    UNUSED(call, request, err);
    r->n_migrations = 1;
    r->migrations = malloc(sizeof *r->migrations);
    pthread_mutex_lock(&fake->lock);
    r->migrations[0] = migration_new(fake);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

static enum tw_code migration_answer(struct fake_controller *fake, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err)
{
    if (strcmp(id, "m-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, "migration", NULL, id, "no such migration");
    *migration = migration_new(fake);
    return TW_OK;
}

HANDLER(on_migration)
{
    struct fake_controller *fake = ctx;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code =
        migration_answer(fake, ((const Towline__V1__GetMigrationRequest *)request)->id,
                         &((Towline__V1__GetMigrationResponse *)response)->migration, err);
    fake->looked++;
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_cancel)
{
    struct fake_controller *fake = ctx;
    const char *id = ((const Towline__V1__CancelMigrationRequest *)request)->id;
    Towline__V1__CancelMigrationResponse *r = (Towline__V1__CancelMigrationResponse *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(fake, id, &r->migration, err);
    if (code == TW_OK) {
        r->migration->cancel_requested = 1;
        copy(fake->cancelled, sizeof fake->cancelled, id);
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_switch)
{
    struct fake_controller *fake = ctx;
    const char *id = ((const Towline__V1__SwitchMigrationRequest *)request)->id;
    Towline__V1__SwitchMigrationResponse *r = (Towline__V1__SwitchMigrationResponse *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(fake, id, &r->migration, err);
    if (code == TW_OK)
        copy(fake->switched, sizeof fake->switched, id);
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_adjust)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__AdjustMigrationRequest *q = (const void *)request;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(
        fake, q->id, &((Towline__V1__AdjustMigrationResponse *)response)->migration, err);
    if (code == TW_OK) {
        fake->adjusts++;
        fake->adjusted = *q;
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
}

static Towline__V1__Reason *reason_new(const char *about, const char *rule,
                                       Towline__V1__ReasonVerdict verdict, uint64_t value,
                                       uint64_t limit, const char *unit)
{
    Towline__V1__Reason *r = NEW(Towline__V1__Reason, towline__v1__reason);
    r->about = strdup(about);
    r->rule = strdup(rule);
    r->verdict = verdict;
    r->value = value;
    r->limit = limit;
    r->unit = strdup(unit);
    r->text = strdup("because of the test");
    return r;
}

static Towline__V1__Plan *plan_new(const struct fake_controller *fake, bool ready)
{
    Towline__V1__Plan *p = NEW(Towline__V1__Plan, towline__v1__plan);
    p->token = strdup("p-1");
    p->vm = strdup("web-1");
    p->source = strdup("node-a");
    p->destination = strdup("node-b");
    p->state = ready ? TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY
                     : TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING;
    p->left_ms = 5;
    if (!ready)
        return p;
    p->refused = fake->plan_refused;
    p->method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID;
    p->measurement = NEW(Towline__V1__Measurement, towline__v1__measurement);
    p->measurement->path_source = TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_HISTORY;
    p->measurement->path_from = strdup("m-9");
    p->measurement->path_bytes_per_s = UINT64_C(512) << 20;
    p->n_forecasts = 1;
    p->forecasts = malloc(sizeof *p->forecasts);
    p->forecasts[0] = NEW(Towline__V1__Forecast, towline__v1__forecast);
    p->forecasts[0]->method = p->method;
    p->forecasts[0]->rounds = 3;
    p->forecasts[0]->bytes = UINT64_C(12) << 20;
    p->forecasts[0]->downtime_us = 50000;
    p->n_reasons = 1;
    p->reasons = malloc(sizeof *p->reasons);
    p->reasons[0] =
        reason_new("hybrid", "downtime", TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_WARN, 400000,
                   300000, "us");
    return p;
}

HANDLER(on_plan)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__PlanMigrationRequest *q = (const void *)request;
    UNUSED(call);
    if (vm_find(q->vm, err) != TW_OK)
        return TW_NOT_FOUND;
    pthread_mutex_lock(&fake->lock);
    fake->planned_for_ms = q->for_ms;
    fake->limits = *q->limits;
    copy(fake->migrated_to, sizeof fake->migrated_to, q->destination);
    ((Towline__V1__PlanMigrationResponse *)response)->plan = plan_new(fake, false);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_get_plan)
{
    struct fake_controller *fake = ctx;
    const char *token = ((const Towline__V1__GetPlanRequest *)request)->token;
    UNUSED(call);
    if (strcmp(token, "p-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, token, NULL, NULL, "no such plan");
    pthread_mutex_lock(&fake->lock);
    ((Towline__V1__GetPlanResponse *)response)->plan = plan_new(fake, fake->plan_looks++ > 0);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_why)
{
    Towline__V1__WhyMigrationResponse *r = (Towline__V1__WhyMigrationResponse *)response;
    const char *id = ((const Towline__V1__WhyMigrationRequest *)request)->id;
    UNUSED(ctx, call);
    if (strcmp(id, "r-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, id, NULL, NULL, "no reasons are kept about it");
    r->id = strdup(id);
    r->vm = strdup("web-1");
    r->n_reasons = 1;
    r->reasons = malloc(sizeof *r->reasons);
    r->reasons[0] =
        reason_new("node-b", "memory", TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_REFUSE,
                   UINT64_C(64) << 20, UINT64_C(256) << 20, "bytes");
    return TW_OK;
}

HANDLER(on_recover)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__RecoverMigrationRequest *q = (const void *)request;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(
        fake, q->id, &((Towline__V1__RecoverMigrationResponse *)response)->migration, err);
    if (code == TW_OK && q->other_side_is_fenced) {
        copy(fake->recovered, sizeof fake->recovered, q->id);
        fake->recovered_to = q->to;
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
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
static const struct tw_rpc_method migrations[] = {
    {"Start", on_start},      {"List", on_migrations}, {"Get", on_migration}, {"Cancel", on_cancel},
    {"SwitchNow", on_switch}, {"Recover", on_recover}, {"Adjust", on_adjust}, {"Plan", on_plan},
    {"GetPlan", on_get_plan}, {"Why", on_why}};
static const struct tw_rpc_method events[] = {{"Watch", on_watch}};

static void serve(struct fake_controller *fake, const char *url)
{
    struct tw_rpc_server *s;
    struct tw_rpc_server_config config = {.url = url, .insecure = true};
    if (tw_rpc_server_open(&config, &s, NULL) != TW_OK ||
        tw_rpc_server_add(s, &towline__v1__health_service__descriptor, health, 1, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__host_service__descriptor, hosts, 4, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__vm_service__descriptor, vms, 5, fake, NULL) ||
        tw_rpc_server_add(s, &towline__v1__migration_service__descriptor, migrations,
                          sizeof migrations / sizeof *migrations, fake, NULL) ||
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
    copy(fake->url, sizeof fake->url, tw_rpc_server_url(fake->server));
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
