/* Which lines of which pages were compared in an epoch, and which of them differed: what tells a
 * line that was stored to in vain. Bounded; a page for which there is no room counts as not
 * compared. One thread. */
#ifndef TOWLINE_SERVICES_TRACKING_COMPARED_H
#define TOWLINE_SERVICES_TRACKING_COMPARED_H

#include <stddef.h>
#include <stdint.h>

#define TW_COMPARED_MAX (256u * 1024u) /* pages: 1 GiB that was stored to in an epoch */

struct tw_compared_page;
struct tw_compared {
    struct tw_compared_page *slots; /* open addressing; no lines = free */
    uint32_t count, capacity;
};

void tw_compared_free(struct tw_compared *c);
void tw_compared_clear(struct tw_compared *c);
/* Lines of the page: those that held what they held, those that differed, those of which nobody can
 * say; never none. Of what was found of a line at different times the strongest holds: that it
 * differed, then that nobody can say. */
void tw_compared_add(struct tw_compared *c, uint64_t page_address, uint64_t same, uint64_t changed,
                     uint64_t unsure);
/* Lines of which it is known whether they changed, and those that did. */
void tw_compared_find(const struct tw_compared *c, uint64_t page_address, uint64_t *known,
                      uint64_t *changed);

#endif
