/* Who may call what: the table that the build makes from the option (access) of each method
 * (towline/v1/access.proto). */
#ifndef TOWLINE_PROTO_ACCESS_H
#define TOWLINE_PROTO_ACCESS_H

#include <stddef.h>
#include <stdint.h>

struct tw_access {
    const char *service; /* "towline.v1.VmService" */
    const char *method;  /* "Create" */
    uint32_t roles;      /* bit N: the role with number N in access.proto */
    const char *self;    /* path of the request's field that has to be the caller's name, or NULL */
};

extern const struct tw_access tw_access_table[];
extern const size_t tw_access_count;

/* NULL for a method that the contract does not know. */
const struct tw_access *tw_access_find(const char *service, const char *method);

#endif
