/* One reading of the files, checked. Inside this room only. */
#ifndef TOWLINE_PKI_MATERIAL_H
#define TOWLINE_PKI_MATERIAL_H

#include "pki/tls.h"

#include <openssl/ssl.h>

struct tw_material {
    SSL_CTX *context;
    struct tw_identity identity; /* role NONE without a certificate */
    int64_t expires_unix_s;      /* of the first to end */
};

enum tw_code tw_material_read(const struct tw_tls_files *files, struct tw_material *material,
                              struct tw_error *err);
void tw_material_clear(struct tw_material *material);

#endif
