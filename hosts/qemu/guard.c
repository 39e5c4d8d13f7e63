/* The agent's side of a guarded memory (guard.h): the guest's waits, and what ends them. */
#include "hosts/qemu/guard.h"

#include "hosts/qemu/qemu_impl.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TAKEN_AT_ONCE 16u
#define WANTED        (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM)

/* ---- Hand-over of the userfaultfd -------------------------------------------------------------
 */

/* The socket is listened to by the process that the guest is, and by no other. */
static enum tw_code check_plugin(const struct tw_qemu *q, struct tw_error *err)
{
    struct ucred peer = {.pid = -1};
    socklen_t size = sizeof peer;
    char expected[24], given[24];
    if (getsockopt(q->guard.socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
        peer.pid == q->process.pid)
        return TW_OK;
    snprintf(expected, sizeof expected, "process %d", (int)q->process.pid);
    snprintf(given, sizeof given, "process %d", (int)peer.pid);
    return tw_fail(err, TW_PERMISSION_DENIED, q->where, expected, given,
                   "somebody else hands out its memory");
}

static enum tw_code connect_to_plugin(struct tw_qemu *q, struct tw_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct epoll_event e = {.events = EPOLLIN};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", q->guard_path);
    q->guard.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (q->guard.socket < 0 ||
        connect(q->guard.socket, (struct sockaddr *)&address, sizeof address) < 0)
        return tw_fail_errno(err, errno, q->where, "the plugin does not hand out its memory");
    epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->guard.socket, &e);
    return check_plugin(q, err);
}

/* Reads the plugin's word; false = not here yet. */
static bool receive_hello(struct tw_qemu *q, struct tw_guard_hello *h, enum tw_code *code,
                          struct tw_error *err)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec io = {.iov_base = h, .iov_len = sizeof *h};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    const ssize_t n = recvmsg(q->guard.socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&q->guard.fd, CMSG_DATA(c), sizeof(int));
    if (n != (ssize_t)sizeof *h || h->magic != TW_GUARD_MAGIC)
        *code = tw_fail(err, TW_UNAVAILABLE, q->where, NULL, NULL,
                        "the plugin did not hand out its memory");
    else if (h->error || q->guard.fd < 0)
        *code = tw_fail_errno(err, h->error ? (int)h->error : EBADF, q->where,
                              "QEMU cannot have a userfaultfd");
    else if (h->size != q->memory.size || h->base % TW_PAGE_SIZE)
        *code = tw_fail(err, TW_INTERNAL, q->where, NULL, NULL, "RAM of another size in QEMU");
    else
        *code = TW_OK;
    return true;
}

static enum tw_code begin_guard(struct tw_qemu *q, struct tw_error *err)
{
    struct epoll_event e = {.events = EPOLLIN};
    struct uffdio_api api = {.api = UFFD_API, .features = WANTED | UFFD_FEATURE_EXACT_ADDRESS};
    struct uffdio_register r = {.range = {q->guard.base, q->memory.size},
                                .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    if (ioctl(q->guard.fd, UFFDIO_API, &api) < 0)
        return tw_fail_errno(err, errno, q->where,
                             "the kernel cannot have memory of a file wait (missing and minor)");
    if (ioctl(q->guard.fd, UFFDIO_REGISTER, &r) < 0)
        return tw_fail_errno(err, errno, q->where, "cannot put RAM under guard");
    epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->guard.fd, &e);
    if (send(q->guard.socket, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
        return tw_fail_errno(err, errno, q->where, "the plugin does not listen");
    return TW_OK;
}

/* False = the plugin has not answered yet. */
static bool is_closed(struct tw_qemu *q, enum tw_code *code, struct tw_error *err)
{
    char byte;
    const ssize_t n = recv(q->guard.socket, &byte, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    *code = n == 1 ? TW_OK
                   : tw_fail(err, TW_UNAVAILABLE, q->where, NULL, NULL,
                             "the plugin did not close the memory");
    return true;
}

static void hang_up(struct tw_qemu *q)
{
    if (q->guard.socket >= 0)
        close(q->guard.socket);
    q->guard.socket = -1;
}

static bool guard(void *host, enum tw_code *code, struct tw_error *err)
{
    struct tw_qemu *q = host;
    struct tw_guard_hello hello = {0};
    *code = TW_OK;
    if (q->status == TW_QEMU_STARTING)
        return false;
    if (q->guard.socket < 0 && (*code = connect_to_plugin(q, err)) == TW_OK)
        return false;
    if (*code == TW_OK && q->guard.fd < 0) {
        if (!receive_hello(q, &hello, code, err))
            return false;
        q->guard.base = hello.base;
        if (*code == TW_OK && (*code = begin_guard(q, err)) == TW_OK)
            return false;
    } else if (*code == TW_OK && !is_closed(q, code, err)) {
        return false;
    }
    hang_up(q);
    if (*code != TW_OK)
        tw_guard_close(q);
    return true;
}

/* Whoever waited when the last agent ended was told of to that one only: woken, he touches again.
 */
static void take_over(struct tw_qemu *q)
{
    struct epoll_event e = {.events = EPOLLIN};
    struct uffdio_range all = {q->guard.base, q->memory.size};
    epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->guard.fd, &e);
    ioctl(q->guard.fd, UFFDIO_WAKE, &all);
}

/* Asks nothing of the machine itself, whose main loop may be one of those who wait. */
static bool rejoin(void *host, enum tw_code *code, struct tw_error *err)
{
    struct tw_qemu *q = host;
    struct tw_guard_hello hello = {0};
    *code = TW_OK;
    if (q->guard.socket < 0 && (*code = connect_to_plugin(q, err)) == TW_OK)
        return false;
    if (*code == TW_OK) {
        if (!receive_hello(q, &hello, code, err))
            return false;
        q->guard.base = hello.base;
    }
    hang_up(q);
    if (*code == TW_OK)
        take_over(q);
    else
        tw_guard_close(q);
    return true;
}

void tw_guard_close(struct tw_qemu *q)
{
    hang_up(q);
    if (q->guard.fd >= 0) {
        /* QEMU's copy keeps it alive, so closing ours would leave it in the set. */
        epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->guard.fd, NULL);
        close(q->guard.fd);
    }
    q->guard.fd = -1;
}

/* ---- Waits ------------------------------------------------------------------------------------
 */

static size_t take(void *host, struct tw_host_fault *out, size_t max)
{
    const struct tw_qemu *q = host;
    struct uffd_msg messages[TAKEN_AT_ONCE];
    const size_t most = max < TAKEN_AT_ONCE ? max : TAKEN_AT_ONCE;
    const ssize_t n = q->guard.fd < 0 ? -1 : read(q->guard.fd, messages, most * sizeof *messages);
    size_t count = 0;
    for (ssize_t at = 0; at + (ssize_t)sizeof *messages <= n; at += (ssize_t)sizeof *messages) {
        const struct uffd_msg *m = &messages[at / (ssize_t)sizeof *messages];
        const uint64_t address = m->arg.pagefault.address - q->guard.base;
        if (m->event == UFFD_EVENT_PAGEFAULT && address < q->memory.size)
            out[count++].address = address;
    }
    return count;
}

/* A page that is a hole in the file: whoever waits for it gets zeros. */
static int open_hole(const struct tw_qemu *q, uint64_t address)
{
    struct uffdio_zeropage z = {.range = {address, TW_PAGE_SIZE}};
    return ioctl(q->guard.fd, UFFDIO_ZEROPAGE, &z) == 0 || errno == EEXIST ? 0 : errno;
}

/* A page that is mapped already has nobody waiting but who came just before. */
static void wake(const struct tw_qemu *q, uint64_t address)
{
    struct uffdio_range range = {address, TW_PAGE_SIZE};
    ioctl(q->guard.fd, UFFDIO_WAKE, &range);
}

/* Maps as much as goes from `address` on; returns the bytes, or 0 and *number. */
static uint64_t map_some(const struct tw_qemu *q, uint64_t address, uint64_t bytes, int *number)
{
    struct uffdio_continue c = {.range = {address, bytes}};
    if (ioctl(q->guard.fd, UFFDIO_CONTINUE, &c) == 0)
        return bytes;
    *number = errno;
    return c.mapped > 0 && (uint64_t)c.mapped < bytes ? (uint64_t)c.mapped : 0;
}

static enum tw_code ready(void *host, uint64_t page, uint64_t pages, struct tw_error *err)
{
    const struct tw_qemu *q = host;
    uint64_t at = q->guard.base + page * TW_PAGE_SIZE;
    const uint64_t first = at, end = at + pages * TW_PAGE_SIZE;
    while (at < end && q->guard.fd >= 0) {
        int number = 0;
        const uint64_t mapped = map_some(q, at, end - at, &number);
        at += mapped;
        if (mapped || number == EAGAIN || number == EINTR)
            continue;
        const bool hole = number == EFAULT || number == ENOENT;
        if (number == ESRCH || (hole && at != first))
            return TW_OK; /* the process has ended, or what follows can wait for its own touch */
        if (hole)
            number = open_hole(q, at);
        else if (number == EEXIST)
            number = (wake(q, at), 0);
        if (number)
            return tw_fail_errno(err, number, q->where, "cannot let the guest at page %llu",
                                 (unsigned long long)((at - q->guard.base) / TW_PAGE_SIZE));
        at += TW_PAGE_SIZE;
    }
    return TW_OK;
}

static void release(void *host)
{
    struct tw_qemu *q = host;
    struct uffdio_range all = {q->guard.base, q->memory.size};
    if (q->guard.fd >= 0)
        ioctl(q->guard.fd, UFFDIO_UNREGISTER, &all); /* wakes whoever waits */
    tw_guard_close(q);
}

const struct tw_host_fault_ops tw_guard_ops = {
    .guard = guard, .rejoin = rejoin, .take = take, .ready = ready, .release = release};
