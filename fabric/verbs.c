#include "fabric/verbs_parts.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS        16u /* of one poll; then timers and the caller have their turn */
#define EVENTS_MAX    8
#define SLICE_DEFAULT (UINT64_C(64) << 20)
#define REDIAL_NS     (100 * TW_MS)
#define CLOSE_NS      (300 * TW_MS) /* for the last words of all connections */
#define SPIN_NS       (500 * TW_US) /* that a poll looks out for reads before it sleeps */
#define LOOK_NS       TW_MS         /* while it does, descriptors are looked at so often */

/* ---- Open, close ----------------------------------------------------------------------------- */

static enum tw_code parse_source(struct verbs_fabric *f, struct tw_error *err)
{
    char text[TW_FABRIC_ADDRESS_MAX];
    const char *source = f->config.source;
    if (!source || !source[0])
        return TW_OK;
    snprintf(text, sizeof text, strchr(source, ':') ? "[%s]:0" : "%s:0", source);
    return tcp_address_parse(text, &f->source, err);
}

static enum tw_code check_config(struct verbs_fabric *f, const struct tw_verbs_config *given,
                                 struct tw_error *err)
{
    char text[32];
    if (given)
        f->config = *given;
    if (!f->config.bulk_queues)
        f->config.bulk_queues = 1;
    if (!f->config.slice_bytes)
        f->config.slice_bytes = SLICE_DEFAULT;
    snprintf(text, sizeof text, "%u", f->config.bulk_queues);
    if (f->config.bulk_queues > VERBS_QUEUES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "fabric", "1 to 8", text, "bulk queue pairs");
    snprintf(text, sizeof text, "%llu", (unsigned long long)f->config.slice_bytes);
    if (f->config.slice_bytes % TW_PAGE_SIZE || f->config.slice_bytes > UINT64_C(1) << 40)
        return tw_fail(err, TW_INVALID_ARGUMENT, "fabric", "a multiple of 4096, at most 2^40", text,
                       "bytes of a slice");
    return parse_source(f, err);
}

static enum tw_code watch(int set, int fd, struct tw_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event))
        return tw_fail_errno(err, errno, "fabric", "epoll");
    return TW_OK;
}

static enum tw_code verbs_open(struct tw_fabric *base, void *arg, struct tw_error *err)
{
    struct verbs_fabric *f = (struct verbs_fabric *)base;
    f->set = epoll_create1(EPOLL_CLOEXEC);
    f->again = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->scratch = aligned_alloc(TW_LINE_SIZE, TW_FRAME_MAX);
    enum tw_code code = check_config(f, arg, err);
    if (code)
        return code;
    if (f->set < 0 || f->again < 0 || !f->scratch)
        return tw_fail_errno(err, f->scratch ? errno : ENOMEM, "fabric", "epoll");
    f->events = rdma_create_event_channel();
    if (!f->events)
        return errno == ENODEV || errno == ENOENT
                   ? tw_fail(err, TW_NOT_FOUND, "fabric", NULL, NULL,
                             "this host has no RDMA device")
                   : tw_fail_errno(err, errno, "fabric", "RDMA connection manager");
    const int flags = fcntl(f->events->fd, F_GETFL);
    if (flags < 0 || fcntl(f->events->fd, F_SETFL, flags | O_NONBLOCK))
        return tw_fail_errno(err, errno, "fabric", "RDMA connection manager");
    code = watch(f->set, f->events->fd, err);
    if (!code)
        code = watch(f->set, f->again, err);
    if (!code && base->config.wake_fd > 0)
        code = watch(f->set, base->config.wake_fd, err);
    return code;
}

/* Bounded: what the peer does not take in by then is lost, as it would be with a cut wire. */
static void last_words(struct verbs_fabric *f)
{
    const uint64_t by = tw_after(tw_fabric_now(&f->base), CLOSE_NS);
    while (f->lingering) {
        for (struct verbs_link *link = f->lingering; link; link = link->next)
            verbs_serve(link, TW_LANE_URGENT);
        const uint64_t now = tw_fabric_now(&f->base);
        verbs_lingering_tick(f, now >= by ? TW_NEVER : now);
        const struct timespec nap = {.tv_nsec = 200 * (long)TW_US};
        if (f->lingering)
            nanosleep(&nap, NULL);
    }
}

static void verbs_close(struct tw_fabric *base)
{
    struct verbs_fabric *f = (struct verbs_fabric *)base;
    last_words(f);
    verbs_retired_end(f, true); /* bounded by the kernel: verbs_slow.c */
    if (f->listener)
        rdma_destroy_id(f->listener);
    if (f->cover)
        ibv_destroy_cq(f->cover);
    if (f->completions)
        ibv_destroy_comp_channel(f->completions);
    if (f->events)
        rdma_destroy_event_channel(f->events);
    if (f->set >= 0)
        close(f->set);
    if (f->again >= 0)
        close(f->again);
    free(f->scratch);
}

static int verbs_fd(const struct tw_fabric *base)
{
    return ((const struct verbs_fabric *)base)->set;
}

void tw_fabric_verbs_stats(const struct tw_fabric *fabric, struct tw_verbs_stats *out)
{
    *out = ((const struct verbs_fabric *)fabric)->stats;
}

const char *tw_fabric_verbs_device(const struct tw_fabric *fabric)
{
    const struct verbs_fabric *f = (const struct verbs_fabric *)fabric;
    return f->context ? ibv_get_device_name(f->context->device) : "";
}

/* ---- Connections ----------------------------------------------------------------------------- */

static enum tw_code verbs_connect(struct tw_conn *base, const char *address, struct tw_error *err)
{
    struct verbs_conn *conn = (struct verbs_conn *)base;
    struct verbs_fabric *f = verbs_fabric_of(base);
    enum tw_code code = tcp_address_parse(address, &conn->address, err);
    conn->client = true;
    conn->queues = f->config.bulk_queues;
    if (!code)
        code = verbs_streams_open(conn, base->fabric->config.bulk_credits, err);
    if (!code && !(conn->link = verbs_link_new(conn, err)))
        code = TW_RESOURCE_EXHAUSTED;
    return code ? code : verbs_dial(&conn->link->urgent, err);
}

static enum tw_code verbs_join(struct tw_conn *base, struct tw_error *err)
{
    struct verbs_conn *conn = (struct verbs_conn *)base;
    const enum tw_code code = verbs_chunks_register(conn, err);
    if (!code)
        verbs_dial_bulk(conn);
    return code;
}

/* Bulk that has overtaken READY is due now. */
static void verbs_up(struct tw_conn *base)
{
    struct verbs_conn *conn = (struct verbs_conn *)base;
    if (conn->link)
        conn->link->hot[TW_LANE_BULK] = true;
}

/* May be called from within the link's own completions: it is freed later, in any case. */
static void verbs_hang_up(struct tw_conn *base)
{
    struct verbs_conn *conn = (struct verbs_conn *)base;
    struct verbs_fabric *f = verbs_fabric_of(base);
    struct tw_error why = base->why;
    if (why.code && base->due & 1u << TW_FRAME_GOODBYE)
        f->stats.refused++;
    if (!why.code)
        tw_fail(&why, TW_UNAVAILABLE, NULL, NULL, NULL, "closed before it was up");
    if (conn->request)
        verbs_reject(conn->request, &why);
    conn->request = NULL;
    verbs_link_free(conn->old); /* before the memory that it used */
    conn->old = NULL;
    if (conn->link) {
        const uint64_t posted = conn->link->urgent.posted;
        verbs_flush(base, TW_LANE_BULK);
        verbs_flush(base, TW_LANE_URGENT);
        verbs_link_linger(conn, conn->link->urgent.posted > posted);
        verbs_wake(f);
    } else {
        verbs_memory_put(f, conn->memory);
        verbs_domain_put(f, conn->domain);
    }
    verbs_reads_free(conn);
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        free(conn->out[lane]);
        free(conn->arrived[lane]);
        conn->out[lane] = NULL;
        conn->arrived[lane] = NULL;
    }
}

/* ---- Breaks and reconnects ------------------------------------------------------------------- */

/* Freeing queue pairs says farewell to the peer. With no route to it, that breaks Soft-RoCE's own
 * queue pair for such messages for good, so the old link waits until there is a route.
 *
 * The link has failed. A connection that was up waits for another one until it has been silent for
 * too long; what has arrived on the old one is consumed first. */
void verbs_break(struct verbs_conn *conn)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    struct verbs_link *link = conn->link;
    verbs_serve_all(link);
    if (conn->link != link)
        return;
    if (conn->base.machine.state != TW_CONN_UP) {
        tw_conn_lost(&conn->base, &link->why);
        return;
    }
    tw_log(conn->broken ? TW_LOG_DEBUG : TW_LOG_WARN, "fabric",
           conn->broken ? "not reconnected" : "queue pairs lost", "peer=\"%s\" why=\"%s\"",
           conn->base.label, link->why.what);
    const uint64_t now = tw_fabric_now(&f->base);
    conn->redial_ns = conn->broken ? tw_after(now, REDIAL_NS) : now;
    if (!conn->broken)
        f->stats.breaks++;
    conn->broken = true;
    verbs_reads_rewind(conn);
    conn->link = NULL;
    if (link->urgent.state < VERBS_CONNECTING) {
        verbs_link_free(link);
        return;
    }
    verbs_link_silence(link);
    verbs_link_free(conn->old);
    conn->old = link;
}

/* One try to reconnect; several fit into the idle timeout. */
static uint64_t try_ns(const struct verbs_fabric *f)
{
    const uint64_t third = f->base.config.idle_timeout_ns / 3;
    return third > TW_SEC ? TW_SEC : third;
}

static void redial(struct verbs_conn *conn, uint64_t now_ns)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    struct tw_error err;
    conn->redial_ns = tw_after(now_ns, REDIAL_NS);
    conn->link = verbs_link_new(conn, &err);
    if (!conn->link)
        return;
    conn->link->give_up_ns = tw_after(now_ns, try_ns(f));
    if (verbs_dial(&conn->link->urgent, &err))
        verbs_link_fail_with(conn->link, &err);
}

/* A client that hears nothing, not even answers to its pings, tries new queue pairs before the
 * silence has lasted too long: some transports never tell that a wire was cut. */
static uint64_t suspicious_ns(const struct verbs_conn *conn)
{
    const struct tw_conn *base = &conn->base;
    if (!conn->client || conn->broken || base->machine.state != TW_CONN_UP)
        return TW_NEVER;
    return tw_after(base->heard_ns, base->fabric->config.idle_timeout_ns / 8 * 5);
}

static uint64_t conn_due(const struct verbs_conn *conn)
{
    uint64_t due = suspicious_ns(conn);
    if (conn->link && conn->link->give_up_ns < due)
        due = conn->link->give_up_ns;
    if (conn->link && conn->client) {
        const uint64_t nudge = verbs_nudge_due(conn->link);
        due = nudge < due ? nudge : due;
    }
    if (conn->client && conn->broken && !conn->link && conn->redial_ns < due)
        due = conn->redial_ns;
    return due;
}

static void conn_tick(struct verbs_conn *conn, uint64_t now_ns)
{
    if (!conn->base.hung_up)
        verbs_calls_take(conn);
    if (conn->base.hung_up)
        return;
    if (conn->link && now_ns >= suspicious_ns(conn))
        verbs_link_fail(conn->link, TW_UNAVAILABLE, "the peer does not answer");
    if (conn->link && now_ns >= conn->link->give_up_ns)
        verbs_link_fail(conn->link, TW_DEADLINE_EXCEEDED, "not connected in time");
    if (conn->link && conn->client)
        verbs_nudge(conn->link, now_ns);
    if (conn->link && conn->link->failed)
        verbs_break(conn);
    if (!conn->base.hung_up && conn->client && conn->broken && !conn->link &&
        now_ns >= conn->redial_ns)
        redial(conn, now_ns);
}

static void tick(struct verbs_fabric *f)
{
    const uint64_t now = tw_fabric_now(&f->base);
    for (struct tw_conn *c = f->base.conns; c; c = c->sibling)
        conn_tick((struct verbs_conn *)c, now);
    verbs_lingering_tick(f, now);
    verbs_retired_end(f, false);
}

static uint64_t tick_next(const struct verbs_fabric *f)
{
    uint64_t next = TW_NEVER;
    for (const struct tw_conn *c = f->base.conns; c; c = c->sibling) {
        const uint64_t due = c->hung_up ? TW_NEVER : conn_due((const struct verbs_conn *)c);
        next = due < next ? due : next;
    }
    for (const struct verbs_link *link = f->lingering; link; link = link->next)
        next = link->give_up_ns < next ? link->give_up_ns : next;
    return next;
}

/* ---- Poll ------------------------------------------------------------------------------------ */

/* Sleeps until a descriptor is readable. True when it was the caller's. */
static bool wait_events(struct verbs_fabric *f, uint64_t deadline_ns)
{
    struct epoll_event events[EVENTS_MAX];
    const uint64_t now = tw_fabric_now(&f->base);
    const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    const struct timespec timeout = {.tv_sec = (time_t)(left / TW_SEC),
                                     .tv_nsec = (long)(left % TW_SEC)};
    int n = epoll_pwait2(f->set, events, EVENTS_MAX, left > 3600 * TW_SEC ? NULL : &timeout, NULL);
    if (n < 0 && errno == ENOSYS) {
        const uint64_t ms = (left + TW_MS - 1) / TW_MS;
        n = epoll_wait(f->set, events, EVENTS_MAX, ms > 3600000 ? -1 : (int)ms);
    }
    bool woken = false;
    for (int i = 0; i < n; i++) {
        uint64_t count;
        woken |= events[i].data.fd == f->base.config.wake_fd;
        if (events[i].data.fd == f->again && read(f->again, &count, sizeof count) < 0)
            continue;
    }
    return woken;
}

static bool is_hot(const struct verbs_fabric *f)
{
    for (const struct tw_conn *c = f->base.conns; c; c = c->sibling) {
        const struct verbs_link *link = ((const struct verbs_conn *)c)->link;
        if (link && (link->hot[TW_LANE_URGENT] || link->hot[TW_LANE_BULK]))
            return true;
    }
    return false;
}

static unsigned serve_urgent(struct verbs_fabric *f)
{
    unsigned handled = 0;
    for (struct tw_conn *c = f->base.conns; c; c = c->sibling) {
        struct verbs_conn *conn = (struct verbs_conn *)c;
        if (!c->hung_up && conn->link)
            handled += verbs_serve(conn->link, TW_LANE_URGENT);
    }
    for (struct verbs_link *link = f->lingering; link; link = link->next)
        handled += verbs_serve(link, TW_LANE_URGENT);
    return handled;
}

/* One connection's bulk, once; they take turns. */
static unsigned serve_bulk(struct verbs_fabric *f)
{
    const struct tw_conn *last = NULL;
    for (struct tw_conn *c = f->base.conns; c; c = c->sibling)
        if (c == f->turn)
            last = c;
    struct tw_conn *c = last && last->sibling ? last->sibling : f->base.conns;
    for (uint32_t n = 0; c && n <= f->base.config.max_connections; n++) {
        struct verbs_conn *conn = (struct verbs_conn *)c;
        if (!c->hung_up && conn->link && conn->link->hot[TW_LANE_BULK]) {
            f->turn = c;
            return verbs_serve(conn->link, TW_LANE_BULK);
        }
        c = c->sibling ? c->sibling : f->base.conns;
    }
    return 0;
}

static bool is_reading(const struct verbs_fabric *f)
{
    for (const struct tw_conn *c = f->base.conns; c; c = c->sibling) {
        const struct verbs_conn *conn = (const struct verbs_conn *)c;
        if (!c->hung_up && c->reads.done < c->reads.next && verbs_lane_ready(conn, TW_LANE_URGENT))
            return true;
    }
    return false;
}

/* What is read comes sooner than a thread would wake up, and looking for it takes no system call,
 * as everything about descriptors does. */
static unsigned await_reads(struct verbs_fabric *f, uint64_t deadline_ns)
{
    const uint64_t enough = tw_after(tw_fabric_now(&f->base), SPIN_NS);
    const uint64_t until = deadline_ns < enough ? deadline_ns : enough;
    unsigned handled = 0;
    for (unsigned round = 0; round < ROUNDS;) {
        const unsigned n = serve_urgent(f);
        handled += n;
        round += n > 0;
        if (!n && (handled || tw_fabric_now(&f->base) >= until))
            break;
    }
    return handled;
}

static unsigned verbs_poll(struct tw_fabric *base, uint64_t deadline_ns)
{
    struct verbs_fabric *f = (struct verbs_fabric *)base;
    const uint64_t due = tick_next(f);
    unsigned handled = 0;
    if (due < deadline_ns)
        deadline_ns = due;
    if (is_reading(f)) {
        handled = await_reads(f, deadline_ns);
        const uint64_t now = tw_fabric_now(base);
        if ((handled || now >= deadline_ns) && now - f->looked_ns < LOOK_NS) {
            if (is_hot(f))
                verbs_wake(f);
            return handled;
        }
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        const bool busy = handled || is_hot(f);
        const bool woken = wait_events(f, busy ? 0 : deadline_ns);
        const unsigned events = verbs_cm_events(f) + verbs_completion_events(f);
        unsigned n = serve_urgent(f);
        n += serve_bulk(f);
        tick(f);
        handled += events + n;
        if (woken || (!events && !n && !is_hot(f)))
            break;
    }
    f->looked_ns = tw_fabric_now(base);
    if (is_hot(f))
        verbs_wake(f); /* for those who wait on the descriptor */
    return handled;
}

const struct tw_fabric_backend tw_fabric_verbs = {
    .kind = "verbs",
    .fabric_size = sizeof(struct verbs_fabric),
    .conn_size = sizeof(struct verbs_conn),
    .reads_itself = true,
    .open = verbs_open,
    .close = verbs_close,
    .listen = verbs_listen,
    .connect = verbs_connect,
    .join = verbs_join,
    .up = verbs_up,
    .flush = verbs_flush,
    .hang_up = verbs_hang_up,
    .region_open = verbs_region_open,
    .region_close = verbs_region_close,
    .poll = verbs_poll,
    .fd = verbs_fd,
};
