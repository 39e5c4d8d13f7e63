/* Bad input and bad luck against a whole cluster: each gets a clear error, nothing is lost, and the
 * VM runs on at the source. */
#include "tests/cluster/cluster.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct tw_cluster c;

static void open_cluster(void)
{
    tw_cluster_open(&c);
}

static void close_cluster(void)
{
    tw_cluster_close(&c);
}

TestSuite(refusal, .init = open_cluster, .fini = close_cluster, .timeout = 60);

static void start(void)
{
    tw_cluster_start(&c);
    tw_cluster_create_guest(&c, 16, "mode=sparse pages=512 rate=20000");
}

static void check_runs_at_source(void)
{
    struct tw_sparse_control control;
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_A, 3000), "the VM must run on at the source");
    cr_assert(tw_cluster_await_clean(&c, TW_AGENT_B, 5000), "node-b kept something");
    cr_assert(tw_cluster_guest_control(&c, TW_AGENT_A, &control) && control.bad == 0);
    cr_assert_eq(c.two_running, 0);
}

static void check_refused(const char *vm, const char *destination, enum tw_code expected)
{
    struct tw_error err = {0};
    char id[64], text[600];
    enum tw_code code = tw_cluster_migrate(&c, vm, destination, NULL, id, &err);
    tw_error_text(&err, text, sizeof text);
    cr_expect_eq(code, expected, "%s to %s: %s (%s)", vm, destination, tw_code_name(code), text);
    cr_expect(err.where[0] && err.what[0], "the error names nothing: %s", text);
}

Test(refusal, unknown_vm_host_and_same_host)
{
    start();
    check_refused("nobody", "node-b", TW_NOT_FOUND);
    check_refused("guest", "node-z", TW_NOT_FOUND);
    check_refused("guest", "node-a", TW_INVALID_ARGUMENT);
    check_runs_at_source();
}

Test(refusal, dead_host)
{
    start();
    tw_cluster_kill(&c, TW_AGENT_B);
    tw_sleep_ms(3000); /* its lease is 2 s */
    check_refused("guest", "node-b", TW_UNAVAILABLE);
    tw_cluster_spawn(&c, TW_AGENT_B);
    tw_cluster_await_agents(&c);
    check_runs_at_source();
}

Test(refusal, not_enough_memory_at_the_destination)
{
    strcpy(c.settings[TW_AGENT_B], "memory: 8MiB\n");
    start();
    check_refused("guest", "node-b", TW_RESOURCE_EXHAUSTED);
    check_runs_at_source();
}

static Towline__V1__Migration *end_of(const char *id)
{
    Towline__V1__Migration *m = tw_cluster_await_end(&c, id, 20000);
    cr_assert(m, "the migration did not end");
    return m;
}

Test(refusal, busy_vm_then_cancel)
{
    struct tw_error err = {0};
    char id[64];
    Towline__V1__MigrationLimits slow = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    slow.bandwidth_bytes_per_s = 256u << 10;
    start();
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &slow, id, &err), TW_OK);
    tw_sleep_ms(300);
    check_refused("guest", "node-b", TW_FAILED_PRECONDITION);
    Towline__V1__CancelMigrationRequest r = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = id;
    cr_assert_eq(tw_rpc_call(c.client, &towline__v1__migration_service__descriptor, "Cancel",
                             &r.base, 3000, TW_RPC_IDEMPOTENT, &m, &err),
                 TW_OK, "%s", err.what);
    protobuf_c_message_free_unpacked(m, NULL);
    Towline__V1__Migration *end = end_of(id);
    cr_assert_eq(end->state, TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_CANCELLED);
    towline__v1__migration__free_unpacked(end, NULL);
    check_runs_at_source();
}

/* The destination cannot write its records: it says so, and keeps nothing. */
Test(refusal, full_disk_at_the_destination)
{
    struct tw_error err = {0};
    char id[64];
    strcpy(c.processes[TW_AGENT_B].fault, "record.write:fail");
    start();
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", NULL, id, &err), TW_OK);
    Towline__V1__Migration *end = end_of(id);
    cr_assert_eq(end->state, TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED);
    cr_assert(end->error && end->error->code == TW_RESOURCE_EXHAUSTED, "%s",
              end->error ? end->error->what : "no error");
    towline__v1__migration__free_unpacked(end, NULL);
    check_runs_at_source();
}

/* ---- Hostile bytes ------------------------------------------------------------------------------
 */

/* Where an agent listens: for lines, or for calls. */
static void describe_host(const char *name, bool fabric, char address[160])
{
    Towline__V1__GetHostRequest r = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    ProtobufCMessage *m;
    r.name = (char *)(uintptr_t)name;
    cr_assert_eq(tw_rpc_call(c.client, &towline__v1__host_service__descriptor, "Get", &r.base, 2000,
                             TW_RPC_IDEMPOTENT, &m, NULL),
                 TW_OK);
    const Towline__V1__HostDescription *d =
        ((const Towline__V1__GetHostResponse *)m)->host->description;
    snprintf(address, 160, "%s", fabric ? d->fabric_address : d->rpc_url);
    protobuf_c_message_free_unpacked(m, NULL);
}

static int connect_to(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1))};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(s, (struct sockaddr *)&to, sizeof to), 0);
    return s;
}

/* A peer that shakes hands as nng's request sockets do, announces `announced` bytes and sends
 * `size` bytes of noise. */
static void send_garbage(const char *url, uint64_t announced, size_t size)
{
    static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    uint8_t noise[8192], length[8];
    int s = connect_to(url);
    for (unsigned i = 0; i < 8; i++)
        length[i] = (uint8_t)(announced >> (56 - 8 * i));
    memset(noise, 0xa5, sizeof noise);
    send(s, hello, sizeof hello, MSG_NOSIGNAL);
    send(s, length, sizeof length, MSG_NOSIGNAL);
    send(s, noise, size, MSG_NOSIGNAL);
    tw_sleep_ms(20);
    close(s);
}

Test(refusal, malformed_and_oversized_rpc)
{
    char address[160];
    start();
    for (unsigned i = 0; i < 3; i++) {
        const char *url = c.controller_url;
        if (i > 0) {
            describe_host(i == 1 ? "node-a" : "node-b", false, address);
            url = address;
        }
        send_garbage(url, 1, 1);
        send_garbage(url, 5000, 5000);
        send_garbage(url, 5000, 17); /* goes away in the middle */
        send_garbage(url, TW_RPC_MESSAGE_MAX + UINT64_C(4096), 8192);
        send_garbage(url, UINT64_MAX, 8192);
    }
    tw_cluster_await_agents(&c);
    check_runs_at_source();
}

Test(refusal, version_mismatch)
{
    struct tw_rpc_client *old;
    struct tw_error err = {0};
    Towline__V1__ListHostsRequest r = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    ProtobufCMessage *m;
    tw_cluster_start(&c);
    const struct tw_rpc_client_config config = {
        .url = c.controller_url, .insecure = true, .version = 99};
    cr_assert_eq(tw_rpc_client_open(&config, &old, &err), TW_OK);
    cr_assert_eq(tw_rpc_call(old, &towline__v1__host_service__descriptor, "List", &r.base, 2000,
                             TW_RPC_IDEMPOTENT, &m, &err),
                 TW_FAILED_PRECONDITION);
    cr_assert(err.expected[0] && strstr(err.given, "99"), "expected %s given %s", err.expected,
              err.given);
    tw_rpc_client_close(old);
}

/* Strangers at the door of the destination do not disturb a migration that is under way. */
Test(refusal, garbage_on_the_fabric_port)
{
    struct tw_error err = {0};
    char id[64], noise[4096], address[160];
    int strangers[8];
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    limits.bandwidth_bytes_per_s = 2u << 20;
    start();
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &limits, id, &err), TW_OK);
    describe_host("node-b", true, address);
    for (unsigned i = 0; i < 8; i++) {
        memset(noise, (int)(i * 37), sizeof noise);
        strangers[i] = connect_to(address);
        if (i % 2)
            send(strangers[i], noise, sizeof noise, MSG_NOSIGNAL);
    }
    Towline__V1__Migration *end = end_of(id);
    cr_assert_eq(end->state, TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED, "%s",
                 end->error ? end->error->what : "");
    cr_assert(end->progress->memory_compared && end->progress->memory_equal);
    towline__v1__migration__free_unpacked(end, NULL);
    for (unsigned i = 0; i < 8; i++)
        close(strangers[i]);
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_B, 3000));
    cr_assert(tw_cluster_await_clean(&c, TW_AGENT_A, 3000));
}
