/* Rules that are broken on purpose, one at a time, to see that the seeds notice: in the hand-over
 * (services/migration/mutations.h, by the fault points "break.*"), and here in what the controller
 * decides and in what is written down. */
#include "tests/cluster/virtual/mutations.h"

#include "agentd/record.h"
#include "controller/drive.h"
#include "controller/plans.h"
#include "services/migration/mirror.h"
#include "services/migration/mutations.h"
#include "tests/cluster/virtual/world.h"

#include <string.h>

/* A seed or a way that notices, as the code stands; where it does not any more, others are looked
 * through. */
const struct vt_mutation vt_mutations[] = {
    /* hand-over: a prepared destination runs */
    {.rule = "start_early", .seed = 1},
    /* hand-over: the last lines are not sent */
    {.rule = "skip_final_sweep", .seed = 1},
    /* hand-over: a record is not sent */
    {.rule = "drop_record", .seed = 14},
    /* hand-over: the mirror does not hold yet what is to follow */
    {.rule = "skip_mirror_wait", .seed = 225},
    /* the mirror says that it holds what it did not store */
    {.rule = "keep_wrong", .seed = 11},
    /* resolve: the source takes back what the destination owns */
    {.rule = "reclaim_owned", .seed = 19},
    /* resolve: the destination runs while the source is silent */
    {.rule = "commit_active", .seed = 428},
    /* resolve: a silent host is taken for an empty one */
    {.rule = "lost_in_doubt", .seed = 11},
    /* resolve: an operator's word that a host is lost is not taken */
    {.rule = "never_declared", .seed = 99},
    /* resolve: what a mirror holds is not counted on */
    {.rule = "forget_mirror", .seed = 16},
    /* resolve: an old copy on a host that is back stays */
    {.rule = "leave_stale", .seed = 18},
    /* orders: a bandwidth is acknowledged and not kept */
    {.rule = "forget_adjust", .seed = 7},
    /* orders: to connect again is acknowledged and not done */
    {.rule = "no_reconnect", .way = "path stays cut until nobody tries any more"},
    /* orders: so is the end of a pause */
    {.rule = "never_resumed", .way = "paused while memory follows"},
    /* pacing: a guest that was slowed is never told that it is over */
    {.rule = "never_unpaced", .seed = 87},
    /* pacing: a guest is slowed by more than was allowed */
    {.rule = "pace_hard", .seed = 2},
    /* plans: whether one still holds is not looked at */
    {.rule = "any_plan", .seed = 76},
    /* an agent that ends in order ends its guests */
    {.rule = "stop_takes_guests", .seed = 112},
    /* records: the give-up is acknowledged and not written */
    {.rule = "forget_given_up", .seed = 1},
    /* records: the same of the take-over */
    {.rule = "forget_committed", .seed = 1},
    /* records: how a migration ended is not written */
    {.rule = "forget_outcome", .seed = 2},
    /* records: not made to last */
    {.rule = "forget_fsync", .seed = 88},
    /* the controller's store: not made to last */
    {.rule = "forget_sync", .seed = 60},
    {0},
};

/* Of the linker. */
bool __wrap_tw_source_mirror_ready(const struct tw_source *source);
bool __real_tw_source_mirror_ready(const struct tw_source *source);
void __wrap_tw_source_pace_end(struct tw_source *source);
void __real_tw_source_pace_end(struct tw_source *source);
void __wrap_tw_limits_from_proto(const Towline__V1__MigrationLimits *limits, unsigned predictor,
                                 struct tw_migration_limits *out);
void __real_tw_limits_from_proto(const Towline__V1__MigrationLimits *limits, unsigned predictor,
                                 struct tw_migration_limits *out);
bool __wrap_tw_drive_mirror_judge(struct tw_drive *drive, const struct tw_migration_record *record,
                                  struct tw_verdict *verdict);
bool __real_tw_drive_mirror_judge(struct tw_drive *drive, const struct tw_migration_record *record,
                                  struct tw_verdict *verdict);
enum tw_code __wrap_tw_mirror_start(const struct tw_migration_env *env,
                                    const struct tw_migration_params *params, uint64_t memory_bytes,
                                    uint64_t connect_timeout_ns, struct tw_mirror **mirror,
                                    struct tw_error *err);
enum tw_code __real_tw_mirror_start(const struct tw_migration_env *env,
                                    const struct tw_migration_params *params, uint64_t memory_bytes,
                                    uint64_t connect_timeout_ns, struct tw_mirror **mirror,
                                    struct tw_error *err);
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

/* ---- Mirrors and pacing ---------------------------------------------------------------------- */

bool __wrap_tw_source_mirror_ready(const struct tw_source *source)
{
    return vt_mutated("skip_mirror_wait") || __real_tw_source_mirror_ready(source);
}

enum tw_code __wrap_tw_mirror_start(const struct tw_migration_env *env,
                                    const struct tw_migration_params *params, uint64_t memory_bytes,
                                    uint64_t connect_timeout_ns, struct tw_mirror **mirror,
                                    struct tw_error *err)
{
    enum tw_code code =
        __real_tw_mirror_start(env, params, memory_bytes, connect_timeout_ns, mirror, err);
    if (code == TW_OK && vt_mutated("keep_wrong"))
        tw_mirror_mutate(*mirror, (struct tw_migration_mutations){.keep_wrong = true});
    return code;
}

bool __wrap_tw_drive_mirror_judge(struct tw_drive *drive, const struct tw_migration_record *record,
                                  struct tw_verdict *verdict)
{
    return !vt_mutated("forget_mirror") && __real_tw_drive_mirror_judge(drive, record, verdict);
}

void __wrap_tw_source_pace_end(struct tw_source *source)
{
    if (!vt_mutated("never_unpaced"))
        __real_tw_source_pace_end(source);
}

void __wrap_tw_limits_from_proto(const Towline__V1__MigrationLimits *limits, unsigned predictor,
                                 struct tw_migration_limits *out)
{
    __real_tw_limits_from_proto(limits, predictor, out);
    if (vt_mutated("pace_hard"))
        out->slow_down_permille *= 2;
}
