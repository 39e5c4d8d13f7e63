#include "proto/access.h"

#include <string.h>

const struct tw_access *tw_access_find(const char *service, const char *method)
{
    for (size_t i = 0; i < tw_access_count; i++)
        if (strcmp(tw_access_table[i].service, service) == 0 &&
            strcmp(tw_access_table[i].method, method) == 0)
            return &tw_access_table[i];
    return NULL;
}
