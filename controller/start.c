/* How a migration begins: what the VM has to say, which host can take it, and why. */
#include "controller/migrations.h"

#include "base/clock.h"
#include "base/log.h"
#include "controller/convert.h"
#include "controller/drive.h"
#include "controller/mirror.h"
#include "controller/placement.h"
#include "controller/spec.h"

#include <stdlib.h>
#include <string.h>

struct start {
    struct tw_migrations *migrations;
    const char *vm;
    char destination[TW_NAME_SIZE]; /* as asked for, then as chosen */
    char mirror[TW_NAME_SIZE];      /* the same; the limits point here */
    Towline__V1__MigrationLimits limits;
    tw_why *why;
    const Towline__V1__Plan *plan; /* NULL = none */
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

/* What was forecast stays with the migration: the plan itself expires. */
static enum tw_code keep_plan(struct start *s, struct tw_error *err)
{
    struct tw_store *store = s->migrations->config.store;
    const Towline__V1__Plan *p = s->plan;
    enum tw_code code = tw_store_note_put(store, s->record.id, "plan", &p->base, err);
    for (size_t i = 0; i < p->n_forecasts && code == TW_OK; i++)
        if (p->forecasts[i]->method == p->limits->method)
            code = tw_store_note_put(store, s->record.id, "forecast", &p->forecasts[i]->base, err);
    return code;
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
    code = tw_message_keep(&s->limits.base, "migration limits", m->limits, sizeof m->limits,
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
    return code == TW_OK && s->plan ? keep_plan(s, err) : code;
}

/* What the operator left open comes from the VM's file, then from the controller's. */
static void limits_of_vm(struct start *s, const struct tw_vm_record *vm)
{
    const struct tw_migrations_config *config = &s->migrations->config;
    Towline__V1__VmSpec *spec = towline__v1__vm_spec__unpack(NULL, vm->spec_size, vm->spec);
    if (spec && spec->migration)
        tw_limits_fill(&s->limits, spec->migration);
    tw_mirror_wish(&s->limits, s->mirror, spec ? spec->migration : NULL, &config->limits);
    if (spec)
        towline__v1__vm_spec__free_unpacked(spec, NULL);
    tw_limits_fill(&s->limits, &config->limits);
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
    limits_of_vm(s, &vm);
    code = tw_catalogue_hosts(migrations->config.reach.catalogue, &hosts, &count, err);
    const struct tw_move move = {vm.host, s->destination, vm.memory_bytes, tw_wall_ms()};
    if (code == TW_OK)
        code = tw_place_move(hosts, count, &move, s->why, &chosen, err);
    if (code == TW_OK)
        snprintf(s->destination, sizeof s->destination, "%s", chosen->record.name);
    if (code == TW_OK)
        code = tw_mirror_place(hosts, count, &move, s->destination, &s->limits, s->mirror, s->why,
                               err);
    if (code == TW_OK && s->why && !tw_text_set(&s->why->chosen, s->destination))
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, s->vm, NULL, NULL, "no memory");
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

static enum tw_code names_check(const struct tw_wish *wish, struct tw_error *err)
{
    enum tw_code code = tw_name_check("VM name", wish->vm, err);
    if (code == TW_OK && wish->destination[0])
        code = tw_name_check("host name", wish->destination, err);
    return code == TW_OK ? tw_limits_validate(wish->limits, err) : code;
}

static enum tw_code place(struct start *s, struct tw_error *err)
{
    enum tw_code code = hosts_check(s, err);
    if (code != TW_OK)
        tw_why_refuse(s->migrations->config.store, s->why, err);
    return code;
}

static enum tw_code begin(struct start *s, struct tw_error *err)
{
    struct tw_store *store = s->migrations->config.store;
    enum tw_code code = room_check(s->migrations, err);
    if (code == TW_OK)
        code = tw_store_begin(store, TW_STORE_DURABLE, err);
    if (code == TW_OK)
        code = tw_store_end(store, add(s, err), err);
    if (code != TW_OK)
        return code;
    /* Reasons are for people: a migration does not fail because they could not be kept. */
    if (tw_why_keep(store, s->record.id, s->why, NULL) != TW_OK)
        tw_log(TW_LOG_WARN, "migration", "reasons not kept", "migration=%s", s->record.id);
    return tw_drive_add(s->migrations, &s->record, err);
}

static enum tw_code start_new(struct tw_migrations *migrations, const struct tw_wish *wish,
                              struct start *s, struct tw_error *err)
{
    enum tw_code code = names_check(wish, err);
    if (code != TW_OK)
        return code;
    s->migrations = migrations;
    s->vm = wish->vm;
    s->plan = wish->plan;
    snprintf(s->destination, sizeof s->destination, "%s", wish->destination);
    towline__v1__migration_limits__init(&s->limits);
    if (wish->limits)
        s->limits = *wish->limits;
    s->why = tw_why_new(wish->vm, wish->destination);
    return place(s, err);
}

enum tw_code tw_migrations_start(struct tw_migrations *migrations, const struct tw_wish *wish,
                                 struct tw_migration_record *record, struct tw_error *err)
{
    struct start s = {0};
    enum tw_code code = start_new(migrations, wish, &s, err);
    if (code == TW_OK)
        code = begin(&s, err);
    if (s.why)
        towline__v1__why_migration_response__free_unpacked(s.why, NULL);
    *record = s.record;
    return code;
}

enum tw_code tw_migrations_place(struct tw_migrations *migrations, const struct tw_wish *wish,
                                 struct tw_placed *placed, struct tw_error *err)
{
    struct start s = {0};
    struct tw_vm_record vm;
    struct tw_store *store = migrations->config.store;
    enum tw_code code = start_new(migrations, wish, &s, err);
    if (code == TW_OK)
        code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, vm_check(&s, &vm, err), err);
    placed->why = s.why;
    if (code != TW_OK)
        return code;
    memcpy(placed->source, vm.host, sizeof placed->source);
    memcpy(placed->destination, s.destination, sizeof placed->destination);
    placed->epoch = vm.epoch;
    placed->limits = s.limits;
    memcpy(placed->mirror, s.mirror, sizeof placed->mirror);
    placed->limits.mirror = placed->mirror;
    return TW_OK;
}
