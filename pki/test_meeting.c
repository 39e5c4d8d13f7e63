#include "pki/test_meeting.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct tw_pki_leaf leaf(enum tw_identity_role role, const char *name)
{
    return (struct tw_pki_leaf){.role = role, .name = name, .ends_s = 30 * DAY};
}

void issue(const char *authority, const char *out, struct tw_pki_leaf l)
{
    struct tw_error err = {0};
    char text[600];
    cr_assert_eq(tw_pki_issue(authority, out, &l, &err), TW_OK, "%s",
                 tw_error_text(&err, text, sizeof text));
}

void authority(const char *name)
{
    cr_assert_eq(tw_pki_init(in_dir(name), TW_PKI_AUTHORITY_DAYS, NULL), TW_OK);
}

struct tw_tls *tls_in(const char *folder)
{
    struct tw_tls_files files;
    struct tw_tls *tls;
    struct tw_error err = {0};
    cr_assert_eq(tw_tls_files_in(folder, &files, &err), TW_OK);
    cr_assert_eq(tw_tls_open(&files, &tls, &err), TW_OK, "%s: %s", err.where, err.what);
    return tls;
}

void trust(const char *who, const char *whose)
{
    static const char *const names[] = {TW_PKI_CA_FILE, TW_PKI_LIST_FILE};
    for (size_t i = 0; i < 2; i++) {
        char from[200], to[200];
        snprintf(from, sizeof from, "%s/%s/%s", test_folder(), whose, names[i]);
        snprintf(to, sizeof to, "%s/%s/%s", test_folder(), who, names[i]);
        cr_assert_eq(unlink(to), 0);
        cr_assert_eq(link(from, to), 0);
    }
}

static SSL *end_new(struct tw_tls *tls, BIO *bio)
{
    SSL_CTX *context = tw_tls_context(tls);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_bio(ssl, bio, bio);
    return ssl;
}

void meet(struct meeting *m, struct tw_tls *client, struct tw_tls *server)
{
    BIO *a, *b;
    char byte;
    cr_assert_eq(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    m->client = end_new(client, a);
    m->server = end_new(server, b);
    SSL_set_connect_state(m->client);
    SSL_set_accept_state(m->server);
    for (int i = 0; i < 10; i++) {
        m->client_result = SSL_get_error(m->client, SSL_read(m->client, &byte, 1));
        m->server_result = SSL_get_error(m->server, SSL_read(m->server, &byte, 1));
    }
}

bool met(const struct meeting *m)
{
    return m->client_result == SSL_ERROR_WANT_READ && m->server_result == SSL_ERROR_WANT_READ;
}

void part(struct meeting *m)
{
    SSL_free(m->client);
    SSL_free(m->server);
}

void refused(const char *client, const char *server, const char *why)
{
    struct meeting m;
    char reason[TW_TLS_REASON];
    struct tw_tls *c = tls_in(client), *s = tls_in(server);
    meet(&m, c, s);
    cr_assert(!met(&m));
    cr_assert_eq(m.server_result, SSL_ERROR_SSL);
    tw_tls_reason(m.server, reason);
    cr_assert(strstr(reason, why), "%s", reason);
    part(&m);
    tw_tls_close(c);
    tw_tls_close(s);
}
