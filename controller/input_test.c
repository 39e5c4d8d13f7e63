/* Bad input to every RPC, and the HTTP pages: the controller in this process, played agents. A test
 * is a process of its own. */
#include "controller/play.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

static struct play p;

static void begin(void)
{
    struct tw_error err = {0};
    play_open(&p);
    play_start(&p);
    fake_start(&p.world, 0);
    fake_start(&p.world, 1);
    play_await_hosts(&p, 2);
    CHECK(play_create(&p, "web", "node-a", &err) == TW_OK, "%s", err.what);
}

/* The call must fail with `expected`, and say of what and why. */
static void refused(const ProtobufCServiceDescriptor *service, const char *method,
                    const ProtobufCMessage *request, enum tw_code expected, const char *what)
{
    ProtobufCMessage *answer;
    struct tw_error err = {0};
    enum tw_code code =
        tw_rpc_call(p.client, service, method, request, 4000, TW_RPC_ONCE, &answer, &err);
    CHECK(code == expected, "%s of %s: %s (%s) instead of %s", method, what, tw_code_name(code),
          err.what, tw_code_name(expected));
    CHECK(err.where[0] && err.what[0], "%s of %s: the error names nothing", method, what);
}

#define VM        &towline__v1__vm_service__descriptor
#define MIGRATION &towline__v1__migration_service__descriptor
#define HOST      &towline__v1__host_service__descriptor
#define EVENT     &towline__v1__event_service__descriptor

static char long_text[5000];
static char short_names[][8] = {"", "-a", "A", "a_b", "a b", "../x", "\xc3\xa9"};
#define BAD_NAMES (sizeof short_names / sizeof *short_names + 1)

static char *bad_name(size_t i)
{
    return i + 1 < BAD_NAMES ? short_names[i] : long_text;
}

static Towline__V1__VmSpec good_spec(void)
{
    Towline__V1__VmSpec s = TOWLINE__V1__VM_SPEC__INIT;
    s.name = (char *)(uintptr_t) "new";
    s.memory_bytes = 16u << 20;
    s.kernel = (char *)(uintptr_t) "/boot/kernel";
    return s;
}

static void create_refused(const Towline__V1__VmSpec *spec, const char *host, enum tw_code code,
                           const char *what)
{
    Towline__V1__CreateVmRequest r = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    r.spec = (Towline__V1__VmSpec *)(uintptr_t)spec;
    r.host = (char *)(uintptr_t)host;
    refused(VM, "Create", &r.base, code, what);
}

static void bad_specs(unsigned variant)
{
    (void)variant;
    Towline__V1__VmSpec s = good_spec();
    Towline__V1__CacheModel cache = TOWLINE__V1__CACHE_MODEL__INIT;
    Towline__V1__CacheLevel l1 = TOWLINE__V1__CACHE_LEVEL__INIT;
    begin();
    create_refused(NULL, "", TW_INVALID_ARGUMENT, "no specification");
    for (size_t i = 0; i < BAD_NAMES; i++) {
        s.name = bad_name(i);
        create_refused(&s, "", TW_INVALID_ARGUMENT, "a bad name");
        if (i > 0) {
            s = good_spec();
            create_refused(&s, bad_name(i), TW_INVALID_ARGUMENT, "a bad host");
        }
    }
    s = good_spec();
    create_refused(&s, "node-z", TW_NOT_FOUND, "an unknown host");
    create_refused(&s, "node-c", TW_NOT_FOUND, "a host that never reported");
    static const uint64_t sizes[] = {0, 4096, (4u << 20) + 1, UINT64_MAX, UINT64_C(1) << 60};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        s.memory_bytes = sizes[i];
        create_refused(&s, "", TW_INVALID_ARGUMENT, "a bad size");
    }
    s.memory_bytes = UINT64_C(1) << 40;
    create_refused(&s, "", TW_RESOURCE_EXHAUSTED, "more memory than any host has");
    create_refused(&s, "node-a", TW_RESOURCE_EXHAUSTED, "more memory than the host has");
    s = good_spec();
    s.vcpus = 65;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "too many vCPUs");
    s = good_spec();
    s.kernel = (char *)(uintptr_t) "";
    create_refused(&s, "", TW_INVALID_ARGUMENT, "no kernel");
    s.kernel = (char *)(uintptr_t) "kernel";
    create_refused(&s, "", TW_INVALID_ARGUMENT, "a relative kernel");
    s = good_spec();
    s.initrd = long_text;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "a long initrd");
    s = good_spec();
    s.command_line = long_text;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "a long command line");
    s = good_spec();
    s.cache = &cache;
    cache.l1 = &l1;
    cache.kind = TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI;
    l1.size_bytes = 32768;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "a cache without ways");
    l1.ways = 33;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "too many ways");
    l1.ways = 8;
    l1.size_bytes = 30000;
    create_refused(&s, "", TW_INVALID_ARGUMENT, "an odd cache");
    s = good_spec();
    s.name = (char *)(uintptr_t) "web";
    create_refused(&s, "", TW_ALREADY_EXISTS, "a name twice");
    s = good_spec();
    struct tw_error err = {0};
    CHECK(play_create(&p, "new", "", &err) == TW_OK, "and a good one is taken: %s", err.what);
    play_passed(&p);
}

static void bad_vm_calls(unsigned variant)
{
    (void)variant;
    Towline__V1__GetVmRequest get = TOWLINE__V1__GET_VM_REQUEST__INIT;
    Towline__V1__StopVmRequest stop = TOWLINE__V1__STOP_VM_REQUEST__INIT;
    Towline__V1__DeleteVmRequest gone = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    Towline__V1__ListVmsRequest list = TOWLINE__V1__LIST_VMS_REQUEST__INIT;
    Towline__V1__GetHostRequest host = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    begin();
    for (size_t i = 0; i < BAD_NAMES; i++) {
        get.name = stop.name = gone.name = host.name = list.host = bad_name(i);
        refused(VM, "Get", &get.base, TW_INVALID_ARGUMENT, "a bad name");
        refused(VM, "Stop", &stop.base, TW_INVALID_ARGUMENT, "a bad name");
        refused(VM, "Delete", &gone.base, TW_INVALID_ARGUMENT, "a bad name");
        refused(HOST, "Get", &host.base, TW_INVALID_ARGUMENT, "a bad name");
        if (i > 0)
            refused(VM, "List", &list.base, TW_INVALID_ARGUMENT, "a bad host");
    }
    get.name = stop.name = gone.name = host.name = list.host = (char *)(uintptr_t) "nobody";
    refused(VM, "Get", &get.base, TW_NOT_FOUND, "nobody");
    refused(VM, "Stop", &stop.base, TW_NOT_FOUND, "nobody");
    refused(VM, "Delete", &gone.base, TW_NOT_FOUND, "nobody");
    refused(VM, "List", &list.base, TW_NOT_FOUND, "nobody");
    refused(HOST, "Get", &host.base, TW_NOT_FOUND, "nobody");
    play_passed(&p);
}

static void start_refused(const char *vm, const char *host,
                          const Towline__V1__MigrationLimits *limits, enum tw_code code,
                          const char *what)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    r.vm = (char *)(uintptr_t)vm;
    r.destination = (char *)(uintptr_t)host;
    r.limits = (Towline__V1__MigrationLimits *)(uintptr_t)limits;
    refused(MIGRATION, "Start", &r.base, code, what);
}

static void bad_migrations(unsigned variant)
{
    (void)variant;
    Towline__V1__MigrationLimits l = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    char id[64];
    struct tw_error err = {0};
    begin();
    for (size_t i = 0; i < BAD_NAMES; i++) {
        start_refused(bad_name(i), "node-b", NULL, TW_INVALID_ARGUMENT, "a bad VM");
        if (i > 0) /* without a name one is chosen */
            start_refused("web", bad_name(i), NULL, TW_INVALID_ARGUMENT, "a bad host");
    }
    start_refused("nobody", "node-b", NULL, TW_NOT_FOUND, "an unknown VM");
    start_refused("web", "node-z", NULL, TW_NOT_FOUND, "an unknown host");
    start_refused("web", "node-a", NULL, TW_INVALID_ARGUMENT, "its own host");
    l.bandwidth_bytes_per_s = 1;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "a byte a second");
    towline__v1__migration_limits__init(&l);
    l.downtime_ms = UINT32_MAX;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "endless downtime");
    towline__v1__migration_limits__init(&l);
    l.max_rounds = 64;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "too many rounds");
    towline__v1__migration_limits__init(&l);
    l.timeout_ms = 1;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "no time at all");
    towline__v1__migration_limits__init(&l);
    l.on_no_convergence = (Towline__V1__ConvergencePolicy)77;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "an unknown policy");
    towline__v1__migration_limits__init(&l);
    l.predictor = (Towline__V1__Predictor)6;
    start_refused("web", "node-b", &l, TW_INVALID_ARGUMENT, "an unknown predictor");
    p.world.agents[1].capacity_bytes = 8u << 20;
    usleep(400000);
    start_refused("web", "node-b", NULL, TW_RESOURCE_EXHAUSTED, "a small host");
    p.world.agents[1].capacity_bytes = 1u << 30;
    fake_kill(&p.world, 1);
    play_await_hosts(&p, 1);
    start_refused("web", "node-b", NULL, TW_UNAVAILABLE, "a dead host");
    fake_start(&p.world, 1);
    play_await_hosts(&p, 2);
    fake_hold(&p.world, FAKE_STOPPING);
    CHECK(play_migrate(&p, "web", "node-b", id, &err) == TW_OK, "%s", err.what);
    start_refused("web", "node-b", NULL, TW_FAILED_PRECONDITION, "a busy VM");
    CHECK(strcmp(id, "m-1") == 0, "what was refused used up no id: %s", id);
    Towline__V1__StopVmRequest stop = TOWLINE__V1__STOP_VM_REQUEST__INIT;
    Towline__V1__DeleteVmRequest gone = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    stop.name = gone.name = (char *)(uintptr_t) "web";
    refused(VM, "Stop", &stop.base, TW_FAILED_PRECONDITION, "a busy VM");
    refused(VM, "Delete", &gone.base, TW_FAILED_PRECONDITION, "a busy VM");
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "and it goes its way");
    play_passed(&p);
}

static void bad_ids(unsigned variant)
{
    (void)variant;
    static char ids[][32] = {"", "m-", "m-0", "m-99", "x", "m-1'; DROP TABLE vms"};
    Towline__V1__GetMigrationRequest get = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    Towline__V1__CancelMigrationRequest cancel = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    Towline__V1__RecoverMigrationRequest recover = TOWLINE__V1__RECOVER_MIGRATION_REQUEST__INIT;
    Towline__V1__ListMigrationsRequest list = TOWLINE__V1__LIST_MIGRATIONS_REQUEST__INIT;
    Towline__V1__WatchEventsRequest watch = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    char id[64];
    struct tw_error err = {0};
    begin();
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        get.id = cancel.id = recover.id = ids[i];
        recover.to = TOWLINE__V1__RECOVER_TO__RECOVER_TO_SOURCE;
        recover.other_side_is_fenced = true;
        refused(MIGRATION, "Get", &get.base, TW_NOT_FOUND, "no migration");
        refused(MIGRATION, "Cancel", &cancel.base, TW_NOT_FOUND, "no migration");
        refused(MIGRATION, "Recover", &recover.base, TW_NOT_FOUND, "no migration");
    }
    CHECK(play_migrate(&p, "web", "node-b", id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    recover.id = cancel.id = id;
    refused(MIGRATION, "Recover", &recover.base, TW_FAILED_PRECONDITION, "an ended migration");
    refused(MIGRATION, "Cancel", &cancel.base, TW_FAILED_PRECONDITION, "an ended migration");
    recover.to = (Towline__V1__RecoverTo)9;
    refused(MIGRATION, "Recover", &recover.base, TW_INVALID_ARGUMENT, "an unknown side");
    list.limit = 1001;
    refused(MIGRATION, "List", &list.base, TW_INVALID_ARGUMENT, "too many");
    list.limit = 0;
    list.vm = long_text;
    refused(MIGRATION, "List", &list.base, TW_INVALID_ARGUMENT, "a bad VM");
    watch.max_events = 1001;
    refused(EVENT, "Watch", &watch.base, TW_INVALID_ARGUMENT, "too many");
    watch.max_events = 0;
    watch.wait_ms = 10001;
    refused(EVENT, "Watch", &watch.base, TW_INVALID_ARGUMENT, "too long");
    watch.wait_ms = 0;
    watch.subject = long_text;
    refused(EVENT, "Watch", &watch.base, TW_INVALID_ARGUMENT, "a long subject");
    play_passed(&p);
}

static void beat_refused(const Towline__V1__HostDescription *host, Towline__V1__VmReport **vms,
                         size_t count, const char *what)
{
    Towline__V1__HeartbeatRequest r = TOWLINE__V1__HEARTBEAT_REQUEST__INIT;
    r.host = (Towline__V1__HostDescription *)(uintptr_t)host;
    r.vms = vms;
    r.n_vms = count;
    refused(HOST, "Heartbeat", &r.base, TW_INVALID_ARGUMENT, what);
}

static void bad_heartbeats(unsigned variant)
{
    (void)variant;
    static Towline__V1__VmReport reports[1025];
    static Towline__V1__VmReport *list[1025];
    Towline__V1__HostDescription h = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    for (unsigned i = 0; i < 1025; i++) {
        towline__v1__vm_report__init(&reports[i]);
        reports[i].name = (char *)(uintptr_t) "vm";
        reports[i].state = TOWLINE__V1__VM_STATE__VM_STATE_RUNNING;
        list[i] = &reports[i];
    }
    begin();
    h.rpc_url = (char *)(uintptr_t) "tcp://127.0.0.1:1";
    beat_refused(NULL, NULL, 0, "no host");
    for (size_t i = 0; i < BAD_NAMES; i++) {
        h.name = bad_name(i);
        beat_refused(&h, NULL, 0, "a bad name");
    }
    h.name = (char *)(uintptr_t) "node-x";
    h.rpc_url = (char *)(uintptr_t) "";
    beat_refused(&h, NULL, 0, "no URL");
    h.rpc_url = long_text;
    beat_refused(&h, NULL, 0, "a long URL");
    h.rpc_url = (char *)(uintptr_t) "tcp://127.0.0.1:1";
    h.fabric_address = long_text;
    beat_refused(&h, NULL, 0, "a long address");
    h.fabric_address = (char *)(uintptr_t) "";
    beat_refused(&h, list, 1025, "too many VMs");
    reports[0].name = bad_name(2);
    beat_refused(&h, list, 1, "a bad VM");
    reports[0].name = (char *)(uintptr_t) "vm";
    reports[0].migration = long_text;
    beat_refused(&h, list, 1, "a long migration id");
    reports[0].migration = (char *)(uintptr_t) "";
    reports[0].state = (Towline__V1__VmState)99;
    beat_refused(&h, list, 1, "an unknown state");
    play_await_hosts(&p, 2);
    play_passed(&p);
}

/* ---- Health and pages ---------------------------------------------------------------------- */

static void get_page(const char *path, char *text, size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 3};
    char request[128];
    size_t length = 0;
    const char *port = strrchr(tw_controller_http_url(p.controller), ':');
    CHECK(port, "no page");
    to.sin_port = htons((uint16_t)atoi(port + 1));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    CHECK(connect(s, (struct sockaddr *)&to, sizeof to) == 0, "connect to %s", port);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    CHECK(send(s, request, (size_t)n, 0) == n, "send");
    for (ssize_t got;
         length < size - 1 && (got = recv(s, text + length, size - 1 - length, 0)) > 0;)
        length += (size_t)got;
    text[length] = 0;
    close(s);
}

static void pages(unsigned variant)
{
    (void)variant;
    static char text[65536];
    char id[64];
    struct tw_error err = {0};
    static const char *const wanted[] = {
        "towline_hosts{state=\"alive\"} 2",
        "towline_vms{state=\"running\"} 1",
        "towline_migrations_total{outcome=\"completed\"} 1",
        "towline_migration_bytes_total 8000",
        "towline_migration_bytes_if_pages_total 320000",
        "towline_migration_downtime_seconds_bucket{le=\"0.03\"} 1",
        "towline_migration_downtime_seconds_count 1",
        "towline_rpc_calls_total{method=\"VmService/Create\",code=\"OK\"} 1",
        "towline_rpc_calls_total{method=\"VmService/Get\",code=\"NOT_FOUND\"} 1",
        "towline_store_write_seconds_count",
        "towline_event_revision ",
    };
    begin();
    CHECK(play_migrate(&p, "web", "node-b", id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    CHECK(!play_vm(&p, "nobody"), "nobody");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 2000);
    for (unsigned ms = 0; ms < 3000 && !strstr(text, wanted[2]); ms += 20) {
        get_page("/metrics", text, sizeof text);
        usleep(20000);
    }
    CHECK(strstr(text, " 200 "), "%.60s", text);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK(strstr(text, wanted[i]), "no line \"%s\" in\n%s", wanted[i], text);
    get_page("/healthz", text, sizeof text);
    CHECK(strstr(text, " 200 "), "%.60s", text);
    get_page("/readyz", text, sizeof text);
    CHECK(strstr(text, " 200 ") && strstr(text, "ok store"), "%s", text);
    Towline__V1__HealthRequest r = TOWLINE__V1__HEALTH_REQUEST__INIT;
    ProtobufCMessage *m;
    CHECK(play_call(&p, &towline__v1__health_service__descriptor, "Check", &r.base, &m, &err) ==
              TW_OK,
          "%s", err.what);
    const Towline__V1__HealthResponse *h = (const void *)m;
    CHECK(h->ready && strcmp(h->component, "controller") == 0 && h->n_items == 2, "health");
    protobuf_c_message_free_unpacked(m, NULL);
    play_passed(&p);
}

static const struct play_test tests[] = {
    {"bad_specs", bad_specs, 1},           {"bad_vm_calls", bad_vm_calls, 1},
    {"bad_migrations", bad_migrations, 1}, {"bad_ids", bad_ids, 1},
    {"bad_heartbeats", bad_heartbeats, 1}, {"pages", pages, 1},
};

int main(int argc, char **argv)
{
    memset(long_text, 'a', sizeof long_text - 1);
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
