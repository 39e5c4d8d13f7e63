/* Peers that do not keep to the protocol: they are refused or dropped, and others are served. */
#include "client/fixture.h"

#include "proto/local.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(hostile, .init = fixture_open, .fini = fixture_close);

#define PATIENCE_MS 60000

static int connected(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, fixture_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_header(int fd, struct tw_local_header header)
{
    cr_assert_eq(send(fd, &header, sizeof header, MSG_NOSIGNAL), (ssize_t)sizeof header);
}

/* The code of the next answer; -1 when the connection was closed. */
static int answer_code(int fd)
{
    struct tw_local_header header;
    char text[TW_LOCAL_TEXT_MAX];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_gt(poll(&p, 1, PATIENCE_MS), 0, "neither answered nor dropped");
    ssize_t n = recv(fd, &header, sizeof header, MSG_WAITALL);
    if (n <= 0)
        return -1;
    cr_assert(n == sizeof header && header.length <= sizeof text);
    if (header.length)
        cr_assert_eq(recv(fd, text, header.length, MSG_WAITALL), (ssize_t)header.length);
    return (int)header.code;
}

static void others_are_served(void)
{
    size_t count;
    cr_assert_eq(towline_list(fixture_socket, NULL, 0, &count), TOWLINE_OK, "%s",
                 towline_last_error());
}

Test(hostile, nonsense_ends_the_connection)
{
    static const struct tw_local_header bad[] = {
        {.magic = 1, .version = 1, .kind = TW_LOCAL_LIST},
        {.magic = TW_LOCAL_MAGIC, .version = 9, .kind = TW_LOCAL_LIST},
        {.magic = TW_LOCAL_MAGIC, .version = 1, .kind = TW_LOCAL_OPEN, .length = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = connected();
        send_header(fd, bad[i]);
        cr_assert_gt(answer_code(fd), 0);
        cr_assert_eq(answer_code(fd), -1, "dropped after the answer");
        close(fd);
        others_are_served();
    }
}

Test(hostile, bad_bodies_are_refused_and_the_connection_goes_on)
{
    int fd = connected();
    const struct tw_local_epoch_ask ask = {.epoch = UINT32_MAX};
    for (uint16_t kind = 0; kind < TW_LOCAL_KIND_END + 2; kind++) {
        if (kind == TW_LOCAL_LIST || kind == TW_LOCAL_GUESTS) /* asked with an empty body */
            continue;
        send_header(fd, (struct tw_local_header){TW_LOCAL_MAGIC, TW_LOCAL_VERSION, kind, 0, 0});
        cr_assert_gt(answer_code(fd), 0, "kind %u", kind);
    }
    send_header(fd, (struct tw_local_header){TW_LOCAL_MAGIC, TW_LOCAL_VERSION, TW_LOCAL_COLLECT,
                                             sizeof ask, 0});
    cr_assert_eq(send(fd, &ask, sizeof ask, MSG_NOSIGNAL), (ssize_t)sizeof ask);
    cr_assert_eq(answer_code(fd), TOWLINE_FAILED_PRECONDITION, "no session");
    close(fd);
}

/* Never reads its answers: it is dropped, and nobody waits for it. */
Test(hostile, who_does_not_take_his_answers_is_dropped)
{
    int fd = connected(), small = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    const struct tw_local_header nonsense = {TW_LOCAL_MAGIC, TW_LOCAL_VERSION, 99, 0, 0};
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    /* Until neither way takes anything more. */
    for (bool stuck = false; !stuck;) {
        if (send(fd, &nonsense, sizeof nonsense, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            stuck = poll(&p, 1, 2000) == 0 || (p.revents & POLLHUP);
    }
    others_are_served();
    p.events = 0; /* POLLHUP is always told */
    cr_assert_gt(poll(&p, 1, PATIENCE_MS), 0, "not dropped");
    others_are_served();
    close(fd);
}

Test(hostile, half_a_request_is_dropped)
{
    int fd = connected();
    cr_assert_eq(send(fd, "TOWL", 4, MSG_NOSIGNAL), 4);
    others_are_served();
    cr_assert_eq(answer_code(fd), -1);
    close(fd);
}

Test(hostile, too_many_connections_are_refused_and_come_free_again)
{
    int fds[200];
    size_t count;
    for (unsigned i = 0; i < 200; i++)
        fds[i] = connected();
    cr_assert_neq(towline_list(fixture_socket, NULL, 0, &count), TOWLINE_OK);
    for (unsigned i = 0; i < 200; i++)
        close(fds[i]);
    for (unsigned i = 0; towline_list(fixture_socket, NULL, 0, &count); i++) {
        cr_assert_lt(i, 6000);
        usleep(10000);
    }
}
