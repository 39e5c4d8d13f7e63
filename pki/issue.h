/* A small authority: makes its own certificate, and certificates for agents, controller and
 * operators. Keys are EC P-256 in PEM files of mode 0600. Nothing that exists is overwritten.
 * The cryptography is OpenSSL's. */
#ifndef TOWLINE_PKI_ISSUE_H
#define TOWLINE_PKI_ISSUE_H

#include "pki/identity.h"

#define TW_PKI_AUTHORITY_DAYS 3650u
#define TW_PKI_LEAF_DAYS      365u
#define TW_PKI_DAYS_MAX       36500u
#define TW_PKI_ADDRESSES_MAX  32u

/* The names of the files inside a folder. */
#define TW_PKI_CA_FILE          "ca.crt" /* the authority's certificate */
#define TW_PKI_CA_KEY_FILE      "ca.key" /* the authority's key: in its own folder only */
#define TW_PKI_LIST_FILE        "ca.crl" /* which of its certificates it has revoked */
#define TW_PKI_CERTIFICATE_FILE "tls.crt"
#define TW_PKI_KEY_FILE         "tls.key"

/* Makes `directory` (mode 0700) when it is missing, and in it ca.crt, ca.key and ca.crl, an empty
 * list. ALREADY_EXISTS when one of them is there. */
enum tw_code tw_pki_init(const char *directory, unsigned days, struct tw_error *err);

struct tw_pki_leaf {
    enum tw_identity_role role;
    const char *name;             /* see tw_identity_name_ok */
    const char *const *addresses; /* DNS names and IP addresses of a server; NULL = none */
    size_t address_count;
    int64_t begins_s; /* seconds from now; negative lies in the past */
    int64_t ends_s;   /* seconds from now; not beyond the authority's own end */
};

/* Makes folder `out` (mode 0700) when it is missing, and in it ca.crt and ca.crl (copies), tls.crt
 * and tls.key, signed by the authority in folder `authority`. */
enum tw_code tw_pki_issue(const char *authority, const char *out, const struct tw_pki_leaf *leaf,
                          struct tw_error *err);

#endif
