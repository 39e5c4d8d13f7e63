#include "rpc/tls_end.h"

#include "rpc/transport.h"

#include <arpa/inet.h>
#include <nng/transport/tls/tls.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Thread_local struct tw_rpc_handed *tw_rpc_handed;

static int engine_failed;

/* The transport first: registering it brings nng's own engine, which ours then replaces. */
static void engine_register(void)
{
    engine_failed = nng_tls_register();
    if (!engine_failed)
        engine_failed = nng_tls_engine_register(&tw_rpc_tls_engine);
}

static enum tw_code engine_start(struct tw_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, engine_register);
    return engine_failed ? tw_fail_nng(err, engine_failed, "rpc", "cannot start TLS") : TW_OK;
}

/* ---- An end --------------------------------------------------------------------------------- */

static enum tw_code host_of(const char *text, char *host, size_t size, struct tw_error *err)
{
    nng_url *url;
    int failed = nng_url_parse(&url, text);
    if (failed)
        return tw_fail_nng(err, failed, text, "the URL cannot be read");
    snprintf(host, size, "%s", url->u_hostname);
    nng_url_free(url);
    return TW_OK;
}

enum tw_code tw_rpc_tls_open(struct tw_tls *tls, const struct tw_rpc_expected *expected,
                             const char *url, struct tw_rpc_tls **end, struct tw_error *err)
{
    *end = NULL;
    enum tw_code code = engine_start(err);
    if (code != TW_OK)
        return code;
    struct tw_rpc_tls *e = calloc(1, sizeof *e);
    if (!e)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "rpc", NULL, NULL, "out of memory");
    atomic_init(&e->references, 1);
    e->server = !url;
    if (expected) {
        e->expected = *expected;
        if (expected->name)
            snprintf(e->name, sizeof e->name, "%s", expected->name);
    }
    e->expected.name = e->name;
    if (url && !e->name[0])
        code = host_of(url, e->host, sizeof e->host, err);
    if (code != TW_OK) {
        free(e);
        return code;
    }
    tw_tls_hold(tls);
    e->tls = tls;
    *end = e;
    return TW_OK;
}

void tw_rpc_tls_hold(struct tw_rpc_tls *end)
{
    atomic_fetch_add(&end->references, 1);
}

void tw_rpc_tls_close(struct tw_rpc_tls *end)
{
    if (!end || atomic_fetch_sub(&end->references, 1) > 1)
        return;
    tw_tls_close(end->tls);
    free(end);
}

struct tw_tls *tw_rpc_tls_material(struct tw_rpc_tls *end)
{
    return end->tls;
}

int tw_rpc_tls_config(struct tw_rpc_tls *end, nng_tls_config **config)
{
    struct tw_rpc_handed handed = {.end = end};
    tw_rpc_handed = &handed;
    int failed =
        nng_tls_config_alloc(config, end->server ? NNG_TLS_MODE_SERVER : NNG_TLS_MODE_CLIENT);
    tw_rpc_handed = NULL;
    return failed;
}

bool tw_rpc_tls_peer(nng_pipe pipe, struct tw_rpc_peer *peer)
{
    struct tw_rpc_handed handed = {.peer = peer};
    bool verified;
    memset(peer, 0, sizeof *peer);
    tw_rpc_handed = &handed;
    int failed = nng_pipe_get_bool(pipe, NNG_OPT_TLS_VERIFIED, &verified);
    tw_rpc_handed = NULL;
    return !failed && handed.filled;
}

/* ---- What is expected of a server ----------------------------------------------------------- */

/* Where the name of the peer is not known, the address in the URL has to be in its certificate. */
static bool host_expect(SSL *ssl, const char *host)
{
    unsigned char binary[16];
    if (!host[0])
        return true;
    if (inet_pton(AF_INET, host, binary) == 1 || inet_pton(AF_INET6, host, binary) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1;
}

SSL *tw_rpc_tls_client(struct tw_rpc_tls *end)
{
    SSL_CTX *context = tw_tls_context(end->tls);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    if (ssl && host_expect(ssl, end->host)) {
        SSL_set_connect_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    return NULL;
}

enum tw_code tw_rpc_tls_check(struct tw_rpc_tls *end, const SSL *connection,
                              struct tw_identity *identity, struct tw_error *err)
{
    struct tw_identity expected = {.role = end->expected.role};
    char given[TW_IDENTITY_TEXT], wanted[TW_IDENTITY_TEXT];
    enum tw_code code = tw_tls_peer(end->tls, connection, identity, err);
    if (code != TW_OK || end->server)
        return code;
    bool role = expected.role == TW_ROLE_NONE || expected.role == identity->role;
    if (role && (!end->name[0] || strcmp(end->name, identity->name) == 0))
        return TW_OK;
    snprintf(expected.name, sizeof expected.name, "%s", end->name);
    tw_identity_text(identity, given);
    *identity = (struct tw_identity){0};
    return tw_fail(err, TW_UNAUTHENTICATED, "tls", tw_identity_text(&expected, wanted), given,
                   "the server is somebody else");
}
