#include "hosts/instrumented/lobby.h"

#include "hosts/instrumented/server.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE       (10 * TW_SEC) /* with one that has connected and not said hello */
#define ACCEPTS_A_TURN 16u
#define EVENTS_A_TURN  64

struct guest {
    struct tw_inst_peer peer;
    int fd;
    bool known;     /* it has said hello */
    bool same_pids; /* it sees its pid as we do */
    bool answered;  /* told that it is not tracked, or is */
    uint64_t since_ns;
    struct guest *next;
};

struct tw_lobby {
    struct tw_instrumented_server *server;
    int epoll;
    struct guest *guests;
    unsigned count, unknown;
    pid_t awaited; /* 0: nobody */
};

/* ---- Open and close -------------------------------------------------------------------------- */

static enum tw_code attend(const struct tw_lobby *l, int fd, void *what, struct tw_error *err)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = what};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return TW_OK;
    return tw_fail_errno(err, errno, "lobby", "cannot attend to another program");
}

enum tw_code tw_lobby_open(const char *path, struct tw_lobby **lobby, struct tw_error *err)
{
    struct tw_lobby *l = calloc(1, sizeof *l);
    *lobby = NULL;
    if (l == NULL)
        return tw_fail_errno(err, ENOMEM, path, "cannot listen");
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    enum tw_code code = l->epoll < 0 ? tw_fail_errno(err, errno, path, "cannot listen") : TW_OK;
    if (code == TW_OK)
        code = tw_instrumented_listen(path, true, &l->server, err);
    if (code == TW_OK)
        code = attend(l, tw_instrumented_server_fd(l->server), NULL, err);
    if (code) {
        tw_lobby_close(l);
        return code;
    }
    *lobby = l;
    return TW_OK;
}

static void leave(struct tw_lobby *l, struct guest *g)
{
    struct guest **link = &l->guests;
    while (*link != g)
        link = &(*link)->next;
    *link = g->next;
    l->count--;
    l->unknown -= !g->known;
    /* A program object has the connection open as well, so closing ours would not end this. */
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, g->fd, NULL);
    close(g->peer.pidfd);
    close(g->fd);
    free(g);
}

void tw_lobby_close(struct tw_lobby *lobby)
{
    if (lobby == NULL)
        return;
    while (lobby->guests)
        leave(lobby, lobby->guests);
    tw_instrumented_server_close(lobby->server);
    if (lobby->epoll >= 0)
        close(lobby->epoll);
    free(lobby);
}

int tw_lobby_fd(const struct tw_lobby *lobby)
{
    return lobby->epoll;
}

static void refused(const struct tw_error *err)
{
    char text[512];
    tw_log(TW_LOG_WARN, "lobby", "program refused", "error=%s",
           tw_error_text(err, text, sizeof text));
}

/* ---- Coming and going ------------------------------------------------------------------------ */

static bool has_room_for(const struct tw_lobby *l, uid_t uid)
{
    unsigned same = 0;
    for (const struct guest *g = l->guests; g; g = g->next)
        same += g->peer.uid == uid;
    return l->count < TW_LOBBY_PROGRAMS_MAX && (uid == 0 || same < TW_LOBBY_USER_MAX);
}

static enum tw_code take_on(struct tw_lobby *l, int fd, uint64_t now_ns, struct tw_error *err)
{
    struct tw_inst_peer peer;
    const enum tw_code code = tw_inst_peer(fd, &peer, err);
    if (code)
        return code;
    struct guest *g = has_room_for(l, peer.uid) ? calloc(1, sizeof *g) : NULL;
    if (g == NULL || attend(l, fd, g, err)) {
        free(g);
        close(peer.pidfd);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "lobby", NULL, NULL,
                       "no room for another program of uid %u", (unsigned)peer.uid);
    }
    *g = (struct guest){.peer = peer, .fd = fd, .since_ns = now_ns, .next = l->guests};
    l->guests = g;
    l->count++;
    l->unknown++;
    return TW_OK;
}

static void accept_some(struct tw_lobby *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        struct tw_error err;
        const int fd = tw_inst_accept_now(l->server);
        if (fd < 0)
            return;
        if (take_on(l, fd, now_ns, &err)) {
            refused(&err);
            close(fd);
        }
    }
}

static bool is_alive(const struct guest *g)
{
    struct pollfd fds[] = {{.fd = g->fd, .events = POLLRDHUP},
                           {.fd = g->peer.pidfd, .events = POLLIN}};
    return poll(fds, 2, 0) == 0;
}

/* False when the program must leave. After its hello a program says only what it is asked. */
static bool hear(struct tw_lobby *l, struct guest *g)
{
    uint8_t bytes[sizeof(struct tw_inst_hello) + 1];
    struct tw_inst_hello hello;
    struct tw_error err;
    const ssize_t got = recv(g->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (g->known || got == 0)
        return false;
    if (tw_inst_hello_check(bytes, (size_t)got, &hello, &err)) {
        refused(&err);
        return false;
    }
    g->known = true;
    l->unknown--;
    g->same_pids = (pid_t)hello.pid == g->peer.pid;
    if (g->peer.pid == l->awaited)
        return true; /* it waits for its order */
    g->answered = true;
    return tw_inst_send_order(g->fd, TW_INST_DETACHED, 0, -1, NULL) == TW_OK;
}

static void drop_silent(struct tw_lobby *l, uint64_t now_ns)
{
    struct guest *next;
    for (struct guest *g = l->guests; g && l->unknown; g = next) {
        next = g->next;
        if (!g->known && now_ns - g->since_ns >= PATIENCE)
            leave(l, g);
    }
}

void tw_lobby_serve(struct tw_lobby *lobby, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_A_TURN];
    const int count = epoll_wait(lobby->epoll, events, EVENTS_A_TURN, 0);
    bool arrived = false;
    for (int i = 0; i < count; i++) {
        struct guest *g = events[i].data.ptr;
        if (g == NULL)
            arrived = true;
        else if (!hear(lobby, g) || !is_alive(g))
            leave(lobby, g);
    }
    if (arrived)
        accept_some(lobby, now_ns);
    drop_silent(lobby, now_ns);
}

/* ---- Being tracked --------------------------------------------------------------------------- */

/* The one that came last: an earlier one of this number may not have been noticed to be gone. */
static struct guest *find(const struct tw_lobby *l, pid_t pid)
{
    for (struct guest *g = l->guests; g; g = g->next) {
        if (g->peer.pid == pid && g->known && is_alive(g))
            return g;
    }
    return NULL;
}

bool tw_lobby_knows(const struct tw_lobby *lobby, pid_t pid)
{
    return find(lobby, pid) != NULL;
}

bool tw_lobby_await(struct tw_lobby *lobby, pid_t pid, uint64_t deadline_ns)
{
    lobby->awaited = pid;
    uint64_t now = tw_now(&tw_monotonic);
    while (find(lobby, pid) == NULL && now < deadline_ns) {
        struct pollfd p = {.fd = lobby->epoll, .events = POLLIN};
        poll(&p, 1, (int)((deadline_ns - now) / TW_MS) + 1);
        now = tw_now(&tw_monotonic);
        tw_lobby_serve(lobby, now);
    }
    lobby->awaited = 0;
    return find(lobby, pid) != NULL;
}

void tw_lobby_let_go(struct tw_lobby *lobby, pid_t pid)
{
    struct guest *g = find(lobby, pid);
    if (g == NULL || g->answered)
        return;
    g->answered = true;
    if (tw_inst_send_order(g->fd, TW_INST_DETACHED, 0, -1, NULL))
        leave(lobby, g);
}

enum tw_code tw_lobby_track(struct tw_lobby *lobby, pid_t pid,
                            const struct tw_instrumented_config *config, uint64_t deadline_ns,
                            struct tw_instrumented **program, struct tw_error *err)
{
    struct guest *g = find(lobby, pid);
    *program = NULL;
    if (g == NULL)
        return tw_fail(err, TW_NOT_FOUND, "lobby", "a program that runs with our runtime", NULL,
                       "program %d has not made itself known", (int)pid);
    const bool hold = !g->answered;
    g->answered = true;
    const enum tw_code code =
        tw_inst_engage(g->fd, &g->peer, g->same_pids, hold, config, deadline_ns, program, err);
    /* Nobody can tell what one that did not answer in time will say later. */
    if (code)
        leave(lobby, g);
    return code;
}
