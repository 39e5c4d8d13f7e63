#include "pki/authority.h"

#include "pki/issue.h"
#include "pki/openssl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum tw_code tw_pki_path(const char *directory, const char *name, char path[TW_PKI_PATH],
                         struct tw_error *err)
{
    if (snprintf(path, TW_PKI_PATH, "%s/%s", directory, name) >= (int)TW_PKI_PATH)
        return tw_fail(err, TW_INVALID_ARGUMENT, "folder", NULL, NULL, "the path is too long");
    return TW_OK;
}

enum tw_code tw_pki_file_new(const char *directory, const char *name, mode_t mode,
                             char path[TW_PKI_PATH], FILE **file, struct tw_error *err)
{
    enum tw_code code = tw_pki_path(directory, name, path, err);
    if (code != TW_OK)
        return code;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "cannot make the file");
    *file = fdopen(fd, "w");
    if (*file)
        return TW_OK;
    close(fd);
    unlink(path);
    return tw_fail_errno(err, ENOMEM, path, "cannot make the file");
}

enum tw_code tw_pki_file_end(FILE *file, bool written, const char *path, struct tw_error *err)
{
    bool flushed = fflush(file) == 0 && fsync(fileno(file)) == 0;
    int number = errno;
    bool closed = fclose(file) == 0;
    if (written && flushed && closed)
        return TW_OK;
    unlink(path);
    return written ? tw_fail_errno(err, number, path, "cannot write")
                   : tw_fail_openssl(err, TW_INTERNAL, path, "cannot write");
}

void tw_authority_free(struct tw_authority *a)
{
    X509_free(a->certificate);
    EVP_PKEY_free(a->key);
}

enum tw_code tw_authority_read(const char *directory, struct tw_authority *a, struct tw_error *err)
{
    char path[TW_PKI_PATH];
    enum tw_code code = tw_pki_path(directory, TW_PKI_CA_FILE, path, err);
    if (code == TW_OK)
        code = tw_pem_certificate_read(path, &a->certificate, err);
    if (code == TW_OK)
        code = tw_pki_path(directory, TW_PKI_CA_KEY_FILE, path, err);
    if (code == TW_OK)
        code = tw_pem_key_read(path, &a->key, err);
    if (code == TW_OK && X509_check_private_key(a->certificate, a->key) != 1)
        code =
            tw_fail_openssl(err, TW_INVALID_ARGUMENT, directory, "ca.key is not the key of ca.crt");
    return code;
}
