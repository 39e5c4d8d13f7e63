#include "controller/vms.h"

#include "base/fault.h"
#include "base/log.h"
#include "controller/placement.h"
#include "controller/spec.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_MAX_MS  30000u
#define CREATE_MAX_MS 300000u /* the caller decides: a busy host starts a VM slowly */
#define REMOVE_MAX_MS 10000u
#define ANSWER_MS     200u /* left of the caller's time for our own answer */

struct tw_vms {
    struct tw_store *store;
    struct tw_reach reach;
    pthread_mutex_t lock;
    char busy[TW_VMS_BUSY_MAX][TW_NAME_SIZE]; /* VMs with an operation under way; "" = free */
};

enum tw_code tw_vms_open(struct tw_store *store, const struct tw_reach *reach, struct tw_vms **out,
                         struct tw_error *err)
{
    struct tw_vms *vms = calloc(1, sizeof *vms);
    *out = vms;
    if (!vms)
        return tw_fail_errno(err, ENOMEM, "vms", "cannot start");
    vms->store = store;
    vms->reach = *reach;
    pthread_mutex_init(&vms->lock, NULL);
    return TW_OK;
}

void tw_vms_close(struct tw_vms *vms)
{
    if (!vms)
        return;
    pthread_mutex_destroy(&vms->lock);
    free(vms);
}

/* ---- One operation a VM -------------------------------------------------------------------- */

static char *busy_take(struct tw_vms *vms, const char *name, struct tw_error *err)
{
    char *slot = NULL;
    bool taken = false;
    pthread_mutex_lock(&vms->lock);
    for (unsigned i = 0; i < TW_VMS_BUSY_MAX; i++) {
        if (!vms->busy[i][0] && !slot)
            slot = vms->busy[i];
        taken = taken || strcmp(vms->busy[i], name) == 0;
    }
    if (slot && !taken)
        snprintf(slot, TW_NAME_SIZE, "%s", name);
    pthread_mutex_unlock(&vms->lock);
    if (slot && !taken)
        return slot;
    tw_fail(err, taken ? TW_ABORTED : TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "%s",
            taken ? "another operation on this VM is under way" : "too many operations at once");
    return NULL;
}

static void busy_release(struct tw_vms *vms, char *slot)
{
    pthread_mutex_lock(&vms->lock);
    slot[0] = 0;
    pthread_mutex_unlock(&vms->lock);
}

static unsigned time_left_ms(uint64_t deadline_ns, unsigned most)
{
    uint64_t now = tw_now(&tw_monotonic);
    uint64_t left = deadline_ns > now ? (deadline_ns - now) / TW_MS : 0;
    left = left > ANSWER_MS + 100 ? left - ANSWER_MS : 100;
    return left < most ? (unsigned)left : most;
}

/* ---- Records ------------------------------------------------------------------------------- */

static enum tw_code vm_event(struct tw_vms *vms, const char *kind, const struct tw_vm_record *vm,
                             const char *text, struct tw_error *err)
{
    const char *pairs[] = {"host", vm->host, NULL};
    return tw_store_event(vms->store, kind, vm->name, pairs, err, "%s", text);
}

static enum tw_code get_live(struct tw_vms *vms, const char *name, struct tw_vm_record *vm,
                             struct tw_error *err)
{
    char where[80];
    enum tw_code code = tw_store_vm_get(vms->store, name, vm, err);
    snprintf(where, sizeof where, "vm %.63s", name);
    if (code == TW_NOT_FOUND || (code == TW_OK && tw_vm_forgotten(vm)))
        code = tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such VM");
    return code;
}

enum tw_code tw_vms_get(struct tw_vms *vms, const char *name, struct tw_vm_record *vm,
                        struct tw_error *err)
{
    enum tw_code code = tw_store_begin(vms->store, TW_STORE_READ, err);
    return code == TW_OK ? tw_store_end(vms->store, get_live(vms, name, vm, err), err) : code;
}

/* ---- Create -------------------------------------------------------------------------------- */

static void count_vm(void *ctx, const struct tw_vm_record *vm)
{
    *(unsigned *)ctx += !tw_vm_forgotten(vm);
}

static enum tw_code name_taken(const struct tw_vm_record *old, struct tw_error *err)
{
    return tw_fail(err, TW_ALREADY_EXISTS, "VM name", "a new one", old->name,
                   "taken by a VM on %s%s", old->host,
                   old->wanted == TW_WANTED_GONE ? " that is still being deleted" : "");
}

static enum tw_code record_new(struct tw_vms *vms, struct tw_vm_record *vm, struct tw_error *err)
{
    struct tw_vm_record old;
    unsigned count = 0;
    enum tw_code code = tw_store_vm_get(vms->store, vm->name, &old, NULL);
    if (code == TW_OK && !tw_vm_forgotten(&old))
        return name_taken(&old, err);
    /* Epochs of a name never come twice, whatever old copy turns up one day. */
    vm->epoch = vm->epoch_issued = code == TW_OK ? old.epoch_issued + 1 : 1;
    code = tw_store_vms_each(vms->store, "", count_vm, &count, err);
    if (code == TW_OK && count >= TW_STORE_VMS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, vm->name, "at most 10000 VMs", NULL,
                       "no room for the VM");
    vm->created_unix_ms = 0;
    if (code == TW_OK)
        code = tw_store_vm_put(vms->store, vm, err);
    return code == TW_OK ? vm_event(vms, "vm.starting", vm, "placed and recorded", err) : code;
}

static enum tw_code place(struct tw_vms *vms, const struct tw_vm_record *vm, const char *wanted,
                          char host[TW_NAME_SIZE], struct tw_error *err)
{
    struct tw_host_view *hosts;
    const struct tw_host_view *chosen;
    size_t count;
    enum tw_code code = tw_catalogue_hosts(vms->reach.catalogue, &hosts, &count, err);
    if (code != TW_OK)
        return code;
    code = tw_place(hosts, count, wanted, vm->memory_bytes, &chosen, err);
    if (code == TW_OK)
        memcpy(host, chosen->record.name, TW_NAME_SIZE);
    free(hosts);
    return code;
}

/* What came of the agent's answer: it runs, it is refused, or nobody knows yet. */
static enum tw_code started(struct tw_vms *vms, struct tw_vm_record *vm, enum tw_code outcome,
                            bool forget, const struct tw_error *why, struct tw_error *err)
{
    struct tw_vm_record now;
    enum tw_code code = get_live(vms, vm->name, &now, err);
    if (code != TW_OK || now.epoch != vm->epoch || now.state != TW_VM_STARTING) {
        *vm = now;
        return code;
    }
    if (outcome == TW_OK) {
        now.state = TW_VM_RUNNING;
        now.reason[0] = 0;
    } else if (forget) {
        now.wanted = TW_WANTED_GONE;
        now.host[0] = 0;
    } else {
        now.state = TW_VM_FAILED;
        snprintf(now.reason, sizeof now.reason, "%s", why->what);
    }
    code = tw_store_vm_put(vms->store, &now, err);
    if (code == TW_OK)
        code = vm_event(vms, outcome == TW_OK ? "vm.running" : "vm.failed", vm,
                        outcome == TW_OK ? "it runs" : why->what, err);
    if (code == TW_OK)
        *vm = now;
    return code;
}

/* Asks the agent and writes down what came of it. `forget`: a refusal leaves no record. */
static enum tw_code start(struct tw_vms *vms, struct tw_vm_record *vm, unsigned timeout_ms,
                          bool forget, struct tw_error *err)
{
    struct tw_error why = {0}, written = {0};
    Towline__V1__VmSpec *spec = towline__v1__vm_spec__unpack(NULL, vm->spec_size, vm->spec);
    if (!spec)
        return tw_fail(err, TW_DATA_LOSS, vm->name, NULL, NULL, "its specification is unreadable");
    enum tw_code outcome =
        tw_reach_start_vm(&vms->reach, vm->host, spec, vm->epoch, timeout_ms, &why);
    towline__v1__vm_spec__free_unpacked(spec, NULL);
    tw_fault_point("vm.started");
    if (err)
        *err = why;
    if (tw_agents_silent(outcome))
        return outcome;
    enum tw_code code = tw_store_begin(vms->store, TW_STORE_DURABLE, &written);
    if (code == TW_OK)
        code =
            tw_store_end(vms->store, started(vms, vm, outcome, forget, &why, &written), &written);
    if (outcome == TW_OK && code != TW_OK && err)
        *err = written;
    return outcome == TW_OK ? code : outcome;
}

static enum tw_code create_busy(struct tw_vms *vms, struct tw_vm_record *vm, uint64_t deadline_ns,
                                struct tw_error *err)
{
    enum tw_code code = tw_store_begin(vms->store, TW_STORE_DURABLE, err);
    if (code == TW_OK)
        code = tw_store_end(vms->store, record_new(vms, vm, err), err);
    if (code != TW_OK)
        return code;
    tw_fault_point("vm.recorded");
    return start(vms, vm, time_left_ms(deadline_ns, CREATE_MAX_MS), true, err);
}

enum tw_code tw_vms_create(struct tw_vms *vms, const Towline__V1__VmSpec *spec, const char *host,
                           uint64_t deadline_ns, struct tw_vm_record *vm, struct tw_error *err)
{
    memset(vm, 0, sizeof *vm);
    enum tw_code code = tw_spec_validate(spec, err);
    if (code == TW_OK && host[0])
        code = tw_name_check("host name", host, err);
    if (code != TW_OK)
        return code;
    snprintf(vm->name, sizeof vm->name, "%s", spec->name);
    vm->memory_bytes = spec->memory_bytes;
    vm->state = TW_VM_STARTING;
    vm->wanted = TW_WANTED_RUNNING;
    code = tw_message_keep(&spec->base, vm->name, vm->spec, sizeof vm->spec, &vm->spec_size, err);
    if (code == TW_OK) {
        struct tw_vm_record old;
        if (tw_vms_get(vms, vm->name, &old, NULL) == TW_OK)
            return name_taken(&old, err);
        code = place(vms, vm, host, vm->host, err);
    }
    if (code != TW_OK)
        return code;
    char *slot = busy_take(vms, vm->name, err);
    if (!slot)
        return err ? err->code : TW_ABORTED;
    code = create_busy(vms, vm, deadline_ns, err);
    busy_release(vms, slot);
    return code;
}

/* ---- Stop and delete ----------------------------------------------------------------------- */

static enum tw_code want(struct tw_vms *vms, const char *name, enum tw_wanted wanted,
                         struct tw_vm_record *vm, struct tw_error *err)
{
    char where[80];
    enum tw_code code = get_live(vms, name, vm, err);
    if (code != TW_OK)
        return code;
    snprintf(where, sizeof where, "vm %.63s", name);
    if (vm->migration[0])
        return tw_fail(err, TW_FAILED_PRECONDITION, where, "a VM in no migration", vm->migration,
                       "the VM is being migrated");
    if (vm->wanted == wanted)
        return TW_OK;
    if (vm->wanted == TW_WANTED_GONE)
        return tw_fail(err, TW_FAILED_PRECONDITION, where, NULL, NULL, "the VM is being deleted");
    vm->wanted = wanted;
    snprintf(vm->reason, sizeof vm->reason, "%s",
             wanted == TW_WANTED_GONE ? "being deleted" : "being stopped");
    if (wanted == TW_WANTED_GONE && vm->state == TW_VM_STOPPED)
        vm->host[0] = 0; /* nothing of it is left anywhere */
    code = tw_store_vm_put(vms->store, vm, err);
    return code == TW_OK ? vm_event(vms, wanted == TW_WANTED_GONE ? "vm.deleting" : "vm.stopping",
                                    vm, "asked for by an operator", err)
                         : code;
}

static enum tw_code removed(struct tw_vms *vms, struct tw_vm_record *vm, struct tw_error *err)
{
    struct tw_vm_record now;
    enum tw_code code = tw_store_vm_get(vms->store, vm->name, &now, err);
    if (code != TW_OK || now.epoch != vm->epoch || now.wanted == TW_WANTED_RUNNING)
        return code;
    bool gone = now.wanted == TW_WANTED_GONE;
    code = vm_event(vms, gone ? "vm.deleted" : "vm.stopped", &now, "its process has ended", err);
    if (gone)
        now.host[0] = 0;
    now.state = TW_VM_STOPPED;
    now.reason[0] = 0;
    if (code == TW_OK)
        code = tw_store_vm_put(vms->store, &now, err);
    if (code == TW_OK)
        *vm = now;
    return code;
}

/* Tells the agent and writes down that it is done. A VM that was never there is as gone as one
 * that was removed. */
static enum tw_code remove_vm(struct tw_vms *vms, struct tw_vm_record *vm, unsigned timeout_ms,
                              struct tw_error *err)
{
    enum tw_code code = TW_OK;
    if (vm->host[0])
        code =
            tw_reach_remove_vm(&vms->reach, vm->host, vm->name, vm->epoch_issued, timeout_ms, err);
    tw_fault_point("vm.removed");
    if (tw_agents_silent(code))
        return tw_fail(err, TW_UNAVAILABLE, vm->host, NULL, NULL,
                       "the host does not answer; the VM is removed when it does");
    if (code != TW_OK && code != TW_NOT_FOUND)
        return code;
    code = tw_store_begin(vms->store, TW_STORE_DURABLE, err);
    return code == TW_OK ? tw_store_end(vms->store, removed(vms, vm, err), err) : code;
}

static enum tw_code end(struct tw_vms *vms, const char *name, enum tw_wanted wanted,
                        uint64_t deadline_ns, struct tw_vm_record *vm, struct tw_error *err)
{
    enum tw_code code = tw_name_check("VM name", name, err);
    if (code != TW_OK)
        return code;
    char *slot = busy_take(vms, name, err);
    if (!slot)
        return err ? err->code : TW_ABORTED;
    code = tw_store_begin(vms->store, TW_STORE_DURABLE, err);
    if (code == TW_OK)
        code = tw_store_end(vms->store, want(vms, name, wanted, vm, err), err);
    if (code == TW_OK && (vm->state != TW_VM_STOPPED || wanted == TW_WANTED_GONE))
        code = remove_vm(vms, vm, time_left_ms(deadline_ns, REMOVE_MAX_MS), err);
    busy_release(vms, slot);
    return code;
}

enum tw_code tw_vms_stop(struct tw_vms *vms, const char *name, uint64_t deadline_ns,
                         struct tw_vm_record *vm, struct tw_error *err)
{
    return end(vms, name, TW_WANTED_STOPPED, deadline_ns, vm, err);
}

enum tw_code tw_vms_delete(struct tw_vms *vms, const char *name, uint64_t deadline_ns,
                           struct tw_error *err)
{
    struct tw_vm_record vm;
    return end(vms, name, TW_WANTED_GONE, deadline_ns, &vm, err);
}

/* ---- What was left undone ------------------------------------------------------------------ */

void tw_vms_settle(struct tw_vms *vms, const char *name, bool *silent)
{
    struct tw_error err = {0};
    struct tw_vm_record vm;
    *silent = false;
    char *slot = busy_take(vms, name, NULL);
    if (!slot)
        return;
    enum tw_code code = tw_store_begin(vms->store, TW_STORE_READ, &err);
    if (code == TW_OK)
        code = tw_store_end(vms->store, tw_store_vm_get(vms->store, name, &vm, &err), &err);
    if (code == TW_OK && tw_vm_unsettled(&vm) && !vm.migration[0]) {
        if (vm.wanted == TW_WANTED_RUNNING)
            code = start(vms, &vm, START_MAX_MS, false, &err);
        else
            code = remove_vm(vms, &vm, REMOVE_MAX_MS, &err);
        *silent = tw_agents_silent(code);
        if (code != TW_OK)
            tw_log(TW_LOG_WARN, "vms", "not settled", "vm=%s host=%s what=\"%s\"", name, vm.host,
                   err.what);
    }
    busy_release(vms, slot);
}
