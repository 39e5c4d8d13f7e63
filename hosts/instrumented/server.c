/* The agent's socket: programs come here for their file. */
#include "hosts/instrumented/server.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG    64
#define PEER_PIDFD 77 /* SO_PEERPIDFD, Linux 6.5 */

struct tw_instrumented_server {
    int fd;
    struct sockaddr_un address;
};

static int connect_to(const struct sockaddr_un *address)
{
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    const int result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    const int number = errno;
    close(fd);
    errno = number;
    return result;
}

/* A socket that its owner left behind. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && connect_to(address) < 0 &&
        errno == ECONNREFUSED)
        unlink(address->sun_path);
}

static enum tw_code open_socket(const struct sockaddr_un *address, mode_t rights, int *fd,
                                struct tw_error *err)
{
    const char *path = address->sun_path;
    *fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return tw_fail_errno(err, errno, path, "cannot make a socket");
    remove_stale(address);
    if (bind(*fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return tw_fail_errno(err, errno, path, "cannot bind the socket");
    if (chmod(path, rights) < 0 || listen(*fd, BACKLOG) < 0) {
        const int number = errno;
        unlink(path);
        return tw_fail_errno(err, number, path, "cannot listen");
    }
    return TW_OK;
}

enum tw_code tw_instrumented_listen(const char *path, bool everybody,
                                    struct tw_instrumented_server **server, struct tw_error *err)
{
    struct tw_instrumented_server *s = calloc(1, sizeof *s);
    *server = NULL;
    if (s == NULL)
        return tw_fail_errno(err, ENOMEM, path, "cannot listen");
    s->address.sun_family = AF_UNIX;
    if (strlen(path) == 0 || strlen(path) >= sizeof s->address.sun_path) {
        free(s);
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "a path of up to 107 bytes", NULL,
                       "unusable for a unix socket");
    }
    memcpy(s->address.sun_path, path, strlen(path));
    const enum tw_code code = open_socket(&s->address, everybody ? 0666 : 0600, &s->fd, err);
    if (code) {
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return code;
    }
    *server = s;
    return TW_OK;
}

int tw_instrumented_server_fd(const struct tw_instrumented_server *server)
{
    return server->fd;
}

void tw_instrumented_server_close(struct tw_instrumented_server *server)
{
    if (server == NULL)
        return;
    unlink(server->address.sun_path);
    close(server->fd);
    free(server);
}

/* ---- The handshake --------------------------------------------------------------------------- */

static enum tw_code wait_readable(int fd, const char *where, uint64_t deadline_ns,
                                  struct tw_error *err)
{
    for (;;) {
        const uint64_t now = tw_now(&tw_monotonic);
        if (now >= deadline_ns)
            return tw_fail(err, TW_DEADLINE_EXCEEDED, where, NULL, NULL, "no program spoke");
        uint64_t wait_ms = (deadline_ns - now) / TW_MS + 1;
        wait_ms = wait_ms > 60000 ? 60000 : wait_ms;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int ready = poll(&p, 1, (int)wait_ms);
        if (ready > 0)
            return TW_OK;
        if (ready < 0 && errno != EINTR)
            return tw_fail_errno(err, errno, where, "cannot wait for a program");
    }
}

static enum tw_code receive(int fd, void *message, size_t size, uint64_t deadline_ns,
                            struct tw_error *err)
{
    const enum tw_code code = wait_readable(fd, "connection", deadline_ns, err);
    if (code)
        return code;
    const ssize_t got = recv(fd, message, size, MSG_TRUNC);
    if (got < 0)
        return tw_fail_errno(err, errno, "connection", "cannot receive");
    if (got == 0)
        return tw_fail(err, TW_UNAVAILABLE, "connection", NULL, NULL, "the program went away");
    if ((size_t)got != size)
        return tw_fail(err, TW_INVALID_ARGUMENT, "connection", NULL, NULL,
                       "message of %zd bytes where one has %zu", got, size);
    return TW_OK;
}

enum tw_code tw_inst_hello_check(const void *bytes, size_t size, struct tw_inst_hello *hello,
                                 struct tw_error *err)
{
    if (size != sizeof *hello)
        return tw_fail(err, TW_INVALID_ARGUMENT, "connection", "a hello of 16 bytes", NULL,
                       "message of %zu bytes", size);
    memcpy(hello, bytes, sizeof *hello);
    if (hello->magic != TW_INST_MAGIC || hello->version != TW_INST_VERSION) {
        char expected[32], given[32];
        snprintf(expected, sizeof expected, "version %u of the runtime", TW_INST_VERSION);
        snprintf(given, sizeof given, "%u", hello->version);
        return tw_fail(err, TW_INVALID_ARGUMENT, "connection", expected, given,
                       "not an instrumented program, or of another version");
    }
    return TW_OK;
}

/* The process that connected, whatever it says of itself. Where the kernel cannot give a descriptor
 * of the peer itself, one of its number is made at once. */
enum tw_code tw_inst_peer(int fd, struct tw_inst_peer *peer, struct tw_error *err)
{
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
        return tw_fail_errno(err, errno, "connection", "cannot tell whose it is");
    if (credentials.pid <= 0)
        return tw_fail(err, TW_PERMISSION_DENIED, "connection", "a process that we can see", NULL,
                       "the program is of another pid namespace");
    *peer = (struct tw_inst_peer){.pid = credentials.pid, .uid = credentials.uid};
    size = sizeof peer->pidfd;
    if (getsockopt(fd, SOL_SOCKET, PEER_PIDFD, &peer->pidfd, &size) < 0)
        peer->pidfd = (int)syscall(SYS_pidfd_open, peer->pid, 0);
    if (peer->pidfd < 0)
        return tw_fail_errno(err, errno, "connection", "the program has ended");
    return TW_OK;
}

enum tw_code tw_inst_receive_hello(int fd, uint64_t deadline_ns, struct tw_inst_hello *hello,
                                   struct tw_error *err)
{
    const enum tw_code code = receive(fd, hello, sizeof *hello, deadline_ns, err);
    return code ? code : tw_inst_hello_check(hello, sizeof *hello, hello, err);
}

enum tw_code tw_inst_send_order(int fd, enum tw_inst_mode mode, uint32_t flags, int file,
                                struct tw_error *err)
{
    struct tw_inst_order order = {.magic = TW_INST_MAGIC,
                                  .version = TW_INST_VERSION,
                                  .mode = (uint32_t)mode,
                                  .file_bytes = TW_INST_FILE_BYTES,
                                  .flags = flags};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = &order, .iov_len = sizeof order};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (file >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof file);
        memcpy(CMSG_DATA(c), &file, sizeof file);
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof order)
        return tw_fail_errno(err, errno, "connection", "cannot tell the program");
    return TW_OK;
}

enum tw_code tw_inst_receive_ready(int fd, uint64_t deadline_ns, struct tw_error *err)
{
    struct tw_inst_ready ready;
    const enum tw_code code = receive(fd, &ready, sizeof ready, deadline_ns, err);
    if (code)
        return code;
    if (ready.magic != TW_INST_MAGIC)
        return tw_fail(err, TW_INVALID_ARGUMENT, "connection", NULL, NULL, "unexpected answer");
    return TW_OK;
}

int tw_inst_accept_now(struct tw_instrumented_server *server)
{
    return accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

enum tw_code tw_inst_take_connection(struct tw_instrumented_server *server, uint64_t deadline_ns,
                                     int *fd, struct tw_error *err)
{
    const char *path = server->address.sun_path;
    const enum tw_code code = wait_readable(server->fd, path, deadline_ns, err);
    if (code)
        return code;
    *fd = tw_inst_accept_now(server);
    return *fd < 0 ? tw_fail_errno(err, errno, path, "cannot accept") : TW_OK;
}
