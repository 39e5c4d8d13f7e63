/* A request of a local program, checked: its bytes are foreign. */
#ifndef TOWLINE_AGENTD_LOCAL_REQUEST_H
#define TOWLINE_AGENTD_LOCAL_REQUEST_H

#include "base/error.h"
#include "proto/local.h"

#include <stddef.h>
#include <stdint.h>

struct tw_local_request {
    enum tw_local_kind kind;
    union {
        struct tw_local_catch catch;
        struct tw_local_open open;
        struct tw_local_epoch epoch;
        struct tw_local_epoch_ask ask;
        struct tw_local_read read;
    };
    const struct tw_local_range *ranges; /* OPEN: inside the body */
};

/* INVALID_ARGUMENT ends the connection: what follows cannot be told apart any more.
 * UNIMPLEMENTED: another version. */
enum tw_code tw_local_header_check(const struct tw_local_header *header, struct tw_error *err);

/* `body` is aligned to 8 and has the header's length. */
enum tw_code tw_local_request_parse(const struct tw_local_header *header, const void *body,
                                    struct tw_local_request *out, struct tw_error *err);

#endif
