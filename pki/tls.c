#include "pki/tls.h"

#include "pki/issue.h"
#include "pki/material.h"
#include "pki/openssl.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS    500u
#define SETTLED    2u /* looks without a change before changed files are taken */
#define WARN_S     (INT64_C(14) * 86400)
#define WARN_EVERY (UINT64_C(86400) * TW_SEC)
#define FILES      4u

/* What tells that a file is another one than before. */
struct stamp {
    struct timespec changed;
    ino_t inode;
    off_t size;
};

struct tw_tls {
    _Atomic unsigned holds;
    struct tw_tls_files files;
    pthread_mutex_t lock; /* guards what follows, up to the thread */
    struct tw_material material;
    uint64_t generation;
    /* Of the files, from just before they were last read: what is written later always shows. */
    struct stamp taken[FILES];

    pthread_t thread;
    bool watching;
    bool stop; /* under lock */
    pthread_cond_t wake;
    pthread_mutex_t reload_lock; /* one reload at a time */
};

#define FILE_KEY(member)                                                                           \
    .type = TW_CONFIG_STRING, .offset = offsetof(struct tw_tls_files, member),                     \
    .size = sizeof(((struct tw_tls_files *)0)->member)

const struct tw_config_key tw_tls_keys[TW_TLS_KEYS] = {
    {.name = "ca", FILE_KEY(ca), .required = true},
    {.name = "certificate", FILE_KEY(certificate), .required = true},
    {.name = "key", FILE_KEY(key), .required = true},
    {.name = "crl", FILE_KEY(crl)},
};

enum tw_code tw_tls_files_in(const char *directory, struct tw_tls_files *files,
                             struct tw_error *err)
{
    struct {
        const char *name;
        char *path;
    } parts[FILES] = {{TW_PKI_CA_FILE, files->ca},
                      {TW_PKI_CERTIFICATE_FILE, files->certificate},
                      {TW_PKI_KEY_FILE, files->key},
                      {TW_PKI_LIST_FILE, files->crl}};
    for (size_t i = 0; i < FILES; i++)
        if (snprintf(parts[i].path, sizeof files->ca, "%s/%s", directory, parts[i].name) >=
            (int)sizeof files->ca)
            return tw_fail(err, TW_INVALID_ARGUMENT, "tls", NULL, NULL, "the path is too long");
    /* Older authorities have none. One that cannot be looked at is an error of the reading. */
    if (access(files->crl, F_OK) != 0 && errno == ENOENT)
        files->crl[0] = 0;
    return TW_OK;
}

bool tw_tls_files_given(const struct tw_tls_files *files)
{
    return files->ca[0] || files->certificate[0] || files->key[0] || files->crl[0];
}

/* ---- Reading and replacing ------------------------------------------------------------------ */

static void stamps_take(const struct tw_tls_files *files, struct stamp stamps[FILES])
{
    const char *const paths[FILES] = {files->ca, files->certificate, files->key, files->crl};
    struct stat status;
    memset(stamps, 0, FILES * sizeof *stamps);
    for (size_t i = 0; i < FILES; i++)
        if (stat(paths[i], &status) == 0) {
            stamps[i].changed = status.st_mtim;
            stamps[i].inode = status.st_ino;
            stamps[i].size = status.st_size;
        }
}

static void warn_of_end(struct tw_tls *tls)
{
    int64_t left_s = tw_tls_expires_s(tls);
    if (left_s < 0)
        tw_log(TW_LOG_ERROR, "tls", "certificate or authority has expired", "file=%s since_s=%lld",
               tls->files.certificate, (long long)-left_s);
    else if (left_s < WARN_S)
        tw_log(TW_LOG_WARN, "tls", "certificate or authority expires soon", "file=%s days=%lld",
               tls->files.certificate, (long long)(left_s / 86400));
}

enum tw_code tw_tls_open(const struct tw_tls_files *files, struct tw_tls **tls,
                         struct tw_error *err)
{
    struct tw_material material;
    struct stamp taken[FILES];
    *tls = NULL;
    stamps_take(files, taken);
    enum tw_code code = tw_material_read(files, &material, err);
    if (code != TW_OK)
        return code;
    struct tw_tls *t = calloc(1, sizeof *t);
    if (!t) {
        tw_material_clear(&material);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "tls", NULL, NULL, "out of memory");
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->reload_lock, NULL);
    atomic_init(&t->holds, 1);
    t->files = *files;
    t->material = material;
    memcpy(t->taken, taken, sizeof taken);
    t->generation = 1;
    warn_of_end(t);
    *tls = t;
    return TW_OK;
}

void tw_tls_hold(struct tw_tls *tls)
{
    atomic_fetch_add(&tls->holds, 1);
}

void tw_tls_close(struct tw_tls *tls)
{
    if (!tls || atomic_fetch_sub(&tls->holds, 1) > 1)
        return;
    if (tls->watching) {
        pthread_mutex_lock(&tls->lock);
        tls->stop = true;
        pthread_cond_signal(&tls->wake);
        pthread_mutex_unlock(&tls->lock);
        pthread_join(tls->thread, NULL);
    }
    tw_material_clear(&tls->material);
    pthread_mutex_destroy(&tls->lock);
    pthread_mutex_destroy(&tls->reload_lock);
    pthread_cond_destroy(&tls->wake);
    free(tls);
}

/* A process does not become somebody else. */
static enum tw_code same_me(const struct tw_identity *now, const struct tw_identity *fresh,
                            const char *path, struct tw_error *err)
{
    char expected[TW_IDENTITY_TEXT], given[TW_IDENTITY_TEXT];
    if (now->role == fresh->role && strcmp(now->name, fresh->name) == 0)
        return TW_OK;
    return tw_fail(err, TW_INVALID_ARGUMENT, path, tw_identity_text(now, expected),
                   tw_identity_text(fresh, given), "the certificate of somebody else");
}

enum tw_code tw_tls_reload(struct tw_tls *tls, struct tw_error *err)
{
    struct tw_material fresh, old;
    struct tw_error mine = {0};
    struct stamp taken[FILES];
    char text[600];
    pthread_mutex_lock(&tls->reload_lock);
    stamps_take(&tls->files, taken);
    pthread_mutex_lock(&tls->lock);
    memcpy(tls->taken, taken, sizeof taken);
    pthread_mutex_unlock(&tls->lock);
    enum tw_code code = tw_material_read(&tls->files, &fresh, &mine);
    if (code == TW_OK) {
        code = same_me(&tls->material.identity, &fresh.identity, tls->files.certificate, &mine);
        if (code != TW_OK)
            tw_material_clear(&fresh);
    }
    if (code == TW_OK) {
        pthread_mutex_lock(&tls->lock);
        old = tls->material;
        tls->material = fresh;
        uint64_t generation = ++tls->generation;
        pthread_mutex_unlock(&tls->lock);
        tw_material_clear(&old);
        char who[TW_IDENTITY_TEXT];
        tw_log(TW_LOG_INFO, "tls", "certificates read again", "me=\"%s\" generation=%llu",
               tw_identity_text(&fresh.identity, who), (unsigned long long)generation);
        warn_of_end(tls);
    } else {
        tw_log(TW_LOG_ERROR, "tls", "certificates not read again, the old ones stay", "why=\"%s\"",
               tw_error_text(&mine, text, sizeof text));
        if (err)
            *err = mine;
    }
    pthread_mutex_unlock(&tls->reload_lock);
    return code;
}

/* ---- What the present material is ----------------------------------------------------------- */

SSL_CTX *tw_tls_context(struct tw_tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *context = tls->material.context;
    SSL_CTX_up_ref(context);
    pthread_mutex_unlock(&tls->lock);
    return context;
}

uint64_t tw_tls_generation(struct tw_tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    uint64_t generation = tls->generation;
    pthread_mutex_unlock(&tls->lock);
    return generation;
}

void tw_tls_identity(struct tw_tls *tls, struct tw_identity *identity)
{
    pthread_mutex_lock(&tls->lock);
    *identity = tls->material.identity;
    pthread_mutex_unlock(&tls->lock);
}

enum tw_code tw_tls_expect_me(struct tw_tls *tls, enum tw_identity_role role, const char *name,
                              struct tw_error *err)
{
    struct tw_identity expected = {.role = role}, me;
    char wanted[TW_IDENTITY_TEXT], given[TW_IDENTITY_TEXT];
    tw_tls_identity(tls, &me);
    if (me.role == role && (!name || strcmp(me.name, name) == 0))
        return TW_OK;
    if (name)
        snprintf(expected.name, sizeof expected.name, "%s", name);
    return tw_fail(err, TW_INVALID_ARGUMENT, tls->files.certificate,
                   tw_identity_text(&expected, wanted), tw_identity_text(&me, given),
                   "the certificate of somebody else");
}

int64_t tw_tls_expires_s(struct tw_tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    int64_t end_s = tls->material.expires_unix_s;
    pthread_mutex_unlock(&tls->lock);
    return end_s - (int64_t)time(NULL);
}

/* ---- Watching the files --------------------------------------------------------------------- */

/* False when it is time to end. */
static bool pause_ms(struct tw_tls *tls, unsigned ms)
{
    struct timespec until;
    uint64_t until_ns = tw_now(&tw_monotonic) + ms * TW_MS;
    until.tv_sec = (time_t)(until_ns / TW_SEC);
    until.tv_nsec = (long)(until_ns % TW_SEC);
    pthread_mutex_lock(&tls->lock);
    while (!tls->stop && pthread_cond_timedwait(&tls->wake, &tls->lock, &until) == 0)
        continue;
    bool stop = tls->stop;
    pthread_mutex_unlock(&tls->lock);
    return !stop;
}

/* What was refused is not read again until something changes. */
static bool differ_from_taken(struct tw_tls *tls, const struct stamp now[FILES])
{
    pthread_mutex_lock(&tls->lock);
    bool differ = memcmp(now, tls->taken, sizeof tls->taken) != 0;
    pthread_mutex_unlock(&tls->lock);
    return differ;
}

/* A rotation writes several files one after the other: they are taken when they have come to rest.
 */
static void *watch_main(void *arg)
{
    struct tw_tls *tls = arg;
    struct stamp last[FILES], now[FILES];
    unsigned quiet = 0;
    uint64_t warn_ns = tw_now(&tw_monotonic) + WARN_EVERY;
    stamps_take(&tls->files, last);
    while (pause_ms(tls, LOOK_MS)) {
        stamps_take(&tls->files, now);
        quiet = memcmp(now, last, sizeof now) == 0 ? quiet + 1 : 0;
        memcpy(last, now, sizeof last);
        if (quiet >= SETTLED && differ_from_taken(tls, now))
            tw_tls_reload(tls, NULL);
        if (tw_now(&tw_monotonic) >= warn_ns) {
            warn_ns += WARN_EVERY;
            warn_of_end(tls);
        }
    }
    return NULL;
}

enum tw_code tw_tls_watch(struct tw_tls *tls, struct tw_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&tls->thread, NULL, watch_main, tls);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return tw_fail_errno(err, failed, "tls", "cannot watch the certificates");
    pthread_setname_np(tls->thread, "tls-watch");
    tls->watching = true;
    return TW_OK;
}

/* ---- The other end -------------------------------------------------------------------------- */

/* Verifies anew: authorities may have changed and time has passed since the handshake. */
static int verify(SSL_CTX *context, X509 *certificate, STACK_OF(X509) * chain, bool peer_is_server)
{
    int result = X509_V_ERR_OUT_OF_MEM;
    X509_STORE_CTX *v = X509_STORE_CTX_new();
    if (v && X509_STORE_CTX_init(v, SSL_CTX_get_cert_store(context), certificate, chain) == 1 &&
        X509_STORE_CTX_set_default(v, peer_is_server ? "ssl_server" : "ssl_client") == 1)
        result = X509_verify_cert(v) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(v);
    X509_STORE_CTX_free(v);
    ERR_clear_error();
    return result;
}

enum tw_code tw_tls_peer(struct tw_tls *tls, const SSL *connection, struct tw_identity *identity,
                         struct tw_error *err)
{
    *identity = (struct tw_identity){0};
    X509 *certificate = SSL_get0_peer_certificate(connection);
    if (!certificate)
        return tw_fail(err, TW_UNAUTHENTICATED, "tls", NULL, NULL, "the peer has no certificate");
    SSL_CTX *context = tw_tls_context(tls);
    int result = verify(context, certificate, SSL_get_peer_cert_chain(connection),
                        !SSL_is_server(connection));
    SSL_CTX_free(context);
    if (result != X509_V_OK)
        return tw_fail(err, TW_UNAUTHENTICATED, "tls", NULL, NULL, "the peer's certificate: %s",
                       X509_verify_cert_error_string(result));
    return tw_identity_read(certificate, identity, err);
}

const char *tw_tls_reason(const SSL *connection, char buffer[TW_TLS_REASON])
{
    long result = SSL_get_verify_result(connection);
    unsigned long queued = ERR_peek_error();
    const char *reason = queued ? ERR_reason_error_string(queued) : NULL;
    if (result != X509_V_OK)
        snprintf(buffer, TW_TLS_REASON, "the peer's certificate: %s",
                 X509_verify_cert_error_string(result));
    else
        snprintf(buffer, TW_TLS_REASON, "%s", reason ? reason : "the peer hung up");
    ERR_clear_error();
    return buffer;
}
