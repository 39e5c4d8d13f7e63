/* VM specifications and names as operators give them: what is allowed, said clearly. */
#ifndef TOWLINE_CONTROLLER_SPEC_H
#define TOWLINE_CONTROLLER_SPEC_H

#include "controller/record.h"
#include "towline/v1/common.pb-c.h"

/* [a-z0-9][a-z0-9-]{0,62} */
bool tw_name_ok(const char *name);
/* `what`: "VM name", "host name". */
enum tw_code tw_name_check(const char *what, const char *name, struct tw_error *err);

/* `spec` may be NULL (refused). */
enum tw_code tw_spec_validate(const Towline__V1__VmSpec *spec, struct tw_error *err);
/* Takes from `from` what `limits` leaves at 0. */
void tw_limits_fill(Towline__V1__MigrationLimits *limits, const Towline__V1__MigrationLimits *from);
enum tw_code tw_limits_validate(const Towline__V1__MigrationLimits *limits, struct tw_error *err);

/* A packed message into bytes of `capacity`; RESOURCE_EXHAUSTED when it does not fit. */
enum tw_code tw_message_keep(const ProtobufCMessage *message, const char *where, uint8_t *bytes,
                             size_t capacity, size_t *size, struct tw_error *err);

#endif
