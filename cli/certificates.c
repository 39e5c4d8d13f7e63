/* Where tow's own certificate comes from: the options, else a folder. */
#include "cli/certificates.h"

#include <stdlib.h>
#include <string.h>

static bool taken(const char *value)
{
    return value && *value;
}

static enum tw_code file_take(const struct tow_arguments *arguments, const char *option,
                              char path[sizeof((struct tw_tls_files *)0)->ca], struct tw_error *err)
{
    const char *value = tow_option_value(arguments, option);
    if (value && snprintf(path, sizeof((struct tw_tls_files *)0)->ca, "%s", value) >=
                     (int)sizeof((struct tw_tls_files *)0)->ca)
        return tw_fail(err, TW_INVALID_ARGUMENT, option, NULL, NULL, "the path is too long");
    return TW_OK;
}

enum tw_code tow_certificates_take(struct tow *tow, const struct tow_arguments *arguments,
                                   struct tw_error *err)
{
    const char *dir = getenv(TOW_TLS_DIR_VAR), *insecure = getenv(TOW_INSECURE_VAR);
    enum tw_code code = TW_OK;
    tow->insecure =
        tow_option_value(arguments, "insecure") || (taken(insecure) && strcmp(insecure, "0") != 0);
    if (taken(dir))
        code = tw_tls_files_in(dir, &tow->tls_files, err);
    if (tow_option_value(arguments, "ca"))
        tow->tls_files.crl[0] = 0; /* another authority has another list */
    if (code == TW_OK)
        code = file_take(arguments, "ca", tow->tls_files.ca, err);
    if (code == TW_OK)
        code = file_take(arguments, "crl", tow->tls_files.crl, err);
    if (code == TW_OK)
        code = file_take(arguments, "cert", tow->tls_files.certificate, err);
    if (code == TW_OK)
        code = file_take(arguments, "key", tow->tls_files.key, err);
    return code;
}

enum tw_code tow_client_open(struct tow *tow, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    bool wanted = strncmp(tow->controller, "tls", 3) == 0;
    if (wanted && !tow->tls && !tw_tls_files_given(&tow->tls_files))
        return tw_fail(err, TW_UNAUTHENTICATED, tow->controller,
                       "--ca, --cert, --key, or a folder in $" TOW_TLS_DIR_VAR, "none",
                       "TLS needs certificates");
    if (wanted && !tow->tls) {
        code = tw_tls_open(&tow->tls_files, &tow->tls, err);
        if (code == TW_OK)
            code = tw_tls_watch(tow->tls, err);
    }
    if (code != TW_OK)
        return code;
    const struct tw_rpc_client_config config = {.url = tow->controller,
                                                .tls = tow->tls,
                                                .expected = {TW_ROLE_CONTROLLER, NULL},
                                                .insecure = tow->insecure};
    return tw_rpc_client_open(&config, &tow->client, err);
}
