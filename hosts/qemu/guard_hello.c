#include "hosts/qemu/guard_hello.h"

#include "base/line.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MAX 8u /* that are taken, to be closed; the kernel closes what is beyond */

/* The one descriptor of a message; several are none, and all of them are closed. */
static int take_descriptor(struct msghdr *m)
{
    int fds[FDS_MAX], kept = -1;
    size_t count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        n = n < FDS_MAX - count ? n : FDS_MAX - count;
        memcpy(fds + count, CMSG_DATA(c), n * sizeof(int));
        count += n;
    }
    if (count == 1 && !(m->msg_flags & MSG_CTRUNC))
        kept = fds[0];
    for (size_t i = 0; i < count; i++)
        if (fds[i] != kept)
            close(fds[i]);
    return kept;
}

static enum tw_code check(const struct tw_guard_hello *h, ssize_t size, int fd, uint64_t ram_size,
                          const char *where, struct tw_error *err)
{
    if (size != (ssize_t)sizeof *h || h->magic != TW_GUARD_MAGIC)
        return tw_fail(err, TW_UNAVAILABLE, where, NULL, NULL,
                       "the plugin did not hand out its memory");
    if (h->error || fd < 0)
        return tw_fail_errno(err, h->error ? (int)(h->error & 0xfff) : EBADF, where,
                             "QEMU cannot have a userfaultfd");
    if (h->size != ram_size || h->base % TW_PAGE_SIZE || h->base > UINT64_MAX - h->size)
        return tw_fail(err, TW_INTERNAL, where, NULL, NULL, "RAM of another size in QEMU");
    return TW_OK;
}

bool tw_guard_hello_receive(int socket, uint64_t ram_size, const char *where,
                            struct tw_guard_hello *hello, int *fd, enum tw_code *code,
                            struct tw_error *err)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec io = {.iov_base = hello, .iov_len = sizeof *hello};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    *fd = -1;
    const ssize_t n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    *fd = n > 0 ? take_descriptor(&m) : -1;
    *code = check(hello, n, *fd, ram_size, where, err);
    if (*code != TW_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return true;
}
