#include "bench/tracking/redis_server.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM     "redis-check-rdb" /* a server when it is called so */
#define PATIENCE    (60 * TW_SEC)
#define POLL_NS     (10 * TW_MS)
#define BATCH       64u /* requests before the answers are read */
#define OK_REPLY    "+OK\r\n"
#define REQUEST     "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012u\r\n$%u\r\n"
#define REQUEST_MAX 64u

static enum tw_code connect_to(struct redis_server *s, struct tw_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const uint64_t deadline = tw_after(tw_now(&tw_monotonic), PATIENCE);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", s->socket);
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return tw_fail_errno(err, errno, s->socket, "socket");
    while (connect(s->fd, (const struct sockaddr *)&address, sizeof address)) {
        if (tw_now(&tw_monotonic) > deadline)
            return tw_fail_errno(err, errno, s->socket, "the server does not come up");
        nanosleep(&(struct timespec){0, (long)POLL_NS}, NULL);
    }
    const struct timeval patience = {.tv_sec = (time_t)(PATIENCE / TW_SEC)};
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return TW_OK;
}

enum tw_code redis_start(struct redis_server *s, const char *preload, struct tw_error *err)
{
    char environment[512];
    *s = (struct redis_server){.fd = -1, .folder = "/tmp/towline-redis-XXXXXX"};
    if (mkdtemp(s->folder) == NULL) {
        const int number = errno;
        s->folder[0] = 0;
        return tw_fail_errno(err, number, "redis", "no folder");
    }
    snprintf(s->socket, sizeof s->socket, "%s/socket", s->folder);
    /* The allocator's own thread blocks all signals: under redis_sigsegv.c it would be killed. */
    const char *const argv[] = {"redis-server",
                                "--port",
                                "0",
                                "--unixsocket",
                                s->socket,
                                "--dir",
                                s->folder,
                                "--save",
                                "",
                                "--appendonly",
                                "no",
                                "--loglevel",
                                "warning",
                                "--jemalloc-bg-thread",
                                "no",
                                NULL};
    snprintf(environment, sizeof environment, "LD_PRELOAD=%s", preload ? preload : "");
    enum tw_code code = child_start(&s->child, PROGRAM, argv, environment, false, err);
    if (code == TW_OK)
        code = connect_to(s, err);
    /* Connected, nobody needs the folder any more; a bench that is killed leaves nothing behind,
     * for the server dies with it. */
    unlink(s->socket);
    rmdir(s->folder);
    if (code)
        redis_end(s);
    return code;
}

void redis_end(struct redis_server *s)
{
    child_end(&s->child);
    if (s->folder[0]) {
        close(s->fd);
    }
    *s = (struct redis_server){0};
}

static uint64_t scramble(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t request(char *out, uint32_t key, uint64_t seed)
{
    size_t at = (size_t)snprintf(out, REQUEST_MAX, REQUEST, (unsigned)key, REDIS_VALUE_BYTES);
    for (unsigned i = 0; i < REDIS_VALUE_BYTES; i += 4) { /* every byte is another one each time */
        const uint64_t bits = scramble(seed + i);
        memcpy(out + at + i, &bits, 4);
    }
    at += REDIS_VALUE_BYTES;
    memcpy(out + at, "\r\n", 2);
    return at + 2;
}

static enum tw_code exchange(struct redis_server *s, const char *out, size_t size, uint32_t replies,
                             struct tw_error *err)
{
    char in[BATCH * (sizeof OK_REPLY - 1)];
    const size_t expected = replies * (sizeof OK_REPLY - 1);
    for (size_t at = 0; at < size;) {
        const ssize_t n = send(s->fd, out + at, size - at, MSG_NOSIGNAL);
        if (n <= 0)
            return tw_fail_errno(err, errno, "redis", "send");
        at += (size_t)n;
    }
    for (size_t at = 0; at < expected;) {
        const ssize_t n = recv(s->fd, in + at, expected - at, 0);
        if (n <= 0)
            return tw_fail_errno(err, n < 0 ? errno : ECONNRESET, "redis", "recv");
        at += (size_t)n;
    }
    for (size_t at = 0; at < expected; at += sizeof OK_REPLY - 1) {
        if (memcmp(in + at, OK_REPLY, sizeof OK_REPLY - 1) != 0)
            return tw_fail(err, TW_INTERNAL, "redis", "OK", NULL, "a SET was refused");
    }
    return TW_OK;
}

enum tw_code redis_set(struct redis_server *s, uint32_t first, uint32_t count,
                       uint32_t random_below, uint64_t seed, struct tw_error *err)
{
    char out[BATCH * (REQUEST_MAX + REDIS_VALUE_BYTES + 2)];
    for (uint32_t done = 0; done < count;) {
        const uint32_t batch = count - done < BATCH ? count - done : BATCH;
        size_t size = 0;
        for (uint32_t i = 0; i < batch; i++, done++) {
            const uint64_t mine = scramble(seed) + done * UINT64_C(0x100000001);
            const uint32_t key =
                random_below ? (uint32_t)(scramble(mine) % random_below) : first + done;
            size += request(out + size, key, mine);
        }
        const enum tw_code code = exchange(s, out, size, batch, err);
        if (code)
            return code;
    }
    return TW_OK;
}
