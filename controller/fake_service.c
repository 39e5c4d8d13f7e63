/* AgentService as the played agents serve it. */
#include "controller/fake_inside.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEAD_US 50000u /* until the caller of a dead agent gives up */

static Towline__V1__VmReport *report(const struct fake_vm *vm)
{
    static const Towline__V1__VmState states[] = {
        [FAKE_OWNED] = TOWLINE__V1__VM_STATE__VM_STATE_RUNNING,
        [FAKE_OUTGOING] = TOWLINE__V1__VM_STATE__VM_STATE_RUNNING,
        [FAKE_GAVE] = TOWLINE__V1__VM_STATE__VM_STATE_GIVEN_UP,
        [FAKE_INCOMING] = TOWLINE__V1__VM_STATE__VM_STATE_INCOMING,
        [FAKE_READY] = TOWLINE__V1__VM_STATE__VM_STATE_INCOMING,
    };
    Towline__V1__VmReport *r = malloc(sizeof *r);
    if (!r)
        abort();
    towline__v1__vm_report__init(r);
    r->name = strdup(vm->name);
    r->migration = strdup(vm->migration);
    r->epoch = vm->epoch;
    r->memory_bytes = vm->memory_bytes;
    r->state = states[vm->copy];
    r->pid = vm->dead ? 0 : 4711;
    if (vm->dead && (vm->copy == FAKE_OWNED || vm->copy == FAKE_OUTGOING)) {
        r->state = TOWLINE__V1__VM_STATE__VM_STATE_FAILED;
        r->reason = strdup("its process was killed");
    } else if (!vm->runs && r->state == TOWLINE__V1__VM_STATE__VM_STATE_RUNNING) {
        r->state = TOWLINE__V1__VM_STATE__VM_STATE_PAUSED;
    }
    return r;
}

/* Of an agent, for Describe and heartbeats; with the lock. */
Towline__V1__HostDescription *fake_describe(const struct fake_agent *a)
{
    Towline__V1__HostDescription *d = malloc(sizeof *d);
    if (!d)
        abort();
    towline__v1__host_description__init(d);
    d->name = strdup(a->name);
    d->rpc_url = strdup(a->url);
    d->fabric_address = strdup("127.0.0.1:1");
    d->fabric = strdup("sim");
    d->version = strdup("0");
    d->memory_capacity_bytes = a->capacity_bytes;
    d->instance = a->instance;
    d->cpus = 2;
    for (unsigned i = 0; i < a->vm_count; i++)
        d->memory_used_bytes += a->vms[i].memory_bytes;
    return d;
}

Towline__V1__VmReport **fake_reports(const struct fake_agent *a, size_t *count)
{
    Towline__V1__VmReport **list = calloc(a->vm_count + 1, sizeof *list);
    if (!list)
        abort();
    for (unsigned i = 0; i < a->vm_count; i++)
        list[(*count)++] = report(&a->vms[i]);
    return list;
}

static struct fake_agent *in(void *ctx)
{
    struct fake_agent *a = ctx;
    usleep(atomic_load(&a->slow_ms) * 1000);
    pthread_mutex_lock(&a->world->lock);
    return a;
}

static void out(struct fake_agent *a)
{
    fake_watch(a->world);
    pthread_mutex_unlock(&a->world->lock);
}

#define HANDLER(name, request_type, response_type)                                                 \
    static enum tw_code name##_play(struct fake_agent *a, const request_type *r, response_type *p, \
                                    struct tw_error *err);                                         \
    static enum tw_code name(void *ctx, const struct tw_rpc_call *call,                            \
                             const ProtobufCMessage *request, ProtobufCMessage *response,          \
                             struct tw_error *err)                                                 \
    {                                                                                              \
        (void)call;                                                                                \
        struct fake_agent *a = in(ctx);                                                            \
        enum tw_code code =                                                                        \
            a->up ? name##_play(a, (const void *)request, (void *)response, err) : TW_UNAVAILABLE; \
        bool dead = !a->up;                                                                        \
        out(a);                                                                                    \
        usleep(dead ? DEAD_US : 0);                                                                \
        return code;                                                                               \
    }                                                                                              \
    static enum tw_code name##_play(struct fake_agent *a, const request_type *r, response_type *p, \
                                    struct tw_error *err)

HANDLER(describe, Towline__V1__DescribeRequest, Towline__V1__DescribeResponse)
{
    (void)r, (void)err;
    p->host = fake_describe(a);
    p->vms = fake_reports(a, &p->n_vms);
    return TW_OK;
}

HANDLER(diagnose, Towline__V1__DiagnoseRequest, Towline__V1__DiagnoseResponse)
{
    (void)r, (void)err;
    p->received_unix_us = tw_wall_us() + a->clock_ahead_us;
    p->results = calloc(1, sizeof *p->results);
    p->results[0] = malloc(sizeof **p->results);
    towline__v1__probe_result__init(p->results[0]);
    p->results[0]->name = strdup("played");
    p->results[0]->found = strdup(a->name);
    p->results[0]->verdict = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_OK;
    p->n_results = 1;
    p->answered_unix_us = tw_wall_us() + a->clock_ahead_us;
    return TW_OK;
}

HANDLER(start_vm, Towline__V1__StartVmRequest, Towline__V1__StartVmResponse)
{
    struct fake_vm *vm = fake_vm_find(a, r->spec->name);
    if (a->refuse_start_vm)
        return tw_fail(err, (enum tw_code)a->refuse_start_vm, r->spec->name, "a kernel",
                       r->spec->kernel, "played refusal");
    if (vm && vm->epoch != r->epoch)
        return tw_fail(err, TW_ALREADY_EXISTS, r->spec->name, NULL, NULL, "another epoch is here");
    if (!vm && a->vm_count < FAKE_VMS) {
        vm = &a->vms[a->vm_count++];
        memset(vm, 0, sizeof *vm);
        snprintf(vm->name, sizeof vm->name, "%s", r->spec->name);
        vm->epoch = r->epoch;
        vm->memory_bytes = r->spec->memory_bytes;
        vm->runs = true;
    }
    p->vm = vm ? report(vm) : NULL;
    return vm ? TW_OK : tw_fail(err, TW_RESOURCE_EXHAUSTED, a->name, NULL, NULL, "full");
}

HANDLER(remove_vm, Towline__V1__RemoveVmRequest, Towline__V1__RemoveVmResponse)
{
    (void)p;
    struct fake_vm *vm = fake_vm_find(a, r->name);
    if (vm && vm->epoch > r->epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->name, NULL, NULL, "a newer copy is here");
    if (vm && vm->migration[0])
        return tw_fail(err, TW_FAILED_PRECONDITION, r->name, NULL, vm->migration, "is migrated");
    fake_vm_drop(a, r->name);
    return TW_OK;
}

HANDLER(prepare, Towline__V1__PrepareIncomingRequest, Towline__V1__PrepareIncomingResponse)
{
    struct fake_side *s = fake_side_find(a, r->migration);
    atomic_fetch_add(&a->prepares, 1);
    if (a->refuse_prepare)
        return tw_fail(err, (enum tw_code)a->refuse_prepare, a->name, "room", "none",
                       "played refusal");
    if (s && s->hand_over != TW_KNOWN_ACTIVE)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->migration, NULL, NULL, "has ended here");
    if (!s && (fake_vm_find(a, r->spec->name) || a->vm_count == FAKE_VMS))
        return tw_fail(err, TW_ALREADY_EXISTS, r->spec->name, NULL, NULL, "a copy is here");
    if (!s) {
        s = fake_side_add(a, r->migration, r->spec->name);
        s->epoch = r->epoch;
        struct fake_vm *vm = &a->vms[a->vm_count++];
        memset(vm, 0, sizeof *vm);
        snprintf(vm->name, sizeof vm->name, "%s", r->spec->name);
        snprintf(vm->migration, sizeof vm->migration, "%s", r->migration);
        vm->epoch = r->epoch;
        vm->memory_bytes = r->spec->memory_bytes;
        vm->copy = FAKE_INCOMING;
    }
    p->fabric_address = strdup("127.0.0.1:1");
    p->token.data = calloc(1, 16);
    p->token.len = 16;
    return TW_OK;
}

static struct fake_agent *agent_named(struct fake_world *w, const char *name)
{
    for (unsigned i = 0; i < FAKE_AGENTS; i++)
        if (strcmp(w->agents[i].name, name) == 0)
            return &w->agents[i];
    return NULL;
}

HANDLER(start_outgoing, Towline__V1__StartOutgoingRequest, Towline__V1__StartOutgoingResponse)
{
    (void)p;
    struct fake_vm *vm = fake_vm_find(a, r->vm);
    struct fake_side *s = fake_side_find(a, r->migration);
    struct fake_agent *peer = agent_named(a->world, r->destination);
    struct fake_side *d = peer ? fake_side_find(peer, r->migration) : NULL;
    if (s)
        return s->hand_over == TW_KNOWN_ABORTED
                   ? tw_fail(err, TW_FAILED_PRECONDITION, r->migration, NULL, NULL, "has ended")
                   : TW_OK;
    if (!vm || !vm->runs || vm->copy != FAKE_OWNED)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->vm, "a running VM", NULL, "does not run");
    s = fake_side_add(a, r->migration, r->vm);
    s->source = true;
    s->peer = peer;
    s->epoch = r->epoch;
    s->bandwidth = r->limits ? r->limits->bandwidth_bytes_per_s : 0;
    if (d)
        d->peer = a;
    vm->copy = FAKE_OUTGOING;
    snprintf(vm->migration, sizeof vm->migration, "%s", r->migration);
    return TW_OK;
}

static Towline__V1__MigrationProgress *progress(const struct fake_side *s)
{
    static const char *const phases[FAKE_STEPS] = {
        "connecting", "full_copy", "round",    "stopping",
        "verifying",  "given_up",  "given_up", "completed",
    };
    Towline__V1__MigrationProgress *p = malloc(sizeof *p);
    if (!p)
        abort();
    towline__v1__migration_progress__init(p);
    p->phase = strdup(phases[s->step]);
    if (s->slow_down_percent) { /* it slows the guest until it is stopped */
        const bool now = s->step < FAKE_STOPPING;
        p->pace_reason = strdup("rounds do not shrink");
        p->paced_lines = now ? 4096 : 0;
        p->paced_lines_most = 4096;
        p->pace_delay_ns = now ? 32000 : 0;
        p->pace_share_permille = 120;
        p->pace_budget_permille = 200;
    }
    p->lines_left = s->lines_left;
    p->bytes_sent = 1000 * (uint64_t)(s->step + 1);
    p->bytes_if_pages = 40000 * (uint64_t)(s->step + 1);
    p->downtime_us = s->step == FAKE_FINISHED ? 12345 : 0;
    return p;
}

HANDLER(get_migration, Towline__V1__AgentGetMigrationRequest,
        Towline__V1__AgentGetMigrationResponse)
{
    (void)err;
    const struct fake_side *s = fake_side_find(a, r->migration);
    if (!s) {
        p->hand_over = TOWLINE__V1__HAND_OVER__HAND_OVER_UNKNOWN;
        return TW_OK;
    }
    p->hand_over = (Towline__V1__HandOver)s->hand_over;
    p->peer_lost = s->peer_lost;
    p->source = s->source;
    if (s->source || s->lines_left)
        p->progress = progress(s);
    if (s->error[0] || s->abandoned) {
        struct tw_error why;
        tw_fail(&why, s->abandoned ? TW_DATA_LOSS : TW_ABORTED, a->name, NULL, NULL, "%s",
                s->abandoned ? "its memory could not follow" : s->error);
        p->error = tw_error_to_proto(&why);
    }
    return TW_OK;
}

static enum tw_code refuse(const char *id, enum tw_known known, struct tw_error *err)
{
    return tw_fail(err, TW_FAILED_PRECONDITION, id, NULL, tw_known_name(known),
                   "not in this state");
}

HANDLER(cancel, Towline__V1__AgentCancelRequest, Towline__V1__AgentCancelResponse)
{
    struct fake_side *s = fake_side_find(a, r->migration);
    if (!s) {
        s = fake_side_add(a, r->migration, "");
        s->hand_over = TW_KNOWN_ABORTED;
    } else if (s->hand_over == TW_KNOWN_ACTIVE && s->source) {
        struct fake_side *d = s->peer ? fake_side_find(s->peer, s->id) : NULL;
        fake_source_back(a, s, "cancelled");
        if (d)
            fake_peer_lost(s->peer, d);
    } else if (s->hand_over != TW_KNOWN_ABORTED) {
        return refuse(r->migration, s->hand_over, err);
    }
    p->hand_over = (Towline__V1__HandOver)s->hand_over;
    return TW_OK;
}

static enum tw_code decide_destination(struct fake_agent *a, struct fake_side *s, bool commit,
                                       uint64_t epoch, struct tw_error *err)
{
    struct fake_vm *vm = fake_vm_find(a, s->vm);
    if (commit && s->hand_over == TW_KNOWN_PREPARED && vm && epoch == s->epoch) {
        s->hand_over = TW_KNOWN_COMMITTED;
        vm->copy = FAKE_OWNED;
        vm->runs = true;
        vm->migration[0] = 0;
    } else if (!commit && (s->hand_over == TW_KNOWN_PREPARED || s->hand_over == TW_KNOWN_ACTIVE)) {
        fake_destination_out(a, s, "aborted");
    } else if (s->hand_over != (commit ? TW_KNOWN_COMMITTED : TW_KNOWN_ABORTED)) {
        return refuse(s->id, s->hand_over, err);
    }
    return TW_OK;
}

static enum tw_code abandon(struct fake_agent *a, struct fake_side *s, struct tw_error *err)
{
    if (s->source || (s->hand_over != TW_KNOWN_PARTLY && !s->abandoned))
        return refuse(s->id, s->hand_over, err);
    s->hand_over = TW_KNOWN_COMMITTED;
    s->abandoned = true;
    s->lines_left = 0;
    fake_vm_drop(a, s->vm);
    return TW_OK;
}

static enum tw_code decide_source(struct fake_agent *a, struct fake_side *s, bool finish,
                                  uint64_t epoch, struct tw_error *err)
{
    struct fake_vm *vm = fake_vm_find(a, s->vm);
    if (s->hand_over == TW_KNOWN_GIVEN_UP && finish) {
        s->hand_over = TW_KNOWN_COMMITTED;
        fake_vm_drop(a, s->vm);
    } else if (s->hand_over == TW_KNOWN_GIVEN_UP && epoch > s->epoch && vm && !vm->dead) {
        vm->epoch = epoch;
        fake_source_back(a, s, "taken back");
    } else if (s->hand_over != (finish ? TW_KNOWN_COMMITTED : TW_KNOWN_ABORTED)) {
        return refuse(s->id, s->hand_over, err);
    }
    return TW_OK;
}

/* This agent's migrations have no rounds that a switch could cut short. */
HANDLER(switch_now, Towline__V1__AgentSwitchRequest, Towline__V1__AgentSwitchResponse)
{
    const struct fake_side *s = fake_side_find(a, r->migration);
    (void)p;
    return refuse(r->migration, s ? s->hand_over : TW_KNOWN_UNKNOWN, err);
}

HANDLER(adjust, Towline__V1__AgentAdjustRequest, Towline__V1__AgentAdjustResponse)
{
    struct fake_side *s = fake_side_find(a, r->migration);
    (void)p;
    if (!s || !s->source || s->hand_over != TW_KNOWN_ACTIVE)
        return refuse(r->migration, s ? s->hand_over : TW_KNOWN_UNKNOWN, err);
    if (r->set_bandwidth)
        s->bandwidth = r->bandwidth_bytes_per_s;
    if (r->set_downtime)
        s->downtime_ms = r->downtime_ms;
    if (r->set_slow_down)
        s->slow_down_percent = r->slow_down_percent;
    if (r->set_paused)
        s->paused = r->paused;
    return TW_OK;
}

static Towline__V1__Forecast *forecast(Towline__V1__MigrationMethod method, uint64_t downtime_us)
{
    Towline__V1__Forecast *f = malloc(sizeof *f);
    if (!f)
        abort();
    towline__v1__forecast__init(f);
    f->method = method;
    f->converges = true;
    f->rounds = 3;
    f->bytes = 8000;
    f->downtime_us = downtime_us;
    f->total_us = 2 * downtime_us;
    return f;
}

static Towline__V1__Reason *choice(bool refuses)
{
    Towline__V1__Reason *c = malloc(sizeof *c);
    if (!c)
        abort();
    towline__v1__reason__init(c);
    c->about = strdup("plan");
    c->rule = strdup("choice");
    c->verdict = refuses ? TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_REFUSE
                         : TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_PASS;
    c->text = strdup("played choice");
    return c;
}

/* The first look begins, the second tells. */
HANDLER(measure, Towline__V1__MeasureVmRequest, Towline__V1__MeasureVmResponse)
{
    const struct fake_vm *vm = fake_vm_find(a, r->vm);
    if (!vm || !vm->runs)
        return tw_fail(err, TW_NOT_FOUND, r->vm, NULL, NULL, "no such VM runs here");
    p->left_ms = 1;
    p->done = strcmp(a->measured, r->plan) == 0;
    snprintf(a->measured, sizeof a->measured, "%s", r->plan);
    if (!p->done)
        return TW_OK;
    p->left_ms = 0;
    p->method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID;
    p->n_forecasts = 3;
    p->forecasts = malloc(3 * sizeof *p->forecasts);
    p->reasons = malloc(sizeof *p->reasons);
    p->measurement = malloc(sizeof *p->measurement);
    if (!p->forecasts || !p->reasons || !p->measurement)
        abort();
    p->forecasts[0] = forecast(TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY, 400000);
    p->forecasts[1] = forecast(TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID, 50000);
    p->forecasts[2] = forecast(TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY, 40000);
    p->reasons[p->n_reasons++] = choice(a->refuse_choice);
    towline__v1__measurement__init(p->measurement);
    p->measurement->path_source = TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_ASSUMED;
    p->measurement->samples = malloc(sizeof *p->measurement->samples);
    p->measurement->samples[0] = malloc(sizeof **p->measurement->samples);
    towline__v1__dirty_sample__init(p->measurement->samples[0]);
    p->measurement->samples[0]->after_us = 250000;
    p->measurement->samples[0]->lines = a->dirty_lines;
    p->measurement->n_samples = 1;
    return TW_OK;
}

HANDLER(reconnect, Towline__V1__AgentReconnectRequest, Towline__V1__AgentReconnectResponse)
{
    struct fake_side *s = fake_side_find(a, r->migration);
    (void)p;
    if (!s || !r->from_mirror || s->hand_over != TW_KNOWN_PARTLY)
        return refuse(r->migration, s ? s->hand_over : TW_KNOWN_UNKNOWN, err);
    a->from_mirror++;
    for (unsigned i = 0; i < FAKE_AGENTS; i++) {
        const struct fake_agent *m = &a->world->agents[i];
        if (!m->up || m->mirror_fills || strcmp(m->mirrors, r->migration) != 0)
            continue;
        s->lines_left = 0; /* it is quick */
        s->hand_over = TW_KNOWN_COMMITTED;
    }
    return TW_OK;
}

HANDLER(resolve, Towline__V1__ResolveMigrationRequest, Towline__V1__ResolveMigrationResponse)
{
    struct fake_side *s = fake_side_find(a, r->migration);
    enum tw_code code;
    if (!s && r->decision == TOWLINE__V1__DECISION__DECISION_ABORT) {
        s = fake_side_add(a, r->migration, "");
        s->hand_over = TW_KNOWN_ABORTED;
    }
    if (!s)
        return refuse(r->migration, TW_KNOWN_UNKNOWN, err);
    switch (r->decision) {
    case TOWLINE__V1__DECISION__DECISION_COMMIT:
    case TOWLINE__V1__DECISION__DECISION_ABORT:
        code = s->source
                   ? refuse(r->migration, s->hand_over, err)
                   : decide_destination(a, s, r->decision == TOWLINE__V1__DECISION__DECISION_COMMIT,
                                        r->epoch, err);
        break;
    case TOWLINE__V1__DECISION__DECISION_ABANDON:
        code = abandon(a, s, err);
        break;
    default:
        code = !s->source
                   ? refuse(r->migration, s->hand_over, err)
                   : decide_source(a, s, r->decision == TOWLINE__V1__DECISION__DECISION_FINISH,
                                   r->epoch, err);
        break;
    }
    p->hand_over = (Towline__V1__HandOver)s->hand_over;
    return code;
}

HANDLER(hold_mirror, Towline__V1__HoldMirrorRequest, Towline__V1__HoldMirrorResponse)
{
    if (a->refuse_mirror)
        return tw_fail(err, (enum tw_code)a->refuse_mirror, a->name, "room", "none",
                       "played refusal");
    snprintf(a->mirrors, sizeof a->mirrors, "%s", r->migration);
    p->mirror = malloc(sizeof *p->mirror);
    if (!p->mirror)
        abort();
    towline__v1__mirror_target__init(p->mirror);
    p->mirror->host = strdup(a->name);
    p->mirror->fabric_address = strdup("127.0.0.1:1");
    p->mirror->token.data = calloc(1, 16);
    p->mirror->token.len = 16;
    return TW_OK;
}

HANDLER(get_mirror, Towline__V1__GetMirrorRequest, Towline__V1__GetMirrorResponse)
{
    (void)err;
    p->known = strcmp(a->mirrors, r->migration) == 0;
    p->phase = strdup(a->mirror_fills ? "filling" : "holding");
    p->complete = p->known && !a->mirror_fills;
    p->lines_named = p->lines_held = p->known ? 7 : 0;
    return TW_OK;
}

HANDLER(release_mirror, Towline__V1__ReleaseMirrorRequest, Towline__V1__ReleaseMirrorResponse)
{
    (void)p, (void)err;
    if (strcmp(a->mirrors, r->migration) == 0)
        a->mirrors[0] = 0;
    return TW_OK;
}

const struct tw_rpc_method fake_methods[] = {
    {"Describe", describe},
    {"Diagnose", diagnose},
    {"StartVm", start_vm},
    {"RemoveVm", remove_vm},
    {"PrepareIncoming", prepare},
    {"StartOutgoing", start_outgoing},
    {"GetMigration", get_migration},
    {"CancelMigration", cancel},
    {"SwitchMigration", switch_now},
    {"ResolveMigration", resolve},
    {"AdjustMigration", adjust},
    {"MeasureVm", measure},
    {"ReconnectMigration", reconnect},
    {"HoldMirror", hold_mirror},
    {"GetMirror", get_mirror},
    {"ReleaseMirror", release_mirror},
};
const size_t fake_method_count = sizeof fake_methods / sizeof *fake_methods;
