/* Bytes of a QMP server, cut into reads of any size: neither the line splitter nor the message
 * handling may fall over, and lines do not depend on the cuts.
 *
 * Input: a seed for the cuts, then the bytes. The client gets them through a socket whose other end
 * we hold, after a proper greeting, with two commands outstanding. */
#include "hosts/qemu/qmp.h"

#include "base/random.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct collected {
    uint64_t hash;
    unsigned lines;
};

static bool collect(void *ctx, const char *text, size_t length)
{
    struct collected *c = ctx;
    if (length == 0 || memchr(text, '\n', length))
        abort();
    for (size_t i = 0; i < length; i++)
        c->hash = (c->hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    c->hash ^= ++c->lines;
    return true;
}

static struct collected split(const char *bytes, size_t size, uint64_t seed)
{
    struct collected c = {0};
    struct tw_qmp_lines lines = {0};
    struct tw_random r = {seed};
    while (size > 0) {
        size_t part = seed ? 1 + (size_t)tw_random_below(&r, 50) : size;
        part = part > size ? size : part;
        if (tw_qmp_lines_feed(&lines, bytes, part, collect, &c, NULL))
            abort(); /* inputs are far below the limit */
        bytes += part;
        size -= part;
    }
    tw_qmp_lines_free(&lines);
    return c;
}

static char path[108];
static int listener = -1;

static void remove_socket(void)
{
    unlink(path);
}

static void listen_once(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (listener >= 0)
        return;
    strcpy(path, "/tmp/towline-qmp-fuzz-XXXXXX");
    close(mkstemp(path));
    unlink(path);
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1))
        abort();
    atexit(remove_socket);
}

static void say(int peer, const void *bytes, size_t size)
{
    if (send(peer, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* the client has hung up */
}

static void feed_client(const char *bytes, size_t size, uint64_t seed)
{
    static const char greeting[] = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";
    const struct tw_qmp_config config = {
        .path = path, .clock = &tw_monotonic, .ready_deadline_ns = TW_NEVER, .epoll_fd = -1};
    struct tw_qmp *qmp;
    struct tw_random r = {seed};
    uint64_t a = 0, b = 0;
    enum tw_code code;
    listen_once();
    if (tw_qmp_open(&config, &qmp, NULL))
        abort();
    const int peer = accept(listener, NULL, NULL);
    say(peer, greeting, sizeof greeting - 1);
    tw_qmp_step(qmp);
    if (tw_qmp_send(qmp, "stop", NULL, TW_NEVER, &a, NULL) ||
        tw_qmp_send(qmp, "cont", NULL, TW_NEVER, &b, NULL))
        abort();
    while (size > 0) {
        size_t part = 1 + (size_t)tw_random_below(&r, 200);
        part = part > size ? size : part;
        say(peer, bytes, part);
        tw_qmp_step(qmp);
        bytes += part;
        size -= part;
    }
    close(peer);
    tw_qmp_step(qmp);
    if (tw_qmp_state_get(qmp) != TW_QMP_FAILED || !tw_qmp_take(qmp, a, NULL, &code, NULL) ||
        !tw_qmp_take(qmp, b, NULL, &code, NULL))
        abort(); /* a lost connection ends everything */
    tw_qmp_close(qmp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 65536)
        return 0;
    const uint64_t seed = 1 + data[0];
    const char *bytes = (const char *)data + 1;
    const struct collected whole = split(bytes, size - 1, 0), cut = split(bytes, size - 1, seed);
    if (whole.lines != cut.lines || whole.hash != cut.hash)
        abort();
    feed_client(bytes, size - 1, seed);
    return 0;
}
