#include "tests/cluster/virtual/orders.h"

#include <string.h>

#define SERVICE     &towline__v1__migration_service__descriptor
#define PLAN_MS     200u
#define PLAN_LOOKS  60u
#define RESUMED_NS  (5 * TW_SEC)  /* until what an agent says of itself is heard */
#define PATIENCE_NS (400 * TW_MS) /* before a silent host is declared lost */

static unsigned wanted; /* orders, a bit each */
static unsigned bandwidth_kib, slow_percent;
static bool resume;
static uint64_t silent_since_ns[VT_NODES];

void vt_orders_begin(void)
{
    wanted = bandwidth_kib = slow_percent = 0;
    resume = false;
    memset(silent_since_ns, 0, sizeof silent_since_ns);
}

void vt_operator_order(enum vt_fault_kind order, unsigned amount)
{
    wanted |= 1u << order;
    if (order == VT_SET)
        bandwidth_kib = amount;
    if (order == VT_SLOW)
        slow_percent = amount;
    if (order == VT_PAUSE)
        resume = false;
}

void vt_operator_resume(void)
{
    resume = true;
    wanted &= ~(1u << VT_PAUSE);
}

static bool told(const char *method, const ProtobufCMessage *request)
{
    ProtobufCMessage *m;
    struct tw_error err = {0};
    if (vt_call(SERVICE, method, request, true, &m, &err) != TW_OK)
        return false;
    protobuf_c_message_free_unpacked(m, NULL);
    return true;
}

static bool set_paused(const struct vt_task *t, bool paused)
{
    Towline__V1__AdjustMigrationRequest r = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    r.id = (char *)(uintptr_t)t->migration;
    r.set_paused = true;
    r.paused = paused;
    return told("Adjust", &r.base);
}

/* What may or may not be taken is not known until that is said. */
static void set_bandwidth(struct vt_task *t)
{
    Towline__V1__AdjustMigrationRequest r = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    r.id = t->migration;
    r.set_bandwidth = true;
    r.bandwidth_bytes_per_s = (uint64_t)bandwidth_kib << 10;
    t->bandwidth = 0;
    if (told("Adjust", &r.base))
        t->bandwidth = r.bandwidth_bytes_per_s;
}

static void set_slow_down(struct vt_task *t)
{
    Towline__V1__AdjustMigrationRequest r = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    r.id = t->migration;
    r.set_slow_down = true;
    r.slow_down_percent = slow_percent;
    t->slow = -1;
    vt_guest_slow_down(t->name, slow_percent);
    if (!told("Adjust", &r.base))
        return;
    t->slow = (int)slow_percent;
    if (slow_percent == 0 && vt_guest_slowed(t->name))
        vt_problem("%s is slowed, and it was acknowledged that nobody is", t->name);
}

static void resume_now(struct vt_task *t)
{
    t->paused = !set_paused(t, false);
    t->resumed_ns = t->paused ? 0 : vt_now();
}

/* A controller that has just started tells what it wrote down last, until it has heard the agents.
 */
static void look_at_pause(struct vt_task *t, const Towline__V1__Migration *m)
{
    const uint64_t life = vt_world.nodes[VT_CONTROLLER].starts;
    bool under_way = m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING ||
                     m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_SWITCHING;
    if (!under_way || t->paused || !t->resumed_ns || !m->progress || !m->progress->paused) {
        t->paused_seen_ns = 0;
        return;
    }
    if (!t->paused_seen_ns || t->paused_seen_by != life)
        t->paused_seen_ns = vt_now();
    t->paused_seen_by = life;
    if (vt_now() > t->paused_seen_ns + RESUMED_NS)
        vt_problem("migration %s: it was acknowledged that it goes on, and it is paused", m->id);
}

void vt_orders_give(struct vt_task *t)
{
    Towline__V1__CancelMigrationRequest cancel = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    Towline__V1__SwitchMigrationRequest now = TOWLINE__V1__SWITCH_MIGRATION_REQUEST__INIT;
    Towline__V1__ReconnectMigrationRequest again = TOWLINE__V1__RECONNECT_MIGRATION_REQUEST__INIT;
    unsigned orders = wanted;
    wanted = 0;
    cancel.id = now.id = again.id = t->migration;
    if (orders & 1u << VT_CANCEL)
        told("Cancel", &cancel.base);
    if (orders & 1u << VT_SWITCH)
        told("SwitchNow", &now.base);
    if (orders & 1u << VT_RECONNECT)
        told("Reconnect", &again.base);
    if (orders & 1u << VT_SET)
        set_bandwidth(t);
    if (orders & 1u << VT_SLOW)
        set_slow_down(t);
    if (orders & 1u << VT_PAUSE)
        t->resumed_ns = 0; /* it may be taken without an answer */
    if (orders & 1u << VT_PAUSE)
        t->paused |= set_paused(t, true);
    if (resume && t->paused)
        resume_now(t);
}

/* ---- Lost hosts ------------------------------------------------------------------------------ */

/* Only what is true: it is off, and its guests with it. */
static void declare(const char *id, struct vt_node *node)
{
    Towline__V1__DeclareLostRequest r = TOWLINE__V1__DECLARE_LOST_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.id = (char *)(uintptr_t)id;
    r.host = node->name;
    r.confirmed = vt_below(4) != 0; /* else only a question */
    if (r.confirmed)
        node->declared = true; /* whatever is answered */
    if (vt_call(SERVICE, "DeclareLost", &r.base, true, &m, &err) != TW_OK)
        return;
    vt_say("operator: %s is lost: %s", node->name, ((Towline__V1__DeclareLostResponse *)m)->risk);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void look_at_host(const Towline__V1__Migration *m, const char *name)
{
    struct vt_node *node = vt_node_of(name);
    uint64_t *since = &silent_since_ns[vt_index(node)];
    if (!node->off) {
        *since = 0;
        return;
    }
    if (!*since)
        *since = vt_now();
    if (m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_RESOLVING &&
        vt_now() > *since + PATIENCE_NS)
        declare(m->id, node);
}

/* As the controller's own words tell an operator to. */
static void reconnect_when_told(struct vt_task *t, const Towline__V1__Migration *m)
{
    Towline__V1__ReconnectMigrationRequest again = TOWLINE__V1__RECONNECT_MIGRATION_REQUEST__INIT;
    again.id = m->id;
    if (!m->error || !strstr(m->error->what, "tow migration reconnect"))
        t->path_gone_ns = 0;
    else if (!t->path_gone_ns)
        t->path_gone_ns = vt_now();
    else if (vt_now() > t->path_gone_ns + PATIENCE_NS)
        vt_world.reconnects += told("Reconnect", &again.base);
}

void vt_orders_look(struct vt_task *t, const Towline__V1__Migration *m)
{
    reconnect_when_told(t, m);
    if (t->bandwidth && m->limits && m->limits->bandwidth_bytes_per_s != t->bandwidth)
        vt_problem("migration %s: a bandwidth of %llu was acknowledged and is %llu", m->id,
                   (unsigned long long)t->bandwidth,
                   (unsigned long long)m->limits->bandwidth_bytes_per_s);
    if (t->slow >= 0 && m->limits && (int)m->limits->slow_down_percent != t->slow)
        vt_problem("migration %s: a slow-down of %d %% was acknowledged and is %u %%", m->id,
                   t->slow, m->limits->slow_down_percent);
    look_at_pause(t, m);
    look_at_host(m, m->source);
    look_at_host(m, m->destination);
    if (m->limits && strncmp(m->limits->mirror, "node-", 5) == 0)
        look_at_host(m, m->limits->mirror);
}

/* ---- Plans ----------------------------------------------------------------------------------- */

static bool plan_ready(const char *token, bool *over)
{
    Towline__V1__GetPlanRequest r = TOWLINE__V1__GET_PLAN_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.token = (char *)(uintptr_t)token;
    enum tw_code code = vt_call(SERVICE, "GetPlan", &r.base, true, &m, &err);
    if (code == TW_NOT_FOUND)
        vt_problem("plan %s was given out and is forgotten", token);
    if (code != TW_OK)
        return false;
    const Towline__V1__Plan *p = ((const Towline__V1__GetPlanResponse *)m)->plan;
    bool ready = p->state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY && !p->refused;
    *over = p->state != TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING;
    protobuf_c_message_free_unpacked(m, NULL);
    return ready;
}

bool vt_plan_make(const struct vt_task *t, unsigned move, const char *destination, char token[64])
{
    Towline__V1__PlanMigrationRequest r = TOWLINE__V1__PLAN_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    vt_limits(t, move, &limits);
    r.vm = (char *)(uintptr_t)t->name;
    r.destination = (char *)(uintptr_t)destination;
    r.limits = &limits;
    r.for_ms = PLAN_MS;
    if (vt_call(SERVICE, "Plan", &r.base, false, &m, &err) != TW_OK) {
        vt_say("operator: no plan for %s: %s", t->name, err.what);
        return false;
    }
    snprintf(token, 64, "%s", ((const Towline__V1__PlanMigrationResponse *)m)->plan->token);
    protobuf_c_message_free_unpacked(m, NULL);
    bool over = false, ready = false;
    for (unsigned i = 0; i < PLAN_LOOKS && !over && !vt_world.ending; i++) {
        vt_sleep(PLAN_MS * TW_MS / 2);
        ready = plan_ready(token, &over);
    }
    vt_say("operator: plan %s for %s is %s", token, t->name, ready ? "ready" : "of no use");
    return ready;
}

void vt_plan_must_fail(const char *token, const char *why)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.plan = (char *)(uintptr_t)token;
    if (vt_call(SERVICE, "Start", &r.base, false, &m, &err) != TW_OK) {
        vt_say("operator: plan %s: %s", token, err.what);
        return;
    }
    vt_problem("plan %s is %s and was run", token, why);
    protobuf_c_message_free_unpacked(m, NULL);
}
