#include "fabric/tcp.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#define BACKLOG      128
#define ACCEPTS_A_GO 32u
#define REST_NS      (100 * TW_MS) /* of a listener that got no descriptor */

void tcp_tune(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

enum tw_code tcp_listen(struct tw_fabric *base, const char *text, struct tw_error *err)
{
    struct tcp_fabric *f = (struct tcp_fabric *)base;
    union tcp_address address;
    const enum tw_code code = tcp_address_parse(text, &address, err);
    if (code)
        return code;
    const int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return tw_fail_errno(err, errno, text, "socket");
    const int on = 1;
    socklen_t size = tcp_address_size(&address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &f->listener_tag};
    if (bind(fd, &address.any, size) || listen(fd, BACKLOG) ||
        getsockname(fd, &address.any, &size) || epoll_ctl(f->outer, EPOLL_CTL_ADD, fd, &event)) {
        const int number = errno;
        close(fd);
        return tw_fail_errno(err, number, text, "listen");
    }
    f->listener = fd;
    f->listening = true;
    tcp_address_format(&address, base->address);
    return TW_OK;
}

static void set_listening(struct tcp_fabric *f, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.ptr = &f->listener_tag};
    f->listening = on;
    epoll_ctl(f->outer, EPOLL_CTL_MOD, f->listener, &event);
}

/* ---- Sockets that have not said who they are ------------------------------------------------- */

void tcp_pending_close(struct tcp_pending *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

/* A free entry; when there is none, the oldest has had its chance. */
static struct tcp_pending *pending_new(struct tcp_fabric *f)
{
    struct tcp_pending *oldest = &f->pending[0];
    for (unsigned i = 0; i < TCP_PENDING_MAX; i++) {
        struct tcp_pending *p = &f->pending[i];
        if (p->fd < 0)
            return p;
        if (p->due_ns < oldest->due_ns)
            oldest = p;
    }
    epoll_ctl(f->outer, EPOLL_CTL_DEL, oldest->fd, NULL);
    tcp_pending_close(oldest);
    return oldest;
}

void tcp_accept(struct tcp_fabric *f)
{
    for (unsigned n = 0; n < ACCEPTS_A_GO; n++) {
        union tcp_address address;
        socklen_t size = sizeof address;
        const int fd = accept4(f->listener, &address.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                set_listening(f, false);
                f->resume_ns = tw_after(tw_fabric_now(&f->base), REST_NS);
            }
            return; /* nobody left, or one who has gone again */
        }
        struct tcp_pending *p = pending_new(f);
        p->tag = TCP_PENDING;
        p->fd = fd;
        p->got = 0;
        p->due_ns = tw_after(tw_fabric_now(&f->base), f->base.config.handshake_timeout_ns);
        tcp_address_format(&address, p->label);
        tcp_tune(fd);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
        if (epoll_ctl(f->outer, EPOLL_CTL_ADD, fd, &event))
            tcp_pending_close(p);
    }
}

void tcp_listen_tick(struct tcp_fabric *f, uint64_t now_ns)
{
    if (f->listener >= 0 && !f->listening && now_ns >= f->resume_ns)
        set_listening(f, true);
    for (unsigned i = 0; i < TCP_PENDING_MAX; i++) {
        struct tcp_pending *p = &f->pending[i];
        if (p->fd < 0 || now_ns < p->due_ns)
            continue;
        epoll_ctl(f->outer, EPOLL_CTL_DEL, p->fd, NULL);
        tcp_pending_close(p);
    }
}

uint64_t tcp_listen_tick_next(const struct tcp_fabric *f)
{
    uint64_t next = f->listener >= 0 && !f->listening ? f->resume_ns : TW_NEVER;
    for (unsigned i = 0; i < TCP_PENDING_MAX; i++)
        if (f->pending[i].fd >= 0 && f->pending[i].due_ns < next)
            next = f->pending[i].due_ns;
    return next;
}

/* ---- The first frame ------------------------------------------------------------------------- */

static void say_goodbye(int fd, const struct tw_error *why)
{
    uint8_t bytes[TW_FRAME_HEADER + TW_GOODBYE_TEXT];
    const uint32_t size = tw_goodbye_encode(why, bytes);
    /* A fresh socket has room for it; a peer that made it otherwise does without. */
    const ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
}

static void begin(struct tcp_fabric *f, int fd, const struct tcp_pending *p,
                  const struct tw_frame *frame)
{
    struct tw_error err;
    struct tw_conn *base = tw_conn_incoming(&f->base, frame, p->label, &err);
    if (!base) {
        say_goodbye(fd, &err);
        close(fd);
        return;
    }
    struct tcp_conn *conn = (struct tcp_conn *)base;
    for (enum tw_lane lane = 0; lane < TW_LANES; lane++)
        tcp_stream_init(&conn->streams[lane], conn, lane);
    if (tcp_stream_open(&conn->streams[TW_LANE_URGENT], fd, false, &err)) {
        tw_conn_lost(base, &err);
        return;
    }
    if (getrandom(base->id, sizeof base->id, 0) != sizeof base->id) {
        tw_fail_errno(&err, errno, NULL, "getrandom");
        tw_conn_fail(base, &err);
        return;
    }
    tw_conn_ask(base, &err);
    tw_conn_settle(base);
}

static void join(struct tcp_fabric *f, int fd, const struct tw_frame *frame)
{
    struct tw_error err;
    for (struct tw_conn *base = f->base.conns; base; base = base->sibling) {
        struct tcp_stream *s = &((struct tcp_conn *)base)->streams[TW_LANE_BULK];
        if (base->machine.state != TW_CONN_HALF || s->fd >= 0 ||
            memcmp(base->id, frame->header.id, sizeof base->id) != 0)
            continue;
        if (tcp_stream_open(s, fd, false, &err)) {
            tw_conn_fail(base, &err);
            return;
        }
        tw_conn_frame_in(base, TW_LANE_BULK, frame);
        tw_conn_settle(base);
        return;
    }
    tw_fail(&err, TW_NOT_FOUND, f->base.name, NULL, NULL, "no connection waits to be joined so");
    say_goodbye(fd, &err);
    close(fd);
}

/* Reads no byte more than the first frame has. True when it is there or never will be. */
static enum tw_code read_first(struct tcp_pending *p, struct tw_frame *frame, struct tw_error *err)
{
    for (;;) {
        const enum tw_code code = tw_frame_parse(p->in, p->got, frame, err);
        if (code != TW_UNAVAILABLE)
            return code;
        if (frame->size > sizeof p->in)
            return tw_fail(err, TW_INVALID_ARGUMENT, p->label, "hello or join", NULL,
                           "this cannot be the first frame");
        const ssize_t n = recv(p->fd, p->in + p->got, frame->size - p->got, MSG_DONTWAIT);
        if (n > 0)
            p->got += (uint32_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return TW_UNAVAILABLE;
        else if (n == 0 || errno != EINTR)
            return tw_fail(err, TW_ABORTED, p->label, NULL, NULL, "gone before the handshake");
    }
}

void tcp_pending_event(struct tcp_fabric *f, struct tcp_pending *p)
{
    struct tw_frame frame;
    struct tw_error err;
    if (p->fd < 0)
        return;
    const enum tw_code code = read_first(p, &frame, &err);
    if (code == TW_UNAVAILABLE)
        return;
    const int fd = p->fd;
    p->fd = -1;
    epoll_ctl(f->outer, EPOLL_CTL_DEL, fd, NULL);
    if (code == TW_OK && frame.kind == TW_FRAME_HELLO) {
        begin(f, fd, p, &frame);
    } else if (code == TW_OK && frame.kind == TW_FRAME_JOIN) {
        join(f, fd, &frame);
    } else {
        if (code == TW_OK)
            tw_fail(&err, TW_INVALID_ARGUMENT, p->label, "hello or join", NULL,
                    "this cannot be the first frame");
        say_goodbye(fd, &err);
        close(fd);
    }
}
