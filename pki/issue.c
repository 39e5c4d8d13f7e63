#include "pki/issue.h"

#include "pki/authority.h"
#include "pki/openssl.h"
#include "pki/revoke.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_S        INT64_C(86400)
#define SERIAL_BYTES 16

/* ---- Files ---------------------------------------------------------------------------------- */

static enum tw_code folder_make(const char *directory, struct tw_error *err)
{
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return tw_fail_errno(err, errno, directory, "cannot make the folder");
    return TW_OK;
}

static enum tw_code absent(const char *directory, const char *name, struct tw_error *err)
{
    char path[TW_PKI_PATH];
    enum tw_code code = tw_pki_path(directory, name, path, err);
    if (code == TW_OK && access(path, F_OK) == 0)
        code = tw_fail(err, TW_ALREADY_EXISTS, path, NULL, NULL, "is there, and is kept");
    return code;
}

static enum tw_code certificate_write(const char *directory, const char *name, X509 *certificate,
                                      struct tw_error *err)
{
    char path[TW_PKI_PATH];
    FILE *file;
    enum tw_code code = tw_pki_file_new(directory, name, 0644, path, &file, err);
    if (code != TW_OK)
        return code;
    return tw_pki_file_end(file, PEM_write_X509(file, certificate) == 1, path, err);
}

static enum tw_code key_write(const char *directory, const char *name, EVP_PKEY *key,
                              struct tw_error *err)
{
    char path[TW_PKI_PATH];
    FILE *file;
    enum tw_code code = tw_pki_file_new(directory, name, 0600, path, &file, err);
    if (code != TW_OK)
        return code;
    int written = PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    return tw_pki_file_end(file, written == 1, path, err);
}

/* ---- Certificates --------------------------------------------------------------------------- */

static bool serial_set(X509 *certificate)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] &= 0x7f; /* serials are positive */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool done = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return done;
}

static bool subject_set(X509 *certificate, const char *unit, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    const unsigned char *u = (const unsigned char *)unit, *n = (const unsigned char *)name;
    return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const unsigned char *)"Towline",
                                      -1, -1, 0) &&
           X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_UTF8, u, -1, -1, 0) &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, n, -1, -1, 0);
}

static bool extension_add(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool added = extension && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

/* A certificate with its own new key, complete but for issuer, extensions and signature. */
static bool certificate_begin(const char *unit, const char *name, int64_t begins_s, int64_t ends_s,
                              X509 **certificate, EVP_PKEY **key)
{
    time_t now = time(NULL);
    *key = EVP_EC_gen("P-256");
    *certificate = X509_new();
    return *key && *certificate && X509_set_version(*certificate, X509_VERSION_3) &&
           serial_set(*certificate) && subject_set(*certificate, unit, name) &&
           X509_set_pubkey(*certificate, *key) &&
           ASN1_TIME_set(X509_getm_notBefore(*certificate), now + begins_s) &&
           ASN1_TIME_set(X509_getm_notAfter(*certificate), now + ends_s);
}

static bool certificate_end(X509 *certificate, X509 *issuer, EVP_PKEY *issuer_key)
{
    return X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) &&
           extension_add(certificate, issuer, NID_subject_key_identifier, "hash") &&
           extension_add(certificate, issuer, NID_authority_key_identifier, "keyid:always") &&
           X509_sign(certificate, issuer_key, EVP_sha256()) > 0;
}

static enum tw_code days_check(unsigned days, struct tw_error *err)
{
    char expected[64], given[32];
    if (days >= 1 && days <= TW_PKI_DAYS_MAX)
        return TW_OK;
    snprintf(expected, sizeof expected, "1 to %u", TW_PKI_DAYS_MAX);
    snprintf(given, sizeof given, "%u", days);
    return tw_fail(err, TW_INVALID_ARGUMENT, "days", expected, given, "not a validity");
}

enum tw_code tw_pki_init(const char *directory, unsigned days, struct tw_error *err)
{
    X509 *ca = NULL;
    EVP_PKEY *key = NULL;
    enum tw_code code = days_check(days, err);
    if (code == TW_OK)
        code = folder_make(directory, err);
    if (code == TW_OK)
        code = absent(directory, TW_PKI_CA_FILE, err);
    if (code == TW_OK)
        code = absent(directory, TW_PKI_CA_KEY_FILE, err);
    if (code == TW_OK)
        code = absent(directory, TW_PKI_LIST_FILE, err);
    if (code != TW_OK)
        return code;
    bool made = certificate_begin("authority", "Towline authority", -TW_PKI_BACKDATE_S,
                                  days * DAY_S, &ca, &key) &&
                extension_add(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                extension_add(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                certificate_end(ca, ca, key);
    if (!made)
        code = tw_fail_openssl(err, TW_INTERNAL, directory, "cannot make the authority");
    if (code == TW_OK)
        code = key_write(directory, TW_PKI_CA_KEY_FILE, key, err);
    if (code == TW_OK)
        code = certificate_write(directory, TW_PKI_CA_FILE, ca, err);
    if (code == TW_OK)
        code = tw_pki_list_new(directory, err);
    X509_free(ca);
    EVP_PKEY_free(key);
    return code;
}

/* ---- Leaves --------------------------------------------------------------------------------- */

/* Letters, digits, '.' and '-': nothing that would mean something to OpenSSL's own syntax. */
static bool dns_ok(const char *name)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    size_t length = strlen(name);
    return length > 0 && length < 254 && strspn(name, letters) == length && name[0] != '.' &&
           name[0] != '-';
}

static enum tw_code alternatives(const struct tw_pki_leaf *leaf, char *out, size_t size,
                                 struct tw_error *err)
{
    unsigned char binary[16];
    size_t used =
        (size_t)snprintf(out, size, "URI:towline://%s/%s", tw_role_name(leaf->role), leaf->name);
    if (leaf->address_count > TW_PKI_ADDRESSES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, leaf->name, NULL, NULL,
                       "more than %u addresses in one certificate", TW_PKI_ADDRESSES_MAX);
    for (size_t i = 0; i < leaf->address_count; i++) {
        const char *a = leaf->addresses[i];
        bool ip = inet_pton(AF_INET, a, binary) == 1 || inet_pton(AF_INET6, a, binary) == 1;
        if (!ip && !dns_ok(a))
            return tw_fail(err, TW_INVALID_ARGUMENT, "address", "a DNS name or an IP address", a,
                           "not an address");
        used += (size_t)snprintf(out + used, size - used, ",%s:%s", ip ? "IP" : "DNS", a);
    }
    return TW_OK;
}

static enum tw_code leaf_check(const struct tw_pki_leaf *leaf, const struct tw_authority *a,
                               struct tw_error *err)
{
    time_t end = time(NULL) + leaf->ends_s;
    if (!tw_identity_name_ok(leaf->name))
        return tw_fail(err, TW_INVALID_ARGUMENT, "name",
                       "lower-case letters, digits and '-', at most 63", leaf->name,
                       "not a name for a certificate");
    if (leaf->role == TW_ROLE_NONE || leaf->role >= TW_ROLE_COUNT)
        return tw_fail(err, TW_INVALID_ARGUMENT, "role", "operator, viewer, controller or agent",
                       NULL, "not a role");
    if (leaf->ends_s <= leaf->begins_s)
        return tw_fail(err, TW_INVALID_ARGUMENT, leaf->name, NULL, NULL,
                       "the certificate would end before it begins");
    if (X509_cmp_time(X509_get0_notAfter(a->certificate), &end) < 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, leaf->name, NULL, NULL,
                       "the certificate would outlive the authority that signs it");
    return TW_OK;
}

/* Who serves gets serverAuth; people only call. */
static const char *usage_of(enum tw_identity_role role)
{
    return role == TW_ROLE_AGENT || role == TW_ROLE_CONTROLLER ? "serverAuth,clientAuth"
                                                               : "clientAuth";
}

static enum tw_code leaf_make(const struct tw_pki_leaf *leaf, const struct tw_authority *a,
                              X509 **certificate, EVP_PKEY **key, struct tw_error *err)
{
    char names[256 * (TW_PKI_ADDRESSES_MAX + 1)];
    enum tw_code code = leaf_check(leaf, a, err);
    if (code == TW_OK)
        code = alternatives(leaf, names, sizeof names, err);
    if (code != TW_OK)
        return code;
    bool made =
        certificate_begin(tw_role_name(leaf->role), leaf->name, leaf->begins_s - TW_PKI_BACKDATE_S,
                          leaf->ends_s, certificate, key) &&
        extension_add(*certificate, a->certificate, NID_basic_constraints, "critical,CA:FALSE") &&
        extension_add(*certificate, a->certificate, NID_key_usage, "critical,digitalSignature") &&
        extension_add(*certificate, a->certificate, NID_ext_key_usage, usage_of(leaf->role)) &&
        extension_add(*certificate, a->certificate, NID_subject_alt_name, names) &&
        certificate_end(*certificate, a->certificate, a->key);
    return made ? TW_OK
                : tw_fail_openssl(err, TW_INTERNAL, leaf->name, "cannot make the certificate");
}

static enum tw_code leaf_write(const char *authority, const char *out, const struct tw_authority *a,
                               X509 *certificate, EVP_PKEY *key, struct tw_error *err)
{
    static const char *const names[] = {TW_PKI_CA_FILE, TW_PKI_LIST_FILE, TW_PKI_CERTIFICATE_FILE,
                                        TW_PKI_KEY_FILE};
    enum tw_code code = folder_make(out, err);
    for (size_t i = 0; code == TW_OK && i < sizeof names / sizeof *names; i++)
        code = absent(out, names[i], err);
    if (code == TW_OK)
        code = key_write(out, TW_PKI_KEY_FILE, key, err);
    if (code == TW_OK)
        code = certificate_write(out, TW_PKI_CERTIFICATE_FILE, certificate, err);
    if (code == TW_OK)
        code = certificate_write(out, TW_PKI_CA_FILE, a->certificate, err);
    if (code == TW_OK)
        code = tw_pki_list_copy(authority, out, err);
    return code;
}

enum tw_code tw_pki_issue(const char *authority, const char *out, const struct tw_pki_leaf *leaf,
                          struct tw_error *err)
{
    struct tw_authority a = {0};
    X509 *certificate = NULL;
    EVP_PKEY *key = NULL;
    enum tw_code code = tw_authority_read(authority, &a, err);
    if (code == TW_OK)
        code = leaf_make(leaf, &a, &certificate, &key, err);
    if (code == TW_OK)
        code = leaf_write(authority, out, &a, certificate, key, err);
    X509_free(certificate);
    EVP_PKEY_free(key);
    tw_authority_free(&a);
    return code;
}
