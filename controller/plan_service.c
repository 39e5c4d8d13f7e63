#include "controller/plan_service.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "controller/convert.h"
#include "controller/plans.h"

#include <stdlib.h>
#include <string.h>

/* ---- Who did what -----------------------------------------------------------------------------
 */

static void caller_name(const struct tw_rpc_call *call, char *out, size_t size)
{
    if (call->caller)
        snprintf(out, size, "%s %s", tw_role_name(call->caller->role), call->caller->name);
    else
        snprintf(out, size, "local");
}

void tw_audit(struct tw_store *store, const struct tw_rpc_call *call, const char *id,
              const char *what, const char *from, const char *to)
{
    char who[TW_IDENTITY_NAME + 32];
    struct tw_error err = {0};
    Towline__V1__AuditEntry e = TOWLINE__V1__AUDIT_ENTRY__INIT;
    const char *pairs[] = {"who", who, "what", what, "from", from, "to", to, NULL};
    caller_name(call, who, sizeof who);
    e.unix_ms = tw_wall_ms();
    e.who = who;
    e.what = (char *)(uintptr_t)what;
    e.from = (char *)(uintptr_t)from;
    e.to = (char *)(uintptr_t)to;
    enum tw_code code = tw_store_begin(store, TW_STORE_DURABLE, &err);
    if (code == TW_OK) {
        code = tw_store_note_add(store, id, "audit", &e.base, &err);
        if (code == TW_OK)
            code = tw_store_event(store, "migration.audit", id, pairs, &err, "%s: %s%s%s%s%s", who,
                                  what, from[0] ? " from " : "", from, to[0] ? " to " : "", to);
        code = tw_store_end(store, code, &err);
    }
    if (code != TW_OK)
        tw_log(TW_LOG_ERROR, "migration", "audit entry not written",
               "migration=%s who=\"%s\" what=%s why=\"%s\"", id, who, what, err.what);
}

/* ---- What is kept beside a record -------------------------------------------------------------
 */

static void take_forecast(void *ctx, const uint8_t *body, size_t size)
{
    Towline__V1__Migration *m = ctx;
    if (!m->forecast)
        m->forecast = towline__v1__forecast__unpack(NULL, size, body);
}

static void take_plan(void *ctx, const uint8_t *body, size_t size)
{
    Towline__V1__Migration *m = ctx;
    Towline__V1__Plan *p = towline__v1__plan__unpack(NULL, size, body);
    if (!p)
        return;
    if (m->plan == protobuf_c_empty_string)
        tw_text_set(&m->plan, p->token);
    tw_reasons_copy(&m->reasons, &m->n_reasons, p->reasons, p->n_reasons);
    towline__v1__plan__free_unpacked(p, NULL);
}

static void take_why(void *ctx, const uint8_t *body, size_t size)
{
    Towline__V1__Migration *m = ctx;
    tw_why *why = towline__v1__why_migration_response__unpack(NULL, size, body);
    for (size_t i = 0; why && i < why->n_reasons; i++) {
        const char *about = why->reasons[i]->about;
        if (strcmp(about, "plan") == 0 || strcmp(about, "precopy") == 0 ||
            strcmp(about, "hybrid") == 0 || strcmp(about, "postcopy") == 0)
            tw_reasons_copy(&m->reasons, &m->n_reasons, &why->reasons[i], 1);
    }
    if (why)
        towline__v1__why_migration_response__free_unpacked(why, NULL);
}

/* Whether what an operator did makes it another migration than the one that was forecast. */
static bool adjusts(const char *what)
{
    static const char *const adjusting[] = {"bandwidth", "downtime", "slow-down", "pause", "switch"};
    for (size_t i = 0; i < sizeof adjusting / sizeof *adjusting; i++)
        if (strcmp(what, adjusting[i]) == 0)
            return true;
    return false;
}

static void take_audit(void *ctx, const uint8_t *body, size_t size)
{
    Towline__V1__Migration *m = ctx;
    Towline__V1__AuditEntry *e = towline__v1__audit_entry__unpack(NULL, size, body);
    m->adjusted |= e && m->forecast && adjusts(e->what);
    tw_append(&m->audit, &m->n_audit, e ? &e->base : NULL);
}

enum tw_code tw_notes_fill(struct tw_store *store, Towline__V1__Migration *m, struct tw_error *err)
{
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code != TW_OK)
        return code;
    code = tw_store_notes_each(store, m->id, "plan", 1, take_plan, m, err);
    if (code == TW_OK)
        code = tw_store_notes_each(store, m->id, "forecast", 1, take_forecast, m, err);
    if (code == TW_OK)
        code = tw_store_notes_each(store, m->id, "why", 1, take_why, m, err);
    if (code == TW_OK)
        code = tw_store_notes_each(store, m->id, "audit", TW_AUDIT_MAX, take_audit, m, err);
    return tw_store_end(store, code, err);
}

/* ---- Adjust -----------------------------------------------------------------------------------
 */

static const char *rate_text(uint64_t rate, char out[TW_SIZE_TEXT + 4])
{
    char size[TW_SIZE_TEXT];
    if (rate == 0)
        snprintf(out, TW_SIZE_TEXT + 4, "unlimited");
    else
        snprintf(out, TW_SIZE_TEXT + 4, "%s/s", tw_size_format(rate, size));
    return out;
}

static const char *downtime_text(uint32_t ms, char out[TW_SIZE_TEXT + 4])
{
    snprintf(out, TW_SIZE_TEXT + 4, "%u ms", ms ? ms : 300u);
    return out;
}

static const char *slow_down_text(uint32_t percent, char out[TW_SIZE_TEXT + 4])
{
    if (percent)
        snprintf(out, TW_SIZE_TEXT + 4, "%u %%", percent);
    else
        snprintf(out, TW_SIZE_TEXT + 4, "none");
    return out;
}

static void audit_adjust(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__AdjustMigrationRequest *r,
                         const Towline__V1__Migration *before)
{
    static const Towline__V1__MigrationLimits none = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    const Towline__V1__MigrationLimits *old = before->limits ? before->limits : &none;
    char from[TW_SIZE_TEXT + 4], to[TW_SIZE_TEXT + 4];
    if (r->set_bandwidth)
        tw_audit(s->store, call, r->id, "bandwidth", rate_text(old->bandwidth_bytes_per_s, from),
                 rate_text(r->bandwidth_bytes_per_s, to));
    if (r->set_downtime)
        tw_audit(s->store, call, r->id, "downtime", downtime_text(old->downtime_ms, from),
                 downtime_text(r->downtime_ms, to));
    if (r->set_slow_down)
        tw_audit(s->store, call, r->id, "slow-down", slow_down_text(old->slow_down_percent, from),
                 slow_down_text(r->slow_down_percent, to));
    if (r->set_paused)
        tw_audit(s->store, call, r->id, r->paused ? "pause" : "resume",
                 before->progress && before->progress->paused ? "paused" : "running",
                 r->paused ? "paused" : "running");
}

static enum tw_code adjust(struct tw_services *s, const struct tw_rpc_call *call,
                           const Towline__V1__AdjustMigrationRequest *request,
                           Towline__V1__AdjustMigrationResponse *response, struct tw_error *err)
{
    struct tw_migration_record before, m;
    enum tw_code code = tw_migrations_get(s->migrations, request->id, &before, err);
    if (code == TW_OK)
        code = tw_migrations_adjust(s->migrations, request, &m, err);
    if (code != TW_OK)
        return code;
    Towline__V1__Migration *old = tw_migration_to_proto(&before);
    if (old) {
        audit_adjust(s, call, request, old);
        towline__v1__migration__free_unpacked(old, NULL);
    }
    response->migration = tw_migration_to_proto(&m);
    return response->migration ? TW_OK : tw_no_memory(m.id, err);
}

/* ---- Plans and reasons ------------------------------------------------------------------------
 */

static enum tw_code plan(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__PlanMigrationRequest *request,
                         Towline__V1__PlanMigrationResponse *response, struct tw_error *err)
{
    (void)call;
    return tw_plans_begin(s->migrations, request, &response->plan, err);
}

static enum tw_code get_plan(struct tw_services *s, const struct tw_rpc_call *call,
                             const Towline__V1__GetPlanRequest *request,
                             Towline__V1__GetPlanResponse *response, struct tw_error *err)
{
    (void)call;
    return tw_plans_get(s->migrations, request->token, &response->plan, err);
}

/* The reasons of the plan, which are kept with it. */
static enum tw_code add_plan_reasons(struct tw_services *s, const char *id,
                                     Towline__V1__WhyMigrationResponse *out, struct tw_error *err)
{
    Towline__V1__Migration holder = TOWLINE__V1__MIGRATION__INIT;
    enum tw_code code = tw_store_begin(s->store, TW_STORE_READ, err);
    if (code != TW_OK)
        return code;
    code = tw_store_end(s->store,
                        tw_store_notes_each(s->store, id, "plan", 1, take_plan, &holder, err), err);
    bool ok = tw_reasons_copy(&out->reasons, &out->n_reasons, holder.reasons, holder.n_reasons);
    for (size_t i = 0; i < holder.n_reasons; i++)
        towline__v1__reason__free_unpacked(holder.reasons[i], NULL);
    free(holder.reasons);
    if (holder.plan != protobuf_c_empty_string)
        free(holder.plan);
    return code == TW_OK && !ok ? tw_no_memory(id, err) : code;
}

/* Whether the guest was slowed, or may be, and why. */
static void pacing_reason(tw_why *why, const Towline__V1__MigrationProgress *p)
{
    const struct tw_rule rule = {.about = "pacing",
                                 .rule = "slow_down",
                                 .value = p->pace_share_permille,
                                 .limit = p->pace_budget_permille,
                                 .unit = "permille"};
    if (p->pace_reason[0])
        tw_why_add(why, TW_WARN, &rule, "writers of up to %llu hot lines %s slowed: %s",
                   (unsigned long long)p->paced_lines_most, p->pace_delay_ns ? "are" : "were",
                   p->pace_reason);
    else if (p->pace_budget_permille)
        tw_why_add(why, TW_PASS, &rule, "nobody is slowed: it was not needed so far");
}

static enum tw_code add_pacing(struct tw_services *s, const char *id,
                               Towline__V1__WhyMigrationResponse *out, struct tw_error *err)
{
    struct tw_migration_record m;
    struct tw_error ignored; /* a plan or a refusal is no migration */
    if (tw_migrations_get(s->migrations, id, &m, &ignored) != TW_OK)
        return TW_OK;
    tw_why *own = tw_why_new(m.vm, "");
    Towline__V1__MigrationProgress *p =
        towline__v1__migration_progress__unpack(NULL, m.progress_size, m.progress);
    if (own && p)
        pacing_reason(own, p);
    bool ok =
        own && p && tw_reasons_copy(&out->reasons, &out->n_reasons, own->reasons, own->n_reasons);
    towline__v1__migration_progress__free_unpacked(p, NULL);
    towline__v1__why_migration_response__free_unpacked(own, NULL);
    return ok ? TW_OK : tw_no_memory(id, err);
}

static enum tw_code why(struct tw_services *s, const struct tw_rpc_call *call,
                        const Towline__V1__WhyMigrationRequest *request,
                        Towline__V1__WhyMigrationResponse *response, struct tw_error *err)
{
    tw_why *kept;
    (void)call;
    enum tw_code code = tw_why_load(s->store, request->id, &kept, err);
    if (code != TW_OK)
        return code;
    Towline__V1__WhyMigrationResponse empty = *response;
    *response = *kept;
    *kept = empty;
    towline__v1__why_migration_response__free_unpacked(kept, NULL);
    code = add_pacing(s, request->id, response, err);
    return code == TW_OK ? add_plan_reasons(s, request->id, response, err) : code;
}

TW_SERVED(adjust, "MigrationService/Adjust")
TW_SERVED(plan, "MigrationService/Plan")
TW_SERVED(get_plan, "MigrationService/GetPlan")
TW_SERVED(why, "MigrationService/Why")

#define EXPORTED(name)                                                                             \
    enum tw_code tw_##name##_served(void *ctx, const struct tw_rpc_call *call,                     \
                                    const ProtobufCMessage *request, ProtobufCMessage *response,   \
                                    struct tw_error *err)                                          \
    {                                                                                              \
        return name##_served(ctx, call, request, response, err);                                   \
    }
EXPORTED(adjust)
EXPORTED(plan)
EXPORTED(get_plan)
EXPORTED(why)
