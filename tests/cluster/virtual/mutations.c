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

/* A seed or a way that notices, as the code stands; where it does not any more, others are looked
 * through. */
const struct vt_mutation vt_mutations[] = {
    {.rule = "start_early"},      /* hand-over: a prepared destination runs */
    {.rule = "skip_final_sweep"}, /* hand-over: the last lines are not sent */
    {.rule = "drop_record"},      /* hand-over: a record is not sent */
    {.rule = "reclaim_owned"},    /* resolve: the source takes back what the destination owns */
    {.rule = "commit_active"},    /* resolve: the destination runs while the source is silent */
    {.rule = "lost_in_doubt"},    /* resolve: a silent host is taken for an empty one */
    {.rule = "never_declared"},   /* resolve: an operator's word that a host is lost is not taken */
    {.rule = "leave_stale"},      /* resolve: an old copy on a host that is back stays */
    {.rule = "forget_adjust"},    /* orders: a bandwidth is acknowledged and not kept */
    {.rule = "no_reconnect"},     /* orders: to connect again is acknowledged and not done */
    {.rule = "never_resumed"},    /* orders: so is the end of a pause */
    {.rule = "any_plan"},         /* plans: whether one still holds is not looked at */
    {.rule = "stop_takes_guests"}, /* an agent that ends in order ends its guests */
    {.rule = "forget_given_up"},   /* records: the give-up is acknowledged and not written */
    {.rule = "forget_committed"},  /* records: the same of the take-over */
    {.rule = "forget_outcome"},    /* records: how a migration ended is not written */
    {.rule = "forget_fsync"},      /* records: not made to last */
    {.rule = "forget_sync"},       /* the controller's store: the same */
    {0},
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
