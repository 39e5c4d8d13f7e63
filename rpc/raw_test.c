/* Peers that do not keep to the protocol: raw frames to our server, raw answers to our client. */
#include "rpc/envelope.h"
#include "rpc/test_service.h"

#include "base/clock.h"

#include "towline/v1/common.pb-c.h"

#include <criterion/criterion.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Raw client, our server ----------------------------------------------------------------- */

struct raw {
    struct test_service service;
    struct tw_rpc_server *server;
    nng_socket socket;
};

static nng_socket raw_socket(const char *url)
{
    nng_socket s;
    cr_assert_eq(nng_req0_open(&s), 0);
    nng_socket_set_ms(s, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 20000);
    nng_socket_set_ms(s, NNG_OPT_SENDTIMEO, 20000);
    cr_assert_eq(nng_dial(s, url, NULL, 0), 0);
    return s;
}

static void raw_open(struct raw *raw, const char *url)
{
    memset(raw, 0, sizeof *raw);
    raw->server = test_server(&(struct tw_rpc_server_config){.url = url}, &raw->service);
    raw->socket = raw_socket(tw_rpc_server_url(raw->server));
}

static void raw_close(struct raw *raw)
{
    nng_close(raw->socket);
    tw_rpc_server_close(raw->server);
}

/* Sends bytes as one frame; the answer, or NULL when the connection broke. */
static Towline__V1__RpcResponse *raw_exchange(nng_socket socket, const void *data, size_t size)
{
    char *answer;
    size_t length;
    cr_assert_eq(nng_send(socket, (void *)(uintptr_t)data, size, 0), 0);
    if (nng_recv(socket, &answer, &length, NNG_FLAG_ALLOC) != 0)
        return NULL;
    Towline__V1__RpcResponse *response =
        towline__v1__rpc_response__unpack(NULL, length, (uint8_t *)answer);
    nng_free(answer, length);
    cr_assert_not_null(response, "whatever was asked, the answer can be read");
    return response;
}

static Towline__V1__RpcRequest good_head(void)
{
    Towline__V1__RpcRequest head = TOWLINE__V1__RPC_REQUEST__INIT;
    head.version = TW_RPC_VERSION;
    head.request_id = test_text("raw-1");
    head.deadline_ms = 20000;
    head.service = test_text("towline.v1.VmService");
    head.method = test_text("Get");
    return head;
}

static void expect_code(struct raw *raw, Towline__V1__RpcRequest *head, enum tw_code code,
                        const char *id)
{
    uint8_t *data = malloc(towline__v1__rpc_request__get_packed_size(head) + 1);
    size_t size = towline__v1__rpc_request__pack(head, data);
    Towline__V1__RpcResponse *response = raw_exchange(raw->socket, data, size);
    cr_assert_not_null(response);
    cr_expect_eq(response->code, (uint32_t)code, "%s, given %s", tw_code_name(code),
                 tw_code_name((enum tw_code)response->code));
    cr_expect_str_eq(response->request_id, id);
    cr_expect_eq(response->version, TW_RPC_VERSION);
    if (code != TW_OK) {
        cr_assert_not_null(response->error);
        cr_expect_eq(response->error->code, (uint32_t)code);
        cr_expect_gt(strlen(response->error->what), 0);
    }
    towline__v1__rpc_response__free_unpacked(response, NULL);
    free(data);
}

Test(raw, a_good_frame_by_hand_is_answered)
{
    struct raw raw;
    Towline__V1__RpcRequest head = good_head();
    raw_open(&raw, "tcp://127.0.0.1:0");
    expect_code(&raw, &head, TW_OK, "raw-1");
    raw_close(&raw);
}

Test(raw, each_wrong_field_is_refused_by_name)
{
    struct raw raw;
    Towline__V1__RpcRequest head;
    char id[66], name[130];
    raw_open(&raw, "tcp://127.0.0.1:0");
    memset(id, 'i', sizeof id);
    id[65] = 0;
    memset(name, 'n', sizeof name);
    name[129] = 0;

    head = good_head();
    head.version = 0;
    expect_code(&raw, &head, TW_FAILED_PRECONDITION, "raw-1");
    head = good_head();
    head.request_id = test_text("");
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "");
    head.request_id = test_text("line\nbreak");
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "");
    head.request_id = id;
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "");
    id[64] = 0;
    expect_code(&raw, &head, TW_OK, id);
    head = good_head();
    head.deadline_ms = 0;
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "raw-1");
    head = good_head();
    head.service = test_text("towline.v1.Nothing");
    expect_code(&raw, &head, TW_UNIMPLEMENTED, "raw-1");
    head.service = name;
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "raw-1");
    head = good_head();
    head.method = test_text("Fly");
    expect_code(&raw, &head, TW_UNIMPLEMENTED, "raw-1");
    head.method = test_text("");
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "raw-1");
    head = good_head();
    head.body = (ProtobufCBinaryData){3, (uint8_t *)"\x0a\xff\x01"}; /* a string beyond the end */
    expect_code(&raw, &head, TW_INVALID_ARGUMENT, "raw-1");
    cr_assert_eq(atomic_load(&raw.service.calls), 1);
    raw_close(&raw);
}

Test(raw, noise_is_answered_and_leads_nowhere)
{
    struct raw raw;
    static const char *const frames[] = {"", "x", "GET / HTTP/1.1\r\n\r\n", "\x0a\xff\xff\xff\xff"};
    raw_open(&raw, "tcp://127.0.0.1:0");
    for (unsigned i = 0; i < sizeof frames / sizeof *frames; i++) {
        Towline__V1__RpcResponse *response = raw_exchange(raw.socket, frames[i], strlen(frames[i]));
        cr_assert_not_null(response);
        cr_assert_neq(response->code, 0);
        towline__v1__rpc_response__free_unpacked(response, NULL);
    }
    cr_assert_eq(atomic_load(&raw.service.calls), 0);
    raw_close(&raw);
}

static void oversized(const char *url, bool answered)
{
    struct raw raw;
    raw_open(&raw, url);
    char *frame = calloc(1, TW_RPC_MESSAGE_MAX + 1);
    Towline__V1__RpcResponse *response = raw_exchange(raw.socket, frame, TW_RPC_MESSAGE_MAX + 1);
    cr_assert_eq(response != NULL, answered);
    if (response) {
        cr_assert_eq(response->code, (uint32_t)TW_RESOURCE_EXHAUSTED);
        towline__v1__rpc_response__free_unpacked(response, NULL);
    }
    free(frame);
    struct tw_rpc_client *client = test_client(tw_rpc_server_url(raw.server));
    cr_assert_eq(test_get(client, "web", 20000, TW_RPC_ONCE, NULL, NULL), TW_OK,
                 "others are served on");
    tw_rpc_client_close(client);
    cr_assert_eq(atomic_load(&raw.service.calls), 1);
    raw_close(&raw);
}

Test(raw, oversized_frame_on_a_stream_breaks_the_connection_unread)
{
    oversized("tcp://127.0.0.1:0", false);
}

Test(raw, oversized_frame_in_process_is_refused)
{
    oversized("inproc://oversized", true);
}

/* ---- Raw server, our client ----------------------------------------------------------------- */

/* What the answer to one request is. */
enum lie { NOISE, OTHER_ID, NO_ID_NO_ERROR, WRONG_BODY, CODE_BEYOND, DETAIL_WITHOUT_CODE };

struct liar {
    nng_socket socket;
    enum lie lie;
};

static size_t lie_pack(enum lie lie, const Towline__V1__RpcRequest *request, uint8_t *out)
{
    Towline__V1__RpcResponse head = TOWLINE__V1__RPC_RESPONSE__INIT;
    Towline__V1__ErrorDetail detail = TOWLINE__V1__ERROR_DETAIL__INIT;
    head.version = 1;
    head.request_id = request->request_id;
    switch (lie) {
    case NOISE:
        memset(out, 0xff, 32);
        return 32;
    case OTHER_ID:
        head.request_id = test_text("somebody-else");
        break;
    case NO_ID_NO_ERROR:
        head.request_id = test_text("");
        break;
    case WRONG_BODY:
        head.body = (ProtobufCBinaryData){3, (uint8_t *)"\x0a\xff\x01"};
        break;
    case CODE_BEYOND:
        head.code = 4711;
        break;
    case DETAIL_WITHOUT_CODE:
        head.error = &detail;
        head.code = 5;
        detail.what = test_text("gone");
        break;
    }
    return towline__v1__rpc_response__pack(&head, out);
}

static void *liar_main(void *arg)
{
    struct liar *liar = arg;
    char *data;
    size_t size;
    uint8_t out[512];
    if (nng_recv(liar->socket, &data, &size, NNG_FLAG_ALLOC) != 0)
        return NULL;
    Towline__V1__RpcRequest *request =
        towline__v1__rpc_request__unpack(NULL, size, (uint8_t *)data);
    nng_free(data, size);
    size = lie_pack(liar->lie, request, out);
    towline__v1__rpc_request__free_unpacked(request, NULL);
    nng_send(liar->socket, out, size, 0);
    return NULL;
}

static enum tw_code call_liar(enum lie lie, struct tw_error *err)
{
    struct liar liar = {.lie = lie};
    pthread_t thread;
    cr_assert_eq(nng_rep0_open(&liar.socket), 0);
    nng_socket_set_ms(liar.socket, NNG_OPT_RECVTIMEO, 20000);
    cr_assert_eq(nng_listen(liar.socket, "inproc://liar", NULL, 0), 0);
    pthread_create(&thread, NULL, liar_main, &liar);
    struct tw_rpc_client *client = test_client("inproc://liar");
    enum tw_code code = test_get(client, "web", 20000, TW_RPC_ONCE, NULL, err);
    pthread_join(thread, NULL);
    tw_rpc_client_close(client);
    nng_close(liar.socket);
    return code;
}

Test(raw, answers_that_lie)
{
    struct tw_error err = {0};
    cr_assert_eq(call_liar(NOISE, &err), TW_INTERNAL);
    cr_assert_eq(call_liar(OTHER_ID, &err), TW_INTERNAL);
    cr_assert_str_eq(err.given, "somebody-else");
    cr_assert_eq(call_liar(NO_ID_NO_ERROR, &err), TW_INTERNAL);
    cr_assert_eq(call_liar(WRONG_BODY, &err), TW_INTERNAL);
    cr_assert_eq(call_liar(CODE_BEYOND, &err), TW_UNKNOWN);
    cr_assert_eq(call_liar(DETAIL_WITHOUT_CODE, &err), TW_NOT_FOUND);
    cr_assert_str_eq(err.what, "gone");
}

/* A server that takes one request and dies; then a sound one at the same address. */
struct dying {
    char url[64];
    nng_socket socket;
    struct test_service service;
    struct tw_rpc_server *next;
};

static void *dying_main(void *arg)
{
    struct dying *dying = arg;
    char *data;
    size_t size;
    if (nng_recv(dying->socket, &data, &size, NNG_FLAG_ALLOC) == 0)
        nng_free(data, size);
    nng_close(dying->socket);
    dying->next = test_server(&(struct tw_rpc_server_config){.url = dying->url}, &dying->service);
    return NULL;
}

static enum tw_code call_dying(enum tw_rpc_flags flags, unsigned *calls)
{
    struct dying dying = {.url = "tcp://127.0.0.1:0"};
    pthread_t thread;
    /* Only to find a free port. */
    struct tw_rpc_server *finder =
        test_server(&(struct tw_rpc_server_config){.url = dying.url}, &dying.service);
    snprintf(dying.url, sizeof dying.url, "%s", tw_rpc_server_url(finder));
    tw_rpc_server_close(finder);
    cr_assert_eq(nng_rep0_open(&dying.socket), 0);
    nng_socket_set_ms(dying.socket, NNG_OPT_RECVTIMEO, 20000);
    cr_assert_eq(nng_listen(dying.socket, dying.url, NULL, 0), 0);
    pthread_create(&thread, NULL, dying_main, &dying);
    struct tw_rpc_client *client = test_client(dying.url);
    enum tw_code code = test_get(client, "web", 20000, flags, NULL, NULL);
    pthread_join(thread, NULL);
    test_sleep_ms(100); /* a repetition that nobody asked for would arrive now */
    *calls = atomic_load(&dying.service.calls);
    tw_rpc_client_close(client);
    tw_rpc_server_close(dying.next);
    return code;
}

Test(raw, server_dies_with_an_idempotent_call_which_is_repeated)
{
    unsigned calls;
    cr_assert_eq(call_dying(TW_RPC_IDEMPOTENT, &calls), TW_OK);
    cr_assert_eq(calls, 1);
}

Test(raw, server_dies_with_a_call_that_is_sent_once_only)
{
    unsigned calls;
    cr_assert_eq(call_dying(TW_RPC_ONCE, &calls), TW_UNAVAILABLE);
    cr_assert_eq(calls, 0);
}
