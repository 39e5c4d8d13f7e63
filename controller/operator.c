/* What operators ask of a migration under way: cancel it, or decide it for a host that is lost. */
#include "controller/drive.h"

#include "base/log.h"
#include "controller/spec.h"

#include <stdio.h>
#include <string.h>

#define CANCEL_MS 2000u

static const char *state_name(const struct tw_migration_record *m)
{
    return tw_migration_table.states[m->state].name;
}

/* ---- Cancel -------------------------------------------------------------------------------- */

static enum tw_code handed_over(const struct tw_migration_record *m, struct tw_error *err)
{
    return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "a migration before its hand-over",
                   state_name(m), "the source has given up the VM already");
}

/* Why there is nobody who drives it: it has ended, or there never was one. */
static enum tw_code not_under_way(struct tw_migrations *migrations, const char *id,
                                  struct tw_migration_record *record, struct tw_error *err)
{
    enum tw_code code = tw_migrations_get(migrations, id, record, err);
    return code != TW_OK ? code
                         : tw_fail(err, TW_FAILED_PRECONDITION, id, "a migration under way",
                                   state_name(record), "the migration has ended");
}

/* Behind an order: what is known by now, and the driver looks at once. */
static void leave(struct tw_drive *d, struct tw_migration_record *record)
{
    pthread_mutex_lock(&d->lock);
    *record = d->record;
    pthread_mutex_unlock(&d->lock);
    tw_drive_wake(d);
    tw_drive_release(d);
}

static enum tw_code cancel_ended(struct tw_migrations *migrations, const char *id,
                                 struct tw_migration_record *m, struct tw_error *err)
{
    enum tw_code code = tw_migrations_get(migrations, id, m, err);
    if (code != TW_OK || m->state == TW_MIGRATION_CANCELLED)
        return code;
    return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "a migration under way", state_name(m),
                   "the migration has ended");
}

static enum tw_code wish(struct tw_drive *d, bool cancel, struct tw_error *err)
{
    pthread_mutex_lock(&d->lock);
    struct tw_migration_record m = d->record;
    enum tw_code code = TW_OK;
    if (tw_migration_ended(&m))
        code = m.state == TW_MIGRATION_CANCELLED
                   ? TW_OK
                   : tw_fail(err, TW_FAILED_PRECONDITION, m.id, "a migration under way",
                             state_name(&m), "the migration has ended");
    else if (cancel && tw_drive_handed_over(&m))
        code = handed_over(&m, err);
    else if (m.cancel_requested != cancel) {
        const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = "cancel"};
        m.cancel_requested = cancel;
        code = tw_drive_write(d, &m, &change, err);
    }
    pthread_mutex_unlock(&d->lock);
    return code;
}

static enum tw_code cancel_live(struct tw_drive *d, struct tw_error *err)
{
    enum tw_code code = wish(d, true, err);
    if (code != TW_OK)
        return code;
    pthread_mutex_lock(&d->lock);
    bool begun = d->record.state >= TW_MIGRATION_COPYING && !tw_migration_ended(&d->record);
    pthread_mutex_unlock(&d->lock);
    if (!begun)
        return TW_OK;
    code = tw_reach_cancel(&d->owner->config.reach, d->source, d->id, CANCEL_MS, err);
    if (code == TW_FAILED_PRECONDITION) {
        /* The source has given up in the meantime: the wish came too late. */
        wish(d, false, NULL);
        return code;
    }
    /* A source that does not answer gets the wish when it does: the job repeats it. */
    if (code != TW_OK)
        tw_log(TW_LOG_WARN, "migration", "cancel not delivered yet", "migration=%s", d->id);
    return TW_OK;
}

enum tw_code tw_migrations_cancel(struct tw_migrations *migrations, const char *id,
                                  struct tw_migration_record *record, struct tw_error *err)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d)
        return cancel_ended(migrations, id, record, err);
    enum tw_code code = cancel_live(d, err);
    leave(d, record);
    return code;
}

/* ---- Switch -------------------------------------------------------------------------------- */

enum tw_code tw_migrations_switch(struct tw_migrations *migrations, const char *id,
                                  struct tw_migration_record *record, struct tw_error *err)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d)
        return not_under_way(migrations, id, record, err);
    enum tw_code code = tw_reach_switch(&d->owner->config.reach, d->source, d->id, CANCEL_MS, err);
    leave(d, record);
    return code;
}

/* ---- Adjust -------------------------------------------------------------------------------- */

static enum tw_code adjust_check(const Towline__V1__AdjustMigrationRequest *r, struct tw_error *err)
{
    Towline__V1__MigrationLimits l = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    if (!r->set_bandwidth && !r->set_downtime && !r->set_slow_down && !r->set_paused)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->id, "bandwidth, downtime, slow-down or pause",
                       "none", "nothing to change");
    if (r->set_downtime && r->downtime_ms == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->id, "at least 1 ms", "0 ms",
                       "no usable downtime budget");
    l.bandwidth_bytes_per_s = r->set_bandwidth ? r->bandwidth_bytes_per_s : 0;
    l.downtime_ms = r->set_downtime ? r->downtime_ms : 0;
    l.slow_down_percent = r->set_slow_down ? r->slow_down_percent : 0;
    return tw_limits_validate(&l, err);
}

/* The record's limits as they are now; what only the agent holds, a pause, is in the progress. */
static enum tw_code limits_write(struct tw_drive *d, const Towline__V1__AdjustMigrationRequest *r,
                                 struct tw_error *err)
{
    struct tw_migration_record m = d->record;
    const struct tw_drive_change change = {.mode = TW_STORE_RELAXED, .why = "adjusted"};
    Towline__V1__MigrationLimits *l =
        towline__v1__migration_limits__unpack(NULL, m.limits_size, m.limits);
    if (!l)
        return tw_fail(err, TW_DATA_LOSS, m.id, NULL, NULL, "its limits are unreadable");
    if (r->set_bandwidth)
        l->bandwidth_bytes_per_s = r->bandwidth_bytes_per_s;
    if (r->set_downtime)
        l->downtime_ms = r->downtime_ms;
    if (r->set_slow_down)
        l->slow_down_percent = r->slow_down_percent;
    enum tw_code code = tw_message_keep(&l->base, "migration limits", m.limits, sizeof m.limits,
                                        &m.limits_size, err);
    towline__v1__migration_limits__free_unpacked(l, NULL);
    return code == TW_OK ? tw_drive_write(d, &m, &change, err) : code;
}

static enum tw_code adjust_live(struct tw_drive *d, const Towline__V1__AdjustMigrationRequest *r,
                                struct tw_error *err)
{
    Towline__V1__AgentAdjustRequest a = TOWLINE__V1__AGENT_ADJUST_REQUEST__INIT;
    a.migration = d->id;
    a.set_bandwidth = r->set_bandwidth;
    a.bandwidth_bytes_per_s = r->bandwidth_bytes_per_s;
    a.set_downtime = r->set_downtime;
    a.downtime_ms = r->downtime_ms;
    a.set_slow_down = r->set_slow_down;
    a.slow_down_percent = r->slow_down_percent;
    a.set_paused = r->set_paused;
    a.paused = r->paused;
    enum tw_code code = tw_reach_adjust(&d->owner->config.reach, d->source, &a, CANCEL_MS, err);
    if (code != TW_OK)
        return code;
    pthread_mutex_lock(&d->lock);
    code = limits_write(d, r, err);
    pthread_mutex_unlock(&d->lock);
    return code;
}

enum tw_code tw_migrations_adjust(struct tw_migrations *migrations,
                                  const Towline__V1__AdjustMigrationRequest *r,
                                  struct tw_migration_record *record, struct tw_error *err)
{
    enum tw_code code = adjust_check(r, err);
    if (code != TW_OK)
        return code;
    struct tw_drive *d = tw_drive_find(migrations, r->id);
    if (!d)
        return not_under_way(migrations, r->id, record, err);
    code = adjust_live(d, r, err);
    leave(d, record);
    return code;
}

/* ---- Reconnect --------------------------------------------------------------------------------
 */

enum tw_code tw_migrations_reconnect(struct tw_migrations *migrations, const char *id,
                                     bool from_mirror, struct tw_migration_record *record,
                                     struct tw_error *err)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d)
        return not_under_way(migrations, id, record, err);
    char fabric[TW_URL_SIZE], verbs[TW_URL_SIZE];
    const struct tw_reach *reach = &d->owner->config.reach;
    tw_catalogue_addresses(reach->catalogue, d->source, fabric, verbs);
    enum tw_code code =
        from_mirror
            ? tw_reach_from_mirror(reach, d->destination, d->id, CANCEL_MS, err)
            : tw_reach_reconnect(reach, d->destination, d->id, fabric, verbs, true, CANCEL_MS, err);
    leave(d, record);
    return code;
}

/* ---- Recover ------------------------------------------------------------------------------- */

static enum tw_code refuse(const struct tw_migration_record *m, const char *expected,
                           const char *given, const char *what, struct tw_error *err)
{
    return tw_fail(err, TW_FAILED_PRECONDITION, m->id, expected, given, "%s", what);
}

static enum tw_code to_source(const struct tw_drive *d, const struct tw_migration_record *m,
                              struct tw_error *err)
{
    if (m->destination_known == TW_KNOWN_COMMITTED || m->destination_known == TW_KNOWN_PARTLY)
        return refuse(m, "a destination that never ran the VM", "committed",
                      "the destination owns the VM", err);
    if (m->source_known == TW_KNOWN_COMMITTED)
        return refuse(m, "a source that has kept its copy", "committed",
                      "the source has removed its copy", err);
    if (!d->silent[TW_DESTINATION_SIDE])
        return refuse(m, "a destination that is off", "it answers",
                      "the destination host is not fenced", err);
    return TW_OK;
}

static enum tw_code to_destination(const struct tw_drive *d, const struct tw_migration_record *m,
                                   struct tw_error *err)
{
    bool owns =
        m->destination_known == TW_KNOWN_COMMITTED || m->destination_known == TW_KNOWN_PARTLY;
    if (m->destination_known != TW_KNOWN_PREPARED && !owns)
        return refuse(m, "a prepared destination", tw_known_name(m->destination_known),
                      "the destination does not hold the whole VM", err);
    if (m->decision == TW_DECIDED_RECLAIM && !owns)
        return refuse(m, "no earlier decision", "to the source",
                      "the source may run the VM already", err);
    if (d->claims)
        return refuse(m, "a source that is off", "it answers and holds the VM",
                      "the source host is not fenced", err);
    return owns ? TW_OK : tw_drive_mirror_suffices(d, err);
}

static enum tw_code decide(struct tw_drive *d, enum tw_fenced fenced, struct tw_error *err)
{
    struct tw_migration_record m = d->record;
    bool source = fenced == TW_FENCED_DESTINATION;
    if (m.state != TW_MIGRATION_RESOLVING)
        return refuse(&m, "resolving", state_name(&m), "there is nothing to recover", err);
    if (m.fenced & fenced && m.decision == (source ? TW_DECIDED_RECLAIM : TW_DECIDED_COMMIT))
        return TW_OK;
    enum tw_code code = source ? to_source(d, &m, err) : to_destination(d, &m, err);
    if (code != TW_OK)
        return code;
    m.fenced |= fenced;
    m.decision = source ? TW_DECIDED_RECLAIM : TW_DECIDED_COMMIT;
    if (source && !m.reclaim_epoch)
        m.reclaim_epoch = m.epoch + 1;
    tw_fail(&m.error, TW_UNAVAILABLE, m.id, NULL, NULL, "an operator gives the VM to the %s: %s",
            source ? "source" : "destination", source ? m.source : m.destination);
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = m.error.what};
    return tw_drive_write(d, &m, &change, err);
}

enum tw_code tw_migrations_recover(struct tw_migrations *migrations, const char *id,
                                   enum tw_fenced fenced, struct tw_migration_record *record,
                                   struct tw_error *err)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d) {
        enum tw_code code = tw_migrations_get(migrations, id, record, err);
        return code == TW_OK ? refuse(record, "resolving", state_name(record),
                                      "there is nothing to recover", err)
                             : code;
    }
    pthread_mutex_lock(&d->lock);
    enum tw_code code = decide(d, fenced, err);
    *record = d->record;
    pthread_mutex_unlock(&d->lock);
    tw_drive_wake(d);
    tw_drive_release(d);
    return code;
}
