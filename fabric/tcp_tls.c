#include "fabric/tcp_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGES_FREE  8u /* behind the handshake, and one more for each gigabyte received */
#define FIRST_IS_ALERT 0x15
#define CHAIN_BYTES    (32L << 10) /* of certificates that a peer may send */
#define CHAIN_DEPTH    4
/* The one that processors do fastest goes first. */
#define CIPHERS        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* ---- OpenSSL's view of the buffers ----------------------------------------------------------- */

static int bio_read(BIO *bio, char *into, int size)
{
    struct tcp_tls *t = BIO_get_data(bio);
    const uint32_t there = t->in_end - t->in_at;
    const uint32_t n = (uint32_t)size < there ? (uint32_t)size : there;
    BIO_clear_retry_flags(bio);
    if (t->flooded)
        return -1;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(into, t->in + t->in_at, n);
    t->in_at += n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *bytes, int size)
{
    struct tcp_tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if ((uint32_t)size > TCP_TLS_OUT - t->out_end) {
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(t->out + t->out_end, bytes, (size_t)size);
    t->out_end += (uint32_t)size;
    return size;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH; /* nothing is held back */
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "towline buffers");
    if (!method)
        return;
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_ctrl);
}

static BIO *buffers(struct tcp_tls *t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = method ? BIO_new(method) : NULL;
    if (!bio)
        return NULL;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* Messages of the peer behind the handshake cost us work and bring no data. */
static void count_message(int sent, int version, int type, const void *bytes, size_t size, SSL *ssl,
                          void *ctx)
{
    struct tcp_tls *t = ctx;
    (void)version;
    (void)bytes;
    (void)size;
    (void)ssl;
    if (sent || type != SSL3_RT_HANDSHAKE || !t->established)
        return;
    if (++t->messages > MESSAGES_FREE + (t->received >> 30))
        t->flooded = true;
}

/* What a peer may do to us is bounded here; the rest is the business of pki/tls.h. */
static bool tune(struct tcp_tls *t, bool server)
{
    SSL_set_app_data(t->ssl, t);
    SSL_set_msg_callback(t->ssl, count_message);
    SSL_set_msg_callback_arg(t->ssl, t);
    SSL_set_verify(t->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tcp_tls_judged);
    SSL_set_verify_depth(t->ssl, CHAIN_DEPTH);
    SSL_set_max_cert_list(t->ssl, CHAIN_BYTES);
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return SSL_set_ciphersuites(t->ssl, CIPHERS) == 1;
}

struct tcp_tls *tcp_tls_new(struct tw_tls *trust, bool server, struct tw_error *err)
{
    struct tcp_tls *t = malloc(sizeof *t);
    SSL_CTX *context = tw_tls_context(trust);
    if (t) {
        memset(t, 0, offsetof(struct tcp_tls, in)); /* the buffers stay untouched until used */
        t->ssl = SSL_new(context);
        t->trust = trust;
        t->rekey_bytes = TCP_TLS_REKEY;
    }
    SSL_CTX_free(context);
    BIO *bio = t && t->ssl ? buffers(t) : NULL;
    if (bio)
        SSL_set_bio(t->ssl, bio, bio);
    if (bio && tune(t, server))
        return t;
    tcp_tls_free(t);
    tw_fail(err, TW_RESOURCE_EXHAUSTED, "tls", NULL, NULL, "out of memory");
    return NULL;
}

void tcp_tls_free(struct tcp_tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t);
}

/* ---- The socket ------------------------------------------------------------------------------ */

bool tcp_tls_unsent(const struct tcp_tls *t)
{
    return t && t->out_at < t->out_end;
}

bool tcp_tls_pending(const struct tcp_tls *t)
{
    return t && (t->in_at < t->in_end || SSL_pending(t->ssl) > 0);
}

/* False with errno when not all could be sent. */
static bool flush(struct tcp_tls *t, int fd)
{
    while (t->out_at < t->out_end) {
        const ssize_t n =
            send(fd, t->out + t->out_at, t->out_end - t->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            t->out_at += (uint32_t)n;
        else if (errno != EINTR)
            return false;
    }
    t->out_at = t->out_end = 0;
    return true;
}

/* As recv(). Only when all that has arrived was decrypted. */
static ssize_t refill(struct tcp_tls *t, int fd)
{
    ssize_t n;
    do
        n = recv(fd, t->in, TCP_TLS_IN, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    t->in_at = 0;
    t->in_end = n > 0 ? (uint32_t)n : 0;
    return n;
}

/* ---- Handshake ------------------------------------------------------------------------------- */

static enum tw_code not_tls(const struct tcp_tls *t, const char *label, struct tw_error *err)
{
    return tw_fail(err, TW_UNAUTHENTICATED, label, "TLS 1.3 with an agent's certificate",
                   memcmp(t->in, "TW", t->in_end < 2 ? t->in_end : 2) == 0
                       ? "plain text of the fabric"
                       : "something else",
                   "the peer does not speak TLS");
}

enum tw_code tcp_tls_handshake(struct tcp_tls *t, int fd, const char *label, struct tw_error *err)
{
    for (;;) {
        ERR_clear_error();
        const int done = SSL_do_handshake(t->ssl);
        const int why = done == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, done);
        /* A fresh socket has room for it. A peer that made it otherwise gets no connection. */
        if (!flush(t, fd) && why != SSL_ERROR_SSL)
            return tw_fail(err, TW_ABORTED, label, NULL, NULL, "gone in the TLS handshake");
        t->established = why == SSL_ERROR_NONE;
        if (t->established)
            return TW_OK;
        if (why != SSL_ERROR_WANT_READ)
            return tcp_tls_explain(t, label, err);
        const ssize_t n = refill(t, fd);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return TW_UNAVAILABLE;
        if (n <= 0)
            return tw_fail(err, TW_ABORTED, label, NULL, NULL, "gone in the TLS handshake");
        if (!t->heard && t->in[0] != TCP_TLS_FIRST && t->in[0] != FIRST_IS_ALERT)
            return not_tls(t, label, err);
        t->heard = true;
    }
}

/* ---- Data ------------------------------------------------------------------------------------ */

static ssize_t broken(struct tcp_tls *t)
{
    tcp_tls_explain(t, NULL, &t->why);
    errno = EPROTO;
    return -1;
}

ssize_t tcp_tls_recv(struct tcp_tls *t, int fd, void *into, size_t size)
{
    for (;;) {
        size_t n;
        ERR_clear_error();
        if (SSL_read_ex(t->ssl, into, size, &n)) {
            t->received += n;
            return (ssize_t)n;
        }
        const int why = SSL_get_error(t->ssl, 0);
        if (why == SSL_ERROR_ZERO_RETURN)
            return 0;
        if (why != SSL_ERROR_WANT_READ) {
            const ssize_t result = broken(t);
            flush(t, fd); /* the alert, if there is room */
            errno = EPROTO;
            return result;
        }
        const ssize_t got = refill(t, fd);
        if (got <= 0)
            return got;
    }
}

/* Seals a record. A key is not used for longer than is safe. */
static bool seal(struct tcp_tls *t, const uint8_t *bytes, size_t size)
{
    size_t written;
    ERR_clear_error();
    if (t->sealed >= t->rekey_bytes) {
        t->sealed = 0;
        if (SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
            return false;
    }
    t->sealed += size;
    return SSL_write_ex(t->ssl, bytes, size, &written) && written == size;
}

/* Seals as many records of a part as there is room for; `taken` counts their bytes. */
static bool seal_part(struct tcp_tls *t, const struct iovec *part, size_t *taken)
{
    const uint8_t *at = part->iov_base;
    for (size_t left = part->iov_len; left;) {
        const size_t piece = left < TCP_TLS_RECORD ? left : TCP_TLS_RECORD;
        if (TCP_TLS_OUT - t->out_end < piece + TCP_TLS_SLACK)
            return true;
        if (!seal(t, at, piece))
            return false;
        at += piece;
        left -= piece;
        *taken += piece;
    }
    return true;
}

ssize_t tcp_tls_send(struct tcp_tls *t, int fd, const struct iovec *parts, unsigned count)
{
    size_t taken = 0;
    for (unsigned i = 0; i < count; i++) {
        const size_t before = taken;
        if (!seal_part(t, &parts[i], &taken))
            return broken(t);
        if (taken - before < parts[i].iov_len)
            break;
    }
    if (!flush(t, fd) && (taken == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)))
        return -1;
    return (ssize_t)taken;
}

void tcp_tls_end(struct tcp_tls *t, int fd)
{
    if (!t || fd < 0 || !t->established)
        return;
    ERR_clear_error();
    SSL_shutdown(t->ssl);
    flush(t, fd);
}
