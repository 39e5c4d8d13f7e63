/* Certificates that count no more before their end: the list that an authority signs (a CRL, RFC
 * 5280), beside its certificate. A list is good as long as its authority, so that nothing fails
 * because nobody wrote a new one in time: whoever revokes brings the new list to every host. */
#ifndef TOWLINE_PKI_REVOKE_H
#define TOWLINE_PKI_REVOKE_H

#include "base/error.h"

#include <stdbool.h>

#define TW_PKI_LIST_BYTES_MAX (4u << 20) /* a longer list is refused: some 100000 certificates */

/* Writes the first list of an authority: an empty one. */
enum tw_code tw_pki_list_new(const char *authority, struct tw_error *err);
/* Copies the authority's list to folder `out`; without one there is nothing to do. */
enum tw_code tw_pki_list_copy(const char *authority, const char *out, struct tw_error *err);

/* Puts a certificate (a PEM file) on the list of the authority in folder `authority`, or begins
 * the list with it; *revoked = how many are on it then. ALREADY_EXISTS: it was on it before, or
 * somebody else writes the list now. INVALID_ARGUMENT: another authority's. */
enum tw_code tw_pki_revoke(const char *authority, const char *certificate, unsigned *revoked,
                           struct tw_error *err);

/* Whether the first certificate of a PEM file is on one of the lists in another; signatures are
 * not looked at. */
enum tw_code tw_pki_revoked(const char *list, const char *certificate, bool *revoked,
                            struct tw_error *err);

#endif
