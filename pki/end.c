#include "pki/end.h"

#include "pki/openssl.h"

#include <openssl/err.h>
#include <time.h>

enum tw_code tw_pki_end(const char *path, int64_t *unix_s, struct tw_error *err)
{
    X509 *certificate;
    struct tm end;
    ERR_clear_error();
    enum tw_code code = tw_pem_certificate_read(path, &certificate, err);
    if (code != TW_OK)
        return code;
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end))
        *unix_s = timegm(&end);
    else
        code = tw_fail_openssl(err, TW_INVALID_ARGUMENT, path, "its end cannot be read");
    X509_free(certificate);
    return code;
}
