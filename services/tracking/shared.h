/* Lines that several threads of a program stored to in an epoch. One thread. */
#ifndef TOWLINE_SERVICES_TRACKING_SHARED_H
#define TOWLINE_SERVICES_TRACKING_SHARED_H

#include "hosts/attachment.h"

#define TW_SHARED_LINES_MAX 64u /* kept of an epoch */

struct tw_shared_lines {
    struct tw_shared_line *lines; /* NULL until there is one */
    uint32_t count;
    uint64_t total, falsely; /* more may have been than are kept */
};

/* A line that is shared falsely takes the place of one that is not, where there is no room. */
void tw_shared_lines_add(struct tw_shared_lines *s, const struct tw_shared_line *line);
void tw_shared_lines_clear(struct tw_shared_lines *s);
void tw_shared_lines_free(struct tw_shared_lines *s);
/* The falsely shared ones first, then by address. Returns how many. */
size_t tw_shared_lines_list(const struct tw_shared_lines *s, struct tw_shared_line *out,
                            size_t max);

#endif
