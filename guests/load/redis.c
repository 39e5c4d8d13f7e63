/* Workload redis: reads and writes keys of a Redis server in the same guest, and knows for each
 * key the generation of the last write that the server acknowledged.
 *
 * An operation on a key is a GET, which must answer that generation, and a SET of the next one. A
 * value is made from key and generation, so a value of another key, of another generation or a
 * mixture differs from the expected one. From time to time one pass reads all keys back. A write
 * counts as verified when it was read back once; after a pass without an error every acknowledged
 * write has been. */
#include "guests/load/load.h"
#include "guests/sparse.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SEC_NS            UINT64_C(1000000000)
#define VALUE_MAX         4096u
#define PIPELINE_MAX      64u
#define REQUEST_MAX       256u /* of both commands, without the value */
#define REPLY_TIMEOUT_MS  30000
#define WRONG_PRINTED_MAX 16u

struct key {
    uint32_t generation; /* of the last acknowledged write */
    bool read_back;      /* since that write */
};

struct redis {
    const struct load_options *options;
    int fd;
    struct key *keys;
    uint64_t ops, acknowledged, verified, errors;
    uint64_t gap_ns_max, last_reply_ns, last_status_ns, last_status_ops;
    uint32_t passes;
    uint64_t random;
    char out[PIPELINE_MAX * (VALUE_MAX + REQUEST_MAX)];
    size_t out_size;
    char in[65536];
    size_t in_at, in_size;
};

/* ---- Connection. Whatever goes wrong with it is the end: the server is in the same guest. ---- */

static void fatal(struct redis *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("load fatal: ");
    vprintf(format, args);
    printf(" (acknowledged=%llu errors=%llu)\n", (unsigned long long)r->acknowledged,
           (unsigned long long)r->errors + 1);
    va_end(args);
    exit(1);
}

static bool try_connect(struct redis *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", r->options->socket);
    r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->fd < 0)
        fatal(r, "socket: %s", strerror(errno));
    if (connect(r->fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return true;
    close(r->fd);
    return false;
}

static void connect_server(struct redis *r)
{
    for (unsigned tries = 0; tries < 1500; tries++) {
        if (try_connect(r))
            return;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    fatal(r, "no server at %s after 30 s", r->options->socket);
}

static void flush(struct redis *r)
{
    for (size_t at = 0; at < r->out_size;) {
        ssize_t n = write(r->fd, r->out + at, r->out_size - at);
        if (n < 0 && errno != EINTR)
            fatal(r, "write: %s", strerror(errno));
        if (n > 0)
            at += (size_t)n;
    }
    r->out_size = 0;
}

/* At least `size` unread bytes at in + in_at. */
static void fill(struct redis *r, size_t size)
{
    if (r->in_size - r->in_at >= size)
        return;
    memmove(r->in, r->in + r->in_at, r->in_size - r->in_at);
    r->in_size -= r->in_at;
    r->in_at = 0;
    while (r->in_size < size) {
        struct pollfd p = {.fd = r->fd, .events = POLLIN};
        int ready = poll(&p, 1, REPLY_TIMEOUT_MS);
        if (ready == 0)
            fatal(r, "no reply within %d ms", REPLY_TIMEOUT_MS);
        if (ready < 0)
            continue;
        ssize_t n = read(r->fd, r->in + r->in_size, sizeof r->in - r->in_size);
        if (n == 0)
            fatal(r, "the server closed the connection");
        if (n < 0 && errno != EINTR)
            fatal(r, "read: %s", strerror(errno));
        if (n > 0)
            r->in_size += (size_t)n;
    }
}

/* The next reply line, without its end, valid until the next read. */
static const char *reply_line(struct redis *r)
{
    size_t length = 0;
    for (;; length++) {
        if (length == 512)
            fatal(r, "reply line longer than 512 bytes");
        fill(r, length + 1);
        if (r->in[r->in_at + length] == '\n')
            break;
    }
    char *line = r->in + r->in_at;
    r->in_at += length + 1;
    line[length > 0 ? length - 1 : 0] = 0;
    return line;
}

/* ---- Commands ---- */

static void value_make(const struct redis *r, uint32_t key, uint32_t generation, char *value)
{
    uint32_t size = r->options->value;
    memcpy(value, &generation, 4);
    for (uint32_t i = 1; i < size / 4; i++) {
        uint32_t word = tw_sparse_dense(key, generation, i);
        memcpy(value + 4 * (size_t)i, &word, 4);
    }
}

static void send_get(struct redis *r, uint32_t key)
{
    r->out_size += (size_t)snprintf(r->out + r->out_size, REQUEST_MAX / 2,
                                    "*2\r\n$3\r\nGET\r\n$12\r\nkey:%08x\r\n", key);
}

static void send_set(struct redis *r, uint32_t key, uint32_t generation)
{
    uint32_t size = r->options->value;
    r->out_size += (size_t)snprintf(r->out + r->out_size, REQUEST_MAX / 2,
                                    "*3\r\n$3\r\nSET\r\n$12\r\nkey:%08x\r\n$%u\r\n", key, size);
    value_make(r, key, generation, r->out + r->out_size);
    r->out_size += size;
    memcpy(r->out + r->out_size, "\r\n", 2);
    r->out_size += 2;
}

static void wrong(struct redis *r, uint32_t key, const char *what, uint32_t found)
{
    if (r->errors++ < WRONG_PRINTED_MAX)
        printf("WRONG key=%u expected=%u %s found=%u\n", key, r->keys[key].generation, what, found);
}

static void receive_set(struct redis *r, uint32_t key)
{
    const char *line = reply_line(r);
    r->ops++;
    if (strcmp(line, "+OK") != 0) {
        printf("server: %s\n", line);
        wrong(r, key, "write refused", 0);
        return;
    }
    r->keys[key].generation++;
    r->keys[key].read_back = false;
    r->acknowledged++;
}

static void receive_get(struct redis *r, uint32_t key)
{
    const char *line = reply_line(r);
    r->ops++;
    long size = line[0] == '$' ? strtol(line + 1, NULL, 10) : -2;
    if (size < 0) {
        wrong(r, key, size == -1 ? "missing" : "not a value", 0);
        return;
    }
    if (size > (long)VALUE_MAX)
        fatal(r, "value of %ld bytes, expected %u", size, r->options->value);
    fill(r, (size_t)size + 2);
    const char *given = r->in + r->in_at;
    r->in_at += (size_t)size + 2;
    char expected[VALUE_MAX];
    value_make(r, key, r->keys[key].generation, expected);
    if ((uint32_t)size == r->options->value && memcmp(given, expected, (size_t)size) == 0) {
        r->verified += !r->keys[key].read_back;
        r->keys[key].read_back = true;
        return;
    }
    uint32_t found = 0;
    if (size >= 4)
        memcpy(&found, given, 4);
    wrong(r, key, found == r->keys[key].generation ? "content" : "generation", found);
}

/* ---- Work ---- */

static void look_at_clock(struct redis *r)
{
    uint64_t now = load_now_ns();
    if (now - r->last_reply_ns > r->gap_ns_max)
        r->gap_ns_max = now - r->last_reply_ns;
    r->last_reply_ns = now;
    if (now - r->last_status_ns < SEC_NS)
        return;
    uint64_t per_s = (r->ops - r->last_status_ops) * SEC_NS / (now - r->last_status_ns);
    printf("load ops=%llu ops_per_s=%llu acknowledged=%llu verified=%llu errors=%llu "
           "max_gap_ms=%llu\n",
           (unsigned long long)r->ops, (unsigned long long)per_s,
           (unsigned long long)r->acknowledged, (unsigned long long)r->verified,
           (unsigned long long)r->errors, (unsigned long long)(r->gap_ns_max / 1000000));
    r->last_status_ns = now;
    r->last_status_ops = r->ops;
}

static uint32_t random_key(struct redis *r)
{
    r->random = r->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((r->random >> 32) * r->options->keys >> 32);
}

/* One batch of operations on distinct keys, so that what each GET must answer is known. */
static void batch(struct redis *r)
{
    uint32_t keys[PIPELINE_MAX], count = 0;
    while (count < r->options->pipeline) {
        uint32_t key = random_key(r), i = 0;
        while (i < count && keys[i] != key)
            i++;
        if (i == count)
            keys[count++] = key;
    }
    for (uint32_t i = 0; i < count; i++) {
        send_get(r, keys[i]);
        send_set(r, keys[i], r->keys[keys[i]].generation + 1);
    }
    flush(r);
    for (uint32_t i = 0; i < count; i++) {
        receive_get(r, keys[i]);
        receive_set(r, keys[i]);
    }
    look_at_clock(r);
}

/* A pass over all keys by a command of its own: writes them at first, reads them back later. */
static void pass(struct redis *r, bool write)
{
    uint32_t step = r->options->pipeline;
    for (uint32_t from = 0; from < r->options->keys; from += step) {
        uint32_t to = r->options->keys - from < step ? r->options->keys : from + step;
        for (uint32_t key = from; key < to; key++) {
            if (write)
                send_set(r, key, 1);
            else
                send_get(r, key);
        }
        flush(r);
        for (uint32_t key = from; key < to; key++) {
            if (write)
                receive_set(r, key);
            else
                receive_get(r, key);
        }
        if (!write)
            look_at_clock(r);
    }
}

static void verify(struct redis *r)
{
    uint64_t start = load_now_ns(), errors = r->errors;
    r->passes++;
    /* Says when it began: a pass that began behind a migration has read everything behind it. */
    printf("verify pass=%u begin\n", r->passes);
    pass(r, false);
    printf("verify pass=%u keys=%u bad=%llu acknowledged=%llu verified=%llu ms=%llu\n", r->passes,
           r->options->keys, (unsigned long long)(r->errors - errors),
           (unsigned long long)r->acknowledged, (unsigned long long)r->verified,
           (unsigned long long)((load_now_ns() - start) / 1000000));
}

int load_redis(const struct load_options *options)
{
    static struct redis r;
    r = (struct redis){.options = options, .random = 1};
    if (options->value % 4 != 0) {
        printf("load fatal: value: expected a multiple of 4, given %u\n", options->value);
        return 2;
    }
    r.keys = calloc(options->keys, sizeof *r.keys);
    if (!r.keys)
        fatal(&r, "no memory for %u keys", options->keys);
    connect_server(&r);
    pass(&r, true);
    uint64_t now = load_now_ns(), next_verify = now + options->verify_every_s * SEC_NS;
    r.last_reply_ns = r.last_status_ns = now;
    r.last_status_ops = r.ops;
    printf("READY workload=redis keys=%u value=%u pipeline=%u\n", options->keys, options->value,
           options->pipeline);
    struct load_pace pace = {options->rate, now};
    for (;;) {
        batch(&r);
        load_pace(&pace, 2 * options->pipeline);
        if (load_now_ns() >= next_verify) {
            verify(&r);
            next_verify = load_now_ns() + options->verify_every_s * SEC_NS;
        }
    }
}
