#include "controller/convert.h"
#include "controller/plan_service.h"
#include "controller/plans.h"
#include "controller/services.h"
#include "controller/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_DEFAULT 100u
#define LIST_MAX     1000u

static enum tw_code answer(const struct tw_migration_record *m, Towline__V1__Migration **out,
                           struct tw_error *err)
{
    *out = tw_migration_to_proto(m);
    return *out ? TW_OK : tw_no_memory(m->id, err);
}

static enum tw_code start(struct tw_services *s, const struct tw_rpc_call *call,
                          const Towline__V1__StartMigrationRequest *request,
                          Towline__V1__StartMigrationResponse *response, struct tw_error *err)
{
    struct tw_migration_record m;
    struct tw_wish wish = {request->vm, request->destination, request->limits, NULL};
    Towline__V1__Plan *plan = NULL;
    enum tw_code code = TW_OK;
    if (request->plan[0]) {
        if (request->vm[0] || request->destination[0])
            return tw_fail(err, TW_INVALID_ARGUMENT, request->plan, "a plan and nothing else",
                           request->vm, "VM and host are in the plan");
        code = tw_plans_still_good(s->migrations, request->plan, call->deadline_ns, &plan, err);
        if (plan)
            wish = (struct tw_wish){plan->vm, plan->destination, plan->limits, plan};
    }
    if (code == TW_OK)
        code = tw_migrations_start(s->migrations, &wish, &m, err);
    if (plan)
        towline__v1__plan__free_unpacked(plan, NULL);
    return code == TW_OK ? answer(&m, &response->migration, err) : code;
}

struct list {
    Towline__V1__ListMigrationsResponse *response;
    bool full;
};

static void collect(void *ctx, const struct tw_migration_record *m)
{
    struct list *list = ctx;
    Towline__V1__Migration *p = list->full ? NULL : tw_migration_to_proto(m);
    if (!tw_append(&list->response->migrations, &list->response->n_migrations, p ? &p->base : NULL))
        list->full = true;
}

/* Those under way are newer in memory than in the store. */
static enum tw_code freshen(struct tw_services *s, Towline__V1__ListMigrationsResponse *response,
                            struct tw_error *err)
{
    struct tw_migration_record m;
    for (size_t i = 0; i < response->n_migrations; i++) {
        Towline__V1__Migration **p = &response->migrations[i];
        if ((*p)->ended_unix_ms || !tw_migrations_live(s->migrations, (*p)->id, &m))
            continue;
        Towline__V1__Migration *fresh = tw_migration_to_proto(&m);
        if (!fresh)
            return tw_no_memory("migrations", err);
        towline__v1__migration__free_unpacked(*p, NULL);
        *p = fresh;
    }
    return TW_OK;
}

static enum tw_code list(struct tw_services *s, const struct tw_rpc_call *call,
                         const Towline__V1__ListMigrationsRequest *request,
                         Towline__V1__ListMigrationsResponse *response, struct tw_error *err)
{
    (void)call;
    char given[24];
    struct list found = {response, false};
    uint32_t limit = request->limit ? request->limit : LIST_DEFAULT;
    snprintf(given, sizeof given, "%u", limit);
    if (limit > LIST_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "limit", "at most 1000", given, "too many");
    enum tw_code code = request->vm[0] ? tw_name_check("VM name", request->vm, err) : TW_OK;
    if (code == TW_OK)
        code = tw_store_begin(s->store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(
            s->store, tw_store_migrations_each(s->store, request->vm, limit, collect, &found, err),
            err);
    if (code == TW_OK && found.full)
        code = tw_no_memory("migrations", err);
    return code == TW_OK ? freshen(s, response, err) : code;
}

static enum tw_code get(struct tw_services *s, const struct tw_rpc_call *call,
                        const Towline__V1__GetMigrationRequest *request,
                        Towline__V1__GetMigrationResponse *response, struct tw_error *err)
{
    (void)call;
    struct tw_migration_record m;
    enum tw_code code = tw_migrations_get(s->migrations, request->id, &m, err);
    if (code == TW_OK)
        code = answer(&m, &response->migration, err);
    return code == TW_OK ? tw_notes_fill(s->store, response->migration, err) : code;
}

static enum tw_code cancel(struct tw_services *s, const struct tw_rpc_call *call,
                           const Towline__V1__CancelMigrationRequest *request,
                           Towline__V1__CancelMigrationResponse *response, struct tw_error *err)
{
    struct tw_migration_record m;
    enum tw_code code = tw_migrations_cancel(s->migrations, request->id, &m, err);
    if (code == TW_OK)
        tw_audit(s->store, call, request->id, "cancel", "", "");
    return code == TW_OK ? answer(&m, &response->migration, err) : code;
}

static enum tw_code switch_now(struct tw_services *s, const struct tw_rpc_call *call,
                               const Towline__V1__SwitchMigrationRequest *request,
                               Towline__V1__SwitchMigrationResponse *response, struct tw_error *err)
{
    struct tw_migration_record m;
    enum tw_code code = tw_migrations_switch(s->migrations, request->id, &m, err);
    if (code == TW_OK)
        tw_audit(s->store, call, request->id, "switch", "", "now");
    return code == TW_OK ? answer(&m, &response->migration, err) : code;
}

static enum tw_code reconnect(struct tw_services *s, const struct tw_rpc_call *call,
                              const Towline__V1__ReconnectMigrationRequest *request,
                              Towline__V1__ReconnectMigrationResponse *response,
                              struct tw_error *err)
{
    struct tw_migration_record m;
    enum tw_code code =
        tw_migrations_reconnect(s->migrations, request->id, request->from_mirror, &m, err);
    if (code == TW_OK)
        tw_audit(s->store, call, request->id, "reconnect", "",
                 request->from_mirror ? "from the mirror" : "now");
    return code == TW_OK ? answer(&m, &response->migration, err) : code;
}

static enum tw_code recover(struct tw_services *s, const struct tw_rpc_call *call,
                            const Towline__V1__RecoverMigrationRequest *request,
                            Towline__V1__RecoverMigrationResponse *response, struct tw_error *err)
{
    struct tw_migration_record m;
    bool source = request->to == TOWLINE__V1__RECOVER_TO__RECOVER_TO_SOURCE;
    if (!source && request->to != TOWLINE__V1__RECOVER_TO__RECOVER_TO_DESTINATION)
        return tw_fail(err, TW_INVALID_ARGUMENT, request->id, "to the source or the destination",
                       "neither", "it is not said who gets the VM");
    if (!request->other_side_is_fenced)
        return tw_fail(err, TW_INVALID_ARGUMENT, request->id,
                       "the word that the other host is off and will not run the VM", "none",
                       "not without it: two hosts might run the VM");
    enum tw_code code = tw_migrations_recover(
        s->migrations, request->id, source ? TW_FENCED_DESTINATION : TW_FENCED_SOURCE, &m, err);
    if (code == TW_OK)
        tw_audit(s->store, call, request->id, "recover", "", source ? m.source : m.destination);
    return code == TW_OK ? answer(&m, &response->migration, err) : code;
}

/* What people are told before they give their word, and behind it. */
static const struct {
    Towline__V1__LostOutcome outcome;
    const char *before, *after; /* ... the name of the lost host */
} prospects[TW_PROSPECT_COUNT] = {
    [TW_PROSPECT_OPEN] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_UNSPECIFIED,
                          "what becomes of the VM is known when the other host answers, or is "
                          "declared lost as well; until then it is only settled that ",
                          " is not waited for"},
    [TW_PROSPECT_SOURCE] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_SOURCE_KEEPS,
                            "the source owns the VM; nothing of it is lost with ", ""},
    [TW_PROSPECT_DESTINATION] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_DESTINATION_KEEPS,
                                 "the destination owns the VM, whatever becomes of ", ""},
    [TW_PROSPECT_SOURCE_RESUMES] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_SOURCE_RESUMES,
                                    "the source resumes the VM as it was when it stopped; should ",
                                    " have run it since, what it did there is undone"},
    [TW_PROSPECT_DESTINATION_RESUMES] =
        {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_DESTINATION_RESUMES,
         "the destination resumes the VM as it was when it stopped; should ",
         " have run it since, what it did there is undone"},
    [TW_PROSPECT_MIRROR] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_MIRROR_TAKES_OVER,
                            "the destination runs the VM and goes on with what its mirror keeps, "
                            "which is all that it misses; nothing of it is lost with ",
                            ""},
    [TW_PROSPECT_AWAITED] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_MIRROR_AWAITED,
                             "the mirror may keep what the destination misses and does not answer "
                             "now: it is waited for until it is declared lost as well, and ",
                             " no longer"},
    [TW_PROSPECT_UNMIRRORED] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_UNMIRRORED,
                                "the migration goes on without a mirror; nothing of the VM is "
                                "lost with ",
                                ""},
    [TW_PROSPECT_LOST] = {TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_VM_LOST,
                          "the VM is lost: the only copy that may run was on ",
                          "; what is left of it elsewhere is removed"},
};

static enum tw_code declare_lost(struct tw_services *s, const struct tw_rpc_call *call,
                                 const Towline__V1__DeclareLostRequest *request,
                                 Towline__V1__DeclareLostResponse *response, struct tw_error *err)
{
    struct tw_migration_record m;
    enum tw_prospect prospect = TW_PROSPECT_OPEN;
    char risk[3 * TW_REASON_SIZE];
    enum tw_code code = tw_migrations_lost(s->migrations, request->id, request->host,
                                           request->confirmed, &m, &prospect, err);
    if (code != TW_OK)
        return code;
    if (request->confirmed)
        tw_audit(s->store, call, request->id, "host lost", "", request->host);
    snprintf(risk, sizeof risk, "%s%s%s", prospects[prospect].before, request->host,
             prospects[prospect].after);
    response->outcome = prospects[prospect].outcome;
    response->risk = strdup(risk);
    return response->risk ? answer(&m, &response->migration, err) : tw_no_memory("an answer", err);
}

TW_SERVED(start, "MigrationService/Start")
TW_SERVED(list, "MigrationService/List")
TW_SERVED(get, "MigrationService/Get")
TW_SERVED(cancel, "MigrationService/Cancel")
TW_SERVED(switch_now, "MigrationService/SwitchNow")
TW_SERVED(reconnect, "MigrationService/Reconnect")
TW_SERVED(recover, "MigrationService/Recover")
TW_SERVED(declare_lost, "MigrationService/DeclareLost")

enum tw_code tw_migration_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                      struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {{"Start", start_served},
                                                   {"List", list_served},
                                                   {"Get", get_served},
                                                   {"Cancel", cancel_served},
                                                   {"SwitchNow", switch_now_served},
                                                   {"Recover", recover_served},
                                                   {"DeclareLost", declare_lost_served},
                                                   {"Reconnect", reconnect_served},
                                                   {"Adjust", tw_adjust_served},
                                                   {"Plan", tw_plan_served},
                                                   {"GetPlan", tw_get_plan_served},
                                                   {"Why", tw_why_served}};
    return tw_rpc_server_add(server, &towline__v1__migration_service__descriptor, methods,
                             sizeof methods / sizeof *methods, services, err);
}
