/* Counts what a side does, and turns it into the progress that people see. */
#ifndef TOWLINE_SERVICES_MIGRATION_METER_H
#define TOWLINE_SERVICES_MIGRATION_METER_H

#include "services/migration/migration.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_METER_BUCKETS   8u
#define TW_METER_BUCKET_NS (125 * TW_MS) /* eight of them are the last second */

struct tw_meter {
    struct tw_migration_progress p; /* all but phase, lines_dirty, rate and eta kept up here */
    uint64_t start_ns, end_ns;      /* end 0 = under way */
    uint64_t round_start_ns, round_earlier_ns; /* earlier: of rounds merged into the same slot */
    uint64_t buckets[TW_METER_BUCKETS];
    uint64_t bucket; /* number of the newest */
    uint64_t sample_bytes, sample_ns;
    bool held_back;     /* a pause of our own choice: the next bytes begin a new sample */
    uint64_t link_rate; /* bytes/s that the link was seen to take; 0 = not known */
};

void tw_meter_init(struct tw_meter *m, uint64_t memory_bytes, uint64_t now_ns);
void tw_meter_end(struct tw_meter *m, uint64_t now_ns);

/* Rounds beyond the size of the list share its last entry; totals stay right. */
void tw_meter_round_begin(struct tw_meter *m, uint32_t index, bool final, uint64_t now_ns);
struct tw_round *tw_meter_round(struct tw_meter *m); /* the present one */
void tw_meter_round_end(struct tw_meter *m, uint64_t now_ns);

/* Bytes of a chunk given to the link. */
void tw_meter_sent(struct tw_meter *m, uint64_t bytes, uint64_t now_ns);
/* The link was idle: what comes next is a new sample of its speed. */
void tw_meter_idle(struct tw_meter *m, uint64_t now_ns);
/* A bandwidth limit holds us back: the pause says nothing about the link. What was sent before it
 * does, once the peer has told that it consumed half of it or more; `unconfirmed` bytes it may not
 * have. Called again and again while the pause lasts. */
void tw_meter_held_back(struct tw_meter *m, uint64_t unconfirmed, uint64_t now_ns);

uint64_t tw_meter_rate(const struct tw_meter *m, uint64_t now_ns); /* over the last second */

/* What a page costs where pages are sent. */
uint64_t tw_page_cost(bool zero);

#endif
