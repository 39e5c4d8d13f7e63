/* The engine that nng calls. Every function but `init` of a configuration runs with nng's lock of
 * the connection held, so one connection is never used by two threads. */
#include "rpc/tls_end.h"
#include "rpc/tls_shake.h"

#include "base/clock.h"
#include "base/log.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#define REFUSALS_EVERY_NS TW_SEC /* a line of log for refused peers no more often than this */

struct nng_tls_engine_config {
    struct tw_rpc_tls *end; /* NULL: one that nng makes for itself and we replace */
};

struct nng_tls_engine_conn {
    void *stream; /* nng's, for nng_tls_engine_send and _recv */
    struct tw_rpc_tls *end;
    SSL *ssl;
    struct tw_rpc_shake shake;
    bool established;    /* the handshake is done and the peer is the expected one */
    uint64_t opened;     /* generation of the material it was opened with */
    uint64_t judged;     /* generation for which `who` and `doubt` hold */
    uint64_t judged_end; /* wall clock in ms at which the peer's certificate ends */
    struct tw_identity who;
    struct tw_error doubt;
};

/* ---- Bytes between OpenSSL and nng ---------------------------------------------------------- */

static int bio_write(BIO *bio, const char *data, int size)
{
    size_t count = (size_t)size;
    BIO_clear_retry_flags(bio);
    int failed = nng_tls_engine_send(BIO_get_data(bio), (const uint8_t *)data, &count);
    if (!failed)
        return (int)count;
    if (failed == NNG_EAGAIN)
        BIO_set_retry_write(bio);
    return -1;
}

static int bio_read(BIO *bio, char *data, int size)
{
    size_t count = (size_t)size;
    BIO_clear_retry_flags(bio);
    int failed = nng_tls_engine_recv(BIO_get_data(bio), (uint8_t *)data, &count);
    if (!failed)
        return (int)count;
    if (failed == NNG_EAGAIN)
        BIO_set_retry_read(bio);
    return failed == NNG_ECLOSED ? 0 : -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static int bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *bio_method;

static void bio_method_make(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "nng");
    if (bio_method && (BIO_meth_set_write(bio_method, bio_write) != 1 ||
                       BIO_meth_set_read(bio_method, bio_read) != 1 ||
                       BIO_meth_set_ctrl(bio_method, bio_control) != 1 ||
                       BIO_meth_set_create(bio_method, bio_create) != 1)) {
        BIO_meth_free(bio_method);
        bio_method = NULL;
    }
}

static BIO *bio_new(void *stream)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, bio_method_make);
    BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
    if (bio)
        BIO_set_data(bio, stream);
    return bio;
}

/* ---- Refusals ------------------------------------------------------------------------------- */

/* Anybody can cause these: bounded, and never at the cost of those who belong. */
static void refusal_log(const struct tw_rpc_tls *end, const char *why)
{
    static _Atomic uint64_t next_ns;
    static _Atomic unsigned unsaid;
    uint64_t now_ns = tw_now(&tw_monotonic), next = atomic_load(&next_ns);
    if (now_ns < next ||
        !atomic_compare_exchange_strong(&next_ns, &next, now_ns + REFUSALS_EVERY_NS)) {
        atomic_fetch_add(&unsaid, 1);
        return;
    }
    tw_log(end->server ? TW_LOG_WARN : TW_LOG_DEBUG, "rpc.tls",
           end->server ? "client refused" : "server refused", "why=\"%s\" unsaid_before=%u", why,
           atomic_exchange(&unsaid, 0));
}

/* What nng is told of a step that did not succeed. A listener of nng stops on ECLOSED and takes a
 * rest after most other errors; EPEERAUTH and ECONNRESET do neither, or a hostile peer could shut
 * the door for everybody. */
static int failure(nng_tls_engine_conn *c, int result)
{
    char why[TW_TLS_REASON];
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return NNG_EAGAIN;
    if (error == SSL_ERROR_ZERO_RETURN)
        return NNG_ECONNRESET;
    if (error == SSL_ERROR_SSL)
        refusal_log(c->end, tw_tls_reason(c->ssl, why));
    ERR_clear_error();
    return c->established ? NNG_ECONNRESET : NNG_EPEERAUTH;
}

/* ---- A connection --------------------------------------------------------------------------- */

static int conn_init(nng_tls_engine_conn *c, void *stream, nng_tls_engine_config *config)
{
    if (!config->end)
        return NNG_ENOTSUP;
    c->end = config->end; /* nng keeps the configuration as long as the connection */
    c->stream = stream;
    if (!tw_rpc_shake_begin(&c->shake, stream)) {
        refusal_log(c->end, "too many handshakes under way");
        return NNG_ECONNABORTED;
    }
    c->opened = tw_tls_generation(c->end->tls);
    SSL_CTX *context = tw_tls_context(c->end->tls);
    c->ssl = c->end->server ? SSL_new(context) : tw_rpc_tls_client(c->end);
    SSL_CTX_free(context);
    BIO *bio = c->ssl ? bio_new(stream) : NULL;
    if (!bio) {
        ERR_clear_error();
        return NNG_ENOMEM;
    }
    SSL_set_bio(c->ssl, bio, bio);
    if (c->end->server)
        SSL_set_accept_state(c->ssl);
    return 0;
}

/* Also after a failed init. */
static void conn_fini(nng_tls_engine_conn *c)
{
    tw_rpc_shake_leave(&c->shake);
    SSL_free(c->ssl);
    c->ssl = NULL;
}

static void conn_close(nng_tls_engine_conn *c)
{
    tw_rpc_shake_end(&c->shake);
    if (c->ssl && c->established)
        SSL_shutdown(c->ssl);
    ERR_clear_error();
}

static void judge(nng_tls_engine_conn *c, uint64_t generation)
{
    tw_error_clear(&c->doubt);
    tw_rpc_tls_check(c->end, c->ssl, &c->who, &c->doubt);
    c->judged = generation;
    c->judged_end = c->who.expires_unix_s > 0 ? (uint64_t)c->who.expires_unix_s * 1000 : 0;
}

static int conn_handshake(nng_tls_engine_conn *c)
{
    char text[600];
    ERR_clear_error();
    if (atomic_load(&c->shake.expired)) {
        refusal_log(c->end, "no handshake in time, or too many at once");
        return NNG_EPEERAUTH;
    }
    if (c->established)
        return 0;
    int result = SSL_do_handshake(c->ssl);
    if (result != 1) {
        int failed = failure(c, result);
        if (failed != NNG_EAGAIN)
            tw_rpc_shake_end(&c->shake);
        return failed;
    }
    tw_rpc_shake_end(&c->shake);
    judge(c, tw_tls_generation(c->end->tls));
    if (c->doubt.code != TW_OK) {
        refusal_log(c->end, tw_error_text(&c->doubt, text, sizeof text));
        return NNG_EPEERAUTH;
    }
    c->established = true;
    return 0;
}

/* nng sends and receives before the handshake is done, too: nothing passes before that. */
static int conn_recv(nng_tls_engine_conn *c, uint8_t *data, size_t *size)
{
    int failed = conn_handshake(c);
    if (failed)
        return failed;
    int result = SSL_read_ex(c->ssl, data, *size, size);
    return result == 1 ? 0 : failure(c, result);
}

static int conn_send(nng_tls_engine_conn *c, const uint8_t *data, size_t *size)
{
    int failed = conn_handshake(c);
    if (failed)
        return failed;
    int result = SSL_write_ex(c->ssl, data, *size, size);
    return result == 1 ? 0 : failure(c, result);
}

/* Trust is a matter of the present: with each new generation, and when its time is up, the peer's
 * certificate is looked at anew. */
static bool conn_verified(nng_tls_engine_conn *c)
{
    struct tw_rpc_handed *handed = tw_rpc_handed;
    if (!c->established)
        return false;
    uint64_t generation = tw_tls_generation(c->end->tls);
    if (generation != c->judged || (c->doubt.code == TW_OK && tw_wall_ms() >= c->judged_end))
        judge(c, generation);
    if (handed && handed->peer) {
        handed->peer->generation = c->opened;
        handed->peer->identity = c->who;
        handed->peer->error = c->doubt;
        handed->filled = true;
    }
    return c->doubt.code == TW_OK;
}

/* ---- A configuration ------------------------------------------------------------------------ */

static int config_init(nng_tls_engine_config *config, nng_tls_mode mode)
{
    (void)mode;
    config->end = tw_rpc_handed ? tw_rpc_handed->end : NULL;
    if (config->end)
        tw_rpc_tls_hold(config->end);
    return 0;
}

static void config_fini(nng_tls_engine_config *config)
{
    tw_rpc_tls_close(config->end);
    config->end = NULL;
}

/* nng sets the host of the URL on the configuration that it makes for itself. */
static int config_server(nng_tls_engine_config *config, const char *name)
{
    (void)config, (void)name;
    return 0;
}

static int config_auth(nng_tls_engine_config *config, nng_tls_auth_mode mode)
{
    (void)config, (void)mode;
    return 0;
}

/* Material comes from pki/tls.h alone. */
static int config_ca_chain(nng_tls_engine_config *config, const char *certificates, const char *crl)
{
    (void)config, (void)certificates, (void)crl;
    return NNG_ENOTSUP;
}

static int config_own_cert(nng_tls_engine_config *config, const char *certificate, const char *key,
                           const char *pass)
{
    (void)config, (void)certificate, (void)key, (void)pass;
    return NNG_ENOTSUP;
}

static int config_version(nng_tls_engine_config *config, nng_tls_version min, nng_tls_version max)
{
    (void)config;
    return min <= NNG_TLS_1_3 && max >= NNG_TLS_1_3 ? 0 : NNG_ENOTSUP;
}

static nng_tls_engine_config_ops config_ops = {
    .size = sizeof(nng_tls_engine_config),
    .init = config_init,
    .fini = config_fini,
    .server = config_server,
    .auth = config_auth,
    .ca_chain = config_ca_chain,
    .own_cert = config_own_cert,
    .version = config_version,
};

static nng_tls_engine_conn_ops conn_ops = {
    .size = sizeof(nng_tls_engine_conn),
    .init = conn_init,
    .fini = conn_fini,
    .close = conn_close,
    .handshake = conn_handshake,
    .recv = conn_recv,
    .send = conn_send,
    .verified = conn_verified,
};

const nng_tls_engine tw_rpc_tls_engine = {
    .version = NNG_TLS_ENGINE_VERSION,
    .config_ops = &config_ops,
    .conn_ops = &conn_ops,
    .name = "towline",
    .description = "OpenSSL, TLS 1.3",
};
