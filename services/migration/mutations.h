/* Test-only switches that break one rule each, for the proof that the checks bite. All false in
 * use. */
#ifndef TOWLINE_SERVICES_MIGRATION_MUTATIONS_H
#define TOWLINE_SERVICES_MIGRATION_MUTATIONS_H

#include "services/migration/migration.h"

#include <stdbool.h>

struct tw_migration_mutations {
    bool drop_record;      /* source: the first record of round 0 is not sent */
    bool drop_uncounted;   /* ... nor counted in the totals, so that only the digest can tell */
    bool skip_final_sweep; /* source: nothing is collected after the stop */
    bool skip_compare;     /* source: lines that only the compare finds are not sent */
    bool send_twice;       /* source: what was sent on demand is sent in the background, too */
    bool send_all_again;   /* source: what had arrived is sent again to who connects again */
    bool forget_line;      /* destination: says that one line is here which is not */
    bool late_overwrites;  /* destination: what arrives late is written all the same */
    bool count_twice;      /* destination: what arrives late is counted all the same */
    bool ready_early;      /* destination: a page is ready with its first line */
    bool skip_mirror_wait; /* source: gives up before the mirror holds what is to follow */
    bool keep_wrong;       /* mirror: says that it holds what it did not store */
    bool keep_quiet;       /* mirror: never says that it holds all */
    bool ask_each;         /* destination: asks for each wait, also for what was asked for */
    bool start_early;      /* destination: runs as soon as it is prepared */
};

void tw_source_mutate(struct tw_source *source, struct tw_migration_mutations mutations);
struct tw_mirror;
void tw_mirror_mutate(struct tw_mirror *mirror, struct tw_migration_mutations mutations);
void tw_destination_mutate(struct tw_destination *destination,
                           struct tw_migration_mutations mutations);

#endif
