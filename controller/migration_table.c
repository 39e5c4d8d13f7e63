#include "controller/migrations.h"

/* A migration as the controller drives it. The agents' machines ("source", "destination") do the
 * work; this one follows them, and decides only when they cannot.
 *
 *   pending -> preparing -> copying -> switching -> completed
 *                  |           \________/    \-> cancelled, failed, lost
 *                  v               |  ^
 *          cancelled, failed    resolving: an agent or link was lost
 */

static bool destination_owns(const void *object)
{
    const struct tw_migration_record *m = object;
    return m->destination_known == TW_KNOWN_COMMITTED || m->source_known == TW_KNOWN_COMMITTED;
}

static bool source_owns(const void *object)
{
    const struct tw_migration_record *m = object;
    return m->source_known != TW_KNOWN_GIVEN_UP && m->source_known != TW_KNOWN_COMMITTED;
}

#define ENDS_AT_SOURCE                                                                             \
    (TW_MAY(TW_MIGRATION_CANCELLED) | TW_MAY(TW_MIGRATION_FAILED) | TW_MAY(TW_MIGRATION_LOST))
#define ENDS (ENDS_AT_SOURCE | TW_MAY(TW_MIGRATION_COMPLETED))

static const struct tw_state states[TW_MIGRATION_STATES] = {
    [TW_MIGRATION_PENDING] = {"pending", TW_MAY(TW_MIGRATION_PREPARING) | ENDS_AT_SOURCE,
                              "recorded, nothing asked of the agents yet", source_owns},
    [TW_MIGRATION_PREPARING] = {"preparing", TW_MAY(TW_MIGRATION_COPYING) | ENDS_AT_SOURCE,
                                "the destination makes room", source_owns},
    [TW_MIGRATION_COPYING] = {"copying",
                              TW_MAY(TW_MIGRATION_SWITCHING) | TW_MAY(TW_MIGRATION_RESOLVING) |
                                  ENDS,
                              "full copy and rounds, the source runs", NULL},
    [TW_MIGRATION_SWITCHING] = {"switching",
                                TW_MAY(TW_MIGRATION_COPYING) | TW_MAY(TW_MIGRATION_RESOLVING) |
                                    ENDS,
                                "the VM is stopped, hand-over under way", NULL},
    [TW_MIGRATION_RESOLVING] = {"resolving",
                                TW_MAY(TW_MIGRATION_COPYING) | TW_MAY(TW_MIGRATION_SWITCHING) |
                                    ENDS,
                                "the truth is being established from both sides", NULL},
    [TW_MIGRATION_COMPLETED] = {"completed", 0, "the destination owns the VM", destination_owns},
    [TW_MIGRATION_CANCELLED] = {"cancelled", 0, "cancelled, the source owns the VM", source_owns},
    [TW_MIGRATION_FAILED] = {"failed", 0, "failed, the source owns the VM", source_owns},
    [TW_MIGRATION_LOST] = {"lost", 0, "the VM's own process has ended", NULL},
};

const struct tw_machine_table tw_migration_table = {"migration", states, TW_MIGRATION_STATES};
