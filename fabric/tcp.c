#include "fabric/tcp.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS     16u /* of one poll; then timers and the caller have their turn */
#define EVENTS_MAX 64
#define HANDSHAKES_A_ROUND                                                                         \
    4u /* TLS costs half a millisecond; strangers may not hold up the others */

static enum tw_code watch(int set, int fd, enum tcp_tag *tag, struct tw_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event))
        return tw_fail_errno(err, errno, "fabric", "epoll");
    return TW_OK;
}

static enum tw_code tcp_open(struct tw_fabric *base, void *arg, struct tw_error *err)
{
    struct tcp_fabric *f = (struct tcp_fabric *)base;
    const struct tw_fabric_tcp_settings *settings = arg;
    f->inner = f->outer = f->listener = -1;
    f->listener_tag = TCP_LISTENER;
    f->bulk_tag = TCP_BULK;
    f->wake_tag = TCP_WAKE;
    for (unsigned i = 0; i < TCP_PENDING_MAX; i++)
        f->pending[i].fd = -1;
    f->tls = settings ? settings->tls : NULL;
    enum tw_code code = f->tls ? tw_tls_expect_me(f->tls, TW_ROLE_AGENT, base->name, err) : TW_OK;
    if (code)
        return code;
    f->inner = epoll_create1(EPOLL_CLOEXEC);
    f->outer = epoll_create1(EPOLL_CLOEXEC);
    if (f->inner < 0 || f->outer < 0)
        return tw_fail_errno(err, errno, "fabric", "epoll");
    code = watch(f->outer, f->inner, &f->bulk_tag, err);
    if (!code && base->config.wake_fd > 0)
        code = watch(f->outer, base->config.wake_fd, &f->wake_tag, err);
    return code;
}

static void tcp_close(struct tw_fabric *base)
{
    struct tcp_fabric *f = (struct tcp_fabric *)base;
    for (unsigned i = 0; i < TCP_PENDING_MAX; i++)
        tcp_pending_close(&f->pending[i]);
    if (f->listener >= 0)
        close(f->listener);
    if (f->inner >= 0)
        close(f->inner);
    if (f->outer >= 0)
        close(f->outer);
}

static int tcp_fd(const struct tw_fabric *base)
{
    return ((const struct tcp_fabric *)base)->outer;
}

/* ---- Connections ----------------------------------------------------------------------------- */

/* Begins a TCP connection for one lane. A refusal that is known at once is reported by poll, as a
 * later one would be. */
static enum tw_code dial(struct tcp_conn *conn, enum tw_lane lane, struct tw_error *err)
{
    struct tcp_stream *s = &conn->streams[lane];
    const int fd =
        socket(conn->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return tw_fail_errno(err, errno, conn->base.label, "socket");
    tcp_tune(fd);
    if (connect(fd, &conn->address.any, tcp_address_size(&conn->address)) && errno != EINPROGRESS) {
        struct tw_error why;
        tw_fail(&why, TW_UNAVAILABLE, NULL, NULL, NULL, "the network says: %s",
                strerrordesc_np(errno));
        close(fd);
        tw_conn_lost(&conn->base, &why);
        return TW_OK;
    }
    return tcp_stream_open(s, fd, true, err);
}

static enum tw_code tcp_connect(struct tw_conn *base, const char *address, struct tw_error *err)
{
    struct tcp_conn *conn = (struct tcp_conn *)base;
    for (enum tw_lane lane = 0; lane < TW_LANES; lane++)
        tcp_stream_init(&conn->streams[lane], conn, lane);
    enum tw_code code = tcp_address_parse(address, &conn->address, err);
    if (!code)
        code = tcp_address_allow(tcp_fabric_of(base), &conn->address, err);
    return code ? code : dial(conn, TW_LANE_URGENT, err);
}

static enum tw_code tcp_join(struct tw_conn *base, struct tw_error *err)
{
    struct tcp_conn *conn = (struct tcp_conn *)base;
    const struct tcp_tls *tls = conn->streams[TW_LANE_URGENT].tls;
    if (tls) {
        const enum tw_code code = tcp_tls_check_name(tls, NULL, base->peer.name, err);
        if (code)
            return code;
    }
    conn->streams[TW_LANE_BULK].deaf = true; /* until READY, which bulk might overtake */
    return dial(conn, TW_LANE_BULK, err);
}

static void tcp_up(struct tw_conn *base)
{
    tcp_stream_listen(&((struct tcp_conn *)base)->streams[TW_LANE_BULK]);
}

static void tcp_flush(struct tw_conn *base, enum tw_lane lane)
{
    tcp_stream_write(&((struct tcp_conn *)base)->streams[lane]);
}

static void tcp_hang_up(struct tw_conn *base)
{
    struct tcp_conn *conn = (struct tcp_conn *)base;
    for (enum tw_lane lane = 0; lane < TW_LANES; lane++)
        tcp_stream_end(&conn->streams[lane]);
    /* Urgent first: the peer should find our reason before it finds the bulk lane closed. */
    tcp_stream_close(&conn->streams[TW_LANE_URGENT]);
    tcp_stream_close(&conn->streams[TW_LANE_BULK]);
}

/* ---- Poll ------------------------------------------------------------------------------------ */

static int wait_events(struct tcp_fabric *f, struct epoll_event *events, uint64_t deadline_ns)
{
    const uint64_t now = tw_fabric_now(&f->base);
    if (deadline_ns <= now)
        return epoll_wait(f->outer, events, EVENTS_MAX, 0);
    const uint64_t left = deadline_ns - now;
    const struct timespec timeout = {.tv_sec = (time_t)(left / TW_SEC),
                                     .tv_nsec = (long)(left % TW_SEC)};
    const int n =
        epoll_pwait2(f->outer, events, EVENTS_MAX, left > 3600 * TW_SEC ? NULL : &timeout, NULL);
    if (n >= 0 || errno != ENOSYS)
        return n;
    const uint64_t ms = (left + TW_MS - 1) / TW_MS;
    return epoll_wait(f->outer, events, EVENTS_MAX, ms > 3600000 ? -1 : (int)ms);
}

/* One bulk socket, once. epoll puts what it has given out to the end of its list, so they take
 * turns. */
static void serve_bulk(struct tcp_fabric *f)
{
    struct epoll_event event;
    if (epoll_wait(f->inner, &event, 1, 0) == 1)
        tcp_stream_event(event.data.ptr, event.events);
}

static void serve(struct tcp_fabric *f, const struct epoll_event *event)
{
    const enum tcp_tag *tag = event->data.ptr;
    if (*tag == TCP_STREAM)
        tcp_stream_event(event->data.ptr, event->events);
    else if (*tag == TCP_PENDING)
        tcp_pending_event(f, event->data.ptr);
    else if (*tag == TCP_LISTENER)
        tcp_accept(f);
}

static unsigned tcp_poll(struct tw_fabric *base, uint64_t deadline_ns)
{
    struct tcp_fabric *f = (struct tcp_fabric *)base;
    const uint64_t tick = tcp_listen_tick_next(f);
    unsigned handled = 0;
    if (tick < deadline_ns)
        deadline_ns = tick;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct epoll_event events[EVENTS_MAX];
        const int n = wait_events(f, events, handled ? 0 : deadline_ns);
        if (n <= 0)
            break;
        bool bulk = false, woken = false;
        unsigned strangers = 0;
        for (int i = 0; i < n; i++) {
            const enum tcp_tag tag = *(const enum tcp_tag *)events[i].data.ptr;
            bulk |= tag == TCP_BULK;
            woken |= tag == TCP_WAKE;
            if (tag != TCP_PENDING || strangers++ < HANDSHAKES_A_ROUND)
                serve(f, &events[i]);
        }
        if (bulk)
            serve_bulk(f);
        handled += (unsigned)n;
        if (woken)
            break;
    }
    tcp_listen_tick(f, tw_fabric_now(base));
    return handled;
}

const struct tw_fabric_backend tw_fabric_tcp = {
    .kind = "tcp",
    .fabric_size = sizeof(struct tcp_fabric),
    .conn_size = sizeof(struct tcp_conn),
    .open = tcp_open,
    .close = tcp_close,
    .listen = tcp_listen,
    .connect = tcp_connect,
    .join = tcp_join,
    .up = tcp_up,
    .flush = tcp_flush,
    .hang_up = tcp_hang_up,
    .poll = tcp_poll,
    .fd = tcp_fd,
};
