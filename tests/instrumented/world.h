/* Two instrumented programs with a region each, and what moves the contents of one to the other:
 * both sides of a real migration over TCP on loopback, stepped by the test's only thread. */
#ifndef TOWLINE_TESTS_INSTRUMENTED_WORLD_H
#define TOWLINE_TESTS_INSTRUMENTED_WORLD_H

#include "hosts/instrumented/region.h"
#include "hosts/instrumented/test_subject.h"
#include "services/migration/migration.h"
#include "services/migration/mutations.h"
#include "tests/instrumented/work.h"

struct world_side {
    struct world *world;
    struct subject program;
    struct tw_instrumented_region *region;
    struct tw_host *host;
    struct tw_fabric *fabric;
    enum tw_hand_over durable;
    bool answers_due; /* scenarios told and not answered */
};

struct world {
    struct world_side source, destination;
    struct tw_migration_params params;
    struct tw_source *from;
    struct tw_destination *to;
    bool pause_at_switch;                        /* of the background */
    struct tw_migration_progress sent, received; /* after the end, or world_look() */
};

/* Each ends the test program with a text when something fails. */
void world_open(struct world *w, uint64_t patience_ns);
void world_close(struct world *w);

void world_start(struct world *w, const struct tw_migration_limits *limits);
void world_mutate(struct world *w, struct tw_migration_mutations source,
                  struct tw_migration_mutations destination);
/* Steps both sides once. */
void world_step(struct world *w);
/* Steps until the destination's program runs on the memory; false: it came to another end. */
bool world_switch(struct world *w);
/* Steps until both sides have ended. */
void world_finish(struct world *w);
void world_look(struct world *w);

/* Has a program do something, with the service running meanwhile. */
void world_tell(struct world_side *side, enum scenario scenario);
void world_wait(struct world_side *side);
void world_do(struct world_side *side, enum scenario scenario);

#endif
