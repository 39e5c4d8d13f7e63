/* Who gets in: certificates and roles on the door of a server, and what a refused client is told.
 * The server is an agent's: it serves VmService (of the test) as the contract allows it. */
#include "rpc/probe.h"
#include "rpc/test_service.h"
#include "rpc/tls.h"
#include "rpc/tls_shake.h"

#include "pki/issue.h"
#include "pki/revoke.h"
#include "pki/test_folder.h"
#include "towline/v1/host.pb-c.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DAY        INT64_C(86400)
#define TIMEOUT_MS 20000u
#define REFUSED_MS 5000u

static void issue(const char *authority, const char *out, enum tw_identity_role role,
                  const char *name, int64_t ends_s)
{
    static const char *const addresses[] = {"127.0.0.1", "localhost"};
    const struct tw_pki_leaf leaf = {.role = role,
                                     .name = name,
                                     .addresses = addresses,
                                     .address_count = 2,
                                     .begins_s = ends_s < 0 ? ends_s - DAY : 0,
                                     .ends_s = ends_s};
    struct tw_error err = {0};
    cr_assert_eq(tw_pki_issue(in_dir(authority), in_dir(out), &leaf, &err), TW_OK, "%s: %s",
                 err.where, err.what);
}

static void setup(void)
{
    test_folder_make();
    cr_assert_eq(tw_pki_init(in_dir("ca"), 3650, NULL), TW_OK);
    issue("ca", "controller", TW_ROLE_CONTROLLER, "main", 30 * DAY);
    issue("ca", "operator", TW_ROLE_OPERATOR, "alice", 30 * DAY);
}

TestSuite(rpc_tls, .init = setup, .fini = test_folder_remove, .timeout = 100);

static struct tw_tls *material(const char *folder)
{
    struct tw_tls_files files;
    struct tw_tls *tls;
    struct tw_error err = {0};
    cr_assert_eq(tw_tls_files_in(in_dir(folder), &files, &err), TW_OK);
    cr_assert_eq(tw_tls_open(&files, &tls, &err), TW_OK, "%s: %s", err.where, err.what);
    return tls;
}

struct door {
    struct test_service service;
    struct tw_tls *tls;
    struct tw_rpc_server *server;
};

static void door_open(struct door *d, const char *folder)
{
    memset(d, 0, sizeof *d);
    d->tls = material(folder);
    d->server = test_server(
        &(struct tw_rpc_server_config){.url = "tls+tcp://127.0.0.1:0", .tls = d->tls}, &d->service);
}

static void door_close(struct door *d)
{
    tw_rpc_server_close(d->server);
    tw_tls_close(d->tls);
}

static struct tw_rpc_client *caller(const struct door *d, struct tw_tls *tls,
                                    enum tw_identity_role role, const char *name)
{
    struct tw_rpc_client *client;
    struct tw_error err = {0};
    const struct tw_rpc_client_config config = {
        .url = tw_rpc_server_url(d->server), .tls = tls, .expected = {role, name}};
    cr_assert_eq(tw_rpc_client_open(&config, &client, &err), TW_OK, "%s: %s", err.where, err.what);
    return client;
}

/* One call as `folder` says; *err tells what came of it. */
static enum tw_code call_as(const struct door *d, const char *folder, enum tw_identity_role server,
                            const char *server_name, struct tw_error *err)
{
    struct tw_tls *tls = material(folder);
    struct tw_rpc_client *client = caller(d, tls, server, server_name);
    enum tw_code code = test_get(client, "web", REFUSED_MS, TW_RPC_ONCE, NULL, err);
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    return code;
}

Test(rpc_tls, those_who_belong_get_in)
{
    struct door d;
    struct tw_error err = {0};
    door_open(&d, "controller");
    cr_assert_eq(strncmp(tw_rpc_server_url(d.server), "tls+tcp://127.0.0.1:", 20), 0);
    cr_assert_eq(call_as(&d, "operator", TW_ROLE_CONTROLLER, "main", &err), TW_OK, "%s", err.what);
    cr_assert_eq(call_as(&d, "operator", TW_ROLE_CONTROLLER, NULL, &err), TW_OK, "%s", err.what);
    cr_assert_eq(call_as(&d, "operator", TW_ROLE_NONE, NULL, &err), TW_OK, "%s", err.what);
    door_close(&d);
}

Test(rpc_tls, big_messages_pass)
{
    struct door d;
    char *reason = NULL;
    door_open(&d, "controller");
    struct tw_tls *tls = material("operator");
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(test_get(client, "large:3000000", TIMEOUT_MS, TW_RPC_ONCE, &reason, NULL),
                     TW_OK);
        free(reason);
    }
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    door_close(&d);
}

static void refused(const struct door *d, const char *folder, enum tw_identity_role server,
                    const char *server_name, const char *why)
{
    struct tw_error err = {0};
    cr_expect_eq(call_as(d, folder, server, server_name, &err), TW_UNAUTHENTICATED, "%s: %s",
                 folder, err.what);
    cr_expect(strstr(err.what, why), "%s: %s", folder, err.what);
    cr_expect_eq(d->service.calls, 0);
}

Test(rpc_tls, others_are_told_why_they_are_refused)
{
    struct door d;
    door_open(&d, "controller");
    issue("ca", "old", TW_ROLE_OPERATOR, "alice", -DAY);
    refused(&d, "old", TW_ROLE_CONTROLLER, "main", "expired");
    /* No certificate at all. */
    issue("ca", "bare", TW_ROLE_OPERATOR, "alice", DAY);
    struct tw_tls_files files = {0};
    snprintf(files.ca, sizeof files.ca, "%s", in_dir("bare/ca.crt"));
    struct tw_tls *tls;
    cr_assert_eq(tw_tls_open(&files, &tls, NULL), TW_OK);
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    struct tw_error err = {0};
    cr_expect_eq(test_get(client, "web", REFUSED_MS, TW_RPC_ONCE, NULL, &err), TW_UNAUTHENTICATED);
    cr_expect(strstr(err.what, "certificate required"), "%s", err.what);
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    /* From another authority, though it trusts ours. */
    cr_assert_eq(tw_pki_init(in_dir("other"), 3650, NULL), TW_OK);
    issue("other", "foreign", TW_ROLE_OPERATOR, "alice", DAY);
    refused(&d, "foreign", TW_ROLE_CONTROLLER, "main", "certificate"); /* it does not trust us */
    cr_assert_eq(rename(in_dir("bare/ca.crt"), in_dir("foreign/ca.crt")), 0);
    cr_assert_eq(rename(in_dir("bare/ca.crl"), in_dir("foreign/ca.crl")), 0);
    refused(&d, "foreign", TW_ROLE_CONTROLLER, "main", "unknown ca");
    door_close(&d);
}

Test(rpc_tls, a_server_that_is_somebody_else)
{
    struct door d;
    struct tw_error err = {0};
    issue("ca", "node-a", TW_ROLE_AGENT, "node-a", DAY);
    door_open(&d, "node-a");
    cr_expect_eq(call_as(&d, "operator", TW_ROLE_AGENT, "node-b", &err), TW_UNAUTHENTICATED);
    cr_expect_str_eq(err.expected, "agent node-b");
    cr_expect_str_eq(err.given, "agent node-a");
    cr_expect_eq(call_as(&d, "operator", TW_ROLE_CONTROLLER, NULL, &err), TW_UNAUTHENTICATED);
    cr_expect_str_eq(err.expected, "controller");
    cr_expect_eq(d.service.calls, 0);
    door_close(&d);
}

Test(rpc_tls, an_address_that_is_not_in_the_certificate)
{
    struct door d;
    const struct tw_pki_leaf leaf = {.role = TW_ROLE_CONTROLLER, .name = "far", .ends_s = DAY};
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("far"), &leaf, NULL), TW_OK);
    door_open(&d, "far");
    refused(&d, "operator", TW_ROLE_CONTROLLER, NULL, "IP address mismatch");
    door_close(&d);
}

Test(rpc_tls, roles_decide)
{
    struct door d;
    struct tw_error err = {0};
    ProtobufCMessage *response;
    Towline__V1__CreateVmRequest create = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    door_open(&d, "controller");
    issue("ca", "viewer", TW_ROLE_VIEWER, "bob", DAY);
    issue("ca", "node-a", TW_ROLE_AGENT, "node-a", DAY);
    cr_expect_eq(call_as(&d, "viewer", TW_ROLE_CONTROLLER, "main", &err), TW_OK);
    cr_expect_eq(call_as(&d, "node-a", TW_ROLE_CONTROLLER, "main", &err), TW_PERMISSION_DENIED);
    cr_expect_str_eq(err.where, "towline.v1.VmService/Get");
    cr_expect_str_eq(err.expected, "operator, viewer");
    cr_expect_str_eq(err.given, "agent node-a");
    struct tw_tls *tls = material("viewer");
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    cr_expect_eq(tw_rpc_call(client, VM_SERVICE, "Create", &create.base, TIMEOUT_MS, TW_RPC_ONCE,
                             &response, &err),
                 TW_PERMISSION_DENIED);
    cr_expect_str_eq(err.expected, "operator");
    cr_expect_str_eq(err.given, "viewer bob");
    cr_expect_eq(d.service.calls, 1);
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    door_close(&d);
}

static enum tw_code on_heartbeat(void *ctx, const struct tw_rpc_call *call,
                                 const ProtobufCMessage *request, ProtobufCMessage *response,
                                 struct tw_error *err)
{
    (void)ctx, (void)call, (void)request, (void)response, (void)err;
    return TW_OK;
}

Test(rpc_tls, an_agent_speaks_for_itself_only)
{
    static const struct tw_rpc_method methods[] = {
        {"Heartbeat", on_heartbeat},
        {"List", on_heartbeat},
        {"Get", on_heartbeat},
        {"Diagnose", on_heartbeat},
    };
    struct door d = {.tls = material("controller")};
    struct tw_error err = {0};
    ProtobufCMessage *response;
    Towline__V1__HeartbeatRequest beat = TOWLINE__V1__HEARTBEAT_REQUEST__INIT;
    Towline__V1__HostDescription host = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    const struct tw_rpc_server_config config = {.url = "tls+tcp://127.0.0.1:0", .tls = d.tls};
    cr_assert_eq(tw_rpc_server_open(&config, &d.server, &err), TW_OK);
    cr_assert_eq(
        tw_rpc_server_add(d.server, &towline__v1__host_service__descriptor, methods, 4, NULL, &err),
        TW_OK);
    cr_assert_eq(tw_rpc_server_start(d.server, &err), TW_OK);
    issue("ca", "node-a", TW_ROLE_AGENT, "node-a", DAY);
    struct tw_tls *tls = material("node-a");
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    const struct {
        const char *name;
        enum tw_code code;
    } cases[] = {{"node-a", TW_OK}, {"node-b", TW_PERMISSION_DENIED}, {NULL, TW_PERMISSION_DENIED}};
    for (size_t i = 0; i < 3; i++) {
        beat.host = cases[i].name ? &host : NULL;
        host.name = test_text(cases[i].name ? cases[i].name : "");
        cr_expect_eq(tw_rpc_call(client, &towline__v1__host_service__descriptor, "Heartbeat",
                                 &beat.base, TIMEOUT_MS, TW_RPC_ONCE, &response, &err),
                     cases[i].code, "%zu: %s", i, err.what);
        if (response)
            protobuf_c_message_free_unpacked(response, NULL);
    }
    cr_expect_str_eq(err.expected, "node-a");
    tw_rpc_client_close(client);
    tw_tls_close(tls);
    door_close(&d);
}

/* ---- Rotation ------------------------------------------------------------------------------- */

static void replace(const char *folder, const char *by)
{
    static const char *const names[] = {"ca.crl", "ca.crt", "tls.crt", "tls.key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char from[200], to[200];
        snprintf(from, sizeof from, "%s/%s/%s", test_folder(), by, names[i]);
        snprintf(to, sizeof to, "%s/%s/%s", test_folder(), folder, names[i]);
        cr_assert_eq(rename(from, to), 0);
    }
}

struct sleeper {
    struct tw_rpc_client *client;
    enum tw_code code;
};

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    s->code = test_get(s->client, "sleep:1500", TIMEOUT_MS, TW_RPC_ONCE, NULL, NULL);
    return NULL;
}

Test(rpc_tls, certificates_are_replaced_under_a_running_call)
{
    struct door d;
    struct tw_error err = {0};
    pthread_t thread;
    door_open(&d, "controller");
    struct tw_tls *tls = material("operator");
    struct sleeper s = {caller(&d, tls, TW_ROLE_CONTROLLER, "main"), TW_UNKNOWN};
    cr_assert_eq(test_get(s.client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK);
    cr_assert_eq(pthread_create(&thread, NULL, sleeper_main, &s), 0);
    while (d.service.running == 0)
        test_sleep_ms(1);
    issue("ca", "controller2", TW_ROLE_CONTROLLER, "main", 40 * DAY);
    issue("ca", "operator2", TW_ROLE_OPERATOR, "alice", 40 * DAY);
    replace("controller", "controller2");
    replace("operator", "operator2");
    cr_assert_eq(tw_tls_reload(d.tls, &err), TW_OK);
    cr_assert_eq(tw_tls_reload(tls, &err), TW_OK);
    /* While the old call runs, one on the old way; afterwards the new way is taken. */
    cr_assert_eq(test_get(s.client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK, "%s",
                 err.what);
    pthread_join(thread, NULL);
    cr_assert_eq(s.code, TW_OK);
    cr_assert_eq(test_get(s.client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK, "%s",
                 err.what);
    tw_rpc_client_close(s.client);
    tw_tls_close(tls);
    door_close(&d);
}

Test(rpc_tls, the_authority_is_replaced)
{
    struct door d;
    struct tw_error err = {0};
    door_open(&d, "controller");
    struct tw_tls *tls = material("operator"), *left = material("operator");
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    struct tw_rpc_client *forgotten = caller(&d, left, TW_ROLE_CONTROLLER, "main");
    cr_assert_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK);
    cr_assert_eq(test_get(forgotten, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK);
    cr_assert_eq(tw_pki_init(in_dir("next"), 3650, NULL), TW_OK);
    issue("next", "controller2", TW_ROLE_CONTROLLER, "main", 40 * DAY);
    issue("next", "operator2", TW_ROLE_OPERATOR, "alice", 40 * DAY);
    replace("controller", "controller2");
    replace("operator", "operator2");
    cr_assert_eq(tw_tls_reload(d.tls, &err), TW_OK);
    cr_assert_eq(tw_tls_reload(tls, &err), TW_OK);
    cr_assert_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK, "%s",
                 err.what);
    /* Its connection stands, its certificate counts no more. */
    cr_assert_eq(test_get(forgotten, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err),
                 TW_UNAUTHENTICATED);
    tw_rpc_client_close(forgotten);
    tw_rpc_client_close(client);
    tw_tls_close(left);
    tw_tls_close(tls);
    door_close(&d);
}

/* Of two who came in by the same name, one's key is lost. */
Test(rpc_tls, the_revoked_are_refused)
{
    struct door d;
    struct tw_error err = {0};
    unsigned revoked;
    issue("ca", "lost", TW_ROLE_OPERATOR, "alice", 30 * DAY);
    door_open(&d, "controller");
    struct tw_tls *tls = material("lost"), *kept = material("operator");
    struct tw_rpc_client *client = caller(&d, tls, TW_ROLE_CONTROLLER, "main");
    struct tw_rpc_client *other = caller(&d, kept, TW_ROLE_CONTROLLER, "main");
    cr_assert_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK);
    cr_assert_eq(test_get(other, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK);
    cr_assert_eq(tw_pki_revoke(in_dir("ca"), in_dir("lost/tls.crt"), &revoked, &err), TW_OK);
    cr_assert_eq(unlink(in_dir("controller/ca.crl")), 0);
    cr_assert_eq(tw_pki_list_copy(in_dir("ca"), in_dir("controller"), &err), TW_OK);
    cr_assert_eq(tw_tls_reload(d.tls, &err), TW_OK, "%s", err.what);
    const unsigned calls = d.service.calls;
    /* On its connection that stands, and on a new one. */
    cr_expect_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_UNAUTHENTICATED);
    cr_expect(strstr(err.what, "certificate revoked"), "%s", err.what);
    cr_expect_eq(call_as(&d, "lost", TW_ROLE_CONTROLLER, "main", &err), TW_UNAUTHENTICATED);
    cr_expect(strstr(err.what, "certificate revoked"), "%s", err.what);
    cr_expect_eq(d.service.calls, calls);
    cr_expect_eq(test_get(other, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_OK, "%s",
                 err.what);
    tw_rpc_client_close(other);
    tw_rpc_client_close(client);
    tw_tls_close(kept);
    tw_tls_close(tls);
    door_close(&d);
}

/* ---- Hostile peers -------------------------------------------------------------------------- */

static int tcp_to(const struct door *d)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)atoi(strrchr(tw_rpc_server_url(d->server), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Reads until the other end hangs up; false when it does not within `ms`. */
static bool hung_up(int fd, int ms)
{
    char buffer[512];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, ms) > 0)
        if (read(fd, buffer, sizeof buffer) <= 0)
            return true;
    return false;
}

Test(rpc_tls, garbage_is_hung_up_on)
{
    struct door d;
    struct tw_error err = {0};
    uint8_t bytes[300];
    unsigned seed = 7;
    door_open(&d, "controller");
    for (int i = 0; i < 100; i++) {
        int fd = tcp_to(&d);
        for (size_t n = 0; n < sizeof bytes; n++)
            bytes[n] = (uint8_t)rand_r(&seed);
        if (i % 2) /* the head of a TLS record, then nonsense */
            memcpy(bytes, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11);
        cr_assert_eq(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), (ssize_t)sizeof bytes);
        cr_assert(hung_up(fd, 20000), "%d", i);
        close(fd);
    }
    cr_assert_eq(call_as(&d, "operator", TW_ROLE_CONTROLLER, "main", &err), TW_OK, "%s", err.what);
    door_close(&d);
}

Test(rpc_tls, half_open_peers_are_bounded)
{
    struct door d;
    struct tw_error err = {0};
    enum { PEERS = TW_RPC_HANDSHAKES_MAX + 40 };
    int peers[PEERS];
    unsigned gone = 0;
    door_open(&d, "controller");
    for (int i = 0; i < PEERS; i++)
        peers[i] = tcp_to(&d);
    for (int i = 0; i < PEERS; i++)
        gone += hung_up(peers[i], 30000);
    cr_expect_eq(gone, PEERS, "%u", gone);
    for (int i = 0; i < PEERS; i++)
        close(peers[i]);
    cr_assert_eq(call_as(&d, "operator", TW_ROLE_CONTROLLER, "main", &err), TW_OK, "%s", err.what);
    door_close(&d);
}

/* ---- Doors ---------------------------------------------------------------------------------- */

Test(rpc_tls, doors_that_may_not_be_opened)
{
    static const struct {
        const char *url;
        bool tls, insecure, fine;
    } cases[] = {
        {"tcp://127.0.0.1:7100", false, true, true},
        {"tcp://127.0.0.1:7100", false, false, false},
        {"tcp://[::1]:7100", false, true, true},
        {"tcp://localhost:7100", false, true, true},
        {"tcp://10.0.0.1:7100", false, true, false},
        {"tcp://0.0.0.0:7100", false, true, false},
        {"tcp://*:7100", false, true, false},
        {"tcp://node-a:7100", false, true, false},
        {"tls+tcp://10.0.0.1:7100", true, false, true},
        {"tls+tcp://10.0.0.1:7100", false, true, false},
        {"ipc:///run/x.sock", false, false, true},
        {"ws://127.0.0.1:7100", false, true, false},
        {"nonsense", false, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tw_error err = {0};
        enum tw_code code = tw_rpc_url_check(cases[i].url, cases[i].tls, cases[i].insecure, &err);
        cr_expect_eq(code, cases[i].fine ? TW_OK : TW_INVALID_ARGUMENT, "%s: %s", cases[i].url,
                     err.what);
    }
}
