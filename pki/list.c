#include "pki/list.h"

#include "pki/openssl.h"
#include "pki/revoke.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>

#define LISTS_MAX 64 /* in one file */

/* A folder can be opened like a file, and a file of any length can be put there. */
static enum tw_code list_open(const char *path, FILE **file, struct tw_error *err)
{
    struct stat status;
    *file = fopen(path, "re");
    if (!*file)
        return tw_fail_errno(err, errno, path, "cannot open");
    if (fstat(fileno(*file), &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_size <= (off_t)TW_PKI_LIST_BYTES_MAX)
        return TW_OK;
    fclose(*file);
    return tw_fail(err, TW_INVALID_ARGUMENT, path, "a PEM file of at most 4 MiB", NULL,
                   "not a file of revoked certificates");
}

enum tw_code tw_lists_read(const char *path, STACK_OF(X509_CRL) * *lists, struct tw_error *err)
{
    FILE *file;
    X509_CRL *list;
    *lists = NULL;
    enum tw_code code = list_open(path, &file, err);
    if (code != TW_OK)
        return code;
    ERR_clear_error();
    STACK_OF(X509_CRL) *all = sk_X509_CRL_new_null();
    while (all && sk_X509_CRL_num(all) < LISTS_MAX &&
           (list = PEM_read_X509_CRL(file, NULL, NULL, NULL)))
        if (!sk_X509_CRL_push(all, list))
            X509_CRL_free(list);
    const int count = all ? sk_X509_CRL_num(all) : 0;
    /* The end of the file, and nothing else, is what ends the reading. */
    const unsigned long last = ERR_peek_last_error();
    if (count == 0 || count >= LISTS_MAX || ERR_GET_LIB(last) != ERR_LIB_PEM ||
        ERR_GET_REASON(last) != PEM_R_NO_START_LINE)
        code = tw_fail_openssl(err, TW_INVALID_ARGUMENT, path,
                               count >= LISTS_MAX ? "more than 64 lists"
                                                  : "no lists of revoked certificates in PEM");
    ERR_clear_error();
    fclose(file);
    if (code == TW_OK)
        *lists = all;
    else
        sk_X509_CRL_pop_free(all, X509_CRL_free);
    return code;
}

/* ---- Against the authorities ---------------------------------------------------------------- */

/* Times are a matter of each handshake, as with certificates. */
static bool serves(X509_CRL *list, X509 *authority)
{
    return X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(authority)) == 0 &&
           X509_CRL_verify(list, X509_get0_pubkey(authority)) == 1;
}

static enum tw_code authority_has_list(X509 *authority, STACK_OF(X509_CRL) * lists,
                                       const char *path, struct tw_error *err)
{
    char name[128];
    for (int i = 0; i < sk_X509_CRL_num(lists); i++)
        if (serves(sk_X509_CRL_value(lists, i), authority))
            return TW_OK;
    ERR_clear_error();
    X509_NAME_oneline(X509_get_subject_name(authority), name, sizeof name);
    return tw_fail(err, TW_INVALID_ARGUMENT, path, "a list by each authority of ca", NULL,
                   "no list of revoked certificates that is signed by %s", name);
}

static enum tw_code all_have_lists(const char *ca, STACK_OF(X509_CRL) * lists, const char *path,
                                   struct tw_error *err)
{
    enum tw_code code = TW_OK;
    X509 *authority;
    FILE *file = fopen(ca, "re");
    if (!file)
        return tw_fail_errno(err, errno, ca, "cannot open");
    while (code == TW_OK && (authority = PEM_read_X509(file, NULL, NULL, NULL))) {
        code = authority_has_list(authority, lists, path, err);
        X509_free(authority);
    }
    fclose(file);
    ERR_clear_error();
    return code;
}

enum tw_code tw_lists_load(const char *path, const char *ca, SSL_CTX *context, struct tw_error *err)
{
    STACK_OF(X509_CRL) * lists;
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    enum tw_code code = tw_lists_read(path, &lists, err);
    if (code != TW_OK)
        return code;
    code = all_have_lists(ca, lists, path, err);
    for (int i = 0; code == TW_OK && i < sk_X509_CRL_num(lists); i++)
        if (X509_STORE_add_crl(store, sk_X509_CRL_value(lists, i)) != 1)
            code = tw_fail_openssl(err, TW_INTERNAL, path, "cannot take a list");
    if (code == TW_OK &&
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) != 1)
        code = tw_fail_openssl(err, TW_INTERNAL, path, "cannot have lists looked at");
    sk_X509_CRL_pop_free(lists, X509_CRL_free);
    return code;
}
