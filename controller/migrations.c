#include "controller/migrations.h"

#include "base/log.h"
#include "controller/drive.h"
#include "controller/placement.h"
#include "controller/spec.h"

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

/* ---- Start --------------------------------------------------------------------------------- */

struct start {
    struct tw_migrations *migrations;
    const char *vm, *destination;
    const Towline__V1__MigrationLimits *limits;
    struct tw_migration_record record;
};

static enum tw_code not_now(const struct tw_vm_record *vm, const char *expected, const char *given,
                            const char *what, struct tw_error *err)
{
    char where[80];
    snprintf(where, sizeof where, "vm %.63s", vm->name);
    return tw_fail(err, TW_FAILED_PRECONDITION, where, expected, given, "%s", what);
}

static const char *vm_state_name(enum tw_vm_state state)
{
    static const char *const names[] = {"unknown", "starting", "running",  "paused",  "stopped",
                                        "failed",  "unknown",  "incoming", "given up"};
    return names[state];
}

/* What the VM itself has to say; inside a transaction. */
static enum tw_code vm_check(struct start *s, struct tw_vm_record *vm, struct tw_error *err)
{
    struct tw_store *store = s->migrations->config.store;
    enum tw_code code = tw_store_vm_get(store, s->vm, vm, err);
    if (code == TW_OK && tw_vm_forgotten(vm))
        code = tw_fail(err, TW_NOT_FOUND, s->vm, NULL, NULL, "no such VM");
    if (code != TW_OK)
        return code;
    if (strcmp(vm->host, s->destination) == 0)
        return tw_fail(err, TW_INVALID_ARGUMENT, s->vm, "another host", vm->host,
                       "the VM is on that host already");
    if (vm->migration[0])
        return not_now(vm, "a VM in no migration", vm->migration, "the VM is being migrated", err);
    if (vm->state != TW_VM_RUNNING || vm->wanted != TW_WANTED_RUNNING)
        return not_now(vm, "a running VM", vm_state_name(vm->state), "the VM does not run", err);
    Towline__V1__VmSpec *spec = towline__v1__vm_spec__unpack(NULL, vm->spec_size, vm->spec);
    bool whole = spec && spec->kernel[0];
    if (spec)
        towline__v1__vm_spec__free_unpacked(spec, NULL);
    return whole ? TW_OK
                 : not_now(vm, "a VM that this controller created", "an adopted VM",
                           "its specification is not known", err);
}

static enum tw_code add(struct start *s, struct tw_error *err)
{
    struct tw_store *store = s->migrations->config.store;
    struct tw_migration_record *m = &s->record;
    struct tw_vm_record vm;
    enum tw_code code = vm_check(s, &vm, err);
    if (code != TW_OK)
        return code;
    memcpy(m->vm, vm.name, sizeof m->vm);
    memcpy(m->source, vm.host, sizeof m->source);
    snprintf(m->destination, sizeof m->destination, "%s", s->destination);
    m->source_epoch = vm.epoch;
    m->epoch = vm.epoch_issued + 1;
    if (s->limits)
        code = tw_message_keep(&s->limits->base, "migration limits", m->limits, sizeof m->limits,
                               &m->limits_size, err);
    if (code == TW_OK)
        code = tw_store_migration_add(store, m, err);
    vm.epoch_issued = m->epoch;
    memcpy(vm.migration, m->id, sizeof vm.migration);
    if (code == TW_OK)
        code = tw_store_vm_put(store, &vm, err);
    const char *pairs[] = {"state",   "pending",     "vm",           m->vm, "source",
                           m->source, "destination", m->destination, NULL};
    if (code == TW_OK)
        code = tw_store_event(store, "migration.state", m->id, pairs, err,
                              "pending: %s is to move from %s to %s", m->vm, m->source,
                              m->destination);
    return code;
}

/* Hosts are judged before the transaction: the catalogue is never asked inside one. */
static enum tw_code hosts_check(struct start *s, struct tw_error *err)
{
    struct tw_migrations *migrations = s->migrations;
    struct tw_store *store = migrations->config.store;
    struct tw_host_view *hosts;
    const struct tw_host_view *chosen;
    struct tw_vm_record vm;
    size_t count;
    char url[TW_URL_SIZE];
    bool alive;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, vm_check(s, &vm, err), err);
    if (code != TW_OK)
        return code;
    tw_catalogue_locate(migrations->config.reach.catalogue, vm.host, url, &alive);
    if (!alive)
        return tw_fail(err, TW_UNAVAILABLE, vm.host, "a living host", "dead",
                       "the VM's host does not answer");
    code = tw_catalogue_hosts(migrations->config.reach.catalogue, &hosts, &count, err);
    if (code == TW_OK)
        code = tw_place(hosts, count, s->destination, vm.memory_bytes, &chosen, err);
    free(hosts);
    return code;
}

static enum tw_code room_check(struct tw_migrations *migrations, struct tw_error *err)
{
    pthread_mutex_lock(&migrations->lock);
    bool room = migrations->active < TW_MIGRATIONS_ACTIVE_MAX;
    pthread_mutex_unlock(&migrations->lock);
    return room ? TW_OK
                : tw_fail(err, TW_RESOURCE_EXHAUSTED, "migrations", "at most 1024", NULL,
                          "too many migrations are waiting");
}

enum tw_code tw_migrations_start(struct tw_migrations *migrations, const char *vm,
                                 const char *destination,
                                 const Towline__V1__MigrationLimits *limits,
                                 struct tw_migration_record *record, struct tw_error *err)
{
    struct start s = {migrations, vm, destination, limits, {0}};
    struct tw_store *store = migrations->config.store;
    enum tw_code code = tw_name_check("VM name", vm, err);
    if (code == TW_OK)
        code = tw_name_check("host name", destination, err);
    if (code == TW_OK)
        code = tw_limits_validate(limits, err);
    if (code == TW_OK)
        code = hosts_check(&s, err);
    if (code == TW_OK)
        code = room_check(migrations, err);
    if (code == TW_OK)
        code = tw_store_begin(store, TW_STORE_DURABLE, err);
    if (code != TW_OK)
        return code;
    code = tw_store_end(store, add(&s, err), err);
    if (code != TW_OK)
        return code;
    *record = s.record;
    struct tw_drive *d = drive_new(migrations, &s.record);
    return d ? drive_begin(d, err) : tw_fail_errno(err, ENOMEM, s.record.id, "cannot begin");
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
