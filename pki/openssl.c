#include "pki/openssl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <sys/stat.h>

const char *tw_openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_get_error());
    ERR_clear_error();
    return reason ? reason : "no reason given";
}

enum tw_code tw_fail_openssl(struct tw_error *err, enum tw_code code, const char *where,
                             const char *what)
{
    return tw_fail(err, code, where, NULL, NULL, "%s: %s", what, tw_openssl_reason());
}

/* A folder can be opened and read like a file; it is not one. */
static enum tw_code file_open(const char *path, FILE **file, struct stat *status,
                              struct tw_error *err)
{
    *file = fopen(path, "re");
    if (!*file)
        return tw_fail_errno(err, errno, path, "cannot open");
    if (fstat(fileno(*file), status) == 0 && S_ISREG(status->st_mode))
        return TW_OK;
    fclose(*file);
    return tw_fail(err, TW_INVALID_ARGUMENT, path, "a PEM file", NULL, "not a file");
}

enum tw_code tw_pem_certificate_read(const char *path, X509 **certificate, struct tw_error *err)
{
    FILE *file;
    struct stat status;
    enum tw_code code = file_open(path, &file, &status, err);
    if (code != TW_OK)
        return code;
    *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    return *certificate ? TW_OK
                        : tw_fail_openssl(err, TW_INVALID_ARGUMENT, path, "no certificate in PEM");
}

/* A pass phrase would be asked for on the terminal, which a server does not have. */
static int no_pass_phrase(char *buffer, int size, int writing, void *arg)
{
    (void)buffer, (void)size, (void)writing, (void)arg;
    return -1;
}

enum tw_code tw_pem_key_read(const char *path, EVP_PKEY **key, struct tw_error *err)
{
    FILE *file;
    struct stat status;
    char mode[16];
    enum tw_code code = file_open(path, &file, &status, err);
    if (code != TW_OK)
        return code;
    if (status.st_mode & (S_IRWXO | S_IWGRP)) {
        fclose(file);
        snprintf(mode, sizeof mode, "%04o", status.st_mode & 07777u);
        return tw_fail(err, TW_PERMISSION_DENIED, path, "mode 0600 or 0640", mode,
                       "others than its owner have access to the key");
    }
    *key = PEM_read_PrivateKey(file, NULL, no_pass_phrase, NULL);
    fclose(file);
    return *key ? TW_OK
                : tw_fail_openssl(err, TW_INVALID_ARGUMENT, path,
                                  "no private key without pass phrase in PEM");
}
