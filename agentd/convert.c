/* Between the contract's messages and the agent's structures. */
#include "agentd/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Towline__V1__VmSpec *tw_spec_copy(const Towline__V1__VmSpec *spec)
{
    size_t size = towline__v1__vm_spec__get_packed_size(spec);
    uint8_t *packed = malloc(size + 1);
    if (!packed)
        return NULL;
    towline__v1__vm_spec__pack(spec, packed);
    Towline__V1__VmSpec *copy = towline__v1__vm_spec__unpack(NULL, size, packed);
    free(packed);
    return copy;
}

enum tw_code tw_spec_check(const Towline__V1__VmSpec *spec, struct tw_error *err)
{
    char given[32];
    if (!spec)
        return tw_fail(err, TW_INVALID_ARGUMENT, "VM", "a specification", "none", "cannot start");
    if (!tw_record_name_ok(spec->name))
        return tw_fail(err, TW_INVALID_ARGUMENT, "VM name",
                       "lower-case letters, digits and '-', at most 63", spec->name,
                       "not a usable name");
    snprintf(given, sizeof given, "%llu", (unsigned long long)spec->memory_bytes);
    if (spec->memory_bytes < (4u << 20) || spec->memory_bytes % TW_PAGE_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, spec->name,
                       "at least 4 MiB, a multiple of 4096 bytes", given, "memory size");
    snprintf(given, sizeof given, "%u", spec->vcpus);
    if (spec->vcpus > 64)
        return tw_fail(err, TW_INVALID_ARGUMENT, spec->name, "1 to 64", given, "vCPUs");
    if (!spec->kernel[0])
        return tw_fail(err, TW_INVALID_ARGUMENT, spec->name, "a path", "nothing", "kernel");
    return TW_OK;
}

static Towline__V1__VmState state_of(const struct tw_vm *vm)
{
    switch (vm->record->ownership) {
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_INCOMING:
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_PREPARED:
        return TOWLINE__V1__VM_STATE__VM_STATE_INCOMING;
    case TOWLINE__V1__OWNERSHIP__OWNERSHIP_GIVEN_UP:
        return TOWLINE__V1__VM_STATE__VM_STATE_GIVEN_UP;
    default:
        break;
    }
    if (!vm->qemu)
        return TOWLINE__V1__VM_STATE__VM_STATE_FAILED;
    switch (tw_qemu_status_get(vm->qemu)) {
    case TW_QEMU_STARTING:
        return TOWLINE__V1__VM_STATE__VM_STATE_STARTING;
    case TW_QEMU_RUNNING:
        return TOWLINE__V1__VM_STATE__VM_STATE_RUNNING;
    case TW_QEMU_PAUSED:
        return TOWLINE__V1__VM_STATE__VM_STATE_PAUSED;
    default:
        return TOWLINE__V1__VM_STATE__VM_STATE_FAILED;
    }
}

static uint64_t lines_written(const struct tw_vm *vm)
{
    struct tw_device_counters c = {0};
    const struct tw_host *host = vm->qemu ? tw_qemu_host(vm->qemu) : NULL;
    if (host && host->device)
        tw_device_counters_get(host->device, &c);
    return c.messages[TW_MEM_WR] + c.messages[TW_MEM_WR_KEEP];
}

static Towline__V1__VmDirty *dirty_of(const struct tw_vm *vm)
{
    struct tw_guest_figures f = {0};
    if (vm->meter)
        tw_guest_meter_get(vm->meter, &f);
    Towline__V1__VmDirty *d = f.last.epochs ? malloc(sizeof *d) : NULL;
    if (!d)
        return NULL;
    towline__v1__vm_dirty__init(d);
    d->duration_us = f.last.duration_ns / TW_US;
    d->lines = f.last.lines;
    d->pages = f.last.pages;
    d->regions = f.last.regions;
    return d;
}

Towline__V1__VmReport *tw_vm_report(const struct tw_vm *vm)
{
    Towline__V1__VmReport *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    towline__v1__vm_report__init(r);
    r->name = strdup(vm->record->spec->name);
    r->epoch = vm->record->epoch;
    r->state = state_of(vm);
    r->migration = strdup(vm->job || vm->record->hand_over == 0 ? vm->record->migration : "");
    r->reason = strdup(vm->reason);
    r->memory_bytes = vm->record->spec->memory_bytes;
    r->pid = vm->qemu ? (uint64_t)tw_qemu_pid(vm->qemu) : 0;
    r->lines_written = lines_written(vm);
    r->dirty = dirty_of(vm);
    return r;
}

static Towline__V1__Round *round_to_proto(const struct tw_round *round)
{
    Towline__V1__Round *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    towline__v1__round__init(r);
    r->index = round->index;
    r->lines = round->lines;
    r->pages = round->pages;
    r->zero_lines = round->zero_lines;
    r->bytes = round->bytes;
    r->duration_us = round->duration_ns / TW_US;
    r->final = round->final;
    return r;
}

Towline__V1__MigrationMethod tw_method_to_proto(enum tw_migration_method method)
{
    static const Towline__V1__MigrationMethod methods[] = {
        [TW_METHOD_PRE_COPY] = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY,
        [TW_METHOD_POST_COPY] = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY,
        [TW_METHOD_HYBRID] = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID,
    };
    return methods[method];
}

static void predictor_to_proto(const struct tw_migration_progress *p,
                               Towline__V1__MigrationProgress *r)
{
    const struct tw_foresight_figures *f = &p->foresight;
    struct tw_foresight_quality quality = tw_foresight_judge(f);
    r->predictor = strdup(p->predictor ? p->predictor : "");
    r->misses = f->misses;
    r->pages_named = f->named;
    r->pages_ahead = f->ahead;
    r->misses_late = f->late;
    r->pages_watched = f->watched;
    r->pages_touched = f->touched;
    r->accuracy_percent = quality.accuracy;
    r->coverage_percent = quality.coverage;
    r->timeliness_percent = quality.timeliness;
}

static void pacing_to_proto(const struct tw_migration_progress *p,
                            Towline__V1__MigrationProgress *r)
{
    r->paced_lines = p->paced_lines;
    r->paced_lines_most = p->paced_lines_most;
    r->pace_delay_ns = p->pace_delay_ns;
    r->pace_us = p->pace_ns / TW_US;
    r->pace_wait_us = p->pace_wait_ns / TW_US;
    r->pace_waits = p->pace_waits;
    r->pace_share_permille =
        r->pace_us ? (uint32_t)((unsigned __int128)r->pace_wait_us * 1000 / r->pace_us) : 0;
    r->pace_budget_permille = p->pace_budget_permille;
    r->pace_reason = strdup(p->pace_reason);
}

static void mirror_to_proto(const struct tw_migration_progress *p,
                            Towline__V1__MigrationProgress *r)
{
    static const Towline__V1__MirrorState states[] = {
        [TW_MIRRORED_NOT] = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_UNSPECIFIED,
        [TW_MIRRORED_FILLING] = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_FILLING,
        [TW_MIRRORED] = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_HOLDING,
        [TW_MIRRORED_NO_MORE] = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_LOST,
        [TW_MIRRORED_WITHOUT] = TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_WITHOUT,
    };
    r->mirror_state = states[p->mirrored];
    r->mirror_lines = p->mirror_lines;
    r->mirror_us = p->mirror_ns / TW_US;
    r->from_mirror = p->from_mirror;
    r->mirror_reason = strdup(p->mirror_reason);
}

Towline__V1__MigrationProgress *tw_progress_to_proto(const struct tw_migration_progress *p,
                                                     const struct tw_job *job)
{
    Towline__V1__MigrationProgress *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    towline__v1__migration_progress__init(r);
    r->phase = strdup(p->phase ? p->phase : "");
    r->rounds = calloc(TW_MIGRATION_ROUNDS_MAX, sizeof *r->rounds);
    for (uint32_t i = 0; r->rounds && i < p->round_count && i < TW_MIGRATION_ROUNDS_MAX; i++)
        if ((r->rounds[r->n_rounds] = round_to_proto(&p->rounds[i])))
            r->n_rounds++;
    r->bytes_sent = p->bytes_sent;
    r->bytes_if_pages = p->bytes_if_pages;
    r->bytes_device_state = p->bytes_device_state;
    r->memory_bytes = p->memory_bytes;
    r->full_copy_bytes_done = p->full_copy_bytes_done;
    r->lines_dirty = p->lines_dirty;
    r->rate_bytes_per_s = p->rate_bytes_per_s;
    r->dirty_bytes_per_s = p->dirty_bytes_per_s;
    r->eta_ms = p->eta_ns / TW_MS;
    r->downtime_us = p->downtime_ns / TW_US;
    r->hook_us = p->hook_ns / TW_US;
    r->total_us = p->total_ns / TW_US;
    r->lines_found_by_compare_only = p->lines_found_by_compare_only;
    r->memory_compared = p->memory_compared;
    r->memory_equal = p->memory_equal;
    r->final_pass_us = p->final_pass_ns / TW_US;
    r->device_state_us = p->device_state_ns / TW_US;
    r->method = tw_method_to_proto(p->method);
    r->lines_to_come = p->lines_to_come;
    r->lines_left = p->lines_left;
    r->lines_on_demand = p->lines_on_demand;
    r->bytes_on_demand = p->bytes_on_demand;
    r->faults = p->faults;
    r->fault_p50_us = p->fault_p50_ns / TW_US;
    r->fault_p99_us = p->fault_p99_ns / TW_US;
    r->fetch_us = p->fetch_ns / TW_US;
    r->reconnects = p->reconnects;
    r->path_lost_ms = (p->path_lost_ns + TW_MS - 1) / TW_MS;
    r->path_left_ms = (p->path_left_ns + TW_MS - 1) / TW_MS;
    r->path_waited_ms = p->path_waited_ns / TW_MS;
    r->lines_again = p->lines_again;
    predictor_to_proto(p, r);
    mirror_to_proto(p, r);
    r->stop_us = p->stop_ns / TW_US;
    r->compare_us = p->compare_ns / TW_US;
    r->saving_us = p->saving_ns / TW_US;
    r->hand_over_us = p->hand_over_ns / TW_US;
    r->save_us = p->save_ns / TW_US;
    r->link_bytes_per_s = p->link_bytes_per_s;
    r->start_us = p->start_ns / TW_US;
    pacing_to_proto(p, r);
    r->paused = p->paused;
    r->paused_us = p->paused_ns / TW_US;
    if (job) {
        r->fabric = strdup(job->path);
        r->fabric_reason = strdup(job->path_reason);
    }
    return r;
}

/* A migration that has ended is not in use any more; its path stays as the last one taken. */
static void paths_to_proto(const struct tw_agent *agent, Towline__V1__HostDescription *h)
{
    h->paths = calloc(TW_PATHS_MAX, sizeof *h->paths);
    for (unsigned i = 0; h->paths && i < agent->paths.count; i++) {
        const struct tw_path *path = &agent->paths.list[i];
        const struct tw_job *job = agent->jobs;
        while (job && strcmp(job->params.id, path->migration) != 0)
            job = job->next;
        Towline__V1__FabricPath *p = malloc(sizeof *p);
        if (!p)
            return;
        towline__v1__fabric_path__init(p);
        p->peer = strdup(path->peer);
        p->fabric = strdup(path->fabric);
        p->reason = strdup(path->reason);
        p->migration = strdup(job ? path->migration : "");
        h->paths[h->n_paths++] = p;
    }
}

Towline__V1__HostDescription *tw_agent_description(const struct tw_agent *agent)
{
    Towline__V1__HostDescription *h = malloc(sizeof *h);
    if (!h)
        return NULL;
    towline__v1__host_description__init(h);
    h->name = strdup(agent->config.name);
    h->rpc_url = strdup(agent->config.advertise);
    h->fabric_address = strdup(tw_fabric_address(agent->paths.tcp));
    h->fabric = strdup(agent->paths.verbs ? "verbs" : "tcp");
    h->fabric_reason = strdup(agent->paths.reason);
    h->verbs_address = strdup(tw_paths_verbs_address(&agent->paths));
    paths_to_proto(agent, h);
    h->memory_capacity_bytes = agent->config.memory_bytes;
    h->memory_used_bytes = tw_agent_memory_used(agent);
    h->cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    h->version = strdup(TOWLINE_VERSION);
    h->instance = agent->instance;
    return h;
}

void tw_limits_from_proto(const Towline__V1__MigrationLimits *limits, unsigned predictor,
                          struct tw_migration_limits *out)
{
    *out = (struct tw_migration_limits){.foresight = (enum tw_foresight_choice)predictor};
    if (!limits)
        return;
    unsigned asked = (unsigned)limits->predictor;
    if (asked >= TOWLINE__V1__PREDICTOR__PREDICTOR_NONE &&
        asked <= TOWLINE__V1__PREDICTOR__PREDICTOR_AUTO)
        out->foresight = (enum tw_foresight_choice)(asked - TOWLINE__V1__PREDICTOR__PREDICTOR_NONE);
    out->bandwidth_bytes_per_s = limits->bandwidth_bytes_per_s;
    out->downtime_ns = limits->downtime_ms * TW_MS;
    out->max_rounds = limits->max_rounds;
    out->timeout_ns = limits->timeout_ms * TW_MS;
    out->skip_verify = limits->skip_verify;
    out->total_ns = limits->total_ms * TW_MS;
    out->slow_down_permille = limits->slow_down_percent * 10;
    out->mirror_optional = limits->mirror_optional;
    if (limits->method == TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY)
        out->method = TW_METHOD_POST_COPY;
    else if (limits->method == TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID)
        out->method = TW_METHOD_HYBRID;
    out->on_no_convergence =
        limits->on_no_convergence == TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP
            ? TW_ON_NO_CONVERGENCE_STOP
            : TW_ON_NO_CONVERGENCE_ABORT;
}
