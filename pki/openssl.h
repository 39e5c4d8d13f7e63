/* What the files of this room share about OpenSSL. */
#ifndef TOWLINE_PKI_OPENSSL_H
#define TOWLINE_PKI_OPENSSL_H

#include "base/error.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

/* The reason of OpenSSL's oldest queued error, for people; empties the queue. Constant text. */
const char *tw_openssl_reason(void);
/* The same as an error. */
enum tw_code tw_fail_openssl(struct tw_error *err, enum tw_code code, const char *where,
                             const char *what);

/* The first certificate of a PEM file, or its private key; the caller frees. A key that others
 * than its owner (and group) can read, or that has a pass phrase, is refused. */
enum tw_code tw_pem_certificate_read(const char *path, X509 **certificate, struct tw_error *err);
enum tw_code tw_pem_key_read(const char *path, EVP_PKEY **key, struct tw_error *err);

#endif
