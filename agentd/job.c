/* Migration jobs: glue between a side's state machine (services/migration), its VM, the disk
 * (job_write.c) and the fabric (job_path.c), from their begin to their end. Those that an earlier
 * process began are in job_adopt.c. */
#include "agentd/job_impl.h"

#include "base/fault.h"
#include "base/log.h"
#include "services/migration/mutations.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define HOOK_TIMEOUT (30 * TW_SEC)

struct tw_job *tw_job_find(struct tw_agent *agent, const char *migration)
{
    for (struct tw_job *job = agent->jobs; job; job = job->next)
        if (strcmp(job->params.id, migration) == 0)
            return job;
    return NULL;
}

enum tw_hand_over tw_job_hand_over(const struct tw_job *job)
{
    return job->source ? tw_source_hand_over(job->source)
                       : tw_destination_hand_over(job->destination);
}

void tw_job_progress(const struct tw_job *job, struct tw_migration_progress *out)
{
    if (job->source)
        tw_source_progress(job->source, out);
    else
        tw_destination_progress(job->destination, out);
}

const struct tw_error *tw_job_error(const struct tw_job *job)
{
    return job->source ? tw_source_error(job->source) : tw_destination_error(job->destination);
}

bool tw_job_peer_lost(const struct tw_job *job)
{
    return job->source ? tw_source_peer_lost(job->source)
                       : tw_destination_peer_lost(job->destination);
}

/* ---- The switch-over hook ---------------------------------------------------------------------
 */

static enum tw_code job_hook_begin(void *ctx, struct tw_error *err)
{
    struct tw_job *job = ctx;
    const struct tw_agent_config *config = &job->agent->config;
    char vm[TW_ID_SIZE + 16], migration[TW_ID_SIZE + 24], source[96], destination[96], run[600];
    snprintf(vm, sizeof vm, "TOWLINE_VM=%s", job->params.vm);
    snprintf(migration, sizeof migration, "TOWLINE_MIGRATION=%s", job->params.id);
    snprintf(source, sizeof source, "TOWLINE_SOURCE=%s", config->name);
    snprintf(destination, sizeof destination, "TOWLINE_DESTINATION=%s", job->peer);
    snprintf(run, sizeof run, "TOWLINE_RUN_DIR=%s/%s", config->run_dir, job->params.vm);
    const char *environment[] = {vm, migration, source, destination, run, NULL};
    return tw_hook_start(config->switchover_hook, environment, HOOK_TIMEOUT, &job->hook, err);
}

static bool job_hook_poll(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct tw_job *job = ctx;
    if (!tw_hook_poll(job->hook, code, err))
        return false;
    tw_hook_free(job->hook);
    job->hook = NULL;
    return true;
}

static void job_trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                      const char *why)
{
    const struct tw_job *job = ctx;
    tw_log(TW_LOG_INFO, machine->table->name, "state",
           "migration=%s vm=%s from=%s to=%s why=\"%s\"", job->params.id, job->params.vm,
           machine->table->states[from].name, machine->table->states[to].name, why);
}

static void job_missed(void *ctx, uint64_t page, uint32_t line, uint64_t since_ns,
                       uint64_t waited_ns)
{
    const struct tw_job *job = ctx;
    tw_miss_recording_add(job->recording, page, line, since_ns, waited_ns);
}

/* What cannot be recorded is migrated all the same. */
static void job_record_misses(struct tw_job *job, const struct tw_host *host)
{
    const char *folder = job->agent->config.miss_streams;
    struct tw_error err;
    if (!folder[0])
        return;
    if (tw_miss_recording_open(folder, job->params.id, host->memory_bytes, &job->recording, &err))
        tw_log(TW_LOG_WARN, "job", "misses are not recorded", "migration=%s what=\"%s\"",
               job->params.id, err.what);
    else
        job->env.missed = job_missed;
}

/* ---- Begin and end -----------------------------------------------------------------------------
 */

struct tw_job *tw_job_new(struct tw_agent *agent, const char *id, const char *peer, uint64_t epoch,
                          const Towline__V1__MigrationLimits *limits)
{
    struct tw_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->agent = agent;
    snprintf(job->params.id, sizeof job->params.id, "%s", id);
    snprintf(job->peer, sizeof job->peer, "%s", peer);
    job->params.epoch = epoch;
    tw_limits_from_proto(limits, agent->config.predictor, &job->params.limits);
    job->params.recover_ns = agent->config.postcopy_recover_ns;
    job->params.mirror_after_ns = agent->config.mirror_after_ns;
    job->keep_fd = -1;
    bool hook = agent->config.switchover_hook[0] != 0;
    job->env = (struct tw_migration_env){
        .clock = &tw_monotonic,
        .fabric = agent->paths.tcp,
        .journal = tw_job_journal,
        .stage = tw_job_stage,
        .keep = tw_job_keep,
        .dial = tw_job_dial,
        .hook_begin = hook ? job_hook_begin : NULL,
        .hook_poll = hook ? job_hook_poll : NULL,
        .trace = job_trace,
        .ctx = job,
    };
    return job;
}

void tw_job_link(struct tw_job *job, struct tw_vm *vm)
{
    snprintf(job->params.vm, sizeof job->params.vm, "%s", vm->record->spec->name);
    job->vm = vm;
    vm->job = job;
    job->env.dial_mirror = vm->record->mirror_host[0] ? tw_job_dial_mirror : NULL;
    job->next = job->agent->jobs;
    job->agent->jobs = job;
    atomic_store(&job->agent->changed, true);
}

void tw_job_free(struct tw_job *job)
{
    for (struct tw_job **p = &job->agent->jobs; *p; p = &(*p)->next) {
        if (*p == job) {
            *p = job->next;
            break;
        }
    }
    if (job->vm)
        job->vm->job = NULL;
    tw_hook_free(job->hook);
    tw_source_free(job->source);
    tw_destination_free(job->destination);
    tw_job_keep_close(job);
    tw_miss_recording_close(job->recording);
    atomic_store(&job->agent->changed, true);
    free(job);
}

/* Breaks one rule when a test has armed it, to prove that the checks of a migration, and those of
 * whoever watches it, notice. Nothing is ever armed in a release build. */
static void break_rules(struct tw_job *job)
{
    struct tw_migration_mutations m = {0};
    m.drop_record = job->source && tw_fault_fails("break.drop_record");
    m.skip_final_sweep = job->source && tw_fault_fails("break.skip_final_sweep");
    m.skip_compare = m.skip_final_sweep; /* the compare would mend it */
    m.start_early = job->destination && tw_fault_fails("break.start_early");
    if (job->source)
        tw_source_mutate(job->source, m);
    else
        tw_destination_mutate(job->destination, m);
}

/* An id that is free here: no job has it and no outcome was recorded for it. */
static enum tw_code check_new(struct tw_agent *agent, const char *id, struct tw_error *err)
{
    if (!tw_record_name_ok(id))
        return tw_fail(err, TW_INVALID_ARGUMENT, "migration id",
                       "lower-case letters, digits and '-', at most 63", id, "not a usable name");
    Towline__V1__MigrationRecord *old = tw_record_migration_load(agent->store, id);
    if (!old)
        return TW_OK;
    towline__v1__migration_record__free_unpacked(old, NULL);
    return tw_fail(err, TW_FAILED_PRECONDITION, id, "a migration that has not ended", NULL,
                   "this migration has ended on %s", agent->config.name);
}

static enum tw_code check_source(struct tw_agent *agent, const Towline__V1__StartOutgoingRequest *r,
                                 struct tw_vm **out, struct tw_error *err)
{
    char expected[48], given[24];
    struct tw_vm *vm = tw_vm_find(agent, r->vm);
    enum tw_code code = check_new(agent, r->migration, err);
    if (code)
        return code;
    if (r->token.len != TW_OWNER_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->migration, "a token of 16 bytes", NULL,
                       "the token has %zu bytes", r->token.len);
    if (!vm)
        return tw_fail(err, TW_NOT_FOUND, r->vm, NULL, NULL, "no such VM on %s",
                       agent->config.name);
    if (vm->job)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->vm, "a VM in no migration",
                       vm->job->params.id, "the VM is being migrated");
    if (!vm->qemu || tw_qemu_status_get(vm->qemu) != TW_QEMU_RUNNING ||
        vm->record->ownership != TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->vm, "a running VM", vm->reason,
                       "the VM does not run on %s", agent->config.name);
    if (r->epoch <= vm->record->epoch) {
        snprintf(expected, sizeof expected, "greater than %llu",
                 (unsigned long long)vm->record->epoch);
        snprintf(given, sizeof given, "%llu", (unsigned long long)r->epoch);
        return tw_fail(err, TW_FAILED_PRECONDITION, r->vm, expected, given,
                       "the destination's epoch must grow");
    }
    *out = vm;
    return TW_OK;
}

static void remember_migration(struct tw_vm *vm, const struct tw_job *job)
{
    tw_job_set_text(&vm->record->migration, job->params.id);
    tw_job_set_text(&vm->record->peer, job->peer);
    vm->record->hand_over = 0;
}

enum tw_code tw_job_start_source(struct tw_agent *agent, const Towline__V1__StartOutgoingRequest *r,
                                 struct tw_error *err)
{
    struct tw_vm *vm = NULL;
    const struct tw_job *same = tw_job_find(agent, r->migration);
    if (same)
        return same->source ? TW_OK
                            : tw_fail(err, TW_FAILED_PRECONDITION, r->migration, "source",
                                      "destination", "%s is the other side", agent->config.name);
    enum tw_code code = check_source(agent, r, &vm, err);
    if (code)
        return code;
    struct tw_job *job = tw_job_new(agent, r->migration, r->destination, r->epoch, r->limits);
    if (!job)
        return tw_fail_errno(err, ENOMEM, r->migration, "cannot begin");
    memcpy(job->params.token, r->token.data, TW_OWNER_SIZE);
    tw_job_link(job, vm);
    remember_migration(vm, job);
    code = tw_job_set_stream(vm, job, r->limits, err);
    if (!code)
        code = tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OUTGOING, 0,
                                     vm->record->epoch, err);
    if (!code) {
        const char *address;
        tw_job_path_set(job,
                        tw_paths_choose(&agent->paths, job->peer, job->params.id, r->fabric_address,
                                        r->verbs_address, &job->env.fabric, &address));
        code = tw_source_start(&job->env, &job->params, tw_qemu_host(vm->qemu), address,
                               &job->source, err);
        if (!code && r->mirror)
            code = tw_job_mirror_to(job, r->mirror, err);
        struct tw_error ignored;
        if (code)
            tw_job_save_ownership(job, TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED,
                                  TW_HAND_OVER_ABORTED, vm->record->epoch, &ignored);
    }
    if (code)
        tw_job_free(job);
    else
        break_rules(job);
    return code;
}

static enum tw_code start_incoming_vm(struct tw_job *job,
                                      const Towline__V1__PrepareIncomingRequest *r,
                                      struct tw_vm **vm, struct tw_error *err)
{
    Towline__V1__VmRecord record = TOWLINE__V1__VM_RECORD__INIT;
    record.spec = r->spec;
    record.ownership = TOWLINE__V1__OWNERSHIP__OWNERSHIP_INCOMING;
    record.epoch = r->epoch;
    record.migration = job->params.id;
    record.peer = job->peer;
    record.token = (ProtobufCBinaryData){TW_OWNER_SIZE, job->params.token};
    record.limits = r->limits;
    record.source_fabric = r->source_fabric_address;
    record.source_verbs = r->source_verbs_address;
    if (r->mirror) {
        record.mirror_host = r->mirror->host;
        record.mirror_fabric = r->mirror->fabric_address;
        record.mirror_verbs = r->mirror->verbs_address;
        record.mirror_token = r->mirror->token;
    }
    return tw_vm_start(job->agent, &record, vm, err);
}

static enum tw_code check_destination(struct tw_agent *agent,
                                      const Towline__V1__PrepareIncomingRequest *r,
                                      struct tw_error *err)
{
    enum tw_code code = check_new(agent, r->migration, err);
    if (code)
        return code;
    if (!r->spec)
        return tw_fail(err, TW_INVALID_ARGUMENT, r->migration, "a VM specification", "none",
                       "cannot prepare");
    if (tw_vm_find(agent, r->spec->name))
        return tw_fail(err, TW_ALREADY_EXISTS, r->spec->name, "no VM of this name", NULL,
                       "%s holds a VM of this name", agent->config.name);
    return TW_OK;
}

enum tw_code tw_job_start_destination(struct tw_agent *agent,
                                      const Towline__V1__PrepareIncomingRequest *r,
                                      uint8_t token[TW_OWNER_SIZE], struct tw_error *err)
{
    struct tw_vm *vm = NULL;
    const uint64_t wait_ns = (r->timeout_ms ? r->timeout_ms : 30000) * TW_MS;
    const struct tw_job *same = tw_job_find(agent, r->migration);
    if (same && same->destination) {
        tw_destination_wait_anew(same->destination, wait_ns);
        memcpy(token, same->params.token, TW_OWNER_SIZE);
        return TW_OK;
    }
    enum tw_code code = check_destination(agent, r, err);
    if (code)
        return code;
    struct tw_job *job = tw_job_new(agent, r->migration, r->source, r->epoch, r->limits);
    if (!job || getrandom(job->params.token, TW_OWNER_SIZE, 0) != (ssize_t)TW_OWNER_SIZE) {
        free(job);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, r->migration, NULL, NULL, "cannot begin");
    }
    code = start_incoming_vm(job, r, &vm, err);
    if (code) {
        free(job);
        return code;
    }
    tw_job_link(job, vm);
    job_record_misses(job, tw_qemu_host(vm->qemu));
    code = tw_destination_start(&job->env, &job->params, tw_qemu_host(vm->qemu), wait_ns,
                                &job->destination, err);
    if (code) {
        tw_job_free(job);
        vm->remove = true;
        return code;
    }
    break_rules(job);
    memcpy(token, job->params.token, TW_OWNER_SIZE);
    return TW_OK;
}

static void count_outcome(struct tw_job *job)
{
    struct tw_agent_totals *t = &job->agent->totals;
    struct tw_migration_progress p;
    bool committed = tw_job_hand_over(job) == TW_HAND_OVER_COMMITTED;
    tw_job_progress(job, &p);
    if (!job->source) {
        t->reconnects += p.reconnects;
        t->path_waited_ns += p.path_waited_ns;
        t->faults += p.faults;
        ++*(committed ? &t->incoming_completed : &t->incoming_aborted);
        return;
    }
    ++*(committed ? &t->outgoing_completed : &t->outgoing_aborted);
    t->bytes_sent += p.bytes_sent;
    t->bytes_if_pages += p.bytes_if_pages;
    t->lines_compare_only += p.lines_found_by_compare_only;
    for (uint32_t i = 0; i < p.round_count; i++)
        t->lines_sent += p.rounds[i].lines;
    t->foresight.misses += p.foresight.misses;
    t->foresight.named += p.foresight.named;
    t->foresight.ahead += p.foresight.ahead;
    t->foresight.late += p.foresight.late;
    t->foresight.watched += p.foresight.watched;
    t->foresight.touched += p.foresight.touched;
    if (committed)
        t->last_downtime_ns = p.downtime_ns;
}

/* The machine has ended: keep the outcome, then decide what becomes of the VM's copy here. */
static void job_end(struct tw_job *job)
{
    struct tw_error err = {0};
    struct tw_vm *vm = job->vm;
    enum tw_hand_over end = tw_job_hand_over(job);
    const struct tw_error *why = tw_job_error(job);
    char text[512] = "";
    if (why)
        tw_error_text(why, text, sizeof text);
    if (tw_job_save_outcome(job->agent, job, job->params.id, end, &err))
        tw_log(TW_LOG_ERROR, "job", "outcome not written", "migration=%s what=\"%s\"",
               job->params.id, err.what);
    tw_log(why ? TW_LOG_WARN : TW_LOG_INFO, "job", "ended",
           "migration=%s vm=%s side=%s hand_over=%d error=\"%s\"", job->params.id, job->params.vm,
           job->source ? "source" : "destination", (int)end, text);
    count_outcome(job);
    vm->remove = (job->source != NULL) == (end == TW_HAND_OVER_COMMITTED);
    bool stranded = job->destination && vm->record->memory_follows && !vm->remove;
    if (!vm->record->memory_follows)
        tw_job_keep_remove(job);
    tw_job_free(job);
    if (stranded)
        tw_vm_strand(vm, text);
}

uint64_t tw_job_step(struct tw_job *job)
{
    uint64_t next =
        job->source ? tw_source_step(job->source) : tw_destination_step(job->destination);
    bool done = job->source ? tw_source_done(job->source) : tw_destination_done(job->destination);
    if (!done)
        return next;
    job_end(job);
    return 0;
}
