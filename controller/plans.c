#include "controller/plans.h"

#include "base/clock.h"
#include "controller/convert.h"
#include "controller/drive.h"
#include "controller/spec.h"
#include "rpc/rpc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ASK_MS      3000u
#define CHECK_MS    500u /* that a plan is measured again before it runs */
#define CHECK_POLL  (20 * TW_MS)
#define CHECK_LIMIT (5 * TW_SEC)   /* for all of that */
#define LINES_SLACK UINT64_C(4096) /* more dirty lines than planned that do not count */

static enum tw_code no_memory(const char *where, struct tw_error *err)
{
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, NULL, NULL, "no memory");
}

/* ---- Kept and read ----------------------------------------------------------------------------
 */

static enum tw_code keep(struct tw_store *store, const Towline__V1__Plan *p, struct tw_error *err)
{
    enum tw_code code = tw_store_begin(store, TW_STORE_RELAXED, err);
    return code == TW_OK
               ? tw_store_end(store, tw_store_note_put(store, p->token, "plan", &p->base, err), err)
               : code;
}

static void unpack(void *ctx, const uint8_t *body, size_t size)
{
    Towline__V1__Plan **plan = ctx;
    if (!*plan)
        *plan = towline__v1__plan__unpack(NULL, size, body);
}

static enum tw_code load(struct tw_store *store, const char *token, Towline__V1__Plan **plan,
                         struct tw_error *err)
{
    *plan = NULL;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, tw_store_notes_each(store, token, "plan", 1, unpack, plan, err),
                            err);
    bool is_plan = *plan && strncmp(token, "p-", 2) == 0;
    return code == TW_OK && !is_plan ? tw_fail(err, TW_NOT_FOUND, token, NULL, NULL, "no such plan")
                                     : code;
}

/* ---- Asking the agent -------------------------------------------------------------------------
 */

static enum tw_code ask(struct tw_migrations *migrations, const Towline__V1__Plan *p,
                        const char *id, uint32_t for_ms, Towline__V1__MeasureVmResponse **answer,
                        struct tw_error *err)
{
    Towline__V1__MeasureVmRequest r = TOWLINE__V1__MEASURE_VM_REQUEST__INIT;
    enum tw_code code = tw_plans_history(migrations->config.store, p->vm, &r.history, err);
    r.plan = (char *)(uintptr_t)id;
    r.vm = p->vm;
    r.for_ms = for_ms;
    r.limits = p->limits;
    if (code == TW_OK)
        code = tw_reach_measure(&migrations->config.reach, p->source, &r, ASK_MS, answer, err);
    if (r.history)
        towline__v1__fixed_costs__free_unpacked(r.history, NULL);
    return code;
}

/* A reason about the method that will be run, or about everything. */
static bool concerns(const Towline__V1__Reason *r, const char *method)
{
    return strcmp(r->about, "plan") == 0 || strcmp(r->about, method) == 0;
}

static const char *method_name(Towline__V1__MigrationMethod method)
{
    switch (method) {
    case TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY:
        return "postcopy";
    case TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID:
        return "hybrid";
    default:
        return "precopy";
    }
}

/* The method was asked for: why another one was to be chosen is of no interest. */
static void drop_choice(Towline__V1__Plan *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n_reasons; i++) {
        if (strcmp(p->reasons[i]->rule, "choice") == 0)
            towline__v1__reason__free_unpacked(p->reasons[i], NULL);
        else
            p->reasons[kept++] = p->reasons[i];
    }
    p->n_reasons = kept;
}

/* What is not from a measurement is said, since the forecast is no better than that. */
static bool warn_of_guesses(Towline__V1__Plan *p)
{
    const Towline__V1__Measurement *m = p->measurement;
    tw_why *why = tw_why_new("", "");
    if (!why)
        return false;
    const struct tw_rule path = {"plan", "path_rate", m->path_bytes_per_s, 0, "bytes_per_s",
                                 NULL,   NULL};
    if (m->path_source == TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_ASSUMED)
        tw_why_add(why, TW_WARN, &path,
                   "what the path takes is assumed: nothing went over it yet%s",
                   p->limits->bandwidth_bytes_per_s ? "; the bandwidth limit holds below it" : "");
    else
        tw_why_add(why, TW_PASS, &path, "what the path takes was measured by %s", m->path_from);
    bool ok = tw_reasons_copy(&p->reasons, &p->n_reasons, why->reasons, why->n_reasons);
    towline__v1__why_migration_response__free_unpacked(why, NULL);
    return ok;
}

/* The agent has measured: its answer becomes the plan's. */
static bool take(Towline__V1__Plan *p, Towline__V1__MeasureVmResponse *a)
{
    bool ok = tw_reasons_copy(&p->reasons, &p->n_reasons, a->reasons, a->n_reasons);
    p->measurement = a->measurement;
    p->forecasts = a->forecasts;
    p->n_forecasts = a->n_forecasts;
    a->measurement = NULL;
    a->forecasts = NULL;
    a->n_forecasts = 0;
    if (p->chosen)
        p->limits->method = a->method;
    else
        drop_choice(p);
    p->method = p->limits->method;
    p->state = TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY;
    p->left_ms = 0;
    ok = ok && p->measurement && warn_of_guesses(p);
    for (size_t i = 0; i < p->n_reasons; i++)
        if (p->reasons[i]->verdict == TW_REFUSE && concerns(p->reasons[i], method_name(p->method)))
            p->refused = true;
    return ok;
}

static enum tw_code failed(struct tw_migrations *migrations, Towline__V1__Plan *p,
                           const struct tw_error *why, struct tw_error *err)
{
    p->state = TOWLINE__V1__PLAN_STATE__PLAN_STATE_FAILED;
    p->error = tw_error_to_proto(why);
    return keep(migrations->config.store, p, err);
}

static enum tw_code follow(struct tw_migrations *migrations, Towline__V1__Plan *p,
                           struct tw_error *err)
{
    Towline__V1__MeasureVmResponse *a = NULL;
    struct tw_error why = {0};
    enum tw_code code = ask(migrations, p, p->token, p->left_ms, &a, &why);
    if (code != TW_OK && tw_agents_silent(code) && tw_wall_ms() < p->expires_unix_ms)
        return TW_OK; /* it may come back */
    if (code != TW_OK)
        return failed(migrations, p, &why, err);
    if (!a->done) {
        p->left_ms = a->left_ms;
    } else {
        code = take(p, a) ? keep(migrations->config.store, p, err) : no_memory(p->token, err);
    }
    protobuf_c_message_free_unpacked(&a->base, NULL);
    return code;
}

/* ---- Begin ------------------------------------------------------------------------------------
 */

static Towline__V1__Plan *plan_new(const struct tw_placed *placed, const char *vm,
                                   const char *token)
{
    Towline__V1__Plan *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__plan__init(p);
    p->limits = (Towline__V1__MigrationLimits *)tw_message_copy(&placed->limits.base);
    p->epoch = placed->epoch;
    p->state = TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING;
    p->created_unix_ms = tw_wall_ms();
    p->expires_unix_ms = p->created_unix_ms + TW_PLAN_KEPT_MS;
    bool ok = p->limits && tw_text_set(&p->token, token) && tw_text_set(&p->vm, vm) &&
              tw_text_set(&p->source, placed->source) &&
              tw_text_set(&p->destination, placed->destination);
    if (ok && !p->limits->method)
        p->limits->method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO;
    if (ok) {
        p->chosen = p->limits->method == TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO;
        return p;
    }
    towline__v1__plan__free_unpacked(p, NULL);
    return NULL;
}

static enum tw_code for_ms_check(uint32_t for_ms, struct tw_error *err)
{
    char given[24];
    snprintf(given, sizeof given, "%u ms", for_ms);
    if (for_ms == 0 || (for_ms >= TW_PLAN_FOR_MS_MIN && for_ms <= TW_PLAN_FOR_MS_MAX))
        return TW_OK;
    return tw_fail(err, TW_INVALID_ARGUMENT, "plan", "100 ms to 60 s", given,
                   "cannot measure for that long");
}

static enum tw_code begin_placed(struct tw_migrations *migrations, const struct tw_placed *placed,
                                 const Towline__V1__PlanMigrationRequest *r,
                                 Towline__V1__Plan **plan, struct tw_error *err)
{
    char token[TW_NAME_SIZE];
    Towline__V1__MeasureVmResponse *a = NULL;
    enum tw_code code = tw_token_new("p-", token, err);
    if (code != TW_OK)
        return code;
    *plan = plan_new(placed, r->vm, token);
    if (!*plan)
        return no_memory(r->vm, err);
    (*plan)->left_ms = r->for_ms ? r->for_ms : TW_PLAN_FOR_MS;
    code = ask(migrations, *plan, token, (*plan)->left_ms, &a, err);
    if (a)
        protobuf_c_message_free_unpacked(&a->base, NULL);
    if (code == TW_OK)
        code = keep(migrations->config.store, *plan, err);
    if (code == TW_OK && tw_why_keep(migrations->config.store, token, placed->why, NULL) != TW_OK)
        code = no_memory(token, err);
    return code;
}

static enum tw_code freed_unless(enum tw_code code, Towline__V1__Plan **plan)
{
    if (code != TW_OK && *plan) {
        towline__v1__plan__free_unpacked(*plan, NULL);
        *plan = NULL;
    }
    return code;
}

enum tw_code tw_plans_begin(struct tw_migrations *migrations,
                            const Towline__V1__PlanMigrationRequest *r, Towline__V1__Plan **plan,
                            struct tw_error *err)
{
    struct tw_placed placed = {0};
    const struct tw_wish wish = {r->vm, r->destination, r->limits, NULL};
    *plan = NULL;
    enum tw_code code = for_ms_check(r->for_ms, err);
    if (code == TW_OK)
        code = tw_migrations_place(migrations, &wish, &placed, err);
    if (code == TW_OK)
        code = begin_placed(migrations, &placed, r, plan, err);
    if (placed.why)
        towline__v1__why_migration_response__free_unpacked(placed.why, NULL);
    return freed_unless(code, plan);
}

enum tw_code tw_plans_get(struct tw_migrations *migrations, const char *token,
                          Towline__V1__Plan **plan, struct tw_error *err)
{
    enum tw_code code = load(migrations->config.store, token, plan, err);
    if (code == TW_OK && (*plan)->state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING)
        code = follow(migrations, *plan, err);
    return freed_unless(code, plan);
}

/* ---- Is it still good? ------------------------------------------------------------------------
 */

static enum tw_code changed(tw_why *why, const struct tw_rule *rule, const char *token,
                            const char *expected, const char *given, const char *what,
                            struct tw_error *err)
{
    tw_why_add(why, TW_REFUSE, rule, "%s", what);
    return tw_fail(err, TW_FAILED_PRECONDITION, token, expected, given, "%s", what);
}

static enum tw_code state_check(const Towline__V1__Plan *p, tw_why *why, struct tw_error *err)
{
    uint64_t now = tw_wall_ms();
    const struct tw_rule state = {"plan", "state", 0, 0, NULL, NULL, "ready"};
    const struct tw_rule refused = {"plan", "refused", 0, 0, NULL, method_name(p->method), NULL};
    const struct tw_rule expiry = {"plan",    "expiry", now, p->expires_unix_ms,
                                   "unix_ms", NULL,     NULL};
    if (p->state != TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY)
        return changed(why, &state, p->token, "a plan that is ready", NULL,
                       p->state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_FAILED
                           ? "the plan has failed"
                           : "the plan is still being measured",
                       err);
    if (now >= p->expires_unix_ms)
        return changed(why, &expiry, p->token, "a plan of the last 10 min", NULL,
                       "the plan has expired: plan again", err);
    if (p->refused)
        return changed(why, &refused, p->token, "a plan without a refusal", method_name(p->method),
                       "the plan refuses this method: plan again with other budgets", err);
    return TW_OK;
}

static enum tw_code owner_check(struct tw_store *store, const Towline__V1__Plan *p, tw_why *why,
                                struct tw_error *err)
{
    struct tw_vm_record vm;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(store, tw_store_vm_get(store, p->vm, &vm, err), err);
    if (code != TW_OK)
        return code;
    const struct tw_rule host = {"plan", "owner", 0, 0, NULL, vm.host, p->source};
    const struct tw_rule epoch = {"plan", "epoch", vm.epoch, p->epoch, "count", NULL, NULL};
    if (strcmp(vm.host, p->source) != 0)
        return changed(why, &host, p->token, p->source, vm.host,
                       "the VM has moved since it was planned", err);
    if (vm.epoch != p->epoch)
        return changed(why, &epoch, p->token, NULL, NULL,
                       "the VM has moved and come back since it was planned", err);
    return TW_OK;
}

/* Lines that were planned to get dirty in that time. */
static uint64_t lines_at(const Towline__V1__Measurement *m, uint64_t us)
{
    uint64_t at = 0, lines = 0;
    for (size_t i = 0; i < m->n_samples; i++) {
        const Towline__V1__DirtySample *s = m->samples[i];
        if (s->after_us <= at || s->lines < lines)
            continue;
        if (us < s->after_us)
            return lines + (s->lines - lines) * (us - at) / (s->after_us - at);
        at = s->after_us;
        lines = s->lines;
    }
    return lines;
}

static enum tw_code dirt_check(const Towline__V1__Plan *p, const Towline__V1__Measurement *now,
                               tw_why *why, struct tw_error *err)
{
    char expected[64], given[64];
    if (!p->measurement || !now || now->n_samples == 0)
        return TW_OK;
    const Towline__V1__DirtySample *s = now->samples[now->n_samples - 1];
    uint64_t planned = lines_at(p->measurement, s->after_us);
    const struct tw_rule rule = {"plan",  "dirty_lines", s->lines, 2 * planned + LINES_SLACK,
                                 "count", NULL,          NULL};
    snprintf(expected, sizeof expected, "about %" PRIu64 " lines dirty in %" PRIu64 " ms", planned,
             s->after_us / 1000);
    snprintf(given, sizeof given, "%" PRIu64, s->lines);
    if (s->lines > 2 * planned + LINES_SLACK)
        return changed(why, &rule, p->token, expected, given,
                       "the VM writes far more than when it was planned: plan again", err);
    return TW_OK;
}

static void pause_ns(uint64_t ns)
{
    const struct timespec t = {.tv_sec = 0, .tv_nsec = (long)ns};
    nanosleep(&t, NULL);
}

/* Measures again, shortly. */
static enum tw_code measure_again(struct tw_migrations *migrations, const Towline__V1__Plan *p,
                                  uint64_t deadline_ns, Towline__V1__MeasureVmResponse **answer,
                                  struct tw_error *err)
{
    char id[TW_NAME_SIZE];
    uint64_t limit_ns = tw_after(tw_now(&tw_monotonic), CHECK_LIMIT);
    limit_ns = limit_ns < deadline_ns ? limit_ns : deadline_ns;
    enum tw_code code = tw_token_new("c-", id, err);
    while (code == TW_OK) {
        code = ask(migrations, p, id, CHECK_MS, answer, err);
        if (code != TW_OK || (*answer)->done)
            break;
        protobuf_c_message_free_unpacked(&(*answer)->base, NULL);
        *answer = NULL;
        if (tw_now(&tw_monotonic) > limit_ns)
            code = tw_fail(err, TW_DEADLINE_EXCEEDED, p->token, NULL, NULL,
                           "the VM could not be measured in time");
        pause_ns(CHECK_POLL);
    }
    return code;
}

static enum tw_code still_good(struct tw_migrations *migrations, const Towline__V1__Plan *p,
                               uint64_t deadline_ns, tw_why *why, struct tw_error *err)
{
    Towline__V1__MeasureVmResponse *a = NULL;
    enum tw_code code = state_check(p, why, err);
    if (code == TW_OK)
        code = owner_check(migrations->config.store, p, why, err);
    if (code == TW_OK)
        code = measure_again(migrations, p, deadline_ns, &a, err);
    if (code == TW_OK)
        code = dirt_check(p, a->measurement, why, err);
    if (a)
        protobuf_c_message_free_unpacked(&a->base, NULL);
    return code;
}

enum tw_code tw_plans_still_good(struct tw_migrations *migrations, const char *token,
                                 uint64_t deadline_ns, Towline__V1__Plan **plan,
                                 struct tw_error *err)
{
    enum tw_code code = tw_plans_get(migrations, token, plan, err);
    if (code != TW_OK)
        return code;
    tw_why *why = tw_why_new((*plan)->vm, (*plan)->destination);
    code = still_good(migrations, *plan, deadline_ns, why, err);
    if (code != TW_OK && why && why->n_reasons)
        tw_why_refuse(migrations->config.store, why, err);
    if (why)
        towline__v1__why_migration_response__free_unpacked(why, NULL);
    return freed_unless(code, plan);
}
