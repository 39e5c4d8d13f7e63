/* Who somebody is: the role and the name that a certificate carries.
 *
 * Both are in one entry of the certificate's subject alternative names, the URI
 * "towline://ROLE/NAME". A certificate with none or with two of them is nobody's. The name is that
 * of the host for an agent, of the person or program for the others. */
#ifndef TOWLINE_PKI_IDENTITY_H
#define TOWLINE_PKI_IDENTITY_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_IDENTITY_NAME 64u  /* bytes of a name, with the final zero */
#define TW_IDENTITY_TEXT 128u /* bytes of "agent node-a", with the final zero */

enum tw_identity_role {
    TW_ROLE_NONE,       /* not known: may do nothing */
    TW_ROLE_OPERATOR,   /* a person or program that changes things */
    TW_ROLE_VIEWER,     /* one that only looks */
    TW_ROLE_CONTROLLER, /* the controller */
    TW_ROLE_AGENT,      /* the agent of the host that the name names */
    TW_ROLE_COUNT
};

struct tw_identity {
    enum tw_identity_role role;
    char name[TW_IDENTITY_NAME];
    int64_t expires_unix_s; /* end of the certificate, seconds since 1970 */
};

/* "operator", ..., "none"; never NULL. */
const char *tw_role_name(enum tw_identity_role role);
/* False when `text` names no role; "none" is not one. */
bool tw_role_parse(const char *text, enum tw_identity_role *role);

/* [a-z0-9][a-z0-9-]{0,62}, the rule of host names. */
bool tw_identity_name_ok(const char *name);
/* "agent node-a" into `buffer` of TW_IDENTITY_TEXT bytes; returns it. */
const char *tw_identity_text(const struct tw_identity *identity, char *buffer);

/* From a certificate that OpenSSL has (struct x509_st is its X509). UNAUTHENTICATED when it
 * carries no identity, or more than one. Says nothing about whether it can be trusted. */
struct x509_st;
enum tw_code tw_identity_read(const struct x509_st *certificate, struct tw_identity *identity,
                              struct tw_error *err);

#endif
