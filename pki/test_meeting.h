/* Certificates of a test, and two ends that shake hands in memory. Folders are those of
 * pki/test_folder.h. A failure fails the test. */
#ifndef TOWLINE_PKI_TEST_MEETING_H
#define TOWLINE_PKI_TEST_MEETING_H

#include "pki/issue.h"
#include "pki/test_folder.h"
#include "pki/tls.h"

#include <openssl/ssl.h>

#define DAY INT64_C(86400)

/* For 30 days. */
struct tw_pki_leaf leaf(enum tw_identity_role role, const char *name);
void issue(const char *authority, const char *out, struct tw_pki_leaf leaf);
/* Folder `name` is that of a new authority. */
void authority(const char *name);
struct tw_tls *tls_in(const char *folder);
/* Folder `who` has the authority, and its list, of folder `whose`. */
void trust(const char *who, const char *whose);

struct meeting {
    SSL *client, *server;
    int client_result, server_result; /* of the last step, as SSL_get_error says */
};
void meet(struct meeting *meeting, struct tw_tls *client, struct tw_tls *server);
bool met(const struct meeting *meeting);
void part(struct meeting *meeting);
/* They do not meet, and the server says of the client why. */
void refused(const char *client, const char *server, const char *why);

#endif
