/* A cluster whose RPC is under TLS: who is refused by the real programs and how they say it, and
 * certificates that are replaced, authority included, in the middle of a migration. */
#include "tests/cluster/cluster.h"

#include "base/clock.h"
#include "pki/issue.h"
#include "towline/v1/agent.pb-c.h"
#include "towline/v1/event.pb-c.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DENIED      8 /* exit status of tow */
#define UNREACHABLE 3
#define DAY         INT64_C(86400)

static struct tw_cluster c;

static void open_cluster(void)
{
    tw_cluster_open_tls(&c);
}

static void close_cluster(void)
{
    tw_cluster_close(&c);
}

TestSuite(cluster_tls, .init = open_cluster, .fini = close_cluster, .timeout = 200);

/* Folder DIR/tls/OUT by authority DIR/AUTHORITY. */
static void issue(const char *authority, const char *out, enum tw_identity_role role,
                  const char *name, int64_t ends_s)
{
    static const char *const here[] = {"127.0.0.1"};
    const struct tw_pki_leaf leaf = {.role = role,
                                     .name = name,
                                     .addresses = here,
                                     .address_count = 1,
                                     .begins_s = ends_s < 0 ? 2 * ends_s : 0,
                                     .ends_s = ends_s};
    struct tw_error err = {0};
    char from[128], to[128];
    snprintf(from, sizeof from, "%s/%s", c.dir, authority);
    snprintf(to, sizeof to, "%s/tls/%s", c.dir, out);
    cr_assert_eq(tw_pki_issue(from, to, &leaf, &err), TW_OK, "%s: %s", err.where, err.what);
}

static void authority(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", c.dir, name);
    cr_assert_eq(tw_pki_init(path, 30, NULL), TW_OK);
}

static char said[4096];

/* Exit status of `tow ARGUMENTS` as whoever folder DIR/tls/WHO is; what it said is in `said`. */
static int tow(const char *who, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command,
             "TOWLINE_CONTROLLER=%s TOWLINE_TLS_DIR=%s/tls/%s timeout 30 %s %s 2>&1",
             c.controller_url, c.dir, who, TOWLINE_TOW, arguments);
    FILE *f = popen(command, "r");
    cr_assert(f);
    size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void refused(const char *who, const char *arguments, int expected, const char *why)
{
    int status = tow(who, arguments);
    cr_expect_eq(status, expected, "%s, %s: %d: %s", who, arguments, status, said);
    cr_expect(strstr(said, why), "%s, %s: %s", who, arguments, said);
}

Test(cluster_tls, tow_is_told_why)
{
    char arguments[256];
    tw_cluster_start(&c);
    authority("other");
    issue("pki", "viewer", TW_ROLE_VIEWER, "bob", DAY);
    issue("pki", "expired", TW_ROLE_OPERATOR, "test", -DAY);
    issue("other", "foreign", TW_ROLE_OPERATOR, "test", DAY);
    cr_expect_eq(tow("test", "status"), 0, "%s", said);
    cr_expect_eq(tow("viewer", "host list"), 0, "%s", said);
    refused("viewer", "vm migrate web node-b", DENIED, "expected operator, given viewer bob");
    refused("node-a", "host list", DENIED, "expected operator, viewer, given agent node-a");
    refused("expired", "host list", DENIED, "expired");
    refused("foreign", "host list", DENIED, "certificate");
    snprintf(arguments, sizeof arguments, "--ca %s/tls/test/ca.crt host list", c.dir);
    refused("foreign", arguments, DENIED, "unknown ca");
    snprintf(arguments, sizeof arguments, "--ca %s/tls/test/ca.crt --cert '' --key '' host list",
             c.dir);
    refused("test", arguments, DENIED, "certificate required");
    const char *port = strrchr(c.controller_url, ':') + 1;
    snprintf(arguments, sizeof arguments, "--controller tls+tcp://localhost:%s host list", port);
    refused("test", arguments, DENIED, "ostname mismatch");
    snprintf(arguments, sizeof arguments, "--controller tcp://127.0.0.1:%s --insecure host list",
             port);
    refused("test", arguments, UNREACHABLE, "does not speak this protocol");
    snprintf(arguments, sizeof arguments, "--controller tcp://127.0.0.1:%s host list", port);
    refused("test", arguments, 2, "plain text has to be asked for");
}

static enum tw_code call_as(const char *who, const char *url, struct tw_rpc_expected server,
                            const ProtobufCServiceDescriptor *service, const char *method,
                            const ProtobufCMessage *request, struct tw_error *err)
{
    struct tw_rpc_client *client;
    struct tw_tls_files files;
    struct tw_tls *tls;
    ProtobufCMessage *answer;
    char path[128];
    snprintf(path, sizeof path, "%s/tls/%s", c.dir, who);
    cr_assert_eq(tw_tls_files_in(path, &files, NULL), TW_OK);
    cr_assert_eq(tw_tls_open(&files, &tls, NULL), TW_OK);
    const struct tw_rpc_client_config config = {.url = url, .tls = tls, .expected = server};
    cr_assert_eq(tw_rpc_client_open(&config, &client, err), TW_OK);
    enum tw_code code =
        tw_rpc_call(client, service, method, request, 10000, TW_RPC_ONCE, &answer, err);
    if (answer)
        protobuf_c_message_free_unpacked(answer, NULL);
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    return code;
}

static void agent_url(const char *host, char url[256])
{
    Towline__V1__GetHostRequest r = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    ProtobufCMessage *m;
    r.name = (char *)(uintptr_t)host;
    cr_assert_eq(tw_rpc_call(c.client, &towline__v1__host_service__descriptor, "Get", &r.base, 5000,
                             TW_RPC_IDEMPOTENT, &m, NULL),
                 TW_OK);
    snprintf(url, 256, "%s", ((const Towline__V1__GetHostResponse *)m)->host->description->rpc_url);
    protobuf_c_message_free_unpacked(m, NULL);
}

Test(cluster_tls, agents_do_what_is_theirs)
{
    static const char *const others[] = {"test", "node-b"};
    const struct tw_rpc_expected controller = {TW_ROLE_CONTROLLER, "main"};
    const struct tw_rpc_expected node_a = {TW_ROLE_AGENT, "node-a"};
    const ProtobufCServiceDescriptor *hosts = &towline__v1__host_service__descriptor;
    struct tw_error err = {0};
    char url[256];
    Towline__V1__HeartbeatRequest beat = TOWLINE__V1__HEARTBEAT_REQUEST__INIT;
    Towline__V1__HostDescription host = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    Towline__V1__RemoveVmRequest removal = TOWLINE__V1__REMOVE_VM_REQUEST__INIT;
    tw_cluster_start(&c);
    host.name = (char *)(uintptr_t) "node-b";
    beat.host = &host;
    cr_expect_eq(
        call_as("node-a", c.controller_url, controller, hosts, "Heartbeat", &beat.base, &err),
        TW_PERMISSION_DENIED);
    cr_expect_str_eq(err.expected, "node-a");
    cr_expect_str_eq(err.given, "node-b");
    cr_expect_eq(
        call_as("test", c.controller_url, controller, hosts, "Heartbeat", &beat.base, &err),
        TW_PERMISSION_DENIED);
    agent_url("node-a", url);
    removal.name = (char *)(uintptr_t) "guest";
    for (size_t i = 0; i < 2; i++) {
        cr_expect_eq(call_as(others[i], url, node_a, &towline__v1__agent_service__descriptor,
                             "RemoveVm", &removal.base, &err),
                     TW_PERMISSION_DENIED);
        cr_expect_str_eq(err.expected, "controller");
    }
}

static void shell(const char *folder, const char *what)
{
    char command[1024];
    snprintf(command, sizeof command, "cd %s/tls/%s && %s", c.dir, folder, what);
    cr_assert_eq(system(command), 0, "%s", command);
}

static bool log_has(enum tw_role role, const char *text)
{
    char command[512];
    snprintf(command, sizeof command, "grep -qF '%s' %s/%s.log", text, c.dir,
             c.processes[role].name);
    return system(command) == 0;
}

Test(cluster_tls, an_agent_with_the_certificate_of_another_does_not_start)
{
    tw_cluster_start(&c);
    tw_cluster_kill(&c, TW_AGENT_B);
    shell("node-b", "cp ../node-a/* .");
    tw_cluster_spawn(&c, TW_AGENT_B);
    for (unsigned ms = 0; ms < 20000 && !tw_cluster_process_ended(&c, TW_AGENT_B); ms += 20)
        tw_sleep_ms(20);
    cr_assert(tw_cluster_process_ended(&c, TW_AGENT_B));
    cr_expect(log_has(TW_AGENT_B, "expected agent node-b, given agent node-a"));
}

/* ---- How long they are good ----------------------------------------------------------------- */

/* The page of a process's metrics, in `said`; where it is served stands in its log. */
static void metrics(enum tw_role role)
{
    char command[512];
    snprintf(command, sizeof command,
             "url=$(grep -o 'http=http://[^ \"]*' %s/%s.log | tail -n 1) && "
             "busybox timeout 30 busybox wget -q -O - \"${url#http=}/metrics\"",
             c.dir, c.processes[role].name);
    FILE *f = popen(command, "r");
    cr_assert(f);
    const size_t n = fread(said, 1, sizeof said - 1, f);
    said[n] = 0;
    while (fgetc(f) != EOF)
        continue;
    cr_assert_eq(pclose(f), 0, "%s", command);
}

/* What the metric of a process says; INT64_MIN = nothing. */
static int64_t expires_s(enum tw_role role)
{
    static const char name[] = "\ntowline_certificate_expires_seconds ";
    metrics(role);
    const char *line = strstr(said, name);
    return line ? strtoll(line + sizeof name - 1, NULL, 10) : INT64_MIN;
}

Test(cluster_tls, the_end_of_a_certificate_is_a_metric_and_a_warning)
{
    for (unsigned i = 0; i < TW_ROLES; i++)
        snprintf(c.settings[i], sizeof c.settings[i], "http: \"http://127.0.0.1:0\"\n");
    issue("pki", "longer", TW_ROLE_AGENT, "node-b", 20 * DAY);
    tw_cluster_start(&c);
    for (unsigned i = 0; i < TW_ROLES; i++) {
        const enum tw_role role = (enum tw_role)i;
        const int64_t left_s = expires_s(role);
        cr_expect(left_s > DAY - 600 && left_s <= DAY, "%u: %lld in\n%s", i, (long long)left_s,
                  said);
        cr_expect(log_has(role, "certificate or authority expires soon"), "%u", i);
    }
    shell("node-b", "mv ../longer/tls.* .");
    for (unsigned ms = 0; ms < 30000 && expires_s(TW_AGENT_B) <= DAY; ms += 100)
        tw_sleep_ms(100);
    cr_expect_gt(expires_s(TW_AGENT_B), 19 * DAY, "%s", said);
}

/* ---- Rotation ------------------------------------------------------------------------------- */

static const struct {
    const char *folder, *name;
    enum tw_identity_role role;
} everybody[] = {{"controller", "main", TW_ROLE_CONTROLLER},
                 {"node-a", "node-a", TW_ROLE_AGENT},
                 {"node-b", "node-b", TW_ROLE_AGENT},
                 {"test", "test", TW_ROLE_OPERATOR}};
#define EVERYBODY (sizeof everybody / sizeof *everybody)

/* All read their files again: the processes by SIGHUP, the test's client by itself. */
static void reload_all(void)
{
    struct tw_error err = {0};
    for (unsigned role = 0; role < TW_ROLES; role++)
        cr_assert_eq(kill(c.processes[role].pid, SIGHUP), 0);
    cr_assert_eq(tw_tls_reload(c.tls, &err), TW_OK, "%s: %s", err.where, err.what);
    tw_sleep_ms(500);
    tw_cluster_await_agents(&c);
}

/* As docs/security.md says: trust both authorities; new certificates; forget the old authority. */
static void rotate_everything(void)
{
    authority("next");
    for (size_t i = 0; i < EVERYBODY; i++)
        shell(everybody[i].folder, "for f in ca.crl ca.crt; do"
                                   " cat ../../pki/$f ../../next/$f >new && mv new $f; done");
    reload_all();
    for (size_t i = 0; i < EVERYBODY; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s-next", everybody[i].folder);
        issue("next", text, everybody[i].role, everybody[i].name, 2 * DAY);
        snprintf(text, sizeof text, "mv ../%s-next/tls.* .", everybody[i].folder);
        shell(everybody[i].folder, text);
    }
    reload_all();
    for (size_t i = 0; i < EVERYBODY; i++)
        shell(everybody[i].folder, "cp ../../next/ca.crl new && mv new ca.crl &&"
                                   " cp ../../next/ca.crt new && mv new ca.crt");
    reload_all();
}

struct watcher {
    _Atomic bool stop;
    unsigned answers, failures;
    struct tw_error first;
};

/* A long-polling watch all the while, as `tow events --follow` does it. */
static void *watch_main(void *arg)
{
    struct watcher *w = arg;
    Towline__V1__WatchEventsRequest r = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    r.wait_ms = 300;
    while (!atomic_load(&w->stop)) {
        struct tw_error err = {0};
        ProtobufCMessage *m;
        if (tw_rpc_call(c.client, &towline__v1__event_service__descriptor, "Watch", &r.base, 20000,
                        TW_RPC_IDEMPOTENT, &m, &err) != TW_OK) {
            if (w->failures++ == 0)
                w->first = err;
            continue;
        }
        w->answers++;
        r.after_revision = ((const Towline__V1__WatchEventsResponse *)m)->next_revision;
        protobuf_c_message_free_unpacked(m, NULL);
    }
    return NULL;
}

static Towline__V1__MigrationState state_of(Towline__V1__Migration *migration)
{
    cr_assert(migration);
    Towline__V1__MigrationState state = migration->state;
    towline__v1__migration__free_unpacked(migration, NULL);
    return state;
}

Test(cluster_tls, certificates_and_authority_are_replaced_in_a_migration)
{
    struct watcher w = {0};
    struct tw_error err = {0};
    pthread_t thread;
    char id[64];
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    tw_cluster_start(&c);
    tw_cluster_create_guest(&c, 64, "mode=sparse pages=8192 rate=20000 fill=1");
    cr_assert_eq(pthread_create(&thread, NULL, watch_main, &w), 0);
    limits.bandwidth_bytes_per_s = 2u << 20; /* the full copy alone takes 15 s */
    limits.downtime_ms = 5000;
    limits.timeout_ms = 120000;
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &limits, id, &err), TW_OK, "%s",
                 err.what);
    rotate_everything();
    cr_expect_eq(state_of(tw_cluster_migration(&c, id)),
                 TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING,
                 "the migration must still run");
    cr_expect_eq(state_of(tw_cluster_await_end(&c, id, 120000)),
                 TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED);
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    cr_expect_eq(w.failures, 0, "%s: %s", w.first.where, w.first.what);
    cr_expect_gt(w.answers, 0);
    cr_expect(tw_cluster_guest_runs(&c, TW_AGENT_B, 3000));
    cr_expect_eq(c.two_running, 0);
    /* The old authority counts no more. */
    issue("pki", "late", TW_ROLE_OPERATOR, "test", 3600);
    shell("late", "cp ../../next/ca.cr[lt] .");
    refused("late", "host list", DENIED, "unknown ca");
}

/* By the operators' command, as docs/security.md says, in processes that run. */
Test(cluster_tls, the_revoked_are_refused)
{
    char arguments[256];
    tw_cluster_start(&c);
    issue("pki", "lost", TW_ROLE_OPERATOR, "test", DAY);
    cr_assert_eq(tow("lost", "host list"), 0, "%s", said);
    snprintf(arguments, sizeof arguments, "pki revoke --dir %s/pki %s/tls/lost", c.dir, c.dir);
    cr_assert_eq(tow("test", arguments), 0, "%s", said);
    cr_expect(strstr(said, "ca.crl has 1 now"), "%s", said);
    cr_expect_neq(tow("test", arguments), 0, "%s", said);
    cr_expect(strstr(said, "is revoked already"), "%s", said);
    snprintf(arguments, sizeof arguments, "pki revoke --dir %s/pki %s/tls/node-b/tls.crt", c.dir,
             c.dir);
    cr_assert_eq(tow("test", arguments), 0, "%s", said);
    for (size_t i = 0; i < EVERYBODY; i++)
        if (everybody[i].role != TW_ROLE_AGENT || strcmp(everybody[i].name, "node-b") != 0)
            shell(everybody[i].folder, "cp ../../pki/ca.crl new && mv new ca.crl");
    bool gone = false;
    for (unsigned ms = 0; ms < 60000 && !gone; ms += 200) {
        tw_sleep_ms(200);
        gone = tow("lost", "host list") == DENIED;
    }
    refused("lost", "host list", DENIED, "certificate revoked");
    cr_expect_eq(tow("test", "host list"), 0, "%s", said);
    /* The agent is a host no more. */
    for (unsigned ms = 0;
         ms < 60000 && !(tow("test", "host show node-b") == 0 && strstr(said, "dead")); ms += 200)
        tw_sleep_ms(200);
    cr_expect(strstr(said, "state          dead"), "%s", said);
    cr_expect(log_has(TW_AGENT_B, "certificate revoked"));
}

Test(cluster_tls, broken_files_change_nothing)
{
    tw_cluster_start(&c);
    for (unsigned i = 0; i < TW_ROLES; i++) {
        shell(everybody[i].folder, "echo nonsense >new && mv new ca.crt");
        cr_assert_eq(kill(c.processes[i].pid, SIGHUP), 0);
    }
    tw_sleep_ms(2500); /* longer than a lease */
    tw_cluster_await_agents(&c);
    cr_expect_eq(tow("test", "host list"), 0, "%s", said);
    for (unsigned i = 0; i < TW_ROLES; i++)
        cr_expect(log_has((enum tw_role)i, "not read again, the old ones stay"), "%u", i);
}
