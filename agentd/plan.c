/* VMs that are measured for a plan. A session holds no pointer into a VM: it looks for it at each
 * step, so a VM may end or leave at any time. */
#include "agentd/agent.h"

#include "services/migration/measure.h"
#include "services/migration/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANS_MAX 8u             /* at a time; each has a tracker of its own */
#define KEEP_NS   (120 * TW_SEC) /* after the last time that somebody asked */

struct tw_plan {
    char id[TW_ID_SIZE], vm[TW_ID_SIZE];
    int pid; /* of the machine that is measured */
    struct tw_measure *measure;
    uint64_t asked_ns;
    bool gone; /* the machine, before it was done */
    struct tw_plan *next;
};

static const struct tw_host *host_of(struct tw_agent *agent, const struct tw_plan *p)
{
    struct tw_vm *vm = tw_vm_find(agent, p->vm);
    if (!vm || !vm->qemu || (int)tw_qemu_pid(vm->qemu) != p->pid)
        return NULL;
    return tw_qemu_host(vm->qemu);
}

static void plan_free(struct tw_agent *agent, struct tw_plan *p)
{
    tw_measure_free(p->measure, host_of(agent, p));
    free(p);
}

void tw_plans_free(struct tw_agent *agent)
{
    while (agent->plans) {
        struct tw_plan *p = agent->plans;
        agent->plans = p->next;
        plan_free(agent, p);
    }
}

uint64_t tw_plans_step(struct tw_agent *agent)
{
    uint64_t next = TW_NEVER, now_ns = tw_now(&tw_monotonic);
    for (struct tw_plan **at = &agent->plans, *p; (p = *at);) {
        const struct tw_host *host = host_of(agent, p);
        if (now_ns > tw_after(p->asked_ns, KEEP_NS)) {
            *at = p->next;
            plan_free(agent, p);
            continue;
        }
        p->gone |= !host && tw_measure_left_ns(p->measure) > 0;
        uint64_t due = host && !p->gone ? tw_measure_step(p->measure, host) : TW_NEVER;
        next = due < next ? due : next;
        at = &p->next;
    }
    return next;
}

/* ---- Begin ------------------------------------------------------------------------------------
 */

static enum tw_code vm_check(struct tw_agent *agent, const char *name, struct tw_vm **out,
                             struct tw_error *err)
{
    struct tw_vm *vm = tw_vm_find(agent, name);
    if (!vm)
        return tw_fail(err, TW_NOT_FOUND, name, NULL, NULL, "no such VM on %s", agent->config.name);
    if (vm->job)
        return tw_fail(err, TW_FAILED_PRECONDITION, name, "a VM in no migration",
                       vm->job->params.id, "the VM is being migrated");
    if (!vm->qemu || tw_qemu_status_get(vm->qemu) != TW_QEMU_RUNNING)
        return tw_fail(err, TW_FAILED_PRECONDITION, name, "a running VM", vm->reason,
                       "the VM does not run on %s", agent->config.name);
    *out = vm;
    return TW_OK;
}

/* Makes room: of those that are measured, the one that was asked for the longest ago. */
static bool drop_oldest(struct tw_agent *agent)
{
    struct tw_plan **oldest = NULL;
    for (struct tw_plan **at = &agent->plans; *at; at = &(*at)->next)
        if (((*at)->gone || tw_measure_left_ns((*at)->measure) == 0) &&
            (!oldest || (*at)->asked_ns < (*oldest)->asked_ns))
            oldest = at;
    if (!oldest)
        return false;
    struct tw_plan *p = *oldest;
    *oldest = p->next;
    plan_free(agent, p);
    return true;
}

static enum tw_code plan_begin(struct tw_agent *agent, const Towline__V1__MeasureVmRequest *r,
                               struct tw_plan **out, struct tw_error *err)
{
    struct tw_vm *vm = NULL;
    unsigned count = 0;
    enum tw_code code = vm_check(agent, r->vm, &vm, err);
    if (code)
        return code;
    if (!tw_record_name_ok(r->plan))
        return tw_fail(err, TW_INVALID_ARGUMENT, "plan", "lower-case letters, digits and '-'",
                       r->plan, "not a usable name");
    for (const struct tw_plan *p = agent->plans; p; p = p->next)
        count++;
    if (count >= PLANS_MAX && !drop_oldest(agent))
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, agent->config.name, "at most 8", NULL,
                       "too many VMs are being measured");
    struct tw_plan *p = calloc(1, sizeof *p);
    if (!p)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, r->plan, NULL, NULL, "no memory");
    snprintf(p->id, sizeof p->id, "%s", r->plan);
    snprintf(p->vm, sizeof p->vm, "%s", r->vm);
    p->pid = (int)tw_qemu_pid(vm->qemu);
    code = tw_measure_start(&tw_monotonic, tw_qemu_host(vm->qemu), p->id, r->for_ms * TW_MS,
                            &p->measure, err);
    if (code) {
        free(p);
        return code;
    }
    p->next = agent->plans;
    agent->plans = p;
    *out = p;
    return TW_OK;
}

/* ---- What is answered -------------------------------------------------------------------------
 */

static uint64_t ns_or(uint64_t us, uint64_t otherwise_ns)
{
    return us ? us * TW_US : otherwise_ns;
}

static void method_costs_from_proto(const Towline__V1__FixedCosts *h, struct tw_fixed_costs *out)
{
    for (size_t i = 0; i < h->n_of_method; i++) {
        const Towline__V1__MethodCosts *p = h->of_method[i];
        for (enum tw_migration_method m = 0; m < TW_METHODS; m++) {
            struct tw_method_costs *c = &out->of[m];
            if (tw_method_to_proto(m) != p->method)
                continue;
            c->last_lines_ns = ns_or(p->last_lines_us, c->last_lines_ns);
            c->load_ns = ns_or(p->load_us, c->load_ns);
            c->hand_over_ns = ns_or(p->hand_over_us, c->hand_over_ns);
        }
    }
}

static void costs_from_proto(const Towline__V1__FixedCosts *h, const struct tw_measured *measured,
                             struct tw_fixed_costs *out)
{
    struct tw_fixed_costs d = tw_fixed_costs_default();
    if (measured->compare_bytes_per_s)
        d.compare_bytes_per_s = measured->compare_bytes_per_s;
    *out = d;
    if (!h)
        return;
    out->start_ns = ns_or(h->start_us, d.start_ns);
    out->stop_ns = ns_or(h->stop_us, d.stop_ns);
    out->save_ns = ns_or(h->save_us, d.save_ns);
    if (h->compare_bytes_per_s)
        out->compare_bytes_per_s = h->compare_bytes_per_s;
    if (h->device_state_bytes)
        out->device_state_bytes = h->device_state_bytes;
    method_costs_from_proto(h, out);
}

static void method_costs_to_proto(const struct tw_fixed_costs *c, Towline__V1__FixedCosts *f)
{
    f->of_method = calloc(TW_METHODS, sizeof(Towline__V1__MethodCosts *));
    for (enum tw_migration_method m = 0; f->of_method && m < TW_METHODS; m++) {
        Towline__V1__MethodCosts *p = malloc(sizeof *p);
        if (!p)
            return;
        towline__v1__method_costs__init(p);
        p->method = tw_method_to_proto(m);
        p->last_lines_us = c->of[m].last_lines_ns / TW_US;
        p->load_us = c->of[m].load_ns / TW_US;
        p->hand_over_us = c->of[m].hand_over_ns / TW_US;
        f->of_method[f->n_of_method++] = p;
    }
}

static Towline__V1__FixedCosts *costs_to_proto(const struct tw_fixed_costs *c, uint64_t link,
                                               const char *migration)
{
    Towline__V1__FixedCosts *f = malloc(sizeof *f);
    if (!f)
        return NULL;
    towline__v1__fixed_costs__init(f);
    f->start_us = c->start_ns / TW_US;
    f->stop_us = c->stop_ns / TW_US;
    f->save_us = c->save_ns / TW_US;
    f->compare_bytes_per_s = c->compare_bytes_per_s;
    f->device_state_bytes = c->device_state_bytes;
    f->link_bytes_per_s = link;
    f->migration = strdup(migration);
    method_costs_to_proto(c, f);
    return f;
}

static void samples_to_proto(const struct tw_dirty_curve *curve, Towline__V1__Measurement *m)
{
    m->samples = calloc(TW_CURVE_SAMPLES, sizeof *m->samples);
    for (unsigned i = 0; m->samples && i < TW_CURVE_SAMPLES; i++) {
        const struct tw_curve_sample *s = &curve->sample[i];
        Towline__V1__DirtySample *p = s->epochs ? malloc(sizeof *p) : NULL;
        if (!p)
            continue;
        towline__v1__dirty_sample__init(p);
        p->after_us = s->after_ns / s->epochs / TW_US;
        p->lines = s->lines / s->epochs;
        p->pages = s->pages / s->epochs;
        p->epochs = s->epochs;
        m->samples[m->n_samples++] = p;
    }
}

static Towline__V1__Measurement *measured_to_proto(const struct tw_measured *measured,
                                                   const struct tw_forecast_input *in,
                                                   const Towline__V1__FixedCosts *history)
{
    Towline__V1__Measurement *m = malloc(sizeof *m);
    if (!m)
        return NULL;
    towline__v1__measurement__init(m);
    m->duration_us = measured->duration_ns / TW_US;
    m->memory_bytes = in->memory_bytes;
    m->data_bytes = measured->data_bytes;
    m->full_copy_bytes = measured->full_copy_bytes;
    m->write_backs_per_s = measured->write_backs_per_s;
    m->working_set_lines = measured->working_set_lines;
    m->working_set_pages = measured->working_set_pages;
    samples_to_proto(&measured->curve, m);
    const char *from = history ? history->migration : "";
    m->path_bytes_per_s = in->link_bytes_per_s;
    m->path_source = history && history->link_bytes_per_s
                         ? TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_HISTORY
                         : TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_ASSUMED;
    m->path_from = strdup(from);
    m->fixed = costs_to_proto(&in->fixed, in->link_bytes_per_s, from);
    return m;
}

static Towline__V1__Forecast *forecast_to_proto(const struct tw_forecast *f)
{
    Towline__V1__Forecast *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__forecast__init(p);
    p->method = tw_method_to_proto(f->method);
    p->converges = f->converges;
    p->rounds = f->rounds;
    p->bytes = f->bytes;
    p->total_us = f->total_ns / TW_US;
    p->downtime_us = f->downtime_ns / TW_US;
    p->final_lines = f->final_lines;
    p->lines_to_come = f->lines_to_come;
    p->fetch_us = f->fetch_ns / TW_US;
    p->slow_down_permille = f->slow_down_permille;
    p->mirror_us = f->mirror_ns / TW_US;
    return p;
}

static Towline__V1__Reason *reason_to_proto(const struct tw_reason *r)
{
    static const Towline__V1__ReasonVerdict verdicts[] = {
        [TW_REASON_PASS] = TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_PASS,
        [TW_REASON_WARN] = TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_WARN,
        [TW_REASON_REFUSE] = TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_REFUSE,
    };
    Towline__V1__Reason *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__reason__init(p);
    p->about = strdup(r->about);
    p->rule = strdup(r->rule);
    p->verdict = verdicts[r->verdict];
    p->value = r->value;
    p->limit = r->limit;
    p->unit = strdup(r->unit);
    p->text = strdup(r->text);
    return p;
}

/* A host was found that keeps what follows. */
static bool is_mirrored(const Towline__V1__MigrationLimits *l)
{
    return l && l->mirror[0] && strcmp(l->mirror, "none") != 0 && strcmp(l->mirror, "auto") != 0;
}

static void answer(const struct tw_host *host, const struct tw_measured *measured,
                   const Towline__V1__MeasureVmRequest *r, Towline__V1__MeasureVmResponse *out)
{
    static const enum tw_migration_method methods[TW_METHODS] = {
        TW_METHOD_PRE_COPY, TW_METHOD_HYBRID, TW_METHOD_POST_COPY};
    const Towline__V1__FixedCosts *h = r->history;
    struct tw_forecast_input in = {
        .curve = measured->curve,
        .memory_bytes = host->memory_bytes,
        .data_bytes = measured->data_bytes,
        .full_copy_bytes = measured->full_copy_bytes,
        .link_bytes_per_s = h && h->link_bytes_per_s ? h->link_bytes_per_s : TW_FORECAST_LINK_RATE,
        .sees_all_writers = host->sees_all_writers,
        .mirrored = is_mirrored(r->limits)};
    struct tw_forecast forecasts[TW_METHODS];
    struct tw_policy policy = {0};
    struct tw_choice choice;
    tw_limits_from_proto(r->limits, 0, &in.limits);
    policy.limits = in.limits;
    policy.total_ns = r->limits ? r->limits->total_ms * TW_MS : 0;
    policy.slow_down_permille = r->limits ? r->limits->slow_down_percent * 10 : 0;
    costs_from_proto(h, measured, &in.fixed);
    out->forecasts = calloc(TW_METHODS, sizeof *out->forecasts);
    for (unsigned i = 0; out->forecasts && i < TW_METHODS; i++) {
        tw_forecast_make(&in, methods[i], &forecasts[i]);
        if ((out->forecasts[out->n_forecasts] = forecast_to_proto(&forecasts[i])))
            out->n_forecasts++;
    }
    if (out->n_forecasts < TW_METHODS)
        return;
    tw_policy_choose(&policy, forecasts, &choice);
    out->method = tw_method_to_proto(choice.method);
    out->reasons = calloc(choice.reason_count, sizeof *out->reasons);
    for (unsigned i = 0; out->reasons && i < choice.reason_count; i++)
        if ((out->reasons[out->n_reasons] = reason_to_proto(&choice.reasons[i])))
            out->n_reasons++;
    out->measurement = measured_to_proto(measured, &in, h);
}

enum tw_code tw_plan_ask(struct tw_agent *agent, const Towline__V1__MeasureVmRequest *r,
                         Towline__V1__MeasureVmResponse *out, struct tw_error *err)
{
    struct tw_plan *p = agent->plans;
    struct tw_measured measured;
    while (p && strcmp(p->id, r->plan) != 0)
        p = p->next;
    enum tw_code code = p ? TW_OK : plan_begin(agent, r, &p, err);
    if (code)
        return code;
    p->asked_ns = tw_now(&tw_monotonic);
    const struct tw_host *host = host_of(agent, p);
    if (!host || p->gone)
        return tw_fail(err, TW_ABORTED, r->vm, "a running VM", "gone",
                       "the VM ended or moved while it was measured");
    uint64_t left = tw_measure_left_ns(p->measure);
    out->done = left == 0;
    out->left_ms = (uint32_t)((left + TW_MS - 1) / TW_MS);
    if (!out->done)
        return TW_OK;
    tw_measure_result(p->measure, &measured);
    answer(host, &measured, r, out);
    return out->measurement ? TW_OK
                            : tw_fail(err, TW_RESOURCE_EXHAUSTED, r->plan, NULL, NULL,
                                      "no memory for the answer");
}
