/* Leases on a clock of the test's own, reports against records, placement, specifications. */
#include "controller/catalogue.h"

#include "base/log.h"
#include "controller/config.h"
#include "controller/convert.h"
#include "controller/placement.h"
#include "controller/reconcile.h"
#include "controller/spec.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64], path[96];
static uint64_t now_ns;
static struct tw_store *store;
static struct tw_catalogue *catalogue;
static struct tw_error err;

static uint64_t read_now(void *ctx)
{
    (void)ctx;
    return now_ns;
}
static const struct tw_clock test_clock = {.now_ns = read_now};

static void open_all(void)
{
    const struct tw_store_config s = {.path = path};
    cr_assert_eq(tw_store_open(&s, &store, &err), TW_OK, "%s", err.what);
    const struct tw_catalogue_config c = {
        .store = store, .clock = &test_clock, .lease_ns = 3 * TW_SEC, .heartbeat_ns = TW_SEC};
    cr_assert_eq(tw_catalogue_open(&c, &catalogue, &err), TW_OK, "%s", err.what);
}

static void close_all(void)
{
    tw_catalogue_close(catalogue);
    tw_store_close(store);
}

static void init(void)
{
    tw_log_configure("test", TW_LOG_OFF);
    now_ns = 1000 * TW_SEC;
    strcpy(dir, "/tmp/towline-catalogue-XXXXXX");
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/store.db", dir);
    open_all();
}

static void fini(void)
{
    static const char *const ends[] = {"", ".lock", "-wal", "-shm"};
    char name[160];
    close_all();
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    rmdir(dir);
}

TestSuite(catalogue, .init = init, .fini = fini);

static Towline__V1__VmReport *one_report(const char *vm, uint64_t epoch, Towline__V1__VmState state)
{
    static Towline__V1__VmReport report;
    towline__v1__vm_report__init(&report);
    report.name = (char *)(uintptr_t)vm;
    report.epoch = epoch;
    report.state = state;
    report.memory_bytes = 64u << 20;
    return &report;
}

static void beat(const char *host, uint64_t instance, Towline__V1__VmReport *report)
{
    Towline__V1__HeartbeatRequest r = TOWLINE__V1__HEARTBEAT_REQUEST__INIT;
    Towline__V1__HostDescription d = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    d.name = (char *)(uintptr_t)host;
    d.rpc_url = (char *)(uintptr_t) "tcp://127.0.0.1:1";
    d.memory_capacity_bytes = 1u << 30;
    d.memory_used_bytes = 16u << 20;
    d.instance = instance;
    r.host = &d;
    r.vms = &report;
    r.n_vms = report ? 1 : 0;
    cr_assert_eq(tw_catalogue_heartbeat(catalogue, &r, &err), TW_OK, "%s", err.what);
}

static bool is_alive(const char *host)
{
    char url[TW_URL_SIZE];
    bool alive;
    return tw_catalogue_locate(catalogue, host, url, &alive) && alive;
}

static void count_event(void *ctx, uint64_t revision, const uint8_t *body, size_t size)
{
    (void)revision, (void)body, (void)size;
    ++*(unsigned *)ctx;
}

static unsigned events_of(const char *subject)
{
    unsigned n = 0;
    cr_assert_eq(tw_store_begin(store, TW_STORE_READ, &err), TW_OK);
    cr_assert_eq(tw_store_end(store,
                              tw_store_events_read(store, 0, subject, 100, count_event, &n, &err),
                              &err),
                 TW_OK);
    return n;
}

static enum tw_code vm_record(const char *name, struct tw_vm_record *vm)
{
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, &err);
    return code ? code : tw_store_end(store, tw_store_vm_get(store, name, vm, &err), &err);
}

Test(catalogue, leases_run_out_and_are_renewed)
{
    cr_assert_not(is_alive("node-a"));
    beat("node-a", 1, NULL);
    cr_assert(is_alive("node-a"));
    cr_assert_eq(tw_catalogue_expire(catalogue), now_ns + 3 * TW_SEC);
    now_ns += 3 * TW_SEC - 1;
    tw_catalogue_expire(catalogue);
    cr_assert(is_alive("node-a"), "until the last nanosecond");
    beat("node-a", 1, NULL);
    now_ns += 2 * TW_SEC;
    tw_catalogue_expire(catalogue);
    cr_assert(is_alive("node-a"), "renewed");
    now_ns += TW_SEC;
    cr_assert_eq(tw_catalogue_expire(catalogue), TW_NEVER);
    cr_assert_not(is_alive("node-a"));
    cr_assert_eq(events_of("node-a"), 2, "joined, dead");
    tw_catalogue_expire(catalogue);
    cr_assert_eq(events_of("node-a"), 2, "said once");
    beat("node-a", 1, NULL);
    cr_assert(is_alive("node-a"));
    beat("node-a", 2, NULL);
    cr_assert_eq(events_of("node-a"), 4, "alive, restarted");
}

#define TEXT(text) ((char *)(uintptr_t)(text))

/* What an agent says about its fabrics reaches whoever asks for the host. */
Test(catalogue, paths_are_passed_on)
{
    Towline__V1__FabricPath way = TOWLINE__V1__FABRIC_PATH__INIT;
    Towline__V1__FabricPath *paths[TW_HOST_PATHS_MAX + 1];
    Towline__V1__HostDescription d = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    Towline__V1__HeartbeatRequest r = TOWLINE__V1__HEARTBEAT_REQUEST__INIT;
    struct tw_host_view *views;
    size_t count;
    way.peer = TEXT("node-b");
    way.fabric = TEXT("verbs");
    way.reason = TEXT("both sides have verbs");
    way.migration = TEXT("m-1");
    for (unsigned i = 0; i <= TW_HOST_PATHS_MAX; i++)
        paths[i] = &way;
    d.name = TEXT("node-a");
    d.rpc_url = TEXT("tcp://127.0.0.1:1");
    d.fabric = TEXT("verbs");
    d.fabric_reason = TEXT("rxe0 port 1 (RoCE) is usable");
    d.verbs_address = TEXT("10.0.0.1:7203");
    d.paths = paths;
    d.n_paths = TW_HOST_PATHS_MAX + 1; /* one too many: left out */
    r.host = &d;
    cr_assert_eq(tw_catalogue_heartbeat(catalogue, &r, &err), TW_OK, "%s", err.what);
    cr_assert_eq(tw_catalogue_hosts(catalogue, &views, &count, &err), TW_OK);
    Towline__V1__Host *host = tw_host_to_proto(&views[0]);
    cr_assert_not_null(host);
    cr_assert_str_eq(host->description->fabric_reason, d.fabric_reason);
    cr_assert_str_eq(host->description->verbs_address, d.verbs_address);
    cr_assert_eq(host->description->n_paths, TW_HOST_PATHS_MAX);
    cr_assert_str_eq(host->description->paths[0]->peer, "node-b");
    cr_assert_str_eq(host->description->paths[0]->fabric, "verbs");
    cr_assert_str_eq(host->description->paths[0]->reason, way.reason);
    cr_assert_str_eq(host->description->paths[0]->migration, "m-1");
    towline__v1__host__free_unpacked(host, NULL);
    free(views);
    char longer[TW_URL_SIZE + 1];
    memset(longer, '1', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    d.verbs_address = longer;
    cr_assert_eq(tw_catalogue_heartbeat(catalogue, &r, &err), TW_INVALID_ARGUMENT);
}

Test(catalogue, survives_a_restart_of_the_controller)
{
    beat("node-a", 1, NULL);
    beat("node-b", 1, NULL);
    now_ns += 2 * TW_SEC;
    beat("node-a", 1, NULL);
    now_ns += TW_SEC;
    tw_catalogue_expire(catalogue);
    close_all();
    now_ns += 100 * TW_SEC;
    open_all();
    cr_assert(is_alive("node-a"), "its lease begins anew");
    cr_assert_not(is_alive("node-b"), "the dead stay dead");
    now_ns += 3 * TW_SEC;
    tw_catalogue_expire(catalogue);
    cr_assert_not(is_alive("node-a"));
}

Test(catalogue, adopts_what_it_has_no_record_of)
{
    struct tw_vm_record vm;
    beat("node-a", 1, one_report("web", 7, TOWLINE__V1__VM_STATE__VM_STATE_INCOMING));
    cr_assert_eq(vm_record("web", &vm), TW_NOT_FOUND, "not what is only being received");
    beat("node-a", 1, one_report("web", 7, TOWLINE__V1__VM_STATE__VM_STATE_RUNNING));
    cr_assert_eq(vm_record("web", &vm), TW_OK);
    cr_assert(vm.epoch == 7 && vm.epoch_issued == 7 && vm.state == TW_VM_RUNNING);
    cr_assert_str_eq(vm.host, "node-a");
    beat("node-a", 1, one_report("web", 7, TOWLINE__V1__VM_STATE__VM_STATE_PAUSED));
    cr_assert_eq(vm_record("web", &vm), TW_OK);
    cr_assert_eq(vm.state, TW_VM_PAUSED);
}

Test(catalogue, free_memory_is_what_nobody_uses_or_was_promised)
{
    struct tw_host_view *hosts;
    size_t count;
    struct tw_vm_record vm = {.memory_bytes = 512u << 20,
                              .state = TW_VM_STARTING,
                              .wanted = TW_WANTED_RUNNING,
                              .name = "big",
                              .host = "node-a",
                              .epoch = 1};
    beat("node-a", 1, NULL);
    cr_assert_eq(tw_catalogue_hosts(catalogue, &hosts, &count, &err), TW_OK);
    cr_assert(count == 1 && hosts[0].free_bytes == (1u << 30) - (16u << 20), "what it says");
    free(hosts);
    cr_assert_eq(tw_store_begin(store, TW_STORE_DURABLE, &err), TW_OK);
    cr_assert_eq(tw_store_end(store, tw_store_vm_put(store, &vm, &err), &err), TW_OK);
    cr_assert_eq(tw_catalogue_hosts(catalogue, &hosts, &count, &err), TW_OK);
    cr_assert_eq(hosts[0].free_bytes, 512u << 20, "what was promised");
    cr_assert_eq(hosts[0].vms, 1);
    free(hosts);
}

/* ---- Reports against records: every case --------------------------------------------------- */

struct view {
    const char *name;
    bool record;
    const char *record_host;
    uint64_t record_epoch;
    enum tw_vm_state record_state;
    enum tw_wanted wanted;
    const char *migration;
    uint64_t epoch;
    enum tw_vm_state state;
    unsigned repeats;
    bool owner_claims, settled;
    enum tw_reconcile expected;
};
#define HERE    true, "here", 5, TW_VM_RUNNING, TW_WANTED_RUNNING, ""
#define ELSE    true, "elsewhere", 5, TW_VM_RUNNING, TW_WANTED_RUNNING, ""
#define MOVING  true, "elsewhere", 5, TW_VM_RUNNING, TW_WANTED_RUNNING, "m-1"
#define STOPPED true, "here", 5, TW_VM_STOPPED, TW_WANTED_STOPPED, ""
#define NONE    false, "", 0, TW_VM_RUNNING, TW_WANTED_RUNNING, ""

static const struct view views[] = {
    {"as recorded", HERE, 5, TW_VM_RUNNING, 9, false, true, TW_RECONCILE_NOTHING},
    {"paused", HERE, 5, TW_VM_PAUSED, 0, false, false, TW_RECONCILE_STATE},
    {"newer here", HERE, 6, TW_VM_RUNNING, 0, false, false, TW_RECONCILE_MOVE},
    {"older here, once", HERE, 4, TW_VM_RUNNING, 0, false, true, TW_RECONCILE_NOTHING},
    {"older here, again", HERE, 4, TW_VM_RUNNING, 1, false, true, TW_RECONCILE_STALE},
    {"two owners, just changed", ELSE, 5, TW_VM_RUNNING, 5, true, false, TW_RECONCILE_NOTHING},
    {"two owners, once", ELSE, 5, TW_VM_RUNNING, 0, true, true, TW_RECONCILE_NOTHING},
    {"two owners", ELSE, 5, TW_VM_RUNNING, 1, true, true, TW_RECONCILE_CONFLICT},
    {"two owners, newer", ELSE, 9, TW_VM_RUNNING, 1, true, true, TW_RECONCILE_CONFLICT},
    {"moved unseen", ELSE, 6, TW_VM_RUNNING, 1, false, true, TW_RECONCILE_MOVE},
    {"old copy", ELSE, 4, TW_VM_RUNNING, 1, false, true, TW_RECONCILE_STALE},
    {"in a migration", MOVING, 6, TW_VM_RUNNING, 9, true, true, TW_RECONCILE_NOTHING},
    {"incoming", ELSE, 6, TW_VM_INCOMING, 9, true, true, TW_RECONCILE_NOTHING},
    {"given up", ELSE, 6, TW_VM_GIVEN_UP, 9, true, true, TW_RECONCILE_NOTHING},
    {"stopped, but runs", STOPPED, 5, TW_VM_RUNNING, 1, false, true, TW_RECONCILE_STALE},
    {"stopped just now", STOPPED, 5, TW_VM_RUNNING, 1, false, false, TW_RECONCILE_NOTHING},
    {"unknown", NONE, 5, TW_VM_RUNNING, 0, false, false, TW_RECONCILE_ADOPT},
    {"unknown and incoming", NONE, 5, TW_VM_INCOMING, 9, false, true, TW_RECONCILE_NOTHING},
};

Test(reconcile, every_case)
{
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        const struct view *v = &views[i];
        struct tw_vm_record record = {
            .epoch = v->record_epoch, .state = v->record_state, .wanted = v->wanted};
        struct tw_report report = {.epoch = v->epoch, .state = v->state, .repeats = v->repeats};
        snprintf(record.host, sizeof record.host, "%s", v->record_host);
        snprintf(record.migration, sizeof record.migration, "%s", v->migration);
        cr_expect_eq(
            tw_reconcile(v->record ? &record : NULL, "here", &report, v->owner_claims, v->settled),
            v->expected, "%s", v->name);
    }
}

Test(reconcile, missing_needs_patience)
{
    struct tw_vm_record vm = {
        .state = TW_VM_RUNNING, .wanted = TW_WANTED_RUNNING, .changed_unix_ms = 1000};
    cr_assert_not(tw_reconcile_missing(&vm, 3999, 3000));
    cr_assert(tw_reconcile_missing(&vm, 4000, 3000));
    vm.state = TW_VM_STARTING;
    cr_assert_not(tw_reconcile_missing(&vm, 4000, 3000), "its start is under way");
    vm.state = TW_VM_RUNNING;
    strcpy(vm.migration, "m-1");
    cr_assert_not(tw_reconcile_missing(&vm, 4000, 3000), "its migration knows");
}

/* ---- Placement ----------------------------------------------------------------------------- */

static struct tw_host_view host(const char *name, bool alive, uint64_t free_mib)
{
    struct tw_host_view v = {.free_bytes = free_mib << 20};
    snprintf(v.record.name, sizeof v.record.name, "%s", name);
    v.record.alive = alive;
    return v;
}

Test(placement, most_free_memory_or_reasons)
{
    struct tw_host_view hosts[] = {host("a", true, 100), host("b", false, 900),
                                   host("c", true, 300), host("d", true, 300)};
    const struct tw_host_view *chosen;
    cr_assert_eq(tw_place(hosts, 4, "", 200u << 20, &chosen, &err), TW_OK);
    cr_assert_str_eq(chosen->record.name, "c");
    cr_assert_eq(tw_place(hosts, 4, "a", 100u << 20, &chosen, &err), TW_OK);
    cr_assert_eq(tw_place(hosts, 4, "a", 101u << 20, &chosen, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(err.given, "100 MiB free");
    cr_assert_eq(tw_place(hosts, 4, "b", 1, &chosen, &err), TW_UNAVAILABLE);
    cr_assert_eq(tw_place(hosts, 4, "z", 1, &chosen, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_place(hosts, 4, "", 301u << 20, &chosen, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert(strstr(err.given, "a has 100 MiB free, b is dead, c has 300"), "%s", err.given);
    cr_assert_eq(tw_place(hosts + 1, 1, "", 1, &chosen, &err), TW_UNAVAILABLE);
    cr_assert_eq(tw_place(hosts, 0, "", 1, &chosen, &err), TW_UNAVAILABLE);
    cr_assert_null(chosen);
}

Test(placement, reasons_of_many_hosts_fit)
{
    struct tw_host_view hosts[200];
    const struct tw_host_view *chosen;
    char name[64];
    for (unsigned i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "a-host-with-quite-a-long-name-that-goes-on-and-on-%03u", i);
        hosts[i] = host(name, true, 1);
    }
    cr_assert_eq(tw_place(hosts, 200, "", 2u << 20, &chosen, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert(strstr(err.given, ", ..."), "%s", err.given);
}

/* ---- Configuration ------------------------------------------------------------------------- */

Test(controller_config, keys_and_what_no_key_shows)
{
    struct tw_controller_config c;
    static const char good[] = "listen: ipc:///run/c.sock\nhttp: \"\"\nstore: /var/lib/t.db\n"
                               "store_limit: 1GiB\nlease: 5s\nheartbeat: 500ms\nworkers: 8\n"
                               "log_level: warn\n";
    tw_controller_config_defaults(&c); /* whose door has TLS, which needs files */
    cr_assert_eq(tw_controller_config_check(&c, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_config_parse("c.yaml", good, sizeof good - 1, tw_controller_keys,
                                 tw_controller_key_count, &c, &err),
                 TW_OK, "%s: %s", err.where, err.what);
    cr_assert(c.lease_ns == 5 * TW_SEC && c.workers == 8 && c.log_level == TW_LOG_WARN);
    cr_assert_eq(c.store_limit_bytes, UINT64_C(1) << 30);
    cr_assert_eq(tw_controller_config_check(&c, &err), TW_OK);
    c.lease_ns = 900 * TW_MS;
    cr_assert_eq(tw_controller_config_check(&c, &err), TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.expected, "at least 1.00 s");
    static const char *const bad[] = {"listen: nowhere\n", "http: ftp://x\n", "workers: 3\n",
                                      "log_level: loud\n", "lease: 1ms\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(tw_config_parse("c.yaml", bad[i], strlen(bad[i]), tw_controller_keys,
                                     tw_controller_key_count, &c, &err),
                     TW_INVALID_ARGUMENT, "%s", bad[i]);
}

static bool judged(const tw_why *why, const char *host, const char *rule,
                   Towline__V1__ReasonVerdict verdict)
{
    for (size_t i = 0; i < why->n_reasons; i++)
        if (strcmp(why->reasons[i]->about, host) == 0 && strcmp(why->reasons[i]->rule, rule) == 0)
            return why->reasons[i]->verdict == verdict;
    return false;
}

Test(placement, a_move_is_judged_host_by_host)
{
    static struct tw_host_view hosts[5];
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    const struct tw_host_view *chosen;
    for (unsigned i = 0; i < 5; i++) {
        struct tw_host_record *r = &hosts[i].record;
        strcpy(r->name, names[i]);
        strcpy(r->version, i == 2 ? "2" : "1");
        strcpy(r->fabric_address, "127.0.0.1:1");
        r->alive = i != 3;
        r->clock_known = true;
        r->clock_ahead_ms = i == 4 ? -5000 : 3;
        hosts[i].free_bytes = (i + 1) * (UINT64_C(100) << 20);
    }
    const struct tw_move move = {"a", "", UINT64_C(150) << 20, 1000};
    tw_why *why = tw_why_new("web", "");
    cr_assert_eq(tw_place_move(hosts, 5, &move, why, &chosen, &err), TW_OK);
    cr_assert_eq(chosen, &hosts[1], "others have more room, and a warning: %s",
                 chosen->record.name);
    cr_expect(judged(why, "a", "another_host", TW_REFUSE));
    cr_expect(judged(why, "b", "memory", TW_PASS) && judged(why, "b", "path", TW_PASS));
    cr_expect(judged(why, "c", "version", TW_WARN));
    cr_expect(judged(why, "d", "heartbeat", TW_REFUSE));
    cr_expect(judged(why, "e", "clock", TW_WARN));
    hosts[1].record.fabric_address[0] = 0;
    cr_assert_eq(tw_place_move(hosts, 5, &move, NULL, &chosen, &err), TW_OK);
    cr_assert_eq(chosen, &hosts[4], "as many warnings as c, and more room");
    const struct tw_move large = {"a", "", UINT64_C(900) << 20, 1000};
    cr_assert_eq(tw_place_move(hosts, 5, &large, NULL, &chosen, &err), TW_RESOURCE_EXHAUSTED);
    const struct tw_move named = {"a", "d", UINT64_C(1) << 20, 1000};
    cr_assert_eq(tw_place_move(hosts, 5, &named, NULL, &chosen, &err), TW_UNAVAILABLE);
    towline__v1__why_migration_response__free_unpacked(why, NULL);
}
