#include "pki/material.h"

#include "pki/list.h"
#include "pki/openssl.h"

#include <openssl/err.h>
#include <string.h>
#include <time.h>

static int64_t end_of(const X509 *certificate)
{
    struct tm end;
    return ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) ? timegm(&end) : 0;
}

/* Peers of ours are TLS 1.3 all; without tickets nobody can come back on old trust. */
static SSL_CTX *context_new(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (!context)
        return NULL;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_num_tickets(context, 0) == 1)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

static enum tw_code authorities_load(const char *path, struct tw_material *m, struct tw_error *err)
{
    X509 *first;
    enum tw_code code = tw_pem_certificate_read(path, &first, err);
    if (code != TW_OK)
        return code;
    m->expires_unix_s = end_of(first);
    X509_free(first);
    if (SSL_CTX_load_verify_file(m->context, path) != 1)
        return tw_fail_openssl(err, TW_INVALID_ARGUMENT, path, "not a file of authorities");
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names)
        return tw_fail_openssl(err, TW_INVALID_ARGUMENT, path, "not a file of authorities");
    SSL_CTX_set_client_CA_list(m->context, names);
    return TW_OK;
}

static enum tw_code own_load(const struct tw_tls_files *files, struct tw_material *m,
                             struct tw_error *err)
{
    EVP_PKEY *key;
    if (SSL_CTX_use_certificate_chain_file(m->context, files->certificate) != 1)
        return tw_fail_openssl(err, TW_INVALID_ARGUMENT, files->certificate,
                               "the certificate cannot be read");
    const X509 *certificate = SSL_CTX_get0_certificate(m->context);
    enum tw_code code = tw_identity_read(certificate, &m->identity, err);
    if (code == TW_OK)
        code = tw_pem_key_read(files->key, &key, err);
    if (code != TW_OK)
        return code;
    if (SSL_CTX_use_PrivateKey(m->context, key) != 1 || SSL_CTX_check_private_key(m->context) != 1)
        code =
            tw_fail_openssl(err, TW_INVALID_ARGUMENT, files->key, "not the key of the certificate");
    EVP_PKEY_free(key);
    if (m->identity.expires_unix_s < m->expires_unix_s)
        m->expires_unix_s = m->identity.expires_unix_s;
    return code;
}

enum tw_code tw_material_read(const struct tw_tls_files *files, struct tw_material *material,
                              struct tw_error *err)
{
    *material = (struct tw_material){.context = context_new()};
    ERR_clear_error();
    if (!material->context)
        return tw_fail_openssl(err, TW_INTERNAL, "tls", "cannot make a context");
    enum tw_code code = TW_OK;
    if (!files->ca[0])
        code = tw_fail(err, TW_INVALID_ARGUMENT, "tls", "the file of an authority", "none",
                       "ca is missing");
    else if (!files->certificate[0] != !files->key[0])
        code = tw_fail(err, TW_INVALID_ARGUMENT, "tls", "both or neither", NULL, "%s is missing",
                       files->key[0] ? "certificate" : "key");
    if (code == TW_OK)
        code = authorities_load(files->ca, material, err);
    if (code == TW_OK && files->crl[0])
        code = tw_lists_load(files->crl, files->ca, material->context, err);
    if (code == TW_OK && files->certificate[0])
        code = own_load(files, material, err);
    if (code != TW_OK)
        tw_material_clear(material);
    return code;
}

void tw_material_clear(struct tw_material *material)
{
    SSL_CTX_free(material->context);
    *material = (struct tw_material){0};
}
