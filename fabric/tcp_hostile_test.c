/* Strangers and liars on real sockets: nothing that they do may crash, hang or starve the others.
 */
#include "fabric/contract.h"
#include "fabric/tcp.h"
#include "pki/tls.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world *w;

static void setup(void)
{
    w = world_open(false, NULL, NULL);
}

static void setup_tls(void)
{
    signal(SIGPIPE, SIG_IGN); /* OpenSSL's own sockets raise it */
    world_use_tls();
    setup();
}

static void teardown(void)
{
    world_close(w);
}

TestSuite(hostile, .init = setup, .fini = teardown, .timeout = 120);
TestSuite(hostile_tls, .init = setup_tls, .fini = teardown, .timeout = 120);

/* In plain text, and by an agent whose certificate is good. */
#define HOSTILE(name)                                                                              \
    static void name(void);                                                                        \
    Test(hostile, name)                                                                            \
    {                                                                                              \
        name();                                                                                    \
    }                                                                                              \
    Test(hostile_tls, name)                                                                        \
    {                                                                                              \
        name();                                                                                    \
    }                                                                                              \
    static void name(void)

/* ---- A peer by hand -------------------------------------------------------------------------- */

#define FDS_MAX 1024
static SSL *secured[FDS_MAX]; /* by descriptor; NULL: plain */

/* As agent b. */
static void secure(int fd)
{
    SSL_CTX *context = tw_tls_context(w->b.tls);
    SSL *ssl = secured[fd] = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(ssl, fd);
    for (unsigned tries = 0; SSL_connect(ssl) != 1; tries++) {
        cr_assert_lt(tries, 2000);
        tw_fabric_poll(w->a.fabric, tw_now(w->clock) + TW_MS);
    }
}

static ssize_t wire_send(int fd, const void *bytes, size_t size)
{
    if (!secured[fd])
        return send(fd, bytes, size, MSG_NOSIGNAL);
    const int n = SSL_write(secured[fd], bytes, (int)size);
    errno = SSL_get_error(secured[fd], n) == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return n;
}

static ssize_t wire_recv(int fd, void *into, size_t size)
{
    if (!secured[fd])
        return recv(fd, into, size, 0);
    const int n = SSL_read(secured[fd], into, (int)size);
    errno = SSL_get_error(secured[fd], n) == SSL_ERROR_WANT_READ ? EAGAIN : EPIPE;
    return n;
}

static void hang(int fd)
{
    SSL_free(secured[fd]);
    secured[fd] = NULL;
    close(fd);
}

static int dial(void)
{
    union tcp_address address;
    cr_assert_eq(tcp_address_parse(tw_fabric_address(w->a.fabric), &address, NULL), TW_OK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, &address.any, tcp_address_size(&address)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    cr_assert_lt(fd, FDS_MAX);
    if (w->b.tls)
        secure(fd);
    return fd;
}

/* Sends what goes; the world turns between the pieces. A closed socket is not a failure here. */
static void put(int fd, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (unsigned tries = 0; size; tries++) {
        cr_assert_lt(tries, 2000, "%zu bytes do not go", size);
        const ssize_t n = wire_send(fd, at, size);
        if (n < 0 && errno != EAGAIN)
            return;
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
        tw_fabric_poll(w->a.fabric, n > 0 ? 0 : tw_now(w->clock) + TW_MS);
    }
}

static void put_frame(int fd, struct tw_frame_header h, const void *payload, uint32_t length)
{
    tw_frame_seal(&h, payload, length);
    put(fd, &h, sizeof h);
    put(fd, payload, length);
}

static void put_hello(int fd, struct tw_hello hello, uint64_t bulk, uint64_t urgent)
{
    uint8_t bytes[TW_HELLO_BYTES];
    if (!hello.version)
        hello.version = hello.version_min = 1;
    strcpy(hello.name, "b");
    tw_hello_encode(&hello, bytes);
    put_frame(fd, (struct tw_frame_header){.kind = TW_FRAME_HELLO, .numbers = {bulk, urgent}},
              bytes, sizeof bytes);
}

/* The next frame of the agent, or false when it has closed. */
static bool get(int fd, struct tw_frame *frame)
{
    static uint8_t in[TW_FRAME_MAX];
    size_t got = 0;
    struct tw_error err;
    const uint64_t until = tw_now(w->clock) + 3 * TW_SEC;
    while (tw_frame_parse(in, got, frame, &err) != TW_OK) {
        const ssize_t n = wire_recv(fd, in + got, frame->size - got);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return false;
        got += n > 0 ? (size_t)n : 0;
        if (n < 0)
            tw_fabric_poll(w->a.fabric, tw_now(w->clock) + TW_MS);
        cr_assert_lt(tw_now(w->clock), until, "neither a frame nor the end");
    }
    return true;
}

static bool closed(int fd)
{
    struct tw_frame frame;
    while (get(fd, &frame))
        continue;
    return true;
}

/* Expects GOODBYE with `code`, then the end. */
static void refused(int fd, enum tw_code code)
{
    struct tw_frame frame;
    do
        cr_assert(get(fd, &frame), "closed without a word");
    while (frame.kind != TW_FRAME_GOODBYE);
    cr_expect_eq(frame.header.numbers[0], code, "%.*s", (int)frame.length, frame.payload);
    cr_assert(closed(fd));
    hang(fd);
}

struct peer {
    int urgent, bulk;
};

static struct peer join(void)
{
    struct peer p = {dial(), -1};
    struct tw_frame frame;
    put_hello(p.urgent, world_hello(), 16, 8);
    cr_assert(get(p.urgent, &frame));
    cr_assert_eq(frame.kind, TW_FRAME_ACCEPT);
    struct tw_frame_header h = {.kind = TW_FRAME_JOIN};
    memcpy(h.id, frame.header.id, sizeof h.id);
    p.bulk = dial();
    put_frame(p.bulk, h, NULL, 0);
    cr_assert(get(p.urgent, &frame));
    cr_assert_eq(frame.kind, TW_FRAME_READY);
    return p;
}

static void put_chunk(int fd, uint64_t sequence, uint32_t length)
{
    static uint8_t payload[TW_CHUNK_PAYLOAD];
    const struct tw_hello hello = world_hello();
    struct tw_chunk_header h = {
        .kind = TW_CHUNK_BLOB, .epoch = hello.epoch, .sequence = sequence, .length = length};
    memcpy(h.owner, hello.owner, sizeof h.owner);
    tw_chunk_seal(&h, payload);
    put(fd, &h, sizeof h);
    put(fd, payload, length);
}

static void down_with(struct peer *p, enum tw_code code)
{
    cr_assert(WORLD_UNTIL(w, 2000, w->a.downs == 1));
    cr_expect_eq(w->a.why.code, code, "%s: %s", w->a.why.where, w->a.why.what);
    refused(p->urgent, code);
    cr_assert(closed(p->bulk));
    hang(p->bulk);
}

/* ---- Before the handshake -------------------------------------------------------------------- */

HOSTILE(garbage)
{
    const int fd = dial();
    put(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
    refused(fd, TW_INVALID_ARGUMENT);
    cr_assert(world_connect(w), "others are served");
}

HOSTILE(half_a_hello_then_gone)
{
    for (unsigned i = 0; i < 20; i++) {
        const int fd = dial();
        put(fd, "TWLP\1\0\1\0", i % 9);
        hang(fd);
    }
    cr_assert(world_connect(w));
    cr_assert_eq(w->a.accepts, 1);
}

HOSTILE(endless_handshake_ends_by_the_deadline)
{
    const int fd = dial();
    const struct tw_frame_header h = {
        .magic = TW_FRAME_MAGIC, .version = 1, .kind = TW_FRAME_HELLO, .length = TW_HELLO_BYTES};
    const uint64_t before = tw_now(w->clock);
    uint8_t byte;
    for (unsigned i = 0; i < sizeof h && tw_now(w->clock) - before < 3 * TW_SEC; i++) {
        put(fd, (const uint8_t *)&h + i, 1); /* a byte now and then is no sign of good will */
        WORLD_UNTIL(w, 20, false);
        if (recv(fd, &byte, 1, 0) == 0)
            break;
    }
    cr_assert(closed(fd));
    cr_assert_lt(tw_now(w->clock) - before, TW_SEC);
    cr_assert_geq(tw_now(w->clock) - before, 350 * TW_MS);
    hang(fd);
}

HOSTILE(silent_strangers_do_not_keep_others_out)
{
    int fds[TCP_PENDING_MAX + 20];
    for (unsigned i = 0; i < TCP_PENDING_MAX + 20; i++) {
        fds[i] = dial();
        tw_fabric_poll(w->a.fabric, 0);
    }
    cr_assert(world_connect(w));
    for (unsigned i = 0; i < TCP_PENDING_MAX + 20; i++)
        hang(fds[i]);
}

HOSTILE(hello_of_an_absurd_length)
{
    const int fd = dial();
    struct tw_frame_header h = {
        .magic = TW_FRAME_MAGIC, .version = 1, .kind = TW_FRAME_HELLO, .length = UINT32_MAX};
    put(fd, &h, sizeof h);
    refused(fd, TW_OUT_OF_RANGE);
}

HOSTILE(first_frame_must_be_hello_or_join)
{
    int fd = dial();
    put_frame(fd, (struct tw_frame_header){.kind = TW_FRAME_PING}, NULL, 0);
    refused(fd, TW_INVALID_ARGUMENT);
    fd = dial();
    put_chunk(fd, 0, 1000);
    refused(fd, TW_INVALID_ARGUMENT);
    fd = dial();
    put_frame(fd, (struct tw_frame_header){.kind = TW_FRAME_DATA}, "x", 1);
    refused(fd, TW_INVALID_ARGUMENT);
}

HOSTILE(join_with_a_guessed_id)
{
    const int fd = dial();
    put_frame(fd, (struct tw_frame_header){.kind = TW_FRAME_JOIN, .id = {1}}, NULL, 0);
    refused(fd, TW_NOT_FOUND);
}

HOSTILE(credits_that_nobody_can_grant)
{
    int fd = dial();
    put_hello(fd, world_hello(), 0, 8);
    refused(fd, TW_OUT_OF_RANGE);
    fd = dial();
    put_hello(fd, world_hello(), UINT64_MAX, 8);
    refused(fd, TW_OUT_OF_RANGE);
    cr_assert_eq(w->a.accepts, 0);
}

HOSTILE(never_joining_is_a_failed_handshake)
{
    const int fd = dial();
    put_hello(fd, world_hello(), 16, 8);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.accepts == 1));
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_DEADLINE_EXCEEDED);
    refused(fd, TW_DEADLINE_EXCEEDED);
}

HOSTILE(joining_twice)
{
    struct peer p = join();
    struct tw_frame_header h = {.kind = TW_FRAME_JOIN};
    memcpy(h.id, w->a.conn->id, sizeof h.id);
    const int fd = dial();
    put_frame(fd, h, NULL, 0);
    refused(fd, TW_NOT_FOUND);
    cr_assert_eq(w->a.downs, 0);
    hang(p.urgent);
    hang(p.bulk);
}

/* ---- After it -------------------------------------------------------------------------------- */

HOSTILE(chunk_of_an_absurd_length)
{
    struct peer p = join();
    struct tw_chunk_header h = {
        .magic = TW_CHUNK_MAGIC, .version = 1, .kind = TW_CHUNK_BLOB, .length = UINT32_MAX};
    put(p.bulk, &h, sizeof h);
    down_with(&p, TW_OUT_OF_RANGE);
}

HOSTILE(chunk_that_never_ends_is_silence_in_the_end)
{
    struct peer p = join();
    struct tw_chunk_header h = {.kind = TW_CHUNK_BLOB, .length = 1000};
    uint8_t payload[1000] = {0};
    tw_chunk_seal(&h, payload);
    put(p.bulk, &h, sizeof h);
    put(p.bulk, payload, 999);
    down_with(&p, TW_UNAVAILABLE);
    cr_assert_eq(w->a.logged, 0);
}

HOSTILE(truncated_chunk_then_gone)
{
    struct peer p = join();
    put_chunk(p.bulk, 0, 100);
    struct tw_chunk_header h = {
        .magic = TW_CHUNK_MAGIC, .version = 1, .kind = TW_CHUNK_BLOB, .length = 1000};
    put(p.bulk, &h, sizeof h);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.logged == 1));
    hang(p.bulk);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert_eq(w->a.logged, 1);
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
    hang(p.urgent);
}

HOSTILE(replayed_sequence)
{
    struct peer p = join();
    put_chunk(p.bulk, 0, 100);
    put_chunk(p.bulk, 0, 100);
    down_with(&p, TW_DATA_LOSS);
    cr_assert_eq(w->a.logged, 1);
}

HOSTILE(skipped_sequence)
{
    struct peer p = join();
    put_chunk(p.urgent, 1, 100);
    down_with(&p, TW_DATA_LOSS);
}

HOSTILE(garbage_after_the_handshake)
{
    struct peer p = join();
    uint8_t noise[500];
    memset(noise, 0x5a, sizeof noise);
    put(p.bulk, noise, sizeof noise);
    down_with(&p, TW_INVALID_ARGUMENT);
}

HOSTILE(protocol_on_the_wrong_lane)
{
    struct peer p = join();
    put_frame(p.bulk, (struct tw_frame_header){.kind = TW_FRAME_CREDIT}, NULL, 0);
    down_with(&p, TW_INVALID_ARGUMENT);
}

HOSTILE(second_hello)
{
    struct peer p = join();
    put_hello(p.urgent, world_hello(), 16, 8);
    down_with(&p, TW_INVALID_ARGUMENT);
}

HOSTILE(credit_for_chunks_that_were_never_sent)
{
    struct peer p = join();
    put_frame(p.urgent, (struct tw_frame_header){.kind = TW_FRAME_CREDIT, .numbers = {1}}, NULL, 0);
    down_with(&p, TW_INVALID_ARGUMENT);
}

HOSTILE(answer_that_nobody_asked_for)
{
    struct peer p = join();
    put_frame(p.urgent, (struct tw_frame_header){.kind = TW_FRAME_DATA}, "abc", 3);
    down_with(&p, TW_DATA_LOSS);
}

HOSTILE(answer_longer_than_asked)
{
    struct peer p = join();
    uint8_t into[64], answer[65] = {0};
    cr_assert_eq(tw_conn_read(w->a.conn, 1, 0, 64, into, 0, NULL), TW_OK);
    put_frame(p.urgent, (struct tw_frame_header){.kind = TW_FRAME_DATA}, answer, sizeof answer);
    down_with(&p, TW_DATA_LOSS);
    cr_assert_eq(w->a.reads, 1);
    cr_assert_eq(w->a.read_code, TW_UNAVAILABLE);
}

/* The peer asks for more and more and never takes an answer. */
HOSTILE(reads_without_end)
{
    struct peer p = join();
    static uint8_t memory[TW_CHUNK_PAYLOAD];
    const struct tw_hello hello = world_hello();
    uint32_t key;
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, sizeof memory, hello.owner, &key, NULL),
                 TW_OK);
    for (uint64_t i = 0; i < 1000 && !w->a.downs; i++)
        put_frame(p.urgent,
                  (struct tw_frame_header){.kind = TW_FRAME_READ,
                                           .numbers = {i, 0, key, TW_CHUNK_PAYLOAD}},
                  NULL, 0);
    cr_assert_eq(w->a.downs, 1);
    cr_assert_eq(w->a.why.code, TW_RESOURCE_EXHAUSTED);
    hang(p.urgent);
    hang(p.bulk);
}

HOSTILE(peer_that_closes_one_lane_only)
{
    struct peer p = join();
    shutdown(p.bulk, SHUT_WR);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
    hang(p.urgent);
    hang(p.bulk);
}

/* Sending into a socket that the peer has reset: no signal, and on_down tells. */
HOSTILE(sending_to_the_dead)
{
    struct peer p = join();
    const struct linger hard = {1, 0};
    setsockopt(p.bulk, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    setsockopt(p.urgent, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    hang(p.bulk);
    hang(p.urgent);
    static uint8_t payload[TW_CHUNK_PAYLOAD];
    for (unsigned i = 0; i < 16; i++)
        tw_conn_send(w->a.conn, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, payload, sizeof payload, NULL);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
}

/* The other side of the handshake: a server that answers with rubbish. */
Test(hostile, server_that_lies)
{
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    union tcp_address address;
    char text[TW_FABRIC_ADDRESS_MAX];
    socklen_t size = sizeof address;
    cr_assert_eq(tcp_address_parse("127.0.0.1:0", &address, NULL), TW_OK);
    cr_assert_eq(bind(listener, &address.any, sizeof address.v4), 0);
    cr_assert_eq(listen(listener, 8), 0);
    cr_assert_eq(getsockname(listener, &address.any, &size), 0);
    tcp_address_format(&address, text);
    const struct tw_hello hello = world_hello();
    uint8_t answers[4][TW_FRAME_HEADER + TW_HELLO_BYTES] = {{0}};
    struct tw_frame_header h = {.kind = TW_FRAME_READY};
    memcpy(answers[0], "HTTP/1.1 400 Bad Request", 24);
    tw_frame_seal(&h, NULL, 0);
    memcpy(answers[1], &h, sizeof h);
    h = (struct tw_frame_header){.kind = TW_FRAME_ACCEPT}; /* no credits */
    struct tw_hello version_1 = {.version = 1, .version_min = 1};
    memcpy(answers[2] + sizeof h, &version_1, sizeof version_1);
    tw_frame_seal(&h, &version_1, sizeof version_1);
    memcpy(answers[2], &h, sizeof h);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(tw_fabric_connect(w->b.fabric, text, &hello, tw_now(w->clock) + 300 * TW_MS,
                                       &w->b, &w->b.conn, NULL),
                     TW_OK);
        const int fd = accept(listener, NULL, NULL);
        WORLD_UNTIL(w, 10, false);
        if (i < 3)
            cr_assert_gt(send(fd, answers[i], sizeof answers[i], MSG_NOSIGNAL), 0);
        cr_assert(WORLD_UNTIL(w, 2000, w->b.downs == i + 1));
        hang(fd);
    }
    cr_assert_eq(w->b.ups, 0);
    cr_assert_eq(w->b.why.code, TW_DEADLINE_EXCEEDED, "the last one said nothing");
    close(listener);
}
