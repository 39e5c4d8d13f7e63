#include "client/connection.h"

#include "client/towline.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LEAVE_MS 10000u

static _Thread_local char last_error[TW_LOCAL_TEXT_MAX] = "";

const char *towline_last_error(void)
{
    return last_error;
}

int tw_client_fail(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return code;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- Open and close ------------------------------------------------------------------------- */

static int connect_failed(const char *path, int number)
{
    int code =
        number == EACCES || number == EPERM ? TOWLINE_PERMISSION_DENIED : TOWLINE_UNAVAILABLE;
    return tw_client_fail(code, "no agent serves %s: %s", path, strerror(number));
}

static void know_agent(struct tw_client_connection *c)
{
    struct ucred peer = {0};
    socklen_t length = sizeof peer;
    getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    c->agent = peer.pid;
    c->agent_uid = peer.uid;
}

int tw_client_connect(struct tw_client_connection *c, const char *path, uint32_t timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *c = (struct tw_client_connection){.fd = -1, .timeout_ms = timeout_ms ? timeout_ms : 30000};
    if (!path || !*path)
        path = getenv("TOWLINE_SOCKET");
    if (!path || !*path)
        path = TOWLINE_SOCKET_DEFAULT;
    if (strlen(path) >= sizeof address.sun_path)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "socket: longer than 107 bytes");
    memcpy(address.sun_path, path, strlen(path));
    c->body = malloc(TW_LOCAL_BODY_MAX);
    if (!c->body)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "no memory");
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        int number = errno;
        tw_client_disconnect(c);
        return connect_failed(path, number);
    }
    know_agent(c);
    return TOWLINE_OK;
}

static void give_up(struct tw_client_connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

void tw_client_leave(struct tw_client_connection *c)
{
    char dropped[4096];
    const uint64_t deadline = now_ms() + LEAVE_MS;
    if (c->fd < 0 || shutdown(c->fd, SHUT_WR) != 0)
        return;
    /* The agent closes its side when it has let go. */
    for (;;) {
        const uint64_t now = now_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        const int n = now < deadline ? poll(&p, 1, (int)(deadline - now)) : 0;
        if (n == 0 || (n < 0 && errno != EINTR))
            return;
        const ssize_t got = n > 0 ? recv(c->fd, dropped, sizeof dropped, 0) : -1;
        if (got == 0 || (n > 0 && got < 0 && errno != EAGAIN && errno != EINTR))
            return;
    }
}

void tw_client_disconnect(struct tw_client_connection *c)
{
    give_up(c);
    free(c->body);
    c->body = NULL;
}

/* ---- Bytes ---------------------------------------------------------------------------------- */

static int lost(struct tw_client_connection *c)
{
    give_up(c);
    return tw_client_fail(TOWLINE_UNAVAILABLE, "the agent has gone away; open a new session");
}

/* Until the socket is ready. */
static int await(struct tw_client_connection *c, short events, uint64_t deadline_ms)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = events};
        uint64_t now = now_ms();
        int n = now < deadline_ms ? poll(&p, 1, (int)(deadline_ms - now)) : 0;
        if (n > 0)
            return TOWLINE_OK;
        if (n == 0) {
            give_up(c);
            return tw_client_fail(TOWLINE_DEADLINE_EXCEEDED,
                                  "the agent did not answer in %u ms; open a new session",
                                  c->timeout_ms);
        }
        if (errno != EINTR)
            return lost(c);
        if (c->interruptible) {
            c->broken = 1; /* its answer may be on the way */
            return tw_client_fail(TOWLINE_CANCELLED, "interrupted by a signal");
        }
    }
}

static int send_all(struct tw_client_connection *c, const void *data, size_t length,
                    uint64_t deadline_ms)
{
    const uint8_t *at = data;
    while (length > 0) {
        ssize_t n = send(c->fd, at, length, MSG_NOSIGNAL);
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int code = await(c, POLLOUT, deadline_ms);
            if (code)
                return code;
        } else {
            return lost(c);
        }
    }
    return TOWLINE_OK;
}

static int receive_all(struct tw_client_connection *c, void *data, size_t length,
                       uint64_t deadline_ms)
{
    uint8_t *at = data;
    while (length > 0) {
        ssize_t n = recv(c->fd, at, length, 0);
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int code = await(c, POLLIN, deadline_ms);
            if (code)
                return code;
        } else {
            return lost(c);
        }
    }
    return TOWLINE_OK;
}

/* ---- Questions ------------------------------------------------------------------------------ */

static int nonsense(struct tw_client_connection *c)
{
    give_up(c);
    return tw_client_fail(TOWLINE_INTERNAL, "an answer that cannot be understood");
}

static int refused(const struct tw_client_connection *c, uint32_t code)
{
    return tw_client_fail((int)code, "%.*s", (int)c->length, (const char *)c->body);
}

int tw_client_ask(struct tw_client_connection *c, enum tw_local_kind kind, const void *head,
                  size_t head_length, const void *tail, size_t tail_length, size_t answer_min)
{
    struct tw_local_header header = {.magic = TW_LOCAL_MAGIC,
                                     .version = TW_LOCAL_VERSION,
                                     .kind = (uint16_t)kind,
                                     .length = (uint32_t)(head_length + tail_length)};
    uint64_t deadline = now_ms() + c->timeout_ms;
    if (c->fd < 0 || c->broken)
        return tw_client_fail(TOWLINE_UNAVAILABLE, "this session has lost its agent");
    int code = send_all(c, &header, sizeof header, deadline);
    if (!code)
        code = send_all(c, head, head_length, deadline);
    if (!code)
        code = send_all(c, tail, tail_length, deadline);
    if (!code)
        code = receive_all(c, &header, sizeof header, deadline);
    if (code)
        return code;
    if (header.magic != TW_LOCAL_MAGIC || header.length > TW_LOCAL_BODY_MAX)
        return nonsense(c);
    c->length = header.length;
    code = receive_all(c, c->body, header.length, deadline);
    if (code)
        return code;
    if (header.code)
        return refused(c, header.code);
    return header.kind == kind && header.length >= answer_min ? TOWLINE_OK : nonsense(c);
}
