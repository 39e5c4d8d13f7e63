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
    const bool in = !s->connecting && (!s->deaf || s->shaking);
    const uint32_t want =
        (in ? (uint32_t)EPOLLIN : 0u) | (out || s->connecting ? (uint32_t)EPOLLOUT : 0u);
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
    tcp_tls_free(s->tls);
    s->tls = NULL;
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

/* As sendmsg(), of what fill() has found. */
static ssize_t push(struct tcp_stream *s)
{
    struct iovec parts[2] = {{s->out + s->out_at, s->out_end - s->out_at},
                             {(void *)(uintptr_t)s->direct, s->direct ? s->direct_left : 0}};
    const unsigned count = s->direct ? 2 : 1;
    if (s->tls)
        return tcp_tls_send(s->tls, s->fd, parts, count);
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* May be called outside of poll, so it must not end in a callback: trouble is left to the reading
 * side, which epoll wakes for it. */
void tcp_stream_write(struct tcp_stream *s)
{
    int64_t turn = s->lane == TW_LANE_BULK ? TW_FRAME_MAX : INT64_MAX;
    while (s->fd >= 0 && !s->connecting && !s->shaking && !s->broken) {
        if (!fill(s) && !tcp_tls_unsent(s->tls)) {
            arm(s, false);
            return;
        }
        if (turn <= 0) {
            arm(s, true);
            return;
        }
        const ssize_t n = push(s);
        if (n >= 0) {
            advance(s, (size_t)n);
            turn -= n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            arm(s, true);
            return;
        } else if (errno != EINTR) {
            s->broken = true;
            arm(s, false);
        }
    }
}

void tcp_stream_end(struct tcp_stream *s)
{
    tcp_stream_write(s);
    if (s->fd >= 0 && !s->shaking && !s->broken && !s->direct && s->out_at == s->out_end)
        tcp_tls_end(s->tls, s->fd);
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
    if (number == EPROTO && s->tls)
        err = s->tls->why;
    else if (number == 0 || number == ECONNRESET || number == EPIPE)
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "closed by the peer");
    else
        tw_fail(&err, TW_UNAVAILABLE, NULL, NULL, NULL, "the network says: %s",
                strerrordesc_np(number));
    tw_conn_lost(&conn->base, &err);
}

/* Behind a bulk frame, while more of them lie in the buffer: what somebody waits for goes first, in
 * both directions. */
static void let_urgent_by(struct tcp_stream *s)
{
    struct tcp_stream *urgent = &s->conn->streams[TW_LANE_URGENT];
    if (s->lane == TW_LANE_URGENT || urgent->fd < 0 || urgent->shaking)
        return;
    tw_conn_settle_urgent(&s->conn->base);
    read_some(urgent);
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
        if (s->fd >= 0 && at < s->in_end)
            let_urgent_by(s);
    }
    if (s->fd < 0)
        return true;
    if (at && at < s->in_end)
        memmove(s->in, s->in + at, s->in_end - at);
    s->in_end -= at;
    return at > 0;
}

/* As recv(). */
static ssize_t pull(struct tcp_stream *s)
{
    uint8_t *to = s->in + s->in_end;
    const size_t size = TW_FRAME_MAX - s->in_end;
    return s->tls ? tcp_tls_recv(s->tls, s->fd, to, size) : recv(s->fd, to, size, MSG_DONTWAIT);
}

/* Until something was handed in, or nothing is there: other sockets wait too. What TLS holds has
 * to go all the way, as no event would tell of it. */
static void read_some(struct tcp_stream *s)
{
    while (s->fd >= 0) {
        const ssize_t n = pull(s);
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
        if (take_frames(s) && !tcp_tls_pending(s->tls))
            return;
    }
}

void tcp_stream_pump(struct tcp_stream *s)
{
    if (s->fd < 0 || !tcp_tls_pending(s->tls))
        return;
    read_some(s);
    tw_conn_settle(&s->conn->base);
}

static void reached(struct tcp_stream *s)
{
    arm(s, false);
    if (s->lane == TW_LANE_URGENT)
        tw_conn_connected(&s->conn->base);
    else
        tcp_stream_write(s);
}

/* The server on the bulk lane must be the one of the urgent lane. */
static enum tw_code admit(struct tcp_stream *s, struct tw_error *err)
{
    const struct tw_conn *base = &s->conn->base;
    const enum tw_code code = tcp_tls_admit(s->tls, NULL, err);
    return code || s->lane == TW_LANE_URGENT
               ? code
               : tcp_tls_check_name(s->tls, NULL, base->peer.name, err);
}

static void shake(struct tcp_stream *s)
{
    struct tw_error err;
    enum tw_code code = tcp_tls_handshake(s->tls, s->fd, NULL, &err);
    if (code == TW_UNAVAILABLE)
        return;
    s->shaking = code != TW_OK;
    if (!code)
        code = admit(s, &err);
    if (code)
        tw_conn_lost(&s->conn->base, &err);
    else
        reached(s);
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
    struct tw_tls *trust = tcp_fabric_of(&s->conn->base)->tls;
    if (!trust) {
        reached(s);
        return;
    }
    struct tw_error err;
    s->tls = tcp_tls_new(trust, false, &err);
    if (!s->tls) {
        tw_conn_lost(&s->conn->base, &err);
        return;
    }
    s->shaking = true;
    arm(s, false);
    shake(s);
}

void tcp_stream_event(struct tcp_stream *s, uint32_t events)
{
    if (s->fd < 0)
        return;
    if (s->connecting) {
        connected(s);
    } else if (s->shaking) {
        shake(s);
    } else {
        if (events & ~(uint32_t)EPOLLOUT)
            read_some(s);
        if (s->fd >= 0 && (events & EPOLLOUT))
            tcp_stream_write(s);
    }
    tw_conn_settle(&s->conn->base);
}
