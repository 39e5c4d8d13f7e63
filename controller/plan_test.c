/* Plans, choices, reasons and changes while a migration runs: the controller against played agents.
 * A test is a process of its own; one can be chosen by "NAME VARIANT". */
#include "controller/scene.h"

#include <string.h>
#include <unistd.h>

#define MIGRATIONS (&towline__v1__migration_service__descriptor)

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

/* ---- Calls ------------------------------------------------------------------------------------
 */

static Towline__V1__Plan *get_plan(struct play *p, const char *token)
{
    Towline__V1__GetPlanRequest r = TOWLINE__V1__GET_PLAN_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.token = text(token);
    CHECK(play_call(p, MIGRATIONS, "GetPlan", &r.base, &m, &err) == TW_OK, "%s", err.what);
    Towline__V1__Plan *plan = ((Towline__V1__GetPlanResponse *)m)->plan;
    ((Towline__V1__GetPlanResponse *)m)->plan = NULL;
    protobuf_c_message_free_unpacked(m, NULL);
    return plan;
}

/* Freed by the caller; it is ready. */
static Towline__V1__Plan *make_plan(struct play *p, const char *host,
                                    Towline__V1__MigrationMethod method)
{
    Towline__V1__PlanMigrationRequest r = TOWLINE__V1__PLAN_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    char token[64];
    limits.method = method;
    r.vm = text("web");
    r.destination = text(host);
    r.limits = &limits;
    CHECK(play_call(p, MIGRATIONS, "Plan", &r.base, &m, &err) == TW_OK, "%s", err.what);
    snprintf(token, sizeof token, "%s", ((Towline__V1__PlanMigrationResponse *)m)->plan->token);
    protobuf_c_message_free_unpacked(m, NULL);
    for (unsigned n = 0; n < 1000; n++) {
        Towline__V1__Plan *plan = get_plan(p, token);
        if (plan->state != TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING)
            return plan;
        towline__v1__plan__free_unpacked(plan, NULL);
        usleep(10000);
    }
    CHECK(false, "the plan does not end");
    return NULL;
}

static enum tw_code start(struct play *p, const char *plan, const char *host,
                          Towline__V1__MigrationMethod method, char id[64], struct tw_error *err)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    ProtobufCMessage *m;
    limits.method = method;
    r.plan = text(plan);
    r.vm = text(plan[0] ? "" : "web");
    r.destination = text(host);
    r.limits = plan[0] ? NULL : &limits;
    enum tw_code code = play_call(p, MIGRATIONS, "Start", &r.base, &m, err);
    if (code != TW_OK)
        return code;
    snprintf(id, 64, "%s", ((Towline__V1__StartMigrationResponse *)m)->migration->id);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

static bool why_has(struct play *p, const char *id, const char *about, const char *rule,
                    Towline__V1__ReasonVerdict verdict)
{
    Towline__V1__WhyMigrationRequest r = TOWLINE__V1__WHY_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    bool found = false;
    r.id = text(id);
    CHECK(play_call(p, MIGRATIONS, "Why", &r.base, &m, &err) == TW_OK, "%s: %s", id, err.what);
    const Towline__V1__WhyMigrationResponse *w = (const void *)m;
    for (size_t i = 0; i < w->n_reasons; i++)
        found |= strcmp(w->reasons[i]->about, about) == 0 &&
                 strcmp(w->reasons[i]->rule, rule) == 0 && w->reasons[i]->verdict == verdict;
    protobuf_c_message_free_unpacked(m, NULL);
    return found;
}

/* The id of the refusal that an error names. */
static const char *refusal_of(const struct tw_error *err)
{
    const char *id = strstr(err->what, "tow migration why r-");
    CHECK(id, "%s", err->what);
    return id + strlen("tow migration why ");
}

#define METHOD(name)  TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_##name
#define VERDICT(name) TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_##name

/* ---- Plans ------------------------------------------------------------------------------------
 */

static void plan_is_run_as_it_was_made(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    Towline__V1__Plan *plan = make_plan(&p, "", METHOD(UNSPECIFIED));
    CHECK(plan->state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY && !plan->refused, "ready");
    CHECK(plan->chosen && plan->method == METHOD(HYBRID), "chosen by the agent's forecast");
    CHECK(plan->n_forecasts == 3 && plan->measurement, "whole");
    CHECK(strcmp(plan->destination, "node-b") == 0, "the only other host: %s", plan->destination);
    CHECK(why_has(&p, plan->token, "node-b", "memory", VERDICT(PASS)), "placement is kept");
    CHECK(start(&p, plan->token, "", METHOD(UNSPECIFIED), id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->limits->method == METHOD(HYBRID) && strcmp(m->plan, plan->token) == 0, "as planned");
    CHECK(m->forecast && m->forecast->downtime_us == 50000, "the forecast is beside it");
    CHECK(m->n_reasons > 0, "and its reasons");
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(start(&p, plan->token, "", METHOD(UNSPECIFIED), id, &err) == TW_FAILED_PRECONDITION &&
              strstr(err.what, "has moved"),
          "it is not there any more: %s", err.what);
    CHECK(why_has(&p, refusal_of(&err), "plan", "owner", VERDICT(REFUSE)), "and says so");
    towline__v1__plan__free_unpacked(plan, NULL);
    play_passed(&p);
}

static void plan_of_a_calmer_guest_is_refused(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    p.world.agents[A].dirty_lines = 10000;
    Towline__V1__Plan *plan = make_plan(&p, "node-b", METHOD(PRECOPY));
    CHECK(!plan->chosen && plan->method == METHOD(PRECOPY), "as it was asked for");
    p.world.agents[A].dirty_lines = 100000;
    CHECK(start(&p, plan->token, "", METHOD(UNSPECIFIED), id, &err) == TW_FAILED_PRECONDITION,
          "refused");
    CHECK(why_has(&p, refusal_of(&err), "plan", "dirty_lines", VERDICT(REFUSE)), "by the rule");
    p.world.agents[A].dirty_lines = 11000;
    CHECK(start(&p, plan->token, "", METHOD(UNSPECIFIED), id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    towline__v1__plan__free_unpacked(plan, NULL);
    play_passed(&p);
}

static void plan_with_a_refusal_is_not_run(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    p.world.agents[A].refuse_choice = true;
    Towline__V1__Plan *plan = make_plan(&p, "node-b", METHOD(AUTO));
    CHECK(plan->refused, "refused");
    CHECK(start(&p, plan->token, "", METHOD(UNSPECIFIED), id, &err) == TW_FAILED_PRECONDITION,
          "not run");
    CHECK(start(&p, "p-nothing", "", METHOD(UNSPECIFIED), id, &err) == TW_NOT_FOUND, "no plan");
    CHECK(start(&p, plan->token, "node-b", METHOD(UNSPECIFIED), id, &err) == TW_INVALID_ARGUMENT,
          "a plan and a host");
    towline__v1__plan__free_unpacked(plan, NULL);
    play_passed(&p);
}

/* ---- Choices ----------------------------------------------------------------------------------
 */

static void expect_end(struct play *p, const char *id, Towline__V1__MigrationState state)
{
    Towline__V1__MigrationState ended = play_await_end(p, id, 9000);
    Towline__V1__Migration *m = play_migration(p, id);
    CHECK(ended == state, "ended as %d: %s: %s", (int)ended, m->error ? m->error->where : "",
          m->error ? m->error->what : "");
    towline__v1__migration__free_unpacked(m, NULL);
}

static void method_is_chosen_and_explained(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    CHECK(start(&p, "", "node-b", METHOD(AUTO), id, &err) == TW_OK, "%s", err.what);
    expect_end(&p, id, PLAY_STATE(COMPLETED));
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->limits->method == METHOD(HYBRID), "method %d", (int)m->limits->method);
    CHECK(m->forecast && m->forecast->method == METHOD(HYBRID), "with its forecast");
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(why_has(&p, id, "plan", "choice", VERDICT(PASS)), "why this method");
    CHECK(why_has(&p, id, "node-b", "heartbeat", VERDICT(PASS)), "and why this host");
    CHECK(play_event_seen(&p, "migration.method", id), "told");
    p.world.agents[B].refuse_choice = true;
    CHECK(start(&p, "", "node-a", METHOD(AUTO), id, &err) == TW_OK, "%s", err.what);
    expect_end(&p, id, PLAY_STATE(FAILED)); /* nothing can end well */
    play_await_only_copy(&p, "web", B, 1000);
    play_passed(&p);
}

static void host_is_chosen_and_explained(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_start(&p.world, C);
    play_await_hosts(&p, 3);
    p.world.agents[B].capacity_bytes = 1 << 20;
    sleep(1); /* until that was heard of */
    CHECK(start(&p, "", "", METHOD(PRECOPY), id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    play_await_only_copy(&p, "web", C, 1000);
    CHECK(why_has(&p, id, "node-a", "another_host", VERDICT(REFUSE)), "not where it is");
    CHECK(why_has(&p, id, "node-b", "memory", VERDICT(REFUSE)), "no room");
    CHECK(why_has(&p, id, "node-c", "memory", VERDICT(PASS)), "chosen");
    p.world.agents[A].capacity_bytes = 1 << 20;
    sleep(1);
    CHECK(start(&p, "", "", METHOD(PRECOPY), id, &err) == TW_RESOURCE_EXHAUSTED, "%s", err.what);
    CHECK(why_has(&p, refusal_of(&err), "node-a", "memory", VERDICT(REFUSE)), "kept");
    play_passed(&p);
}

/* ---- Changes ----------------------------------------------------------------------------------
 */

static enum tw_code adjust(struct play *p, Towline__V1__AdjustMigrationRequest *r,
                           struct tw_error *err)
{
    ProtobufCMessage *m;
    enum tw_code code = play_call(p, MIGRATIONS, "Adjust", &r->base, &m, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

static void changes_are_made_and_written_down(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    Towline__V1__AdjustMigrationRequest r = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    scene_migrate(&p, id);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    r.id = id;
    CHECK(adjust(&p, &r, &err) == TW_INVALID_ARGUMENT, "nothing to change");
    r.set_downtime = true;
    CHECK(adjust(&p, &r, &err) == TW_INVALID_ARGUMENT, "no downtime of 0");
    r.downtime_ms = 70;
    r.set_bandwidth = true;
    r.bandwidth_bytes_per_s = 5 << 20;
    r.set_paused = r.paused = true;
    CHECK(adjust(&p, &r, &err) == TW_OK, "%s", err.what);
    pthread_mutex_lock(&p.world.lock);
    const struct fake_side *side = &p.world.agents[A].sides[0];
    CHECK(side->bandwidth == 5 << 20 && side->downtime_ms == 70 && side->paused, "at the agent");
    pthread_mutex_unlock(&p.world.lock);
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->limits->bandwidth_bytes_per_s == 5 << 20 && m->limits->downtime_ms == 70, "kept");
    CHECK(m->n_audit == 3, "%zu entries", m->n_audit);
    CHECK(strcmp(m->audit[0]->what, "bandwidth") == 0 && m->audit[0]->unix_ms &&
              strcmp(m->audit[0]->from, "unlimited") == 0 &&
              strcmp(m->audit[0]->to, "5.0 MiB/s") == 0 && m->audit[0]->who[0],
          "%s: %s from %s to %s", m->audit[0]->who, m->audit[0]->what, m->audit[0]->from,
          m->audit[0]->to);
    CHECK(strcmp(m->audit[2]->what, "pause") == 0, "%s", m->audit[2]->what);
    CHECK(!m->adjusted, "nothing was forecast that it could differ from");
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(play_event_seen(&p, "migration.audit", id), "told");
    CHECK(adjust(&p, &r, &err) == TW_FAILED_PRECONDITION, "it has ended");
    r.id = text("m-99");
    CHECK(adjust(&p, &r, &err) == TW_NOT_FOUND, "no such migration");
    play_passed(&p);
}

/* Who changes what a plan foretold is told so, with the outcome. */
static void what_was_changed_is_not_what_was_planned(unsigned variant)
{
    struct play p;
    char id[64];
    struct tw_error err = {0};
    Towline__V1__AdjustMigrationRequest r = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    (void)variant;
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    Towline__V1__Plan *plan = make_plan(&p, "", METHOD(PRECOPY));
    CHECK(start(&p, plan->token, "", 0, id, &err) == TW_OK, "%s", err.what);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->forecast && !m->adjusted, "as planned so far");
    towline__v1__migration__free_unpacked(m, NULL);
    r.id = id;
    r.set_bandwidth = true;
    r.bandwidth_bytes_per_s = 5 << 20;
    CHECK(adjust(&p, &r, &err) == TW_OK, "%s", err.what);
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    m = play_migration(&p, id);
    CHECK(m->adjusted, "it says so");
    towline__v1__migration__free_unpacked(m, NULL);
    towline__v1__plan__free_unpacked(plan, NULL);
    play_passed(&p);
}

static const struct play_test tests[] = {
    {"plan_is_run_as_it_was_made", plan_is_run_as_it_was_made, 1},
    {"plan_of_a_calmer_guest_is_refused", plan_of_a_calmer_guest_is_refused, 1},
    {"plan_with_a_refusal_is_not_run", plan_with_a_refusal_is_not_run, 1},
    {"method_is_chosen_and_explained", method_is_chosen_and_explained, 1},
    {"host_is_chosen_and_explained", host_is_chosen_and_explained, 1},
    {"changes_are_made_and_written_down", changes_are_made_and_written_down, 1},
    {"what_was_changed_is_not_what_was_planned", what_was_changed_is_not_what_was_planned, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
