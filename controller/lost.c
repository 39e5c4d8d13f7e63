/* An operator declares a host lost that a migration waits for: what becomes of the VM is decided by
 * tw_resolve(), as ever; only the word of that host is not waited for any more. */
#include "controller/drive.h"

#include <stdio.h>
#include <string.h>

static const char *state_name(const struct tw_migration_record *m)
{
    return tw_migration_table.states[m->state].name;
}

/* Which part the host has in it; NONE: no part. */
static enum tw_fenced part_of(const struct tw_drive *d, const char *host)
{
    if (strcmp(host, d->source) == 0)
        return TW_FENCED_SOURCE;
    if (strcmp(host, d->destination) == 0)
        return TW_FENCED_DESTINATION;
    return *host && strcmp(host, d->mirror_host) == 0 ? TW_FENCED_MIRROR : TW_FENCED_NONE;
}

static bool is_silent(const struct tw_drive *d, enum tw_fenced part)
{
    if (part == TW_FENCED_MIRROR)
        return d->mirror_word == TW_MIRROR_UNHEARD || d->record.fenced & TW_FENCED_MIRROR;
    return d->silent[part == TW_FENCED_SOURCE ? TW_SOURCE_SIDE : TW_DESTINATION_SIDE];
}

static enum tw_code check(const struct tw_drive *d, enum tw_fenced part, const char *host,
                          bool heard, struct tw_error *err)
{
    const struct tw_migration_record *m = &d->record;
    if (part == TW_FENCED_NONE)
        return tw_fail(err, TW_INVALID_ARGUMENT, d->id,
                       "source, destination or mirror of the migration", host,
                       "the host has no part in it");
    if (m->state != TW_MIGRATION_RESOLVING)
        return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "resolving", state_name(m),
                       "there is nothing to decide");
    if (heard || !is_silent(d, part))
        return tw_fail(err, TW_FAILED_PRECONDITION, m->id, "a host that is not heard", host,
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
    enum tw_code code = tw_drive_write(d, &m, &change, err);
    if (code == TW_OK && lost == TW_FENCED_MIRROR)
        d->mirror_word = TW_MIRROR_LACKS;
    return code;
}

static enum tw_code declare(struct tw_drive *d, const char *host, bool confirmed,
                            enum tw_prospect *prospect, struct tw_error *err)
{
    char url[TW_URL_SIZE];
    bool heard;
    tw_catalogue_locate(d->owner->config.reach.catalogue, host, url, &heard);
    pthread_mutex_lock(&d->lock);
    enum tw_fenced lost = part_of(d, host);
    enum tw_code code = check(d, lost, host, heard, err);
    if (code == TW_OK)
        *prospect = tw_drive_mirror_prospect(d, lost);
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
