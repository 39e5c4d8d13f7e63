#include "pki/revoke.h"

#include "pki/authority.h"
#include "pki/issue.h"
#include "pki/list.h"
#include "pki/openssl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NEW_FILE TW_PKI_LIST_FILE ".new" /* who writes one has the right to replace the list */

/* ---- Writing -------------------------------------------------------------------------------- */

/* Numbers grow, so that people and programs can tell which of two lists is the newer one. */
static bool number_next(X509_CRL *list)
{
    ASN1_INTEGER *number = X509_CRL_get_ext_d2i(list, NID_crl_number, NULL, NULL);
    BIGNUM *value = number ? ASN1_INTEGER_to_BN(number, NULL) : BN_new();
    ASN1_INTEGER_free(number);
    bool done = value && BN_add_word(value, 1) == 1;
    ASN1_INTEGER *next = done ? BN_to_ASN1_INTEGER(value, NULL) : NULL;
    done = next && X509_CRL_add1_ext_i2d(list, NID_crl_number, next, 0, X509V3_ADD_REPLACE) == 1;
    ASN1_INTEGER_free(next);
    BN_free(value);
    return done;
}

static bool list_begin(X509_CRL *list, X509 *authority)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, authority, NULL, NULL, list, 0);
    X509_EXTENSION *key =
        X509V3_EXT_conf_nid(NULL, &context, NID_authority_key_identifier, "keyid:always");
    bool done = key && X509_CRL_add_ext(list, key, -1) == 1 &&
                X509_CRL_set_version(list, X509_CRL_VERSION_2) == 1 &&
                X509_CRL_set_issuer_name(list, X509_get_subject_name(authority)) == 1;
    X509_EXTENSION_free(key);
    return done;
}

static bool list_sign(X509_CRL *list, const struct tw_authority *a)
{
    ASN1_TIME *now = ASN1_TIME_set(NULL, time(NULL) - TW_PKI_BACKDATE_S);
    bool done = now && X509_CRL_set1_lastUpdate(list, now) == 1 &&
                X509_CRL_set1_nextUpdate(list, X509_get0_notAfter(a->certificate)) == 1 &&
                number_next(list) && X509_CRL_sort(list) == 1 &&
                X509_CRL_sign(list, a->key, EVP_sha256()) > 0;
    ASN1_TIME_free(now);
    return done;
}

/* The right to write, and the file for it. */
static enum tw_code turn_take(const char *authority, char path[TW_PKI_PATH], FILE **file,
                              struct tw_error *err)
{
    enum tw_code code = tw_pki_file_new(authority, NEW_FILE, 0644, path, file, err);
    if (code == TW_ALREADY_EXISTS)
        return tw_fail(err, code, path, NULL, NULL,
                       "is there: somebody revokes at this moment, or was interrupted; then "
                       "remove it");
    return code;
}

/* Puts the new list in the place of the old one; `file` is closed in any case. */
static enum tw_code turn_end(const char *authority, X509_CRL *list, FILE *file, const char *path,
                             struct tw_error *err)
{
    char place[TW_PKI_PATH];
    enum tw_code code = tw_pki_path(authority, TW_PKI_LIST_FILE, place, err);
    if (code != TW_OK) {
        fclose(file);
        unlink(path);
        return code;
    }
    code = tw_pki_file_end(file, PEM_write_X509_CRL(file, list) == 1, path, err);
    if (code == TW_OK && rename(path, place) != 0) {
        code = tw_fail_errno(err, errno, place, "cannot replace the list");
        unlink(path);
    }
    return code;
}

static void turn_give_up(FILE *file, const char *path)
{
    fclose(file);
    unlink(path);
}

enum tw_code tw_pki_list_new(const char *authority, struct tw_error *err)
{
    struct tw_authority a = {0};
    char path[TW_PKI_PATH];
    FILE *file = NULL;
    X509_CRL *list = X509_CRL_new();
    enum tw_code code = tw_authority_read(authority, &a, err);
    if (code == TW_OK && !(list && list_begin(list, a.certificate) && list_sign(list, &a)))
        code = tw_fail_openssl(err, TW_INTERNAL, authority, "cannot make a list");
    if (code == TW_OK)
        code = turn_take(authority, path, &file, err);
    if (code == TW_OK)
        code = turn_end(authority, list, file, path, err);
    X509_CRL_free(list);
    tw_authority_free(&a);
    return code;
}

/* The present list, or a new one; one that another authority has signed is refused. */
static enum tw_code present_list(const char *authority, const struct tw_authority *a,
                                 X509_CRL **list, struct tw_error *err)
{
    char path[TW_PKI_PATH];
    enum tw_code code = tw_pki_path(authority, TW_PKI_LIST_FILE, path, err);
    if (code != TW_OK)
        return code;
    *list = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        *list = X509_CRL_new();
        return *list && list_begin(*list, a->certificate)
                   ? TW_OK
                   : tw_fail_openssl(err, TW_INTERNAL, path, "cannot make a list");
    }
    STACK_OF(X509_CRL) *all = NULL;
    code = tw_lists_read(path, &all, err);
    if (code != TW_OK)
        return code;
    if (sk_X509_CRL_num(all) != 1 || X509_CRL_verify(sk_X509_CRL_value(all, 0), a->key) != 1)
        code = tw_fail(err, TW_INVALID_ARGUMENT, path, "one list, signed by ca.key", NULL,
                       "not the list of this authority");
    else
        *list = sk_X509_CRL_shift(all);
    sk_X509_CRL_pop_free(all, X509_CRL_free);
    ERR_clear_error();
    return code;
}

static enum tw_code list_add(X509_CRL *list, const struct tw_authority *a, X509 *certificate,
                             const char *path, struct tw_error *err)
{
    X509_REVOKED *entry = NULL;
    if (X509_verify(certificate, a->key) != 1) {
        ERR_clear_error();
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "a certificate that this authority signed",
                       NULL, "the certificate of another authority");
    }
    if (X509_CRL_get0_by_cert(list, &entry, certificate) == 1)
        return tw_fail(err, TW_ALREADY_EXISTS, path, NULL, NULL, "is revoked already");
    entry = X509_REVOKED_new();
    ASN1_TIME *now = ASN1_TIME_set(NULL, time(NULL));
    bool done = entry && now &&
                X509_REVOKED_set_serialNumber(
                    entry, (ASN1_INTEGER *)(uintptr_t)X509_get0_serialNumber(certificate)) == 1 &&
                X509_REVOKED_set_revocationDate(entry, now) == 1 &&
                X509_CRL_add0_revoked(list, entry) == 1;
    ASN1_TIME_free(now);
    if (done)
        return TW_OK;
    X509_REVOKED_free(entry);
    return tw_fail_openssl(err, TW_INTERNAL, path, "cannot put it on the list");
}

enum tw_code tw_pki_revoke(const char *authority, const char *certificate, unsigned *revoked,
                           struct tw_error *err)
{
    struct tw_authority a = {0};
    char path[TW_PKI_PATH];
    FILE *file = NULL;
    X509 *leaf = NULL;
    X509_CRL *list = NULL;
    enum tw_code code = tw_authority_read(authority, &a, err);
    if (code == TW_OK)
        code = tw_pem_certificate_read(certificate, &leaf, err);
    if (code == TW_OK)
        code = turn_take(authority, path, &file, err);
    if (code == TW_OK) {
        code = present_list(authority, &a, &list, err);
        if (code == TW_OK)
            code = list_add(list, &a, leaf, certificate, err);
        if (code == TW_OK && !list_sign(list, &a))
            code = tw_fail_openssl(err, TW_INTERNAL, authority, "cannot sign the list");
        if (code == TW_OK) {
            *revoked = (unsigned)sk_X509_REVOKED_num(X509_CRL_get_REVOKED(list));
            code = turn_end(authority, list, file, path, err);
        } else {
            turn_give_up(file, path);
        }
    }
    X509_CRL_free(list);
    X509_free(leaf);
    tw_authority_free(&a);
    return code;
}

enum tw_code tw_pki_list_copy(const char *authority, const char *out, struct tw_error *err)
{
    char from[TW_PKI_PATH], to[TW_PKI_PATH];
    STACK_OF(X509_CRL) *all = NULL;
    FILE *file;
    bool written = true;
    enum tw_code code = tw_pki_path(authority, TW_PKI_LIST_FILE, from, err);
    if (code != TW_OK || (access(from, F_OK) != 0 && errno == ENOENT))
        return code;
    code = tw_lists_read(from, &all, err);
    if (code == TW_OK)
        code = tw_pki_file_new(out, TW_PKI_LIST_FILE, 0644, to, &file, err);
    if (code == TW_OK) {
        for (int i = 0; i < sk_X509_CRL_num(all); i++)
            written = written && PEM_write_X509_CRL(file, sk_X509_CRL_value(all, i)) == 1;
        code = tw_pki_file_end(file, written, to, err);
    }
    sk_X509_CRL_pop_free(all, X509_CRL_free);
    return code;
}

/* ---- Asking --------------------------------------------------------------------------------- */

enum tw_code tw_pki_revoked(const char *list, const char *certificate, bool *revoked,
                            struct tw_error *err)
{
    STACK_OF(X509_CRL) *all = NULL;
    X509 *leaf = NULL;
    *revoked = false;
    enum tw_code code = tw_pem_certificate_read(certificate, &leaf, err);
    if (code == TW_OK)
        code = tw_lists_read(list, &all, err);
    for (int i = 0; code == TW_OK && i < sk_X509_CRL_num(all); i++) {
        X509_CRL *l = sk_X509_CRL_value(all, i);
        X509_REVOKED *entry;
        if (X509_NAME_cmp(X509_CRL_get_issuer(l), X509_get_issuer_name(leaf)) == 0 &&
            X509_CRL_get0_by_cert(l, &entry, leaf) == 1)
            *revoked = true;
    }
    sk_X509_CRL_pop_free(all, X509_CRL_free);
    X509_free(leaf);
    return code;
}
