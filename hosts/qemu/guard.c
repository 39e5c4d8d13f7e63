/* The agent's side of a guarded memory (guard.h): the guest's waits, and what ends them. */
#include "hosts/qemu/guard.h"

#include "hosts/qemu/guard_hello.h"
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

#define WANTED (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM)

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

static struct tw_guarded guarded_of(const struct tw_qemu *q)
{
    return (struct tw_guarded){q->guard.fd, q->guard.base, q->memory.size, q->where};
}

/* Its workers from here on take what the guest touches. */
static enum tw_code begin_work(struct tw_qemu *q, struct tw_error *err)
{
    struct epoll_event e = {.events = EPOLLIN};
    const struct tw_guarded g = guarded_of(q);
    enum tw_code code = tw_fault_crew_open(&g, q->fault_workers, &q->guard.crew, err);
    if (code != TW_OK)
        return code;
    tw_fault_crew_view(q->guard.crew, &q->guard.view);
    epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, tw_fault_crew_fd(q->guard.crew), &e);
    return TW_OK;
}

static enum tw_code begin_guard(struct tw_qemu *q, struct tw_error *err)
{
    struct uffdio_api api = {.api = UFFD_API, .features = WANTED | UFFD_FEATURE_EXACT_ADDRESS};
    struct uffdio_register r = {.range = {q->guard.base, q->memory.size},
                                .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    if (ioctl(q->guard.fd, UFFDIO_API, &api) < 0)
        return tw_fail_errno(err, errno, q->where,
                             "the kernel cannot have memory of a file wait (missing and minor)");
    if (ioctl(q->guard.fd, UFFDIO_REGISTER, &r) < 0)
        return tw_fail_errno(err, errno, q->where, "cannot put RAM under guard");
    enum tw_code code = begin_work(q, err);
    if (code != TW_OK)
        return code;
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
        if (!tw_guard_hello_receive(q->guard.socket, q->memory.size, q->where, &hello, &q->guard.fd,
                                    code, err))
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
static enum tw_code take_over(struct tw_qemu *q, struct tw_error *err)
{
    struct uffdio_range all = {q->guard.base, q->memory.size};
    enum tw_code code = begin_work(q, err);
    if (code == TW_OK && ioctl(q->guard.fd, UFFDIO_WAKE, &all) < 0)
        code = tw_fail_errno(err, errno, q->where, "cannot have those who wait touch again");
    return code;
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
        if (!tw_guard_hello_receive(q->guard.socket, q->memory.size, q->where, &hello, &q->guard.fd,
                                    code, err))
            return false;
        q->guard.base = hello.base;
    }
    hang_up(q);
    if (*code == TW_OK)
        *code = take_over(q, err);
    if (*code != TW_OK)
        tw_guard_close(q);
    return true;
}

void tw_guard_close(struct tw_qemu *q)
{
    hang_up(q);
    tw_fault_crew_close(q->guard.crew); /* its descriptor leaves the set with it */
    q->guard.crew = NULL;
    if (q->guard.fd >= 0)
        close(q->guard.fd);
    q->guard.fd = -1;
}

/* ---- Waits ------------------------------------------------------------------------------------
 */

static void view(void *host, const struct tw_host_fault_view *what)
{
    struct tw_qemu *q = host;
    q->guard.view = what ? *what : (struct tw_host_fault_view){0};
    if (q->guard.crew)
        tw_fault_crew_view(q->guard.crew, what);
}

static size_t take(void *host, struct tw_host_fault *out, size_t max)
{
    const struct tw_qemu *q = host;
    return q->guard.crew ? tw_fault_crew_take(q->guard.crew, out, max) : 0;
}

static enum tw_code ready(void *host, uint64_t page, uint64_t pages, struct tw_error *err)
{
    const struct tw_qemu *q = host;
    const struct tw_guarded g = guarded_of(q);
    return tw_guard_open(&g, page, pages, err);
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
    .guard = guard,
    .rejoin = rejoin,
    .view = view,
    .take = take,
    .ready = ready,
    .release = release,
};
