#include "base/log.h"
#include "fabric/tcp.h"

#include <errno.h>
#include <inttypes.h>
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
    enum tw_code code = tcp_address_parse(text, &address, err);
    if (!code)
        code = tcp_address_allow(f, &address, err);
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
    tcp_tls_free(p->tls);
    p->tls = NULL;
}

/* Somebody got no connection. The log hears of one a second, and of how many more there were. */
static void note_refusal(struct tcp_fabric *f, const struct tcp_pending *p,
                         const struct tw_error *why)
{
    char text[512];
    const uint64_t now = tw_fabric_now(&f->base);
    f->refusal = *why;
    f->refusals++;
    if (now < f->tell_ns)
        return;
    f->tell_ns = tw_after(now, TW_SEC);
    tw_log(TW_LOG_WARN, "fabric", "refused", "peer=\"%s\" others=%" PRIu64 " why=\"%s\"", p->label,
           f->refusals - f->refusals_told - 1, tw_error_text(why, text, sizeof text));
    f->refusals_told = f->refusals;
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
        p->secure = false;
        p->due_ns = tw_after(tw_fabric_now(&f->base), f->base.config.handshake_timeout_ns);
        tcp_address_format(&address, p->label);
        tcp_tune(fd);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
        if (f->tls)
            p->tls = tcp_tls_new(f->tls, true, NULL);
        if ((f->tls && !p->tls) || epoll_ctl(f->outer, EPOLL_CTL_ADD, fd, &event))
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
        struct tw_error why;
        tw_fail(&why, TW_DEADLINE_EXCEEDED, p->label, NULL, NULL,
                "said nothing, or not all of it, in time");
        note_refusal(f, p, &why);
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

/* A fresh socket has room for it; a peer that made it otherwise does without. */
static void say_goodbye(struct tcp_pending *p, const struct tw_error *why)
{
    uint8_t bytes[TW_FRAME_HEADER + TW_GOODBYE_TEXT];
    const uint32_t size = tw_goodbye_encode(why, bytes);
    if (p->secure) {
        const ssize_t n = tcp_tls_send(p->tls, p->fd, &(struct iovec){bytes, size}, 1);
        (void)n;
        tcp_tls_end(p->tls, p->fd);
    } else {
        const ssize_t n = send(p->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n;
    }
}

/* Who began with TLS and failed in it was told so by an alert. */
static void refuse(struct tcp_fabric *f, struct tcp_pending *p, const struct tw_error *why)
{
    note_refusal(f, p, why);
    if (!p->tls || p->secure || !p->tls->heard)
        say_goodbye(p, why);
    tcp_pending_close(p);
}

/* The socket leaves the entry for a stream. */
static enum tw_code hand_over(struct tcp_pending *p, struct tcp_stream *s, struct tw_error *err)
{
    const int fd = p->fd;
    s->tls = p->tls;
    p->fd = -1;
    p->tls = NULL;
    return tcp_stream_open(s, fd, false, err);
}

static enum tw_code check_name(const struct tcp_pending *p, const char *name, struct tw_error *err)
{
    return p->tls ? tcp_tls_check_name(p->tls, p->label, name, err) : TW_OK;
}

static void begin(struct tcp_fabric *f, struct tcp_pending *p, const struct tw_frame *frame)
{
    struct tw_error err;
    struct tw_hello hello;
    tw_hello_decode(&hello, frame->payload);
    struct tw_conn *base =
        check_name(p, hello.name, &err) ? NULL : tw_conn_incoming(&f->base, frame, p->label, &err);
    if (!base) {
        refuse(f, p, &err);
        return;
    }
    struct tcp_conn *conn = (struct tcp_conn *)base;
    for (enum tw_lane lane = 0; lane < TW_LANES; lane++)
        tcp_stream_init(&conn->streams[lane], conn, lane);
    if (hand_over(p, &conn->streams[TW_LANE_URGENT], &err)) {
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
    tcp_stream_pump(&conn->streams[TW_LANE_URGENT]);
}

static void join(struct tcp_fabric *f, struct tcp_pending *p, const struct tw_frame *frame)
{
    struct tw_error err;
    for (struct tw_conn *base = f->base.conns; base; base = base->sibling) {
        struct tcp_stream *s = &((struct tcp_conn *)base)->streams[TW_LANE_BULK];
        if (base->machine.state != TW_CONN_HALF || s->fd >= 0 ||
            memcmp(base->id, frame->header.id, sizeof base->id) != 0 ||
            check_name(p, base->peer.name, NULL))
            continue;
        if (hand_over(p, s, &err)) {
            tw_conn_fail(base, &err);
            return;
        }
        tw_conn_frame_in(base, TW_LANE_BULK, frame);
        tw_conn_settle(base);
        tcp_stream_pump(s);
        return;
    }
    tw_fail(&err, TW_NOT_FOUND, f->base.name, NULL, NULL, "no connection waits to be joined so");
    refuse(f, p, &err);
}

/* TLS first, if there is any to be done. */
static enum tw_code secure(struct tcp_pending *p, struct tw_error *err)
{
    if (!p->tls || p->secure)
        return TW_OK;
    const enum tw_code code = tcp_tls_handshake(p->tls, p->fd, p->label, err);
    p->secure = code == TW_OK;
    return code ? code : tcp_tls_admit(p->tls, p->label, err);
}

static enum tw_code not_first(const struct tcp_pending *p, struct tw_error *err)
{
    if (!p->tls && p->got && p->in[0] == TCP_TLS_FIRST)
        return tw_fail(err, TW_UNAUTHENTICATED, p->label, "plain text", "TLS",
                       "this agent has no certificates and cannot answer TLS");
    return tw_fail(err, TW_INVALID_ARGUMENT, p->label, "hello or join", NULL,
                   "this cannot be the first frame");
}

/* Reads no byte more than the first frame has. TW_UNAVAILABLE: not yet there. */
static enum tw_code read_first(struct tcp_pending *p, struct tw_frame *frame, struct tw_error *err)
{
    for (;;) {
        const enum tw_code code = tw_frame_parse(p->in, p->got, frame, err);
        if (code == TW_OK && frame->kind != TW_FRAME_HELLO && frame->kind != TW_FRAME_JOIN)
            return not_first(p, err);
        if (code == TW_INVALID_ARGUMENT && p->in[0] == TCP_TLS_FIRST)
            return not_first(p, err);
        if (code != TW_UNAVAILABLE)
            return code;
        if (frame->size > sizeof p->in)
            return not_first(p, err);
        uint8_t *to = p->in + p->got;
        const size_t size = frame->size - p->got;
        const ssize_t n =
            p->tls ? tcp_tls_recv(p->tls, p->fd, to, size) : recv(p->fd, to, size, MSG_DONTWAIT);
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
    enum tw_code code = secure(p, &err);
    if (!code)
        code = read_first(p, &frame, &err);
    if (code == TW_UNAVAILABLE)
        return;
    epoll_ctl(f->outer, EPOLL_CTL_DEL, p->fd, NULL);
    if (code)
        refuse(f, p, &err);
    else if (frame.kind == TW_FRAME_HELLO)
        begin(f, p, &frame);
    else
        join(f, p, &frame);
}
