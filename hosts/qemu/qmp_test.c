/* The QMP client against a server in the same thread: what it sends, and what it does with good,
 * late, torn and hostile answers. */
#include "hosts/qemu/qmp.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

static uint64_t time_ns;

static uint64_t tell_time(void *ctx)
{
    (void)ctx;
    return time_ns;
}

static const struct tw_clock test_clock = {.now_ns = tell_time};

static struct {
    char dir[32], path[64];
    int listener, peer, epoll_fd;
    struct tw_qmp *qmp;
    char events[256];
} t;

static void on_event(void *ctx, const char *name, const json_t *data)
{
    (void)ctx;
    (void)data;
    strncat(t.events, name, sizeof t.events - strlen(t.events) - 2);
    strcat(t.events, " ");
}

static void listen_now(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, t.path);
    t.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(t.listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(t.listener, 1), 0);
}

static void open_client(void)
{
    struct tw_error err;
    const struct tw_qmp_config config = {.path = t.path,
                                         .clock = &test_clock,
                                         .ready_deadline_ns = time_ns + TW_SEC,
                                         .epoll_fd = t.epoll_fd,
                                         .event = on_event};
    cr_assert_eq(tw_qmp_open(&config, &t.qmp, &err), TW_OK);
}

static void setup(void)
{
    time_ns = 1000;
    strcpy(t.dir, "/tmp/towline-qmp-XXXXXX");
    cr_assert_neq(mkdtemp(t.dir), NULL);
    snprintf(t.path, sizeof t.path, "%s/qmp.sock", t.dir);
    t.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t.listener = t.peer = -1;
}

static void teardown(void)
{
    tw_qmp_close(t.qmp);
    close(t.peer);
    close(t.listener);
    close(t.epoll_fd);
    unlink(t.path);
    rmdir(t.dir);
}

/* Steps the client, then returns what the server has received since the last call. */
static const char *server_gets(void)
{
    static char text[1 << 16];
    tw_qmp_step(t.qmp);
    if (t.peer < 0)
        t.peer = accept4(t.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    const ssize_t n = t.peer < 0 ? -1 : recv(t.peer, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void server_says(const char *text)
{
    const size_t length = strlen(text);
    cr_assert_eq(send(t.peer, text, length, MSG_NOSIGNAL), (ssize_t)length);
    tw_qmp_step(t.qmp);
}

static void negotiate(void)
{
    listen_now();
    open_client();
    server_gets();
    server_says(GREETING);
    cr_assert_eq(tw_qmp_state_get(t.qmp), TW_QMP_NEGOTIATING);
    cr_assert_neq(strstr(server_gets(), "qmp_capabilities"), NULL);
    server_says("{\"return\": {}, \"id\": 1}\r\n");
    cr_assert_eq(tw_qmp_state_get(t.qmp), TW_QMP_READY);
}

static uint64_t send_one(const char *command)
{
    struct tw_error err;
    uint64_t id = 0;
    cr_assert_eq(tw_qmp_send(t.qmp, command, NULL, time_ns + TW_SEC, &id, &err), TW_OK);
    return id;
}

static void expect_failed(const char *what)
{
    char text[512];
    tw_error_text(tw_qmp_error(t.qmp), text, sizeof text);
    cr_assert_eq(tw_qmp_state_get(t.qmp), TW_QMP_FAILED);
    cr_assert_neq(strstr(text, what), NULL, "%s", text);
}

TestSuite(qmp, .init = setup, .fini = teardown);

Test(qmp, waits_for_the_socket_then_negotiates)
{
    open_client();
    tw_qmp_step(t.qmp);
    cr_assert_eq(tw_qmp_state_get(t.qmp), TW_QMP_CONNECTING);
    tw_qmp_close(t.qmp);
    negotiate();
}

Test(qmp, refuses_commands_before_it_is_ready)
{
    struct tw_error err;
    uint64_t id;
    open_client();
    cr_assert_eq(tw_qmp_send(t.qmp, "stop", json_object(), TW_NEVER, &id, &err), TW_UNAVAILABLE);
}

Test(qmp, no_server_is_a_deadline)
{
    open_client();
    time_ns += TW_SEC;
    tw_qmp_step(t.qmp);
    expect_failed("no QMP server");
    cr_assert_eq(tw_qmp_error(t.qmp)->code, TW_DEADLINE_EXCEEDED);
}

Test(qmp, silent_server_is_a_deadline)
{
    listen_now();
    open_client();
    server_gets();
    time_ns += TW_SEC;
    tw_qmp_step(t.qmp);
    expect_failed("did not greet");
}

Test(qmp, answers_find_their_commands_in_any_order)
{
    struct tw_error err;
    json_t *result;
    enum tw_code code;
    negotiate();
    const uint64_t a = send_one("query-status"), b = send_one("query-name");
    cr_assert_neq(strstr(server_gets(), "{\"execute\":\"query-status\",\"id\":2}\n"), NULL);
    server_says("{\"return\": {\"name\": \"x\"}, \"id\": 3}\n{\"return\": {}, \"id\": 2}\n");
    cr_assert(tw_qmp_take(t.qmp, b, &result, &code, &err));
    cr_assert_eq(code, TW_OK);
    cr_assert_str_eq(json_string_value(json_object_get(result, "name")), "x");
    json_decref(result);
    cr_assert(tw_qmp_take(t.qmp, a, NULL, &code, &err));
    cr_assert(tw_qmp_take(t.qmp, a, NULL, &code, &err), "a number can be taken once");
    cr_assert_eq(code, TW_INTERNAL);
}

Test(qmp, half_lines_are_joined)
{
    struct tw_error err;
    enum tw_code code;
    negotiate();
    const uint64_t id = send_one("stop");
    const char *answer = "{\"return\": {}, \"id\": 2}\r\n";
    for (const char *c = answer; *c; c++) {
        cr_assert_not(tw_qmp_take(t.qmp, id, NULL, &code, &err));
        server_says((char[]){*c, 0});
    }
    cr_assert(tw_qmp_take(t.qmp, id, NULL, &code, &err));
    cr_assert_eq(code, TW_OK);
}

Test(qmp, errors_carry_the_servers_text)
{
    struct tw_error err;
    enum tw_code code;
    negotiate();
    const uint64_t id = send_one("cont");
    server_says("{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}, \"id\": 2}\n");
    cr_assert(tw_qmp_take(t.qmp, id, NULL, &code, &err));
    cr_assert_eq(code, TW_FAILED_PRECONDITION);
    cr_assert_str_eq(err.what, "cont: not now");
    const uint64_t next = send_one("warp");
    server_says("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"?\"}, \"id\": 3}\n");
    cr_assert(tw_qmp_take(t.qmp, next, NULL, &code, &err));
    cr_assert_eq(code, TW_UNIMPLEMENTED);
}

Test(qmp, events_come_through_between_answers)
{
    struct tw_error err;
    enum tw_code code;
    negotiate();
    const uint64_t id = send_one("stop");
    server_says("{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 2}\n"
                "{\"event\": \"RESUME\", \"data\": {}}\n");
    cr_assert(tw_qmp_take(t.qmp, id, NULL, &code, &err));
    cr_assert_str_eq(t.events, "STOP RESUME ");
}

Test(qmp, a_late_answer_is_dropped_and_the_next_one_fits)
{
    struct tw_error err;
    enum tw_code code;
    negotiate();
    const uint64_t id = send_one("stop");
    time_ns += TW_SEC;
    tw_qmp_step(t.qmp);
    cr_assert(tw_qmp_take(t.qmp, id, NULL, &code, &err));
    cr_assert_eq(code, TW_DEADLINE_EXCEEDED);
    const uint64_t next = send_one("cont");
    server_says("{\"return\": {\"of\": \"stop\"}, \"id\": 2}\n");
    cr_assert_not(tw_qmp_take(t.qmp, next, NULL, &code, &err));
    server_says("{\"return\": {}, \"id\": 3}\n");
    cr_assert(tw_qmp_take(t.qmp, next, NULL, &code, &err));
    cr_assert_eq(code, TW_OK);
}

Test(qmp, outstanding_commands_are_bounded)
{
    struct tw_error err;
    uint64_t id;
    negotiate();
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++)
        send_one("query-status");
    cr_assert_eq(tw_qmp_send(t.qmp, "stop", NULL, TW_NEVER, &id, &err), TW_RESOURCE_EXHAUSTED);
}

Test(qmp, forgotten_commands_leave_room)
{
    struct tw_error err;
    negotiate();
    for (unsigned i = 0; i < 3 * TW_QMP_COMMANDS_MAX; i++) {
        char answer[64];
        cr_assert_eq(tw_qmp_send(t.qmp, "migrate_cancel", NULL, TW_NEVER, NULL, &err), TW_OK);
        snprintf(answer, sizeof answer, "{\"return\": {}, \"id\": %u}\n", i + 2);
        server_says(answer);
    }
}

Test(qmp, a_lost_connection_ends_every_command)
{
    struct tw_error err;
    enum tw_code code;
    negotiate();
    const uint64_t a = send_one("stop"), b = send_one("cont");
    server_gets(); /* unread bytes would make it a reset */
    close(t.peer);
    t.peer = -1;
    tw_qmp_step(t.qmp);
    expect_failed("closed");
    cr_assert(tw_qmp_take(t.qmp, a, NULL, &code, &err));
    cr_assert_eq(code, TW_UNAVAILABLE);
    cr_assert(tw_qmp_take(t.qmp, b, NULL, &code, &err));
    cr_assert_eq(code, TW_UNAVAILABLE);
}

Test(qmp, hostile_messages_end_the_connection)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"hello\n", "not JSON"},
        {"[1, 2]\n", "not an object"},
        {"{\"return\": {}}\n", "without a number"},
        {"{\"error\": {\"desc\": \"bad\"}}\n", "without a number"},
        {"{\"something\": 1}\n", "neither"},
        {"{\"event\": 7}\n", "neither"},
        {"{\"a\": 1, \"a\": 2}\n", "not JSON"},
        {"\xff\xfe{}\n", "not JSON"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        negotiate();
        server_says(cases[i].text);
        expect_failed(cases[i].why);
        tw_qmp_close(t.qmp);
        t.qmp = NULL;
        close(t.peer);
        close(t.listener);
        t.peer = -1;
        unlink(t.path);
    }
}

Test(qmp, an_endless_line_ends_the_connection)
{
    char block[4097];
    memset(block, 'x', sizeof block - 1);
    block[sizeof block - 1] = 0;
    negotiate();
    for (unsigned sent = 0; sent <= TW_QMP_LINE_MAX && tw_qmp_state_get(t.qmp) == TW_QMP_READY;
         sent += 4096)
        server_says(block);
    expect_failed("line too long");
}

Test(qmp, no_greeting_or_refused_negotiation)
{
    listen_now();
    open_client();
    server_gets();
    server_says("{\"return\": {}}\n");
    expect_failed("no greeting");
    tw_qmp_close(t.qmp);
    close(t.peer);
    t.peer = -1;
    open_client();
    server_gets();
    server_says(GREETING);
    server_says("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 1}\n");
    expect_failed("negotiation refused");
}

/* A server that does not read: commands wait in the client, within bounds, and go out later. */
Test(qmp, a_full_socket_keeps_commands_whole)
{
    struct tw_error err;
    char wide[8001], answer[64];
    int room = 4096;
    unsigned sent = 0;
    size_t got = 0;
    negotiate();
    setsockopt(t.peer, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    memset(wide, 'w', sizeof wide - 1);
    wide[sizeof wide - 1] = 0;
    for (;; sent++) {
        if (tw_qmp_send(t.qmp, "x", json_pack("{s:s}", "a", wide), TW_NEVER, NULL, &err))
            break;
        /* Answered though unread, so that only the bytes are what fills up. */
        snprintf(answer, sizeof answer, "{\"return\": {}, \"id\": %u}\n", sent + 2);
        server_says(answer);
        cr_assert_lt(sent, 1000u);
    }
    cr_assert_eq(err.code, TW_RESOURCE_EXHAUSTED);
    for (unsigned i = 0; i < 200 && got < sent * 8000u; i++)
        got += strlen(server_gets());
    cr_assert_gt(got, sent * 8000u);
    cr_assert_eq(tw_qmp_state_get(t.qmp), TW_QMP_READY);
}

Test(qmp, a_path_too_long_for_a_socket)
{
    char path[200];
    struct tw_error err;
    const struct tw_qmp_config config = {.path = path, .clock = &test_clock, .epoll_fd = -1};
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    cr_assert_eq(tw_qmp_open(&config, &t.qmp, &err), TW_INVALID_ARGUMENT);
}

Test(qmp, its_descriptor_wakes_the_owner)
{
    negotiate();
    struct pollfd p = {.fd = t.epoll_fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 0), 0, "nothing to read");
    cr_assert_gt(send(t.peer, "{\"event\": \"X\"}\n", 15, 0), 0);
    cr_assert_eq(poll(&p, 1, 1000), 1);
    tw_qmp_step(t.qmp);
    cr_assert_eq(poll(&p, 1, 0), 0);
    cr_assert_str_eq(t.events, "X ");
}
