#include "fabric/tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

static int set_of(const struct tcp_stream *s)
{
    const struct tcp_fabric *f = tcp_fabric_of(&s->conn->base);
    return s->lane == TW_LANE_BULK ? f->inner : f->outer;
}

/* Watches for what is needed now: readable unless deaf, writable while something waits. */
static void arm(struct tcp_stream *s, bool out)
{
    const uint32_t want = (s->deaf || s->connecting ? 0u : (uint32_t)EPOLLIN) |
                          (out || s->connecting ? (uint32_t)EPOLLOUT : 0u);
    if (want == s->armed)
        return;
    struct epoll_event event = {.events = want, .data.ptr = s};
    if (epoll_ctl(set_of(s), EPOLL_CTL_MOD, s->fd, &event) == 0)
        s->armed = want;
}

void tcp_stream_init(struct tcp_stream *s, struct tcp_conn *conn, enum tw_lane lane)
{
    s->tag = TCP_STREAM;
    s->lane = lane;
    s->conn = conn;
    s->fd = -1;
}

enum tw_code tcp_stream_open(struct tcp_stream *s, int fd, bool connecting, struct tw_error *err)
{
    s->in = malloc(TW_FRAME_MAX);
    if (!s->in) {
        close(fd);
        return tw_fail_errno(err, ENOMEM, s->conn->base.label, "receive buffer");
    }
    s->connecting = connecting;
    s->armed = connecting ? (uint32_t)EPOLLOUT : s->deaf ? 0u : (uint32_t)EPOLLIN;
    struct epoll_event event = {.events = s->armed, .data.ptr = s};
    if (epoll_ctl(set_of(s), EPOLL_CTL_ADD, fd, &event)) {
        const int number = errno;
        close(fd);
        return tw_fail_errno(err, number, s->conn->base.label, "epoll");
    }
    s->fd = fd;
    return TW_OK;
}

/* Out of the set first: a child between fork and exec may still hold the descriptor, and then
 * close() alone would leave an event that points to freed memory. */
void tcp_stream_close(struct tcp_stream *s)
{
    if (s->fd >= 0) {
        epoll_ctl(set_of(s), EPOLL_CTL_DEL, s->fd, NULL);
        close(s->fd);
        s->fd = -1;
    }
    free(s->in);
    s->in = NULL;
    s->direct = NULL;
}

void tcp_stream_listen(struct tcp_stream *s)
{
    s->deaf = false;
    arm(s, s->armed & EPOLLOUT);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Pulls frames until enough is there for one call. Small ones are copied behind one another, a
 * long one is sent from where it lies. False when there is nothing to send. */
static bool fill(struct tcp_stream *s)
{
    if (s->out_at == s->out_end)
        s->out_at = s->out_end = 0;
    while (!s->direct && s->out_end + TCP_SMALL <= TCP_OUT) {
        const uint8_t *bytes;
        uint32_t length;
        if (!tw_conn_next_frame(&s->conn->base, s->lane, &bytes, &length))
            break;
        if (length > TCP_SMALL) {
            s->direct = bytes;
            s->direct_left = length;
        } else {
            memcpy(s->out + s->out_end, bytes, length);
            s->out_end += length;
        }
    }
    return s->out_at < s->out_end || s->direct;
}

static void advance(struct tcp_stream *s, size_t sent)
{
    const size_t small = s->out_end - s->out_at;
    const size_t first = sent < small ? sent : small;
    s->out_at += (uint32_t)first;
    sent -= first;
    if (!sent)
        return;
    s->direct += sent;
    s->direct_left -= (uint32_t)sent;
    if (!s->direct_left)
        s->direct = NULL;
}

/* May be called outside of poll, so it must not end in a callback: trouble is left to the reading
 * side, which epoll wakes for it. */
void tcp_stream_write(struct tcp_stream *s)
{
    while (s->fd >= 0 && !s->connecting && !s->broken) {
        if (!fill(s)) {
            arm(s, false);
            return;
        }
        struct iovec parts[2] = {{s->out + s->out_at, s->out_end - s->out_at},
                                 {(void *)(uintptr_t)s->direct, s->direct ? s->direct_left : 0}};
        const struct msghdr message = {.msg_iov = parts, .msg_iovlen = s->direct ? 2 : 1};
        const ssize_t n = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            advance(s, (size_t)n);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            arm(s, true);
            return;
        } else if (errno != EINTR) {
            s->broken = true;
            arm(s, false);
        }
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void read_some(struct tcp_stream *s);

/* The socket has ended. When bulk ends, the peer's reason may lie on the urgent lane. */
static void gone(struct tcp_stream *s, int number)
{
    struct tcp_conn *conn = s->conn;
    struct tw_error err;
    if (s->lane == TW_LANE_BULK && conn->streams[TW_LANE_URGENT].fd >= 0)
        read_some(&conn->streams[TW_LANE_URGENT]);
    if (number == 0 || number == ECONNRESET || number == EPIPE)
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "closed by the peer");
    else
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "the network says: %s",
                strerrordesc_np(number));
    tw_conn_lost(&conn->base, &err);
}

/* Hands in the whole frames of the buffer and moves the rest to its beginning. False when there
 * was none. */
static bool take_frames(struct tcp_stream *s)
{
    uint32_t at = 0;
    while (s->fd >= 0) {
        struct tw_frame frame;
        struct tw_error err;
        const enum tw_code code = tw_frame_parse(s->in + at, s->in_end - at, &frame, &err);
        if (code == TW_UNAVAILABLE)
            break;
        if (code) {
            tw_conn_fail(&s->conn->base, &err);
            return true;
        }
        tw_conn_frame_in(&s->conn->base, s->lane, &frame);
        at += (uint32_t)frame.size;
    }
    if (s->fd < 0)
        return true;
    if (at && at < s->in_end)
        memmove(s->in, s->in + at, s->in_end - at);
    s->in_end -= at;
    return at > 0;
}

/* Until something was handed in, or nothing is there: other sockets wait too. */
static void read_some(struct tcp_stream *s)
{
    while (s->fd >= 0) {
        const ssize_t n = recv(s->fd, s->in + s->in_end, TW_FRAME_MAX - s->in_end, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            gone(s, n == 0 ? 0 : errno);
            return;
        }
        s->in_end += (uint32_t)n;
        tw_conn_heard(&s->conn->base);
        if (take_frames(s))
            return;
    }
}

static void connected(struct tcp_stream *s)
{
    int number = 0;
    socklen_t size = sizeof number;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &number, &size);
    if (number) {
        gone(s, number);
        return;
    }
    s->connecting = false;
    arm(s, false);
    if (s->lane == TW_LANE_URGENT)
        tw_conn_connected(&s->conn->base);
    else
        tcp_stream_write(s);
}

void tcp_stream_event(struct tcp_stream *s, uint32_t events)
{
    if (s->fd < 0)
        return;
    if (s->connecting) {
        connected(s);
    } else {
        if (events & ~(uint32_t)EPOLLOUT)
            read_some(s);
        if (s->fd >= 0 && (events & EPOLLOUT))
            tcp_stream_write(s);
    }
    tw_conn_settle(&s->conn->base);
}
