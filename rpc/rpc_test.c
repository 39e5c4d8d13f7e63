/* Client and server together, over every transport. */
#include "rpc/probe.h"
#include "rpc/test_service.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS 20000u

struct pair {
    struct test_service service;
    struct tw_rpc_server *server;
    struct tw_rpc_client *client;
};

static void pair_open(struct pair *p, const char *url)
{
    memset(p, 0, sizeof *p);
    p->server = test_server(&(struct tw_rpc_server_config){.url = url}, &p->service);
    p->client = test_client(tw_rpc_server_url(p->server));
}

static void pair_close(struct pair *p)
{
    tw_rpc_client_close(p->client);
    tw_rpc_server_close(p->server);
}

static void echo(const char *url)
{
    struct pair p;
    char *first, *second;
    pair_open(&p, url);
    cr_assert_eq(test_get(p.client, "web-1", TIMEOUT_MS, TW_RPC_ONCE, &first, NULL), TW_OK);
    cr_assert_eq(test_get(p.client, "web-1", TIMEOUT_MS, TW_RPC_ONCE, &second, NULL), TW_OK);
    cr_assert(strlen(first) > 0);
    cr_assert_str_neq(first, second, "each call has an id of its own");
    free(first);
    free(second);
    pair_close(&p);
}

Test(rpc, echo_over_tcp)
{
    echo("tcp://127.0.0.1:0");
}

Test(rpc, echo_over_inproc)
{
    echo("inproc://rpc-echo");
}

Test(rpc, echo_over_ipc_and_only_for_the_owner)
{
    char folder[] = "/tmp/towline-rpc-XXXXXX", url[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(url, sizeof url, "ipc://%s/s", folder);
    echo(url);
    snprintf(url, sizeof url, "%s/s", folder);
    unlink(url);
    rmdir(folder);
}

Test(rpc, real_port_is_in_the_url)
{
    struct pair p;
    pair_open(&p, "tcp://127.0.0.1:0");
    const char *url = tw_rpc_server_url(p.server);
    cr_assert_eq(strncmp(url, "tcp://127.0.0.1:", 16), 0);
    cr_assert_gt(atoi(url + 16), 0);
    pair_close(&p);
}

Test(rpc, every_code_travels_with_its_details)
{
    struct pair p;
    pair_open(&p, "inproc://rpc-codes");
    for (int code = TW_CANCELLED; code <= TW_UNAUTHENTICATED; code++) {
        char name[16], what[16];
        struct tw_error err = {0};
        snprintf(name, sizeof name, "fail:%d", code);
        snprintf(what, sizeof what, "number %d", code);
        cr_assert_eq((int)test_get(p.client, name, TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), code);
        cr_assert_eq((int)err.code, code);
        cr_assert_str_eq(err.where, "vm web-1");
        cr_assert_str_eq(err.what, what);
        cr_assert_str_eq(err.expected, "4 KiB");
        cr_assert_str_eq(err.given, "3 bytes");
    }
    pair_close(&p);
}

Test(rpc, code_without_details_still_says_something)
{
    struct pair p;
    struct tw_error err = {0};
    pair_open(&p, "inproc://rpc-bare");
    cr_assert_eq(test_get(p.client, "bare:9", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err),
                 TW_FAILED_PRECONDITION);
    cr_assert_str_eq(err.what, "FAILED_PRECONDITION");
    cr_assert_str_eq(err.where, "towline.v1.VmService/Get");
    pair_close(&p);
}

Test(rpc, an_error_of_a_handler_is_not_repeated)
{
    struct pair p;
    pair_open(&p, "inproc://rpc-no-repeat");
    cr_assert_eq(test_get(p.client, "fail:14", TIMEOUT_MS, TW_RPC_IDEMPOTENT, NULL, NULL),
                 TW_UNAVAILABLE);
    cr_assert_eq(atomic_load(&p.service.calls), 1);
    pair_close(&p);
}

Test(rpc, deadline_ends_the_wait)
{
    struct pair p;
    struct tw_error err = {0};
    pair_open(&p, "tcp://127.0.0.1:0");
    uint64_t start_ns = tw_now(&tw_monotonic);
    cr_assert_eq(test_get(p.client, "hold", 150, TW_RPC_IDEMPOTENT, NULL, &err),
                 TW_DEADLINE_EXCEEDED);
    cr_assert_geq(tw_now(&tw_monotonic) - start_ns, 145 * TW_MS);
    cr_assert_eq(atomic_load(&p.service.running), 1, "nobody waited for the handler");
    cr_assert(strstr(err.what, "VmService/Get"));
    cr_assert_eq(test_get(p.client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, NULL), TW_OK,
                 "the lane can be used again");
    atomic_store(&p.service.let_go, true);
    pair_close(&p);
}

struct caller {
    pthread_t thread;
    struct tw_rpc_client *client;
    char name[32];
    unsigned timeout_ms;
    enum tw_rpc_flags flags;
    enum tw_code code;
    struct tw_error err;
};

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    c->code = test_get(c->client, c->name, c->timeout_ms, c->flags, NULL, &c->err);
    return NULL;
}

static void caller_start(struct caller *c, struct tw_rpc_client *client, const char *name,
                         unsigned timeout_ms, enum tw_rpc_flags flags)
{
    *c = (struct caller){.client = client, .timeout_ms = timeout_ms, .flags = flags};
    snprintf(c->name, sizeof c->name, "%s", name);
    cr_assert_eq(pthread_create(&c->thread, NULL, caller_main, c), 0);
}

static enum tw_code caller_join(struct caller *c)
{
    pthread_join(c->thread, NULL);
    return c->code;
}

static void wait_running(struct test_service *service, unsigned count)
{
    for (int i = 0; i < 4000 && atomic_load(&service->running) < count; i++)
        test_sleep_ms(5);
    cr_assert_geq(atomic_load(&service->running), count);
}

Test(rpc, a_call_whose_deadline_passed_in_the_queue_is_not_handled)
{
    struct test_service service = {0};
    struct tw_rpc_server *server = test_server(
        &(struct tw_rpc_server_config){.url = "tcp://127.0.0.1:0", .workers = 1}, &service);
    struct tw_rpc_client *client = test_client(tw_rpc_server_url(server));
    struct caller slow;
    caller_start(&slow, client, "hold", TIMEOUT_MS, TW_RPC_ONCE);
    wait_running(&service, 1);
    cr_assert_eq(test_get(client, "late", 100, TW_RPC_ONCE, NULL, NULL), TW_DEADLINE_EXCEEDED);
    atomic_store(&service.let_go, true);
    cr_assert_eq(caller_join(&slow), TW_OK);
    cr_assert_eq(test_get(client, "next", TIMEOUT_MS, TW_RPC_ONCE, NULL, NULL), TW_OK);
    cr_assert_eq(atomic_load(&service.calls), 2, "slow and next, but not late");
    tw_rpc_client_close(client);
    tw_rpc_server_close(server);
}

Test(rpc, sixty_four_callers_at_once)
{
    struct pair p;
    static struct caller callers[64];
    pair_open(&p, "tcp://127.0.0.1:0");
    for (int i = 0; i < 64; i++)
        caller_start(&callers[i], p.client, "sleep:20", TIMEOUT_MS, TW_RPC_ONCE);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(caller_join(&callers[i]), TW_OK);
    cr_assert_eq(atomic_load(&p.service.calls), 64);
    cr_assert_gt(atomic_load(&p.service.running_max), 1, "handled side by side");
    cr_assert_leq(atomic_load(&p.service.running_max), 8, "never more than there are workers");
    pair_close(&p);
}

Test(rpc, nobody_listens_is_unavailable_within_the_deadline)
{
    struct tw_rpc_client *client = test_client("tcp://127.0.0.1:1");
    struct tw_error err = {0};
    uint64_t start_ns = tw_now(&tw_monotonic);
    cr_assert_eq(test_get(client, "web", 300, TW_RPC_IDEMPOTENT, NULL, &err), TW_UNAVAILABLE);
    cr_assert_eq(test_get(client, "web", 300, TW_RPC_ONCE, NULL, &err), TW_UNAVAILABLE);
    cr_assert_lt(tw_now(&tw_monotonic) - start_ns, 6 * TW_SEC);
    cr_assert_str_eq(err.where, "tcp://127.0.0.1:1");
    cr_assert(strstr(err.what, "Connection refused"), "%s", err.what);
    tw_rpc_client_close(client);
}

/* A listener that takes connections and says nothing. */
static int mute_listener(char *url, size_t size)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t length = sizeof in;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    cr_assert_eq(listen(fd, 16), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &length), 0);
    snprintf(url, size, "tcp://127.0.0.1:%u", ntohs(in.sin_port));
    return fd;
}

Test(rpc, why_nobody_answers)
{
    char url[64];
    cr_assert_str_eq(tw_probe_reason("tcp://127.0.0.1:1", 500), "Connection refused");
    cr_assert_str_eq(tw_probe_reason("tcp://localhost:1", 500), "Connection refused");
    cr_assert_str_eq(tw_probe_reason("ipc:///nonexistent/socket", 500),
                     "No such file or directory");
    cr_assert_str_eq(tw_probe_reason("tcp://a.name:1", 500), "nobody was reached by that name");
    cr_assert_str_eq(tw_probe_reason("nonsense", 500), "the URL cannot be read");
    int fd = mute_listener(url, sizeof url);
    cr_assert(strstr(tw_probe_reason(url, 500), "does not speak"));
    struct tw_rpc_client *client = test_client(url);
    struct tw_error err = {0};
    cr_assert_eq(test_get(client, "web", 200, TW_RPC_ONCE, NULL, &err), TW_UNAVAILABLE);
    cr_assert(strstr(err.what, "does not speak"), "%s", err.what);
    tw_rpc_client_close(client);
    close(fd);
}

Test(rpc, waits_for_a_server_that_comes_up)
{
    struct test_service service = {0};
    struct tw_rpc_server *first =
        test_server(&(struct tw_rpc_server_config){.url = "tcp://127.0.0.1:0"}, &service);
    char url[64];
    snprintf(url, sizeof url, "%s", tw_rpc_server_url(first));
    tw_rpc_server_close(first);
    struct tw_rpc_client *client = test_client(url);
    struct caller caller;
    caller_start(&caller, client, "web", TIMEOUT_MS, TW_RPC_ONCE);
    test_sleep_ms(300);
    struct tw_rpc_server *second =
        test_server(&(struct tw_rpc_server_config){.url = url}, &service);
    cr_assert_eq(caller_join(&caller), TW_OK);
    tw_rpc_client_close(client);
    tw_rpc_server_close(second);
}

/* Somebody listens and says nothing for longer than an operator would wait for nobody. */
Test(rpc, a_server_that_is_slow_to_speak_is_waited_for)
{
    struct test_service service = {0};
    struct caller caller;
    char url[64];
    const int mute = mute_listener(url, sizeof url);
    struct tw_rpc_client *client = test_client(url);
    caller_start(&caller, client, "web", TIMEOUT_MS, TW_RPC_ONCE);
    test_sleep_ms(2800); /* between two looks at who is there: neither falls into the gap */
    close(mute);
    struct tw_rpc_server *server =
        test_server(&(struct tw_rpc_server_config){.url = url}, &service);
    cr_assert_eq(caller_join(&caller), TW_OK);
    tw_rpc_client_close(client);
    tw_rpc_server_close(server);
}

Test(rpc, server_restart_between_calls)
{
    struct pair p;
    char url[64];
    pair_open(&p, "tcp://127.0.0.1:0");
    snprintf(url, sizeof url, "%s", tw_rpc_server_url(p.server));
    cr_assert_eq(test_get(p.client, "a", TIMEOUT_MS, TW_RPC_ONCE, NULL, NULL), TW_OK);
    tw_rpc_server_close(p.server);
    p.server = test_server(&(struct tw_rpc_server_config){.url = url}, &p.service);
    cr_assert_eq(test_get(p.client, "b", TIMEOUT_MS, TW_RPC_IDEMPOTENT, NULL, NULL), TW_OK);
    pair_close(&p);
}

Test(rpc, a_large_answer_becomes_an_error_and_a_fitting_one_passes)
{
    struct pair p;
    struct tw_error err = {0};
    pair_open(&p, "tcp://127.0.0.1:0");
    cr_assert_eq(test_get(p.client, "large:4194304", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err),
                 TW_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(err.expected, "at most 4194304 bytes");
    cr_assert_eq(test_get(p.client, "large:4194000", TIMEOUT_MS, TW_RPC_ONCE, NULL, NULL), TW_OK);
    pair_close(&p);
}

Test(rpc, a_large_request_is_refused_before_it_is_sent)
{
    struct pair p;
    struct tw_error err = {0};
    pair_open(&p, "tcp://127.0.0.1:0");
    char *name = malloc(TW_RPC_MESSAGE_MAX + 1);
    memset(name, 'x', TW_RPC_MESSAGE_MAX);
    name[TW_RPC_MESSAGE_MAX] = 0;
    cr_assert_eq(test_get(p.client, name, TIMEOUT_MS, TW_RPC_ONCE, NULL, &err),
                 TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(atomic_load(&p.service.calls), 0);
    free(name);
    pair_close(&p);
}

Test(rpc, close_waits_for_the_running_handler_and_delivers_its_answer)
{
    struct pair p;
    struct caller caller;
    pair_open(&p, "tcp://127.0.0.1:0");
    caller_start(&caller, p.client, "sleep:300", TIMEOUT_MS, TW_RPC_ONCE);
    wait_running(&p.service, 1);
    tw_rpc_server_close(p.server);
    cr_assert_eq(atomic_load(&p.service.running), 0);
    cr_assert_eq(caller_join(&caller), TW_OK);
    tw_rpc_client_close(p.client);
}

static void *let_go_later(void *arg)
{
    test_sleep_ms(1000);
    atomic_store(&((struct test_service *)arg)->let_go, true);
    return NULL;
}

Test(rpc, closing_server_refuses_what_is_queued)
{
    pthread_t later;
    struct test_service service = {0};
    struct tw_rpc_server *server = test_server(
        &(struct tw_rpc_server_config){.url = "tcp://127.0.0.1:0", .workers = 1}, &service);
    struct tw_rpc_client *client = test_client(tw_rpc_server_url(server));
    struct caller slow, queued;
    caller_start(&slow, client, "hold", TIMEOUT_MS, TW_RPC_ONCE);
    wait_running(&service, 1);
    caller_start(&queued, client, "queued", TIMEOUT_MS, TW_RPC_ONCE);
    test_sleep_ms(300);
    cr_assert_eq(pthread_create(&later, NULL, let_go_later, &service), 0);
    tw_rpc_server_close(server); /* has begun long before the handler ends */
    pthread_join(later, NULL);
    cr_assert_eq(caller_join(&slow), TW_OK);
    cr_assert_eq(caller_join(&queued), TW_UNAVAILABLE);
    cr_assert_eq(atomic_load(&service.calls), 1);
    tw_rpc_client_close(client);
}

Test(rpc, closing_client_ends_its_calls)
{
    struct pair p;
    struct caller caller;
    pair_open(&p, "tcp://127.0.0.1:0");
    caller_start(&caller, p.client, "hold", TIMEOUT_MS, TW_RPC_IDEMPOTENT);
    wait_running(&p.service, 1);
    tw_rpc_client_close(p.client);
    cr_assert_eq(caller_join(&caller), TW_CANCELLED);
    cr_assert_eq(atomic_load(&p.service.running), 1, "nobody waited for the handler");
    atomic_store(&p.service.let_go, true);
    tw_rpc_server_close(p.server);
}

Test(rpc, version_window)
{
    struct test_service service = {0};
    struct tw_rpc_server *server = test_server(
        &(struct tw_rpc_server_config){.url = "inproc://v", .version = 3, .version_min = 2},
        &service);
    static const enum tw_code outcome[] = {TW_FAILED_PRECONDITION, TW_OK, TW_OK,
                                           TW_FAILED_PRECONDITION};
    for (uint32_t version = 1; version <= 4; version++) {
        struct tw_rpc_client *client;
        struct tw_error err = {0};
        char given[32];
        cr_assert_eq(tw_rpc_client_open(
                         &(struct tw_rpc_client_config){.url = "inproc://v", .version = version},
                         &client, NULL),
                     TW_OK);
        cr_assert_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err),
                     outcome[version - 1]);
        if (outcome[version - 1] != TW_OK) {
            snprintf(given, sizeof given, "version %u", version);
            cr_assert_str_eq(err.expected, "version 2 to 3");
            cr_assert_str_eq(err.given, given);
        }
        tw_rpc_client_close(client);
    }
    tw_rpc_server_close(server);
}

Test(rpc, service_not_offered)
{
    struct tw_rpc_server *server;
    struct tw_error err = {0};
    cr_assert_eq(
        tw_rpc_server_open(&(struct tw_rpc_server_config){.url = "inproc://none"}, &server, &err),
        TW_OK);
    cr_assert_eq(tw_rpc_server_start(server, &err), TW_OK);
    struct tw_rpc_client *client = test_client("inproc://none");
    cr_assert_eq(test_get(client, "web", TIMEOUT_MS, TW_RPC_ONCE, NULL, &err), TW_UNIMPLEMENTED);
    cr_assert_str_eq(err.given, "towline.v1.VmService");
    tw_rpc_client_close(client);
    tw_rpc_server_close(server);
}

Test(rpc, call_must_fit_the_service)
{
    struct tw_rpc_client *client = test_client("inproc://nobody");
    Towline__V1__GetVmRequest request = TOWLINE__V1__GET_VM_REQUEST__INIT;
    ProtobufCMessage *response;
    cr_assert_eq(
        tw_rpc_call(client, VM_SERVICE, "Fly", &request.base, 100, TW_RPC_ONCE, &response, NULL),
        TW_INVALID_ARGUMENT);
    cr_assert_eq(
        tw_rpc_call(client, VM_SERVICE, "List", &request.base, 100, TW_RPC_ONCE, &response, NULL),
        TW_INVALID_ARGUMENT);
    tw_rpc_client_close(client);
}

static enum tw_code nothing(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err)
{
    (void)ctx;
    (void)call;
    (void)request;
    (void)response;
    (void)err;
    return TW_OK;
}

Test(rpc, table_of_methods_must_be_whole)
{
    struct tw_rpc_method methods[] = {{"Create", nothing}, {"List", nothing},   {"Get", nothing},
                                      {"Stop", nothing},   {"Delete", nothing}, {"Fly", nothing}};
    struct tw_rpc_server *server;
    struct tw_error err;
    cr_assert_eq(
        tw_rpc_server_open(&(struct tw_rpc_server_config){.url = "inproc://t"}, &server, NULL),
        TW_OK);
    cr_assert_eq(tw_rpc_server_add(server, VM_SERVICE, methods, 4, NULL, &err),
                 TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.expected, "Delete");
    cr_assert_eq(tw_rpc_server_add(server, VM_SERVICE, methods, 6, NULL, &err),
                 TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.given, "Fly");
    cr_assert_eq(tw_rpc_server_add(server, VM_SERVICE, methods, 5, NULL, &err), TW_OK);
    cr_assert_eq(tw_rpc_server_add(server, VM_SERVICE, methods, 5, NULL, &err), TW_ALREADY_EXISTS);
    tw_rpc_server_close(server);
}

Test(rpc, busy_address_is_refused)
{
    struct pair p;
    struct tw_rpc_server *second;
    struct tw_error err;
    pair_open(&p, "tcp://127.0.0.1:0");
    struct tw_rpc_server_config config = {.url = tw_rpc_server_url(p.server), .insecure = true};
    cr_assert_eq(tw_rpc_server_open(&config, &second, &err), TW_OK);
    cr_assert_eq(tw_rpc_server_start(second, &err), TW_ALREADY_EXISTS);
    tw_rpc_server_close(second);
    config.url = "carrier-pigeon://x";
    cr_assert_eq(tw_rpc_server_open(&config, &second, &err), TW_INVALID_ARGUMENT);
    pair_close(&p);
}
