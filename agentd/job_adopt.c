/* Jobs that an agent finds on disk when it starts. */
#include "agentd/job_impl.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

static enum tw_code adopt_as(struct tw_job *job, enum tw_hand_over stands, struct tw_error *err)
{
    struct tw_host *host = tw_qemu_host(job->vm->qemu);
    switch (stands) {
    case TW_HAND_OVER_GIVEN_UP:
        return tw_source_adopt(&job->env, &job->params, host, &job->source, err);
    case TW_HAND_OVER_PREPARED:
        return tw_destination_adopt(&job->env, &job->params, host, &job->destination, err);
    default:
        return tw_destination_adopt_partly(&job->env, &job->params, host, &job->destination, err);
    }
}

static enum tw_code adopt_side(struct tw_vm *vm, enum tw_hand_over stands, struct tw_error *err)
{
    Towline__V1__VmRecord *r = vm->record;
    uint64_t epoch = stands == TW_HAND_OVER_GIVEN_UP ? r->peer_epoch : r->epoch;
    struct tw_job *job = tw_job_new(vm->agent, r->migration, r->peer, epoch, r->limits);
    if (!job)
        return tw_fail_errno(err, ENOMEM, r->migration, "cannot adopt");
    if (r->token.len == TW_OWNER_SIZE)
        memcpy(job->params.token, r->token.data, TW_OWNER_SIZE);
    tw_job_link(job, vm);
    enum tw_code code = adopt_as(job, stands, err);
    if (code) {
        tw_log(TW_LOG_ERROR, "job", "cannot adopt", "migration=%s what=\"%s\"", r->migration,
               err->what);
        tw_job_free(job);
    }
    return code;
}

static void adopt_outgoing(struct tw_vm *vm)
{
    struct tw_error err = {0};
    vm->record->ownership = TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED;
    vm->record->hand_over = TW_HAND_OVER_ABORTED;
    if (tw_vm_save(vm, &err) || tw_job_refuse(vm->agent, vm->record->migration, &err))
        tw_log(TW_LOG_ERROR, "job", "abort not written", "vm=%s what=\"%s\"",
               vm->record->spec->name, err.what);
}

/* All of its memory will never be there. */
static void strand(struct tw_vm *vm, struct tw_error *why)
{
    Towline__V1__MigrationRecord r = TOWLINE__V1__MIGRATION_RECORD__INIT;
    Towline__V1__ErrorDetail detail = TOWLINE__V1__ERROR_DETAIL__INIT;
    struct tw_error err = {0};
    detail.code = TW_DATA_LOSS;
    detail.where = vm->record->migration;
    detail.what = why->what;
    r.migration = vm->record->migration;
    r.vm = vm->record->spec->name;
    r.hand_over = TW_HAND_OVER_COMMITTED;
    r.error = &detail;
    if (tw_record_migration_save(vm->agent->store, &r, &err))
        tw_log(TW_LOG_ERROR, "job", "outcome not written", "migration=%s what=\"%s\"", r.migration,
               err.what);
    tw_vm_strand(vm, why->what);
}

/* Post-copy: the VM runs on without its agent; only with its process all is lost. */
static void adopt_partly(struct tw_vm *vm)
{
    struct tw_error why = {0};
    if (!vm->qemu)
        tw_fail(&why, TW_DATA_LOSS, vm->record->migration, NULL, NULL,
                "vm lost: its process ended before all of its memory had followed it");
    if (!vm->qemu || adopt_side(vm, TW_HAND_OVER_COMMITTED_PARTLY, &why))
        strand(vm, &why);
}

void tw_job_adopt(struct tw_vm *vm)
{
    Towline__V1__VmRecord *r = vm->record;
    Towline__V1__MigrationRecord *ended = tw_record_migration_load(vm->agent->store, r->migration);
    enum tw_hand_over outcome = ended ? (enum tw_hand_over)ended->hand_over : TW_HAND_OVER_UNKNOWN;
    struct tw_error ignored;
    if (ended)
        towline__v1__migration_record__free_unpacked(ended, NULL);
    switch (r->ownership) {
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_OUTGOING:
        adopt_outgoing(vm);
        break;
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP:
        if (outcome == TW_HAND_OVER_COMMITTED)
            vm->remove = true;
        else if (vm->qemu)
            adopt_side(vm, TW_HAND_OVER_GIVEN_UP, &ignored);
        break;
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_INCOMING:
        tw_job_refuse(vm->agent, r->migration, &ignored);
        vm->remove = true;
        break;
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_PREPARED:
        /* Without a process the copy is worth nothing; it never ran, so saying so is safe. */
        if (outcome == TW_HAND_OVER_ABORTED || !vm->qemu || r->memory_follows) {
            tw_job_refuse(vm->agent, r->migration, &ignored);
            vm->remove = true;
        } else {
            adopt_side(vm, TW_HAND_OVER_PREPARED, &ignored);
        }
        break;
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED:
        if (r->memory_follows)
            adopt_partly(vm);
        break;
    default:
        break;
    }
}
