/* First words of a plugin out of arbitrary bytes, with 0 to 11 descriptors: what is taken is in
 * range, and no descriptor is left open. */
#include "hosts/qemu/guard_hello.h"

#include "base/line.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RAM      (UINT64_C(64) << 20)
#define SENT_MAX 12u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The number that the next descriptor gets: the same as before when none was leaked. */
static int next_number(int like)
{
    int fd = dup(like);
    if (fd < 0)
        abort();
    close(fd);
    return fd;
}

static void send_word(int to, int fd, unsigned count, const void *bytes, size_t size)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(SENT_MAX * sizeof(int))];
    } control = {0};
    struct iovec io = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (count) {
        m.msg_control = control.room;
        m.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        for (unsigned i = 0; i < count; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof fd);
    }
    if (sendmsg(to, &m, MSG_NOSIGNAL) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tw_guard_hello h = {TW_GUARD_MAGIC, 0, RAM, 0, 0};
    uint8_t word[64];
    int ends[2], fd;
    enum tw_code code = TW_OK;
    if (size < 2)
        return 0;
    size_t length = size - 2 < sizeof word ? size - 2 : sizeof word;
    memcpy(word, data + 2, length);
    if (data[0] & 1 && length >= sizeof h) { /* well begun: magic and size are right */
        h.base = (uint64_t)word[0] << 12 | (uint64_t)(word[1] & 1) << 63 | (word[2] & 1u);
        h.error = word[3] & 1 ? word[4] : 0;
        memcpy(word, &h, sizeof h);
        length = data[0] & 2 ? sizeof h : length;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    const int before = next_number(ends[0]);
    if (length)
        send_word(ends[1], ends[1], data[1] % SENT_MAX, word, length);
    bool here = tw_guard_hello_receive(ends[0], RAM, "fuzz", &h, &fd, &code, NULL);
    if (here != (length > 0) || (here && (code == TW_OK) != (fd >= 0)))
        abort();
    if (fd >= 0) {
        if (h.size != RAM || h.base % TW_PAGE_SIZE || h.base > UINT64_MAX - RAM)
            abort();
        close(fd);
    }
    if (next_number(ends[0]) != before)
        abort();
    close(ends[0]);
    close(ends[1]);
    return 0;
}
