#include "cli/fake_inside.h"

#include <stdio.h>
#include <string.h>

/* ---- Migrations ----------------------------------------------------------------------------- */

static Towline__V1__Round *round_new(uint32_t index, uint64_t lines, bool final)
{
    Towline__V1__Round *round = NEW(Towline__V1__Round, towline__v1__round);
    round->index = index;
    round->lines = lines;
    round->pages = lines / 2;
    round->bytes = lines * 72;
    round->duration_us = 1500;
    round->final = final;
    return round;
}

static Towline__V1__MigrationProgress *progress_new(const struct fake_controller *fake)
{
    Towline__V1__MigrationProgress *p =
        NEW(Towline__V1__MigrationProgress, towline__v1__migration_progress);
    bool done = fake->looked >= fake->looks;
    p->phase = strdup(done ? "committed" : "round");
    p->memory_bytes = UINT64_C(256) << 20;
    p->full_copy_bytes_done = done ? p->memory_bytes : p->memory_bytes / 2;
    p->n_rounds = done ? 3 : 2;
    p->rounds = malloc(p->n_rounds * sizeof *p->rounds);
    for (uint32_t i = 0; i < p->n_rounds; i++)
        p->rounds[i] = round_new(i, 1000 >> i, i == 2);
    p->bytes_sent = UINT64_C(10) << 20;
    p->bytes_if_pages = UINT64_C(200) << 20;
    p->rate_bytes_per_s = UINT64_C(100) << 20;
    p->eta_ms = fake->eta_up_at && fake->looked >= fake->eta_up_at ? 9000 : 2000;
    p->downtime_us = done ? 12300 : 0;
    p->total_us = done ? 4200000 : 0;
    p->memory_compared = p->memory_equal = done;
    p->lines_found_by_compare_only = 7;
    p->mirror_state = fake->mirror_state;
    p->mirror_reason = strdup(fake->mirror_reason ? fake->mirror_reason : "");
    return p;
}

static Towline__V1__Migration *migration_new(const struct fake_controller *fake)
{
    Towline__V1__Migration *m = NEW(Towline__V1__Migration, towline__v1__migration);
    bool done = fake->looked >= fake->looks;
    m->id = strdup("m-1");
    m->vm = strdup("web-1");
    m->source = strdup("node-a");
    m->destination = strdup("node-b");
    m->state = done ? fake->end_state : TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING;
    m->progress = progress_new(fake);
    m->created_unix_ms = UINT64_C(1790000000000);
    if (m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED) {
        struct tw_error err;
        tw_fail(&err, TW_ABORTED, "vm web-1", "2 MiB", "9 MiB", "the rounds did not converge");
        m->error = tw_error_to_proto(&err);
    }
    return m;
}

/* What a text of them points to is gone with the request. */
static void take_limits(struct fake_controller *fake, const Towline__V1__MigrationLimits *limits)
{
    fake->limits = *limits;
    fake_copy(fake->mirror, sizeof fake->mirror, limits->mirror);
    fake->limits.mirror = fake->mirror;
}

HANDLER(on_start)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__StartMigrationRequest *q = (const void *)request;
    UNUSED(call);
    if (q->plan[0]) {
        pthread_mutex_lock(&fake->lock);
        fake_copy(fake->migrated_plan, sizeof fake->migrated_plan, q->plan);
        ((Towline__V1__StartMigrationResponse *)response)->migration = migration_new(fake);
        pthread_mutex_unlock(&fake->lock);
        return TW_OK;
    }
    if (fake_vm_find(q->vm, err) != TW_OK)
        return TW_NOT_FOUND;
    if (strcmp(q->destination, "node-a") == 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, "vm web-1", "another host", "node-a",
                       "the VM runs there already");
    pthread_mutex_lock(&fake->lock);
    fake->starts++;
    fake_copy(fake->migrated_vm, sizeof fake->migrated_vm, q->vm);
    fake_copy(fake->migrated_to, sizeof fake->migrated_to, q->destination);
    take_limits(fake, q->limits);
    ((Towline__V1__StartMigrationResponse *)response)->migration = migration_new(fake);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_migrations)
{
    struct fake_controller *fake = ctx;
    Towline__V1__ListMigrationsResponse *r = (Towline__V1__ListMigrationsResponse *)response;
    UNUSED(call, request, err);
    r->n_migrations = 1;
    r->migrations = malloc(sizeof *r->migrations);
    pthread_mutex_lock(&fake->lock);
    r->migrations[0] = migration_new(fake);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

static enum tw_code migration_answer(struct fake_controller *fake, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err)
{
    if (strcmp(id, "m-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, "migration", NULL, id, "no such migration");
    *migration = migration_new(fake);
    return TW_OK;
}

HANDLER(on_migration)
{
    struct fake_controller *fake = ctx;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code =
        migration_answer(fake, ((const Towline__V1__GetMigrationRequest *)request)->id,
                         &((Towline__V1__GetMigrationResponse *)response)->migration, err);
    fake->looked++;
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_cancel)
{
    struct fake_controller *fake = ctx;
    const char *id = ((const Towline__V1__CancelMigrationRequest *)request)->id;
    Towline__V1__CancelMigrationResponse *r = (Towline__V1__CancelMigrationResponse *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(fake, id, &r->migration, err);
    if (code == TW_OK) {
        r->migration->cancel_requested = 1;
        fake_copy(fake->cancelled, sizeof fake->cancelled, id);
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_switch)
{
    struct fake_controller *fake = ctx;
    const char *id = ((const Towline__V1__SwitchMigrationRequest *)request)->id;
    Towline__V1__SwitchMigrationResponse *r = (Towline__V1__SwitchMigrationResponse *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(fake, id, &r->migration, err);
    if (code == TW_OK)
        fake_copy(fake->switched, sizeof fake->switched, id);
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_reconnect)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__ReconnectMigrationRequest *q = (const void *)request;
    Towline__V1__ReconnectMigrationResponse *r =
        (Towline__V1__ReconnectMigrationResponse *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    fake->from_mirror = q->from_mirror;
    enum tw_code code = migration_answer(fake, q->id, &r->migration, err);
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_adjust)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__AdjustMigrationRequest *q = (const void *)request;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(
        fake, q->id, &((Towline__V1__AdjustMigrationResponse *)response)->migration, err);
    if (code == TW_OK) {
        fake->adjusts++;
        fake->adjusted = *q;
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
}

static Towline__V1__Reason *reason_new(const char *about, const char *rule,
                                       Towline__V1__ReasonVerdict verdict, uint64_t value,
                                       uint64_t limit, const char *unit)
{
    Towline__V1__Reason *r = NEW(Towline__V1__Reason, towline__v1__reason);
    r->about = strdup(about);
    r->rule = strdup(rule);
    r->verdict = verdict;
    r->value = value;
    r->limit = limit;
    r->unit = strdup(unit);
    r->text = strdup("because of the test");
    return r;
}

static Towline__V1__Plan *plan_new(const struct fake_controller *fake, bool ready)
{
    Towline__V1__Plan *p = NEW(Towline__V1__Plan, towline__v1__plan);
    p->token = strdup("p-1");
    p->vm = strdup("web-1");
    p->source = strdup("node-a");
    p->destination = strdup("node-b");
    p->state = ready ? TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY
                     : TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING;
    p->left_ms = 5;
    if (!ready)
        return p;
    p->refused = fake->plan_refused;
    p->method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID;
    p->measurement = NEW(Towline__V1__Measurement, towline__v1__measurement);
    p->measurement->path_source = TOWLINE__V1__FIGURE_SOURCE__FIGURE_SOURCE_HISTORY;
    p->measurement->path_from = strdup("m-9");
    p->measurement->path_bytes_per_s = UINT64_C(512) << 20;
    p->n_forecasts = 1;
    p->forecasts = malloc(sizeof *p->forecasts);
    p->forecasts[0] = NEW(Towline__V1__Forecast, towline__v1__forecast);
    p->forecasts[0]->method = p->method;
    p->forecasts[0]->rounds = 3;
    p->forecasts[0]->bytes = UINT64_C(12) << 20;
    p->forecasts[0]->downtime_us = 50000;
    p->n_reasons = 1;
    p->reasons = malloc(sizeof *p->reasons);
    p->reasons[0] =
        reason_new("hybrid", "downtime", TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_WARN, 400000,
                   300000, "us");
    return p;
}

HANDLER(on_plan)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__PlanMigrationRequest *q = (const void *)request;
    UNUSED(call);
    if (fake_vm_find(q->vm, err) != TW_OK)
        return TW_NOT_FOUND;
    pthread_mutex_lock(&fake->lock);
    fake->planned_for_ms = q->for_ms;
    take_limits(fake, q->limits);
    fake_copy(fake->migrated_to, sizeof fake->migrated_to, q->destination);
    ((Towline__V1__PlanMigrationResponse *)response)->plan = plan_new(fake, false);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_get_plan)
{
    struct fake_controller *fake = ctx;
    const char *token = ((const Towline__V1__GetPlanRequest *)request)->token;
    UNUSED(call);
    if (strcmp(token, "p-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, token, NULL, NULL, "no such plan");
    pthread_mutex_lock(&fake->lock);
    ((Towline__V1__GetPlanResponse *)response)->plan = plan_new(fake, fake->plan_looks++ > 0);
    pthread_mutex_unlock(&fake->lock);
    return TW_OK;
}

HANDLER(on_why)
{
    Towline__V1__WhyMigrationResponse *r = (Towline__V1__WhyMigrationResponse *)response;
    const char *id = ((const Towline__V1__WhyMigrationRequest *)request)->id;
    UNUSED(ctx, call);
    if (strcmp(id, "r-1") != 0)
        return tw_fail(err, TW_NOT_FOUND, id, NULL, NULL, "no reasons are kept about it");
    r->id = strdup(id);
    r->vm = strdup("web-1");
    r->n_reasons = 1;
    r->reasons = malloc(sizeof *r->reasons);
    r->reasons[0] =
        reason_new("node-b", "memory", TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_REFUSE,
                   UINT64_C(64) << 20, UINT64_C(256) << 20, "bytes");
    return TW_OK;
}

HANDLER(on_recover)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__RecoverMigrationRequest *q = (const void *)request;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(
        fake, q->id, &((Towline__V1__RecoverMigrationResponse *)response)->migration, err);
    if (code == TW_OK && q->other_side_is_fenced) {
        fake_copy(fake->recovered, sizeof fake->recovered, q->id);
        fake->recovered_to = q->to;
    }
    pthread_mutex_unlock(&fake->lock);
    return code;
}

HANDLER(on_declare_lost)
{
    struct fake_controller *fake = ctx;
    const Towline__V1__DeclareLostRequest *q = (const void *)request;
    Towline__V1__DeclareLostResponse *r = (void *)response;
    UNUSED(call);
    pthread_mutex_lock(&fake->lock);
    enum tw_code code = migration_answer(fake, q->id, &r->migration, err);
    if (code == TW_OK && strcmp(q->host, "node-b") != 0)
        code = tw_fail(err, TW_FAILED_PRECONDITION, q->id, "a host that is not heard", q->host,
                       "the host is not lost");
    if (code == TW_OK && q->confirmed)
        fake_copy(fake->lost, sizeof fake->lost, q->host);
    pthread_mutex_unlock(&fake->lock);
    r->outcome = TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_VM_LOST;
    r->risk = strdup(fake->risk ? fake->risk : "the VM is lost");
    return code;
}

const struct tw_rpc_method fake_migrations[] = {
    {"Start", on_start},   {"List", on_migrations},     {"Get", on_migration},
    {"Cancel", on_cancel}, {"SwitchNow", on_switch},    {"Recover", on_recover},
    {"Adjust", on_adjust}, {"Plan", on_plan},           {"GetPlan", on_get_plan},
    {"Why", on_why},       {"Reconnect", on_reconnect}, {"DeclareLost", on_declare_lost}};
const size_t fake_migration_count = sizeof fake_migrations / sizeof *fake_migrations;
