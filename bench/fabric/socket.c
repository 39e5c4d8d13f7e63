/* The ceiling for a stream: blocking sockets, a sender that writes one block over and over, a
 * receiver that reads into one buffer of the same size and looks at nothing. */
#include "bench/fabric/bench.h"
#include "fabric/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCKS 8192u /* of one measurement, and a hundredth of it before that does not count */

static void receive(struct shared *shared, void *ctx)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    uint8_t *block = ctx;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&a, &size))
        bench_fail("socket", strerror(errno));
    memcpy(shared->address, &a, sizeof a);
    shared->ready = true;
    const int fd = accept(listener, NULL, NULL);
    uint64_t got = 0;
    for (ssize_t n; (n = recv(fd, block, TW_FRAME_MAX, 0)) > 0;) {
        got += (uint64_t)n;
        if (got == (uint64_t)(BLOCKS / 100) * TW_FRAME_MAX ||
            got == (uint64_t)(BLOCKS / 100 + BLOCKS) * TW_FRAME_MAX)
            send(fd, "", 1, 0);
    }
    close(fd);
    close(listener);
}

static void push(int fd, const uint8_t *block, unsigned blocks)
{
    char done;
    for (unsigned i = 0; i < blocks; i++)
        for (size_t at = 0; at < TW_FRAME_MAX;) {
            const ssize_t n = send(fd, block + at, TW_FRAME_MAX - at, MSG_NOSIGNAL);
            if (n <= 0)
                bench_fail("send", strerror(errno));
            at += (size_t)n;
        }
    if (recv(fd, &done, 1, MSG_WAITALL) != 1)
        bench_fail("recv", "no word of the end");
}

static double socket_stream(const struct contender *self)
{
    struct pair pair;
    struct sockaddr_in a;
    const int on = 1;
    (void)self;
    uint8_t *block = memory_new(((TW_FRAME_MAX + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE) * TW_PAGE_SIZE);
    pair_open(&pair, receive, block);
    memcpy(&a, pair.shared->address, sizeof a);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
        bench_fail("connect", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    push(fd, block, BLOCKS / 100);
    const double start = bench_now_s();
    push(fd, block, BLOCKS);
    const double took = bench_now_s() - start;
    close(fd);
    pair_close(&pair);
    free(block);
    return BLOCKS * (double)TW_CHUNK_PAYLOAD / took * 1e-6;
}

const struct contender contender_socket = {.name = "socket", .stream = socket_stream};
