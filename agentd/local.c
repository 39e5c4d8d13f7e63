/* Connections: accepted, counted, read and written without waiting. */
#include "agentd/local_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE       (10 * TW_SEC)
#define BACKLOG        16
#define ACCEPTS_A_TURN 8u

/* ---- Open and close ------------------------------------------------------------------------- */

/* A socket of this name that nobody serves any more is removed. */
static enum tw_code stale_remove(const struct sockaddr_un *address, struct tw_error *err)
{
    struct stat st;
    const char *path = address->sun_path;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? TW_OK : tw_fail_errno(err, errno, path, "tracking_socket");
    if (!S_ISSOCK(st.st_mode))
        return tw_fail(err, TW_FAILED_PRECONDITION, path, "nothing, or a socket", NULL,
                       "tracking_socket: something else is there");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "tracking_socket");
    int result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    int number = errno;
    close(fd);
    if (result == 0 || number != ECONNREFUSED)
        return tw_fail(err, TW_FAILED_PRECONDITION, path, NULL, NULL,
                       "tracking_socket: another agent serves it");
    if (unlink(path) != 0)
        return tw_fail_errno(err, errno, path, "tracking_socket: cannot remove the old one");
    return TW_OK;
}

/* Everybody may connect: what he may do is decided by who he is. */
static enum tw_code listen_on(struct tw_local *l, const struct sockaddr_un *address,
                              struct tw_error *err)
{
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || bind(l->fd, (const struct sockaddr *)address, sizeof *address) != 0)
        return tw_fail_errno(err, errno, address->sun_path, "tracking_socket: cannot bind");
    snprintf(l->path, sizeof l->path, "%s", address->sun_path);
    if (chmod(l->path, 0666) != 0 || listen(l->fd, BACKLOG) != 0)
        return tw_fail_errno(err, errno, address->sun_path, "tracking_socket: cannot listen");
    return TW_OK;
}

enum tw_code tw_local_open(const char *path, struct tw_tracking *tracking,
                           struct tw_attacher *attacher, struct tw_local **local,
                           struct tw_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return tw_fail(err, TW_INVALID_ARGUMENT, "tracking_socket", "at most 107 bytes", path,
                       "too long for a socket");
    memcpy(address.sun_path, path, strlen(path));
    enum tw_code code = stale_remove(&address, err);
    if (code)
        return code;
    struct tw_local *l = calloc(1, sizeof *l);
    if (!l)
        return tw_fail_errno(err, ENOMEM, path, "tracking_socket");
    l->tracking = tracking;
    l->attacher = attacher;
    code = listen_on(l, &address, err);
    if (code)
        tw_local_close(l);
    else
        *local = l;
    return code;
}

void tw_local_show_guests(struct tw_local *local, struct tw_guests *guests)
{
    local->guests = guests;
}

static void conn_close(struct tw_local_conn *c)
{
    struct tw_local_conn **link = &c->local->conns;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    c->local->count--;
    if (c->caught)
        tw_attacher_let_go(c->local->attacher, c->caught);
    tw_tracking_session_close(c->session);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

void tw_local_close(struct tw_local *local)
{
    if (!local)
        return;
    while (local->conns)
        conn_close(local->conns);
    if (local->path[0])
        unlink(local->path);
    if (local->fd >= 0)
        close(local->fd);
    free(local);
}

/* ---- Accepting ------------------------------------------------------------------------------ */

static bool room_for(const struct tw_local *l, uid_t uid)
{
    unsigned same = 0;
    for (const struct tw_local_conn *c = l->conns; c; c = c->next)
        same += c->caller.uid == uid;
    return l->count < TW_LOCAL_CONNECTIONS_MAX && (uid == 0 || same < TW_LOCAL_USER_MAX);
}

static void take_on(struct tw_local *l, int fd, uint64_t now_ns)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    struct tw_local_conn *c = NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && room_for(l, peer.uid))
        c = calloc(1, sizeof *c);
    if (c) {
        *c = (struct tw_local_conn){.local = l, .fd = fd, .since_ns = now_ns, .next = l->conns};
        c->caller = (struct tw_local_caller){peer.uid, peer.gid, peer.pid};
        c->in = malloc(TW_LOCAL_MESSAGE_MAX);
        c->out = malloc(TW_LOCAL_MESSAGE_MAX);
    }
    if (!c || !c->in || !c->out) {
        tw_log(TW_LOG_WARN, "tracking", "connection refused", "connections=%u", l->count);
        if (c) {
            free(c->in);
            free(c->out);
            free(c);
        }
        close(fd);
        return;
    }
    l->conns = c;
    l->count++;
}

/* ---- Reading and writing -------------------------------------------------------------------- */

void tw_local_answer(struct tw_local_conn *c, size_t body_length)
{
    const struct tw_local_header header = {.magic = TW_LOCAL_MAGIC,
                                           .version = TW_LOCAL_VERSION,
                                           .kind = (uint16_t)c->request.kind,
                                           .length = (uint32_t)body_length};
    memcpy(c->out, &header, sizeof header);
    c->length = sizeof header + body_length;
    c->sent = 0;
    c->phase = TW_LOCAL_ANSWERING;
}

void tw_local_refuse(struct tw_local_conn *c, enum tw_code code, const struct tw_error *err)
{
    char *text = tw_local_body(c);
    tw_error_text(err, text, TW_LOCAL_TEXT_MAX);
    tw_local_answer(c, strlen(text));
    ((struct tw_local_header *)(void *)c->out)->code = (uint32_t)code;
}

/* Whole requests become work. */
static void understand(struct tw_local_conn *c)
{
    struct tw_local_header header;
    struct tw_error err = {0};
    if (c->have < sizeof header)
        return;
    memcpy(&header, c->in, sizeof header);
    enum tw_code code = tw_local_header_check(&header, &err);
    if (code) {
        c->closing = true;
        c->request.kind = (enum tw_local_kind)header.kind;
        tw_local_refuse(c, code, &err);
        return;
    }
    if (c->have < sizeof header + header.length)
        return;
    code = tw_local_request_parse(&header, c->in + sizeof header, &c->request, &err);
    c->begun = false;
    c->phase = TW_LOCAL_WORKING;
    if (code)
        tw_local_refuse(c, code, &err);
}

/* How much of the present request is missing; never more, so that `in` holds one request. */
static size_t missing(const struct tw_local_conn *c)
{
    struct tw_local_header header;
    if (c->have < sizeof header)
        return sizeof header - c->have;
    memcpy(&header, c->in, sizeof header);
    return sizeof header + header.length - c->have;
}

/* False when the peer is gone. */
static bool conn_read(struct tw_local_conn *c, uint64_t now_ns)
{
    while (c->phase == TW_LOCAL_READING) {
        size_t want = missing(c);
        ssize_t n = want ? recv(c->fd, c->in + c->have, want, MSG_DONTWAIT) : 0;
        if (want && n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        c->have += (size_t)n;
        c->since_ns = now_ns;
        understand(c);
    }
    return true;
}

static bool conn_write(struct tw_local_conn *c, uint64_t now_ns)
{
    ssize_t n = send(c->fd, c->out + c->sent, c->length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->sent += (size_t)n;
    c->since_ns = now_ns;
    if (c->sent < c->length)
        return true;
    c->phase = TW_LOCAL_READING;
    c->have = 0;
    return !c->closing;
}

/* A peer that closed while we work for it. */
static bool hung_up(const struct tw_local_conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* One connection's turn. False when it is over. */
static bool conn_serve(struct tw_local_conn *c, uint64_t now_ns, bool *more)
{
    if (c->phase == TW_LOCAL_READING && !conn_read(c, now_ns))
        return false;
    if (c->phase == TW_LOCAL_WORKING) {
        if (hung_up(c))
            return false;
        *more |= tw_local_work(c);
        c->since_ns = now_ns;
    }
    if (c->phase == TW_LOCAL_ANSWERING && !conn_write(c, now_ns))
        return false;
    bool waits_for_peer = c->phase == TW_LOCAL_ANSWERING || c->have > 0;
    return !waits_for_peer || now_ns - c->since_ns < PATIENCE;
}

bool tw_local_serve(struct tw_local *local, uint64_t now_ns)
{
    bool more = false;
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(local->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            break;
        take_on(local, fd, now_ns);
    }
    for (struct tw_local_conn *c = local->conns, *next; c; c = next) {
        next = c->next;
        if (!conn_serve(c, now_ns, &more))
            conn_close(c);
    }
    return more;
}

nfds_t tw_local_poll(const struct tw_local *local, struct pollfd fds[1 + TW_LOCAL_CONNECTIONS_MAX])
{
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = local->fd, .events = POLLIN};
    for (const struct tw_local_conn *c = local->conns; c; c = c->next)
        fds[n++] = (struct pollfd){.fd = c->fd,
                                   .events = c->phase == TW_LOCAL_ANSWERING ? POLLOUT
                                             : c->phase == TW_LOCAL_WORKING ? POLLRDHUP
                                                                            : POLLIN};
    return n;
}
