/* Rules that are broken on purpose, one at a time, to see that the seeds notice: in the hand-over
 * (services/migration/mutations.h, by the fault points "break.*"), and here in what the controller
 * decides and in what is written down. */
#include "tests/cluster/virtual/mutations.h"

#include "agentd/record.h"
#include "controller/drive.h"
#include "controller/plans.h"
#include "services/migration/migration.h"
#include "tests/cluster/virtual/world.h"

#include <string.h>

/* Played one after the other by --mutations. By name only (--break): never_declared (an operator's
 * word that a host is lost is not taken), leave_stale (an old copy on a host that is back stays),
 * forget_adjust, no_reconnect, never_resumed (orders that are acknowledged and not done), any_plan
 * (whether a plan still holds is not looked at), stop_takes_guests (an agent that ends in order
 * ends its guests), forget_fsync and forget_sync (records and store are not made to last). */
const char *const vt_mutations[] = {
    "start_early",      /* hand-over: a prepared destination runs */
    "skip_final_sweep", /* hand-over: the last lines are not sent */
    "drop_record",      /* hand-over: a record is not sent */
    "reclaim_owned",    /* resolve: the source takes back what the destination owns */
    "commit_active",    /* resolve: the destination is told to run while the source is silent */
    "lost_in_doubt",    /* resolve: a silent host is taken for an empty one */
    "forget_given_up",  /* records: the give-up is acknowledged and not written */
    "forget_committed", /* records: the same of the take-over */
    "forget_outcome",   /* records: how a migration ended is not written */
    NULL,
};

/* Of the linker. */
struct tw_verdict __wrap_tw_resolve(const struct tw_resolve_view *view);
struct tw_verdict __real_tw_resolve(const struct tw_resolve_view *view);
enum tw_code __wrap_tw_reach_remove_vm(const struct tw_reach *reach, const char *host,
                                       const char *vm, uint64_t epoch, unsigned timeout_ms,
                                       struct tw_error *err);
enum tw_code __real_tw_reach_remove_vm(const struct tw_reach *reach, const char *host,
                                       const char *vm, uint64_t epoch, unsigned timeout_ms,
                                       struct tw_error *err);
enum tw_code __wrap_tw_drive_write(struct tw_drive *drive, const struct tw_migration_record *next,
                                   const struct tw_drive_change *change, struct tw_error *err);
enum tw_code __real_tw_drive_write(struct tw_drive *drive, const struct tw_migration_record *next,
                                   const struct tw_drive_change *change, struct tw_error *err);
enum tw_code __wrap_tw_destination_reconnect(struct tw_destination *destination,
                                             struct tw_error *err);
enum tw_code __real_tw_destination_reconnect(struct tw_destination *destination,
                                             struct tw_error *err);
void __wrap_tw_source_pause(struct tw_source *source, bool pause);
void __real_tw_source_pause(struct tw_source *source, bool pause);
enum tw_code __wrap_tw_plans_still_good(struct tw_migrations *migrations, const char *token,
                                        uint64_t deadline_ns, Towline__V1__Plan **plan,
                                        struct tw_error *err);
enum tw_code __real_tw_plans_still_good(struct tw_migrations *migrations, const char *token,
                                        uint64_t deadline_ns, Towline__V1__Plan **plan,
                                        struct tw_error *err);
enum tw_code __wrap_tw_record_vm_save(struct tw_record_store *store,
                                      const Towline__V1__VmRecord *record, struct tw_error *err);
enum tw_code __real_tw_record_vm_save(struct tw_record_store *store,
                                      const Towline__V1__VmRecord *record, struct tw_error *err);

enum tw_code __wrap_tw_record_migration_save(struct tw_record_store *store,
                                             const Towline__V1__MigrationRecord *record,
                                             struct tw_error *err);
enum tw_code __real_tw_record_migration_save(struct tw_record_store *store,
                                             const Towline__V1__MigrationRecord *record,
                                             struct tw_error *err);

enum tw_code __wrap_tw_record_migration_save(struct tw_record_store *store,
                                             const Towline__V1__MigrationRecord *record,
                                             struct tw_error *err)
{
    return vt_mutated("forget_outcome") ? TW_OK
                                        : __real_tw_record_migration_save(store, record, err);
}

enum tw_code __wrap_tw_reach_remove_vm(const struct tw_reach *reach, const char *host,
                                       const char *vm, uint64_t epoch, unsigned timeout_ms,
                                       struct tw_error *err)
{
    return vt_mutated("leave_stale")
               ? TW_OK
               : __real_tw_reach_remove_vm(reach, host, vm, epoch, timeout_ms, err);
}

enum tw_code __wrap_tw_drive_write(struct tw_drive *drive, const struct tw_migration_record *next,
                                   const struct tw_drive_change *change, struct tw_error *err)
{
    bool adjusted = change->why && strcmp(change->why, "adjusted") == 0;
    return adjusted && vt_mutated("forget_adjust")
               ? TW_OK
               : __real_tw_drive_write(drive, next, change, err);
}

enum tw_code __wrap_tw_destination_reconnect(struct tw_destination *destination,
                                             struct tw_error *err)
{
    return vt_mutated("no_reconnect") ? TW_OK : __real_tw_destination_reconnect(destination, err);
}

void __wrap_tw_source_pause(struct tw_source *source, bool pause)
{
    if (pause || !vt_mutated("never_resumed"))
        __real_tw_source_pause(source, pause);
}

enum tw_code __wrap_tw_plans_still_good(struct tw_migrations *migrations, const char *token,
                                        uint64_t deadline_ns, Towline__V1__Plan **plan,
                                        struct tw_error *err)
{
    return vt_mutated("any_plan")
               ? tw_plans_get(migrations, token, plan, err)
               : __real_tw_plans_still_good(migrations, token, deadline_ns, plan, err);
}

struct tw_verdict __wrap_tw_resolve(const struct tw_resolve_view *view)
{
    struct tw_resolve_view seen = *view;
    if (vt_mutated("never_declared"))
        seen.fenced = TW_FENCED_NONE;
    struct tw_verdict v = __real_tw_resolve(&seen);
    if (vt_mutated("reclaim_owned") && v.action == TW_ACTION_FINISH)
        v.action = TW_ACTION_RECLAIM;
    if (vt_mutated("commit_active") && v.action == TW_ACTION_DOUBT && !view->source.answers &&
        view->destination.known == TW_KNOWN_PREPARED)
        v.action = TW_ACTION_COMMIT;
    if (vt_mutated("lost_in_doubt") && v.action == TW_ACTION_DOUBT)
        v.action = TW_ACTION_LOST;
    return v;
}

enum tw_code __wrap_tw_record_vm_save(struct tw_record_store *store,
                                      const Towline__V1__VmRecord *record, struct tw_error *err)
{
    Towline__V1__Ownership o = record->ownership;
    if ((vt_mutated("forget_given_up") && o == TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP) ||
        (vt_mutated("forget_committed") && o == TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED &&
         record->hand_over == TW_KNOWN_COMMITTED))
        return TW_OK;
    return __real_tw_record_vm_save(store, record, err);
}
