/* What a job writes down: ownership in the VM's record, outcomes, and beside both what a post-copy
 * still misses. What is durable when is decided by the machines (services/migration). */
#include "agentd/job_impl.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- What is written down -------------------------------------------------------------------- */

void tw_job_set_text(char **field, const char *text)
{
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = strdup(text);
}

enum tw_code tw_job_set_stream(struct tw_vm *vm, const struct tw_job *job,
                               const Towline__V1__MigrationLimits *limits, struct tw_error *err)
{
    Towline__V1__VmRecord *r = vm->record;
    uint8_t packed[256], *token = malloc(TW_OWNER_SIZE);
    size_t size = limits ? towline__v1__migration_limits__get_packed_size(limits) : 0;
    if (!token || size > sizeof packed) {
        free(token);
        return tw_fail_errno(err, ENOMEM, job->params.id, "cannot begin");
    }
    free(r->token.data);
    r->token = (ProtobufCBinaryData){TW_OWNER_SIZE, token};
    memcpy(token, job->params.token, TW_OWNER_SIZE);
    if (r->limits)
        towline__v1__migration_limits__free_unpacked(r->limits, NULL);
    if (limits)
        towline__v1__migration_limits__pack(limits, packed);
    r->limits = limits ? towline__v1__migration_limits__unpack(NULL, size, packed) : NULL;
    return TW_OK;
}

/* Whether the outcome could be written; `job` is NULL for a migration this agent has no part in. */
enum tw_code tw_job_save_outcome(struct tw_agent *agent, const struct tw_job *job, const char *id,
                                 enum tw_hand_over hand_over, struct tw_error *err)
{
    Towline__V1__MigrationRecord r = TOWLINE__V1__MIGRATION_RECORD__INIT;
    struct tw_error why = {0};
    r.migration = (char *)(uintptr_t)id;
    r.hand_over = (uint32_t)hand_over;
    if (job) {
        struct tw_migration_progress progress;
        r.vm = (char *)(uintptr_t)job->params.vm;
        r.source = job->source != NULL;
        if (job->source || job->destination) {
            tw_job_progress(job, &progress);
            r.progress = tw_progress_to_proto(&progress, job);
            if (tw_job_error(job))
                why = *tw_job_error(job);
        }
    }
    Towline__V1__ErrorDetail detail = TOWLINE__V1__ERROR_DETAIL__INIT;
    detail.code = (uint32_t)why.code;
    detail.where = why.where;
    detail.what = why.what;
    detail.expected = why.expected;
    detail.given = why.given;
    r.error = why.code ? &detail : NULL;
    enum tw_code code = tw_record_migration_save(agent->store, &r, err);
    if (r.progress)
        towline__v1__migration_progress__free_unpacked(r.progress, NULL);
    return code;
}

enum tw_code tw_job_refuse(struct tw_agent *agent, const char *migration, struct tw_error *err)
{
    return tw_job_save_outcome(agent, NULL, migration, TW_HAND_OVER_ABORTED, err);
}

enum tw_code tw_job_conclude(struct tw_agent *agent, const char *migration, struct tw_error *err)
{
    return tw_job_save_outcome(agent, NULL, migration, TW_HAND_OVER_COMMITTED, err);
}

static void set_ownership(Towline__V1__VmRecord *r, const struct tw_job *job,
                          Towline__V1__Ownership ownership, enum tw_hand_over hand_over,
                          uint64_t epoch)
{
    r->ownership = ownership;
    r->hand_over = (uint32_t)hand_over;
    r->epoch = epoch;
    if (ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP)
        r->peer_epoch = job->params.epoch;
}

/* Changes the VM's record on disk, or leaves it as it was when that fails. */
enum tw_code tw_job_save_ownership(struct tw_job *job, Towline__V1__Ownership ownership,
                                   enum tw_hand_over hand_over, uint64_t epoch,
                                   struct tw_error *err)
{
    Towline__V1__VmRecord *r = job->vm->record;
    Towline__V1__VmRecord before = *r;
    set_ownership(r, job, ownership, hand_over, epoch);
    enum tw_code code = tw_vm_save(job->vm, err);
    if (code) {
        r->ownership = before.ownership;
        r->hand_over = before.hand_over;
        r->epoch = before.epoch;
        r->peer_epoch = before.peer_epoch;
    }
    atomic_store(&job->agent->changed, true);
    return code;
}

static enum tw_code journal_source(struct tw_job *job, enum tw_hand_over state,
                                   struct tw_error *err)
{
    uint64_t epoch = job->vm->record->epoch;
    switch (state) {
    case TW_HAND_OVER_ACTIVE:
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OUTGOING, 0, epoch,
                                     err);
    case TW_HAND_OVER_GIVEN_UP:
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP, 0, epoch,
                                     err);
    case TW_HAND_OVER_ABORTED:
        /* The VM's record is the truth; the outcome repeats it for whoever asks later. */
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED, state,
                                     job->reclaim_epoch ? job->reclaim_epoch : epoch, err);
    case TW_HAND_OVER_COMMITTED:
        /* The VM's record goes when the process is gone: the outcome must be there first. */
        return tw_job_save_outcome(job->agent, job, job->params.id, state, err);
    default:
        return tw_fail(err, TW_INTERNAL, job->params.id, NULL, NULL,
                       "a source has no hand-over state %d", (int)state);
    }
}

static enum tw_code journal_destination(struct tw_job *job, enum tw_hand_over state,
                                        struct tw_error *err)
{
    uint64_t epoch = job->params.epoch;
    switch (state) {
    case TW_HAND_OVER_ACTIVE:
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_INCOMING, 0, epoch,
                                     err);
    case TW_HAND_OVER_PREPARED:
        job->vm->record->memory_follows = job->params.limits.method != TW_METHOD_PRE_COPY;
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_PREPARED, 0, epoch,
                                     err);
    case TW_HAND_OVER_COMMITTED_PARTLY:
        job->vm->record->memory_follows = true;
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED,
                                     TW_HAND_OVER_COMMITTED, epoch, err);
    case TW_HAND_OVER_COMMITTED:
        job->vm->record->memory_follows = false;
        return tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED, state, epoch,
                                     err);
    case TW_HAND_OVER_ABORTED:
        return tw_job_save_outcome(job->agent, job, job->params.id, state, err);
    default:
        return tw_fail(err, TW_INTERNAL, job->params.id, NULL, NULL,
                       "a destination has no hand-over state %d", (int)state);
    }
}

/* Fault points: a full disk at one of the moments that matter. */
static const char *const journal_points[] = {
    [TW_HAND_OVER_ACTIVE] = "journal.active",
    [TW_HAND_OVER_GIVEN_UP] = "journal.given_up",
    [TW_HAND_OVER_PREPARED] = "journal.prepared",
    [TW_HAND_OVER_COMMITTED] = "journal.committed",
    [TW_HAND_OVER_ABORTED] = "journal.aborted",
    [TW_HAND_OVER_COMMITTED_PARTLY] = "journal.committed_partly",
};

enum tw_code tw_job_journal(void *ctx, enum tw_hand_over state, struct tw_error *err)
{
    struct tw_job *job = ctx;
    if (tw_fault_fails(journal_points[state]))
        return tw_fail_errno(err, ENOSPC, job->params.vm, "cannot write the record");
    bool source = job->vm->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_OUTGOING ||
                  job->vm->record->ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP;
    return source ? journal_source(job, state, err) : journal_destination(job, state, err);
}

/* What the next entries of the journal will say, put on disk while the guest does not wait for it.
 */
void tw_job_stage(void *ctx)
{
    struct tw_job *job = ctx;
    Towline__V1__VmRecord r = *job->vm->record;
    if (job->source) {
        set_ownership(&r, job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP, 0, r.epoch);
        tw_record_vm_stage(job->agent->store, &r);
        return;
    }
    uint64_t epoch = job->params.epoch;
    r.memory_follows = job->params.limits.method != TW_METHOD_PRE_COPY;
    set_ownership(&r, job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_PREPARED, 0, epoch);
    tw_record_vm_stage(job->agent->store, &r);
    set_ownership(&r, job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED, TW_HAND_OVER_COMMITTED, epoch);
    tw_record_vm_stage(job->agent->store, &r);
}

/* ---- What a post-copy still misses ------------------------------------------------------------
 *
 * Beside the guest's RAM and like it: it outlives the agent, and no crash of the host. */

#define KEPT_PATH 600u

static void kept_path(const struct tw_job *job, char out[KEPT_PATH])
{
    snprintf(out, KEPT_PATH, "%s/%s/missing", job->agent->config.run_dir, job->params.vm);
}

void tw_job_keep_remove(const struct tw_job *job)
{
    char path[KEPT_PATH];
    kept_path(job, path);
    if (job->kept)
        unlink(path);
}

static enum tw_code open_kept(struct tw_job *job, size_t bytes, bool fresh, struct tw_error *err)
{
    char path[KEPT_PATH];
    struct stat st;
    kept_path(job, path);
    job->keep_fd =
        open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_CREAT | O_TRUNC : 0), 0600);
    if (job->keep_fd < 0)
        return tw_fail_errno(err, errno, path, "cannot open what is missing");
    int number = fresh ? posix_fallocate(job->keep_fd, 0, (off_t)bytes) : 0;
    if (number)
        return tw_fail_errno(err, number, path, "no room for what is missing");
    if (fstat(job->keep_fd, &st) < 0 || (uint64_t)st.st_size != bytes)
        return tw_fail(err, TW_NOT_FOUND, path, NULL, NULL, "what is missing has another size");
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, job->keep_fd, 0);
    if (at == MAP_FAILED)
        return tw_fail_errno(err, errno, path, "cannot map what is missing");
    job->kept = at;
    job->kept_bytes = bytes;
    return TW_OK;
}

enum tw_code tw_job_keep(void *ctx, uint64_t words, bool fresh, uint64_t **memory,
                         struct tw_error *err)
{
    struct tw_job *job = ctx;
    tw_job_keep_close(job);
    enum tw_code code = open_kept(job, words * sizeof *job->kept, fresh, err);
    if (code)
        tw_job_keep_close(job);
    *memory = job->kept;
    return code;
}

void tw_job_keep_close(struct tw_job *job)
{
    if (job->kept)
        munmap(job->kept, job->kept_bytes);
    if (job->keep_fd >= 0)
        close(job->keep_fd);
    job->kept = NULL;
    job->keep_fd = -1;
}
