/* tow's own certificate, and the client that uses it. */
#ifndef TOWLINE_CLI_CERTIFICATES_H
#define TOWLINE_CLI_CERTIFICATES_H

#include "cli/command.h"

#define TOW_TLS_DIR_VAR  "TOWLINE_TLS_DIR"
#define TOW_INSECURE_VAR "TOWLINE_INSECURE"

/* Options --ca, --cert, --key go before the files of the folder in $TOWLINE_TLS_DIR. */
enum tw_code tow_certificates_take(struct tow *tow, const struct tow_arguments *arguments,
                                   struct tw_error *err);
/* Opens tow->client; reads the certificates where the URL wants them. */
enum tw_code tow_client_open(struct tow *tow, struct tw_error *err);

#endif
