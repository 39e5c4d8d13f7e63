/* Reading lists of revoked certificates. Inside this room only. */
#ifndef TOWLINE_PKI_LIST_H
#define TOWLINE_PKI_LIST_H

#include "base/error.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>

/* All lists of a PEM file, at least one; the caller frees (sk_X509_CRL_pop_free). Their signatures
 * are not looked at. */
enum tw_code tw_lists_read(const char *path, STACK_OF(X509_CRL) * *lists, struct tw_error *err);

/* Has `context`, whose authorities are those of the file `ca`, refuse what is on the lists of the
 * file `path`. Each authority has to have a list there that it has signed: one that is missing
 * or made up is found out here, not by honest peers that are refused later. */
enum tw_code tw_lists_load(const char *path, const char *ca, SSL_CTX *context,
                           struct tw_error *err);

#endif
