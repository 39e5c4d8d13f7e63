/* The folder of an authority, and the files that it writes. Inside this room only. */
#ifndef TOWLINE_PKI_AUTHORITY_H
#define TOWLINE_PKI_AUTHORITY_H

#include "base/error.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#define TW_PKI_PATH       1024u
#define TW_PKI_BACKDATE_S INT64_C(300) /* clocks of hosts differ a little */

/* DIRECTORY/NAME. */
enum tw_code tw_pki_path(const char *directory, const char *name, char path[TW_PKI_PATH],
                         struct tw_error *err);
/* Opens a new file, never an existing one; the mode is right from the first moment. */
enum tw_code tw_pki_file_new(const char *directory, const char *name, mode_t mode,
                             char path[TW_PKI_PATH], FILE **file, struct tw_error *err);
/* Closes it, on the disk; removes it when that fails or `written` is false (OpenSSL's queue says
 * why). */
enum tw_code tw_pki_file_end(FILE *file, bool written, const char *path, struct tw_error *err);

struct tw_authority {
    X509 *certificate;
    EVP_PKEY *key;
};
/* ca.crt and ca.key, checked to belong together. `authority` is zeroed; free it in any case. */
enum tw_code tw_authority_read(const char *directory, struct tw_authority *authority,
                               struct tw_error *err);
void tw_authority_free(struct tw_authority *authority);

#endif
