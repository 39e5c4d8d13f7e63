/* What a migration writes down: its record, its VM's record and the events, in one transaction. */
#include "controller/drive.h"

#include "base/log.h"
#include "towline/v1/common.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static enum tw_code vm_write(struct tw_store *store, const struct tw_migration_record *m,
                             const struct tw_drive_change *change, struct tw_error *err)
{
    struct tw_vm_record vm;
    enum tw_code code = tw_store_vm_get(store, m->vm, &vm, err);
    if (code == TW_NOT_FOUND)
        return TW_OK;
    if (code != TW_OK)
        return code;
    bool moved = change->host && strcmp(change->host, vm.host) != 0;
    if (change->host)
        snprintf(vm.host, sizeof vm.host, "%s", change->host);
    if (change->epoch)
        vm.epoch = change->epoch;
    if (vm.epoch_issued < vm.epoch)
        vm.epoch_issued = vm.epoch;
    if (change->state)
        vm.state = change->state;
    if (change->reason)
        snprintf(vm.reason, sizeof vm.reason, "%s", change->reason);
    if (change->release)
        vm.migration[0] = 0;
    code = tw_store_vm_put(store, &vm, err);
    if (code != TW_OK || !moved)
        return code;
    const char *pairs[] = {"host", vm.host, "migration", m->id, NULL};
    return tw_store_event(store, "vm.migrated", vm.name, pairs, err, "the VM is now on host %s",
                          vm.host);
}

static enum tw_code state_event(struct tw_store *store, const struct tw_migration_record *from,
                                const struct tw_migration_record *to, const char *why,
                                struct tw_error *err)
{
    const char *name = tw_migration_table.states[to->state].name;
    const char *pairs[] = {"state",       name,
                           "from",        tw_migration_table.states[from->state].name,
                           "vm",          to->vm,
                           "source",      to->source,
                           "destination", to->destination,
                           NULL};
    return tw_store_event(store, "migration.state", to->id, pairs, err, "%s: %s", name, why);
}

static bool same_error(const struct tw_error *a, const struct tw_error *b)
{
    return a->code == b->code && strcmp(a->what, b->what) == 0;
}

static enum tw_code write_all(struct tw_drive *d, const struct tw_migration_record *next,
                              const struct tw_drive_change *change, struct tw_error *err)
{
    struct tw_store *store = d->owner->config.store;
    const struct tw_migration_record *old = &d->record;
    enum tw_code code = tw_store_migration_put(store, next, err);
    if (code == TW_OK &&
        (change->host || change->epoch || change->state || change->reason || change->release))
        code = vm_write(store, next, change, err);
    if (code == TW_OK && next->state != old->state)
        return state_event(store, old, next, change->why, err);
    if (code == TW_OK && next->state == TW_MIGRATION_RESOLVING &&
        !same_error(&old->error, &next->error)) {
        const char *pairs[] = {"vm",          next->vm,          "source", next->source,
                               "destination", next->destination, NULL};
        return tw_store_event(store, "migration.resolving", next->id, pairs, err, "%s",
                              change->why);
    }
    return code;
}

enum tw_code tw_drive_write(struct tw_drive *d, const struct tw_migration_record *next,
                            const struct tw_drive_change *change, struct tw_error *err)
{
    struct tw_store *store = d->owner->config.store;
    enum tw_migration_state from = d->record.state;
    enum tw_code code = tw_store_begin(store, change->mode, err);
    if (code == TW_OK)
        code = tw_store_end(store, write_all(d, next, change, err), err);
    if (code != TW_OK) {
        tw_log(TW_LOG_ERROR, "migration", "not written", "migration=%s what=\"%s\"", d->record.id,
               err ? err->what : "");
        return code;
    }
    d->record = *next;
    if (next->state != from)
        tw_machine_move(&d->machine, next->state, change->why);
    return TW_OK;
}
