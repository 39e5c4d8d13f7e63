/* Authorities and certificates for tests, in a folder that goes away. Only for tests; anything that
 * fails ends the program. */
#ifndef TOWLINE_FABRIC_TLS_FIXTURE_H
#define TOWLINE_FABRIC_TLS_FIXTURE_H

#include "pki/tls.h"

#define FIXTURE_DAY INT64_C(86400)

struct fixture {
    char folder[64];
};

struct fixture fixture_open(void);
void fixture_close(struct fixture *fixture);

/* A new authority, under a name of the test's choice. */
void fixture_authority(const struct fixture *fixture, const char *authority);

struct fixture_leaf {
    const char *authority; /* who signs */
    const char *trusts;    /* whom it believes; NULL = the same */
    enum tw_identity_role role;
    const char *name;
    int64_t begins_s, ends_s; /* seconds from now; both 0 = a month from now on */
};
/* The files of a certificate with its key, in a folder of their own. */
struct tw_tls_files fixture_issue(const struct fixture *fixture, const struct fixture_leaf *leaf);
/* The same, loaded. */
struct tw_tls *fixture_tls(const struct fixture *fixture, const struct fixture_leaf *leaf);
/* Revokes a certificate of `authority`, and puts the new list where `reader` looks for it. */
void fixture_revoke(const struct fixture *fixture, const char *authority, const char *certificate,
                    const struct tw_tls_files *reader);
/* Puts the files of one in the place of another's. */
void fixture_replace(const struct tw_tls_files *old, const struct tw_tls_files *with);

#endif
