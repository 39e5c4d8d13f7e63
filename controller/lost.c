/* An operator declares a host lost that a migration waits for: what becomes of the VM is decided by
 * tw_resolve(), as ever; only the word of that host is not waited for any more. */
#include "controller/drive.h"

#include <stdio.h>
#include <string.h>

static const char *state_name(const struct tw_migration_record *m)
{
    return tw_migration_table.states[m->state].name;
}

static enum tw_code check(const struct tw_drive *d, enum tw_side side, bool heard,
                          struct tw_error *err)
{
    const struct tw_migration_record *m = &d->record;
    if (m->state != TW_MIGRATION_RESOLVING)
        return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "resolving", state_name(m),
                       "there is nothing to decide");
    if (heard || !d->silent[side])
        return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "a host that is not heard",
                       side == TW_SOURCE_SIDE ? m->source : m->destination,
                       "the host is not lost: it answers, or has not been asked yet");
    return TW_OK;
}

static enum tw_code write_down(struct tw_drive *d, enum tw_fenced lost, const char *host,
                               struct tw_error *err)
{
    struct tw_migration_record m = d->record;
    const struct tw_drive_change change = {.mode = TW_STORE_DURABLE, .why = m.error.what};
    if (m.fenced & lost)
        return TW_OK;
    m.fenced |= lost;
    tw_fail(&m.error, TW_UNAVAILABLE, m.id, NULL, NULL, "an operator declared host %s lost", host);
    return tw_drive_write(d, &m, &change, err);
}

static enum tw_code declare(struct tw_drive *d, const char *host, bool confirmed,
                            enum tw_prospect *prospect, struct tw_error *err)
{
    char url[TW_URL_SIZE];
    bool heard;
    bool source = strcmp(host, d->source) == 0;
    enum tw_fenced lost = source ? TW_FENCED_SOURCE : TW_FENCED_DESTINATION;
    if (!source && strcmp(host, d->destination) != 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, d->id, "source or destination of the migration",
                       host, "the host has no part in it");
    tw_catalogue_locate(d->owner->config.reach.catalogue, host, url, &heard);
    pthread_mutex_lock(&d->lock);
    enum tw_code code = check(d, source ? TW_SOURCE_SIDE : TW_DESTINATION_SIDE, heard, err);
    if (code == TW_OK) {
        struct tw_resolve_view view = d->view;
        view.fenced = d->record.fenced;
        *prospect = tw_resolve_prospect(&view, lost);
    }
    if (code == TW_OK && confirmed)
        code = write_down(d, lost, host, err);
    pthread_mutex_unlock(&d->lock);
    return code;
}

enum tw_code tw_migrations_lost(struct tw_migrations *migrations, const char *id, const char *host,
                                bool confirmed, struct tw_migration_record *record,
                                enum tw_prospect *prospect, struct tw_error *err)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d) {
        enum tw_code code = tw_migrations_get(migrations, id, record, err);
        return code != TW_OK ? code
                             : tw_fail(err, TW_FAILED_PRECONDITION, id, "a migration under way",
                                       state_name(record), "the migration has ended");
    }
    enum tw_code code = declare(d, host, confirmed, prospect, err);
    pthread_mutex_lock(&d->lock);
    *record = d->record;
    pthread_mutex_unlock(&d->lock);
    if (code == TW_OK && confirmed)
        tw_drive_wake(d);
    tw_drive_release(d);
    return code;
}
