#include "controller/migrations.h"

#include "base/log.h"
#include "controller/drive.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint64_t tw_downtime_bucket_ms[TW_DOWNTIME_BUCKETS] = {10,   30,   100,   300,
                                                             1000, 3000, 10000, UINT64_MAX};

/* ---- The list ------------------------------------------------------------------------------ */

static void drive_free(struct tw_drive *d)
{
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void tw_drive_release(struct tw_drive *d)
{
    if (atomic_fetch_sub(&d->references, 1) == 1)
        drive_free(d);
}

struct tw_drive *tw_drive_find(struct tw_migrations *migrations, const char *id)
{
    pthread_mutex_lock(&migrations->lock);
    struct tw_drive *d = migrations->list;
    while (d && strcmp(d->id, id) != 0)
        d = d->next;
    if (d)
        atomic_fetch_add(&d->references, 1);
    pthread_mutex_unlock(&migrations->lock);
    return d;
}

bool tw_drive_count(struct tw_drive *d, bool in)
{
    struct tw_migrations *owner = d->owner;
    pthread_mutex_lock(&owner->lock);
    if (in && !d->counted && owner->running < TW_MIGRATIONS_AT_ONCE) {
        owner->running++;
        d->counted = true;
    } else if (!in && d->counted) {
        owner->running--;
        d->counted = false;
    }
    bool counted = d->counted;
    pthread_mutex_unlock(&owner->lock);
    return counted;
}

/* The job is over, or all jobs are. */
static void drive_drop(void *ctx)
{
    struct tw_drive *d = ctx;
    struct tw_migrations *owner = d->owner;
    tw_drive_count(d, false);
    pthread_mutex_lock(&owner->lock);
    for (struct tw_drive **p = &owner->list; *p; p = &(*p)->next) {
        if (*p == d) {
            *p = d->next;
            owner->active--;
            break;
        }
    }
    pthread_mutex_unlock(&owner->lock);
    tw_drive_release(d);
}

static void drive_trace(void *ctx, const struct tw_machine *m, unsigned from, unsigned to,
                        const char *why)
{
    const struct tw_drive *d = ctx;
    tw_log(TW_LOG_INFO, "migration", "state", "migration=%s vm=%s from=%s to=%s why=\"%s\"", d->id,
           d->vm, m->table->states[from].name, m->table->states[to].name, why);
}

static struct tw_drive *drive_new(struct tw_migrations *owner,
                                  const struct tw_migration_record *record)
{
    struct tw_drive *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->owner = owner;
    memcpy(d->id, record->id, sizeof d->id);
    memcpy(d->vm, record->vm, sizeof d->vm);
    memcpy(d->source, record->source, sizeof d->source);
    memcpy(d->destination, record->destination, sizeof d->destination);
    d->epoch = record->epoch;
    d->references = 1;
    pthread_mutex_init(&d->lock, NULL);
    /* The machine stands where the record does: it did not walk there. */
    tw_machine_init(&d->machine, &tw_migration_table, &d->record, drive_trace, d);
    d->machine.state = (unsigned)record->state;
    d->record = *record;
    tw_drive_mirror_init(d);
    return d;
}

static enum tw_code drive_begin(struct tw_drive *d, struct tw_error *err)
{
    struct tw_migrations *owner = d->owner;
    pthread_mutex_lock(&owner->lock);
    d->next = owner->list;
    owner->list = d;
    owner->active++;
    pthread_mutex_unlock(&owner->lock);
    enum tw_code code = tw_jobs_add(owner->config.jobs, tw_drive_step, d, drive_drop, err);
    if (code != TW_OK)
        drive_drop(d);
    return code;
}

enum tw_code tw_drive_add(struct tw_migrations *migrations,
                          const struct tw_migration_record *record, struct tw_error *err)
{
    struct tw_drive *d = drive_new(migrations, record);
    return d ? drive_begin(d, err) : tw_fail_errno(err, ENOMEM, record->id, "cannot begin");
}

void tw_drive_wake(struct tw_drive *d)
{
    tw_jobs_wake(d->owner->config.jobs, d);
}

void tw_migrations_host_heard(struct tw_migrations *migrations, const char *host)
{
    struct tw_drive *waiting[64];
    unsigned n = 0;
    pthread_mutex_lock(&migrations->lock);
    for (struct tw_drive *d = migrations->list; d && n < 64; d = d->next) {
        bool source = strcmp(d->source, host) == 0;
        if (source || strcmp(d->destination, host) == 0) {
            atomic_fetch_add(&d->references, 1);
            waiting[n++] = d;
        }
    }
    pthread_mutex_unlock(&migrations->lock);
    for (unsigned i = 0; i < n; i++) {
        struct tw_drive *d = waiting[i];
        bool source = strcmp(d->source, host) == 0;
        pthread_mutex_lock(&d->lock);
        bool missed = d->silent[source ? TW_SOURCE_SIDE : TW_DESTINATION_SIDE];
        pthread_mutex_unlock(&d->lock);
        if (missed)
            tw_drive_wake(d);
        tw_drive_release(d);
    }
}

/* ---- Opening ------------------------------------------------------------------------------- */

struct loader {
    struct tw_migrations *migrations;
    enum tw_code code;
    struct tw_error *err;
};

static void load(void *ctx, const struct tw_migration_record *record)
{
    struct loader *loader = ctx;
    if (loader->code != TW_OK)
        return;
    if (record->state >= TW_MIGRATION_COMPLETED) {
        loader->code = tw_fail(loader->err, TW_DATA_LOSS, record->id, NULL, NULL,
                               "the store has a migration in an impossible state");
        return;
    }
    struct tw_drive *d = drive_new(loader->migrations, record);
    loader->code = d ? drive_begin(d, loader->err)
                     : tw_fail_errno(loader->err, ENOMEM, record->id, "cannot go on");
}

enum tw_code tw_migrations_open(const struct tw_migrations_config *config,
                                struct tw_migrations **out, struct tw_error *err)
{
    struct tw_migrations *m = calloc(1, sizeof *m);
    *out = m;
    if (!m)
        return tw_fail_errno(err, ENOMEM, "migrations", "cannot start");
    m->config = *config;
    pthread_mutex_init(&m->lock, NULL);
    struct loader loader = {m, TW_OK, err};
    enum tw_code code = tw_store_begin(config->store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(config->store,
                            tw_store_migrations_running(config->store, load, &loader, err), err);
    return code == TW_OK ? loader.code : code;
}

void tw_migrations_close(struct tw_migrations *migrations)
{
    if (!migrations)
        return;
    assert(!migrations->list);
    pthread_mutex_destroy(&migrations->lock);
    free(migrations);
}

/* ---- Questions ----------------------------------------------------------------------------- */

bool tw_migrations_live(struct tw_migrations *migrations, const char *id,
                        struct tw_migration_record *record)
{
    struct tw_drive *d = tw_drive_find(migrations, id);
    if (!d)
        return false;
    pthread_mutex_lock(&d->lock);
    *record = d->record;
    pthread_mutex_unlock(&d->lock);
    tw_drive_release(d);
    return true;
}

enum tw_code tw_migrations_get(struct tw_migrations *migrations, const char *id,
                               struct tw_migration_record *record, struct tw_error *err)
{
    struct tw_store *store = migrations->config.store;
    if (tw_migrations_live(migrations, id, record))
        return TW_OK;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    return code == TW_OK ? tw_store_end(store, tw_store_migration_get(store, id, record, err), err)
                         : code;
}

void tw_migrations_count_end(struct tw_migrations *migrations, const struct tw_migration_record *m)
{
    Towline__V1__MigrationProgress *p =
        towline__v1__migration_progress__unpack(NULL, m->progress_size, m->progress);
    struct tw_migration_figures *f = &migrations->figures;
    pthread_mutex_lock(&migrations->lock);
    f->ended[m->state]++;
    f->bytes_sent += p ? p->bytes_sent : 0;
    f->bytes_if_pages += p ? p->bytes_if_pages : 0;
    if (m->state == TW_MIGRATION_COMPLETED && p && p->downtime_us) {
        unsigned b = 0;
        while (tw_downtime_bucket_ms[b] != UINT64_MAX &&
               p->downtime_us > tw_downtime_bucket_ms[b] * 1000)
            b++;
        f->downtime[b]++;
        f->downtime_us += p->downtime_us;
        f->downtime_count++;
    }
    pthread_mutex_unlock(&migrations->lock);
    if (p)
        towline__v1__migration_progress__free_unpacked(p, NULL);
}

void tw_migrations_figures(struct tw_migrations *migrations, struct tw_migration_figures *out)
{
    struct tw_drive *drives[TW_MIGRATIONS_ACTIVE_MAX];
    unsigned n = 0;
    pthread_mutex_lock(&migrations->lock);
    *out = migrations->figures;
    for (struct tw_drive *d = migrations->list; d && n < TW_MIGRATIONS_ACTIVE_MAX; d = d->next) {
        atomic_fetch_add(&d->references, 1);
        drives[n++] = d;
    }
    pthread_mutex_unlock(&migrations->lock);
    for (unsigned i = 0; i < n; i++) {
        pthread_mutex_lock(&drives[i]->lock);
        out->active[drives[i]->record.state]++;
        pthread_mutex_unlock(&drives[i]->lock);
        tw_drive_release(drives[i]);
    }
}
