/* The reports of a heartbeat against the records of VMs. Nothing here tells an agent to do
 * anything; what contradicts a record is said aloud and left alone. */
#include "base/log.h"
#include "controller/catalogue_inside.h"
#include "controller/reconcile.h"
#include "controller/spec.h"

#include <stdlib.h>
#include <string.h>

#define TELL_EVERY      60u /* heartbeats between two events about the same contradiction */
#define PATIENCE_MIN_MS 1000u

struct reconciliation {
    struct tw_catalogue *catalogue;
    struct tw_catalogue_host *host;
    struct tw_error *err;
    bool ownership; /* something durable has to change */
    unsigned todo;  /* reports with something to do */
    char (*missing)[TW_NAME_SIZE];
    unsigned missing_count;
};

static uint64_t patience_ms(const struct tw_catalogue *c)
{
    uint64_t ms = 3 * c->config.heartbeat_ns / TW_MS;
    return ms > PATIENCE_MIN_MS ? ms : PATIENCE_MIN_MS;
}

static enum tw_reconcile judge(struct reconciliation *r, const struct tw_report *report,
                               struct tw_vm_record *vm)
{
    struct tw_catalogue *c = r->catalogue;
    bool found = tw_store_vm_get(c->config.store, report->name, vm, NULL) == TW_OK;
    bool settled = found && tw_wall_ms() >= vm->changed_unix_ms + patience_ms(c);
    struct tw_catalogue_host *owner = found ? tw_catalogue_find(c, vm->host) : NULL;
    const struct tw_report *claim = owner && owner != r->host && owner->record.alive
                                        ? tw_catalogue_find_report(owner, vm->name)
                                        : NULL;
    return tw_reconcile(found ? vm : NULL, r->host->record.name, report,
                        claim && tw_report_owns(claim->state), settled);
}

static void note_missing(void *ctx, const struct tw_vm_record *vm)
{
    struct reconciliation *r = ctx;
    if (tw_catalogue_find_report(r->host, vm->name) || r->missing_count == TW_REPORTS_MAX ||
        !tw_reconcile_missing(vm, tw_wall_ms(), patience_ms(r->catalogue)))
        return;
    if (!r->missing)
        r->missing = calloc(TW_REPORTS_MAX, sizeof *r->missing);
    if (r->missing)
        memcpy(r->missing[r->missing_count++], vm->name, TW_NAME_SIZE);
}

static enum tw_code look(struct reconciliation *r)
{
    for (size_t i = 0; i < r->host->count; i++) {
        struct tw_vm_record vm;
        enum tw_reconcile what = judge(r, &r->host->reports[i], &vm);
        r->todo += what != TW_RECONCILE_NOTHING;
        r->ownership |= what == TW_RECONCILE_ADOPT || what == TW_RECONCILE_MOVE;
    }
    return tw_store_vms_each(r->catalogue->config.store, r->host->record.name, note_missing, r,
                             r->err);
}

static const char *state_kind(enum tw_vm_state state)
{
    static const char *const kinds[] = {
        "",          "vm.starting", "vm.running",  "vm.paused",   "vm.stopped",
        "vm.failed", "vm.unknown",  "vm.incoming", "vm.given_up",
    };
    return kinds[state];
}

static enum tw_code vm_event(struct tw_store *store, const char *kind,
                             const struct tw_vm_record *vm, const char *text, struct tw_error *err)
{
    char epoch[24];
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)vm->epoch);
    const char *pairs[] = {"host", vm->host, "epoch", epoch, NULL};
    return tw_store_event(store, kind, vm->name, pairs, err, "%s", text);
}

static enum tw_code take_state(struct reconciliation *r, const struct tw_report *report,
                               struct tw_vm_record *vm)
{
    struct tw_store *store = r->catalogue->config.store;
    bool moved = vm->state != report->state;
    vm->state = report->state;
    memcpy(vm->reason, report->reason, sizeof vm->reason);
    enum tw_code code = tw_store_vm_put(store, vm, r->err);
    if (code == TW_OK && moved)
        code = vm_event(store, state_kind(vm->state), vm,
                        vm->reason[0] ? vm->reason : "as its host reports", r->err);
    return code;
}

/* The record follows the host that holds the greater epoch: the store had missed a hand-over. */
static enum tw_code take_owner(struct reconciliation *r, const struct tw_report *report,
                               struct tw_vm_record *vm)
{
    struct tw_store *store = r->catalogue->config.store;
    memcpy(vm->host, r->host->record.name, sizeof vm->host);
    vm->epoch = report->epoch;
    if (vm->epoch_issued < report->epoch)
        vm->epoch_issued = report->epoch;
    vm->state = report->state;
    memcpy(vm->reason, report->reason, sizeof vm->reason);
    enum tw_code code = tw_store_vm_put(store, vm, r->err);
    return code == TW_OK ? vm_event(store, "vm.moved", vm,
                                    "the host holds a newer epoch than was recorded", r->err)
                         : code;
}

static enum tw_code adopt(struct reconciliation *r, const struct tw_report *report)
{
    struct tw_store *store = r->catalogue->config.store;
    Towline__V1__VmSpec spec = TOWLINE__V1__VM_SPEC__INIT;
    struct tw_vm_record vm = {.memory_bytes = report->memory_bytes,
                              .epoch = report->epoch,
                              .epoch_issued = report->epoch,
                              .state = report->state,
                              .wanted = TW_WANTED_RUNNING};
    memcpy(vm.name, report->name, sizeof vm.name);
    memcpy(vm.host, r->host->record.name, sizeof vm.host);
    memcpy(vm.reason, report->reason, sizeof vm.reason);
    spec.name = vm.name;
    spec.memory_bytes = report->memory_bytes;
    enum tw_code code =
        tw_message_keep(&spec.base, vm.name, vm.spec, sizeof vm.spec, &vm.spec_size, r->err);
    if (code == TW_OK)
        code = tw_store_vm_put(store, &vm, r->err);
    return code == TW_OK ? vm_event(store, "vm.adopted", &vm,
                                    "a host owns this VM and there was no record of it", r->err)
                         : code;
}

static enum tw_code complain(struct reconciliation *r, struct tw_report *report,
                             const struct tw_vm_record *vm, enum tw_reconcile what)
{
    char claimed[24], recorded[24], text[160];
    if (report->silence && report->silence < TELL_EVERY)
        return TW_OK;
    report->silence = 1;
    snprintf(claimed, sizeof claimed, "%llu", (unsigned long long)report->epoch);
    snprintf(recorded, sizeof recorded, "%llu", (unsigned long long)vm->epoch);
    const char *pairs[] = {"host",   r->host->record.name, "epoch",  claimed, "record_host",
                           vm->host, "record_epoch",       recorded, NULL};
    bool conflict = what == TW_RECONCILE_CONFLICT;
    snprintf(text, sizeof text, "%s %.63s",
             conflict ? "two hosts own this VM: the other is" : "an old copy of this VM is on host",
             r->host->record.name);
    tw_log(TW_LOG_ERROR, "catalogue", conflict ? "vm conflict" : "stale copy",
           "vm=%s host=%s epoch=%s record_host=%s record_epoch=%s", vm->name, r->host->record.name,
           claimed, vm->host, recorded);
    return tw_store_event(r->catalogue->config.store, conflict ? "vm.conflict" : "vm.stale",
                          vm->name, pairs, r->err, "%s", text);
}

static enum tw_code apply(struct reconciliation *r, struct tw_report *report)
{
    struct tw_vm_record vm;
    enum tw_reconcile what = judge(r, report, &vm);
    switch (what) {
    case TW_RECONCILE_STATE:
        return take_state(r, report, &vm);
    case TW_RECONCILE_ADOPT:
        return adopt(r, report);
    case TW_RECONCILE_MOVE:
        return take_owner(r, report, &vm);
    case TW_RECONCILE_STALE:
    case TW_RECONCILE_CONFLICT:
        return complain(r, report, &vm, what);
    case TW_RECONCILE_NOTHING:
        break;
    }
    return TW_OK;
}

static enum tw_code fail_missing(struct reconciliation *r, const char *name)
{
    struct tw_vm_record vm;
    struct tw_store *store = r->catalogue->config.store;
    enum tw_code code = tw_store_vm_get(store, name, &vm, r->err);
    if (code != TW_OK || !tw_reconcile_missing(&vm, tw_wall_ms(), patience_ms(r->catalogue)))
        return TW_OK;
    vm.state = TW_VM_FAILED;
    snprintf(vm.reason, sizeof vm.reason, "host %s no longer holds it", vm.host);
    code = tw_store_vm_put(store, &vm, r->err);
    return code == TW_OK ? vm_event(store, "vm.failed", &vm, vm.reason, r->err) : code;
}

static enum tw_code apply_all(struct reconciliation *r)
{
    enum tw_code code = TW_OK;
    for (size_t i = 0; i < r->host->count && code == TW_OK; i++)
        code = apply(r, &r->host->reports[i]);
    for (unsigned i = 0; i < r->missing_count && code == TW_OK; i++)
        code = fail_missing(r, r->missing[i]);
    return code;
}

void tw_catalogue_reconcile(struct tw_catalogue *c, struct tw_catalogue_host *h)
{
    struct tw_error err = {0};
    struct tw_store *store = c->config.store;
    struct reconciliation r = {.catalogue = c, .host = h, .err = &err};
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, &err);
    if (code == TW_OK)
        code = tw_store_end(store, look(&r), &err);
    if (code == TW_OK && (r.todo || r.missing_count)) {
        code = tw_store_begin(store, r.ownership ? TW_STORE_DURABLE : TW_STORE_RELAXED, &err);
        if (code == TW_OK)
            code = tw_store_end(store, apply_all(&r), &err);
    }
    if (code != TW_OK)
        tw_log(TW_LOG_ERROR, "catalogue", "reports not written", "host=%s what=\"%s\"",
               h->record.name, err.what);
    free(r.missing);
}
