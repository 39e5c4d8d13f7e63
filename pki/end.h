/* When a certificate ends, for those who only ask that. */
#ifndef TOWLINE_PKI_END_H
#define TOWLINE_PKI_END_H

#include "base/error.h"

#include <stdint.h>

/* Of the first certificate of a PEM file, seconds since 1970. Says nothing about who trusts it. */
enum tw_code tw_pki_end(const char *path, int64_t *unix_s, struct tw_error *err);

#endif
