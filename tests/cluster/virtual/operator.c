/* Who asks for things: creates VMs, moves them about, cancels, deletes. What was answered with OK
 * is a promise, and is held against the cluster. */
#include "tests/cluster/virtual/orders.h"

#include "towline/v1/vm.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES  (UINT64_C(4) << 20)
#define CALL_MS       3000u
#define AGAIN_NS      (150 * TW_MS)
#define TRIES         400u
#define TIMEOUT_MS    20000u /* of a migration */
#define PLAN_LIVES_NS (600 * TW_SEC)

static struct vt_task tasks[VT_VMS_MAX];
static struct tw_rpc_client *client;

enum tw_code vt_call(const ProtobufCServiceDescriptor *service, const char *method,
                     const ProtobufCMessage *request, bool repeat, ProtobufCMessage **answer,
                     struct tw_error *err)
{
    return tw_rpc_call(client, service, method, request, CALL_MS,
                       repeat ? TW_RPC_IDEMPOTENT : TW_RPC_ONCE, answer, err);
}

/* ---- VMs ------------------------------------------------------------------------------------- */

static enum tw_code vm_get(struct vt_task *t, Towline__V1__VmState *state, bool *moving)
{
    Towline__V1__GetVmRequest r = TOWLINE__V1__GET_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.name = t->name;
    enum tw_code code =
        vt_call(&towline__v1__vm_service__descriptor, "Get", &r.base, true, &m, &err);
    if (code != TW_OK)
        return code;
    const Towline__V1__Vm *vm = ((Towline__V1__GetVmResponse *)m)->vm;
    *state = vm->state;
    *moving = vm->migration[0] != 0;
    snprintf(t->host, sizeof t->host, "%s", vm->host);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

static enum tw_code vm_delete(struct vt_task *t)
{
    Towline__V1__DeleteVmRequest r = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.name = t->name;
    vt_guest_deleting(t->name);
    enum tw_code code =
        vt_call(&towline__v1__vm_service__descriptor, "Delete", &r.base, false, &m, &err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

static enum tw_code vm_create(struct vt_task *t)
{
    Towline__V1__CreateVmRequest r = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    Towline__V1__VmSpec spec = TOWLINE__V1__VM_SPEC__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    spec.name = t->name;
    spec.memory_bytes = MEMORY_BYTES;
    spec.vcpus = 1;
    spec.kernel = (char *)(uintptr_t) "/boot/kernel";
    r.spec = &spec;
    r.host = (char *)(uintptr_t)vt_world.nodes[t->vm % VT_AGENTS].name;
    enum tw_code code =
        vt_call(&towline__v1__vm_service__descriptor, "Create", &r.base, false, &m, &err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

/* Until it runs, and that was said. */
static bool create(struct vt_task *t)
{
    Towline__V1__VmState state = 0;
    bool moving;
    for (unsigned i = 0; i < TRIES; i++) {
        enum tw_code code = vm_create(t);
        if (code != TW_OK)
            code = vm_get(t, &state, &moving);
        else
            state = TOWLINE__V1__VM_STATE__VM_STATE_RUNNING;
        if (code == TW_OK && state == TOWLINE__V1__VM_STATE__VM_STATE_RUNNING) {
            vt_guest_acknowledged(t->name);
            return true;
        }
        if (code == TW_OK && state == TOWLINE__V1__VM_STATE__VM_STATE_FAILED)
            vm_delete(t);
        vt_sleep(AGAIN_NS);
    }
    vt_problem("%s was never created", t->name);
    return false;
}

static void delete (struct vt_task *t)
{
    for (unsigned i = 0; i < TRIES; i++) {
        enum tw_code code = vm_delete(t);
        if (code == TW_OK || code == TW_NOT_FOUND) {
            t->deleted = true;
            return;
        }
        vt_sleep(AGAIN_NS);
    }
    vt_problem("%s could not be deleted", t->name);
}

/* ---- Migrations ------------------------------------------------------------------------------ */

static bool ended(Towline__V1__MigrationState state)
{
    return state >= TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
}

/* The third host; by its name where it is insisted on, and there is only one that it can be. */
static char *mirror_of(const struct vt_task *t)
{
    const char *name = "auto";
    if (vt_world.scenario->mirror_named)
        name = vt_world.nodes[(vt_index(vt_node_of(t->host)) + 2) % VT_AGENTS].name;
    return (char *)(uintptr_t)name;
}

void vt_limits(const struct vt_task *t, unsigned move, Towline__V1__MigrationLimits *limits)
{
    static const Towline__V1__MigrationMethod methods[VT_METHODS] = {
        TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY,
        TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY,
        TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID,
    };
    towline__v1__migration_limits__init(limits);
    limits->method = methods[vt_world.scenario->method[t->vm][move]];
    limits->bandwidth_bytes_per_s = vt_world.scenario->bandwidth;
    limits->timeout_ms = TIMEOUT_MS;
    if (vt_world.scenario->mirror)
        limits->mirror = mirror_of(t);
    limits->slow_down_percent = vt_world.scenario->slow_down;
    limits->downtime_ms = vt_world.scenario->downtime_ms;
    limits->max_rounds = 5;
    limits->on_no_convergence = TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP;
}

/* With a token: what it says. */
static enum tw_code migration_start(struct vt_task *t, unsigned move, const char *destination,
                                    const char *token)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    vt_limits(t, move, &limits);
    vt_guest_slow_down(t->name, limits.slow_down_percent);
    if (token[0]) {
        r.plan = (char *)(uintptr_t)token;
    } else {
        r.vm = t->name;
        r.destination = (char *)(uintptr_t)destination;
        r.limits = &limits;
    }
    enum tw_code code =
        vt_call(&towline__v1__migration_service__descriptor, "Start", &r.base, false, &m, &err);
    if (code != TW_OK) {
        vt_say("operator: migration of %s not begun: %s", t->name, err.what);
        return code;
    }
    snprintf(t->migration, sizeof t->migration, "%s",
             ((Towline__V1__StartMigrationResponse *)m)->migration->id);
    t->state = TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_PENDING;
    t->bandwidth = 0;
    t->slow = -1;
    t->paused = false;
    t->resumed_ns = 0;
    vt_say("operator: %s moves %s to %s", t->migration, t->name, destination);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

static enum tw_code migration_get(struct vt_task *t)
{
    Towline__V1__GetMigrationRequest r = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    r.id = t->migration;
    enum tw_code code =
        vt_call(&towline__v1__migration_service__descriptor, "Get", &r.base, true, &m, &err);
    if (code == TW_NOT_FOUND)
        vt_problem("migration %s was accepted and is forgotten", t->migration);
    if (code != TW_OK)
        return code;
    const Towline__V1__Migration *now = ((Towline__V1__GetMigrationResponse *)m)->migration;
    Towline__V1__MigrationState state = now->state;
    if (ended(t->state) && state != t->state)
        vt_problem("migration %s had ended as %d and is %d now", t->migration, (int)t->state,
                   (int)state);
    t->state = state;
    vt_orders_look(t, now);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

static bool undisturbed(void)
{
    const struct vt_scenario *s = vt_world.scenario;
    return (s->keep & ((UINT64_C(1) << s->fault_count) - 1)) == 0;
}

static void follow(struct vt_task *t)
{
    while (!ended(t->state) && !vt_world.ending) {
        vt_sleep(AGAIN_NS / 3);
        vt_orders_give(t);
        migration_get(t);
    }
    vt_say("operator: %s ended as %d", t->migration, (int)t->state);
    if (ended(t->state) && undisturbed() &&
        t->state != TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED)
        vt_problem("nothing went wrong, and migration %s ended as %d", t->migration, (int)t->state);
}

/* Another one than its own. */
static const char *host_next(const struct vt_task *t)
{
    unsigned to = (vt_index(vt_node_of(t->host)) + 1 +
                   (vt_world.scenario->vms > 1 ? (unsigned)vt_below(VT_AGENTS - 1) : 0)) %
                  VT_AGENTS;
    return vt_world.nodes[to].name;
}

static bool plans(const struct vt_task *t, enum vt_plan kind)
{
    return t->vm == 0 && vt_world.scenario->plan == kind;
}

static bool begin_move(struct vt_task *t, unsigned index)
{
    const char *to = host_next(t);
    char token[64] = "";
    if (plans(t, VT_PLAN_FRESH) && !vt_plan_make(t, index, to, token))
        token[0] = 0;
    if (token[0] && migration_start(t, index, to, token) == TW_OK)
        return true;
    return migration_start(t, index, to, "") == TW_OK;
}

static void move(struct vt_task *t, unsigned index)
{
    Towline__V1__VmState state = 0;
    bool moving = false;
    for (unsigned i = 0; i < TRIES && !vt_world.ending; i++) {
        if (vm_get(t, &state, &moving) == TW_OK) {
            if (state == TOWLINE__V1__VM_STATE__VM_STATE_FAILED)
                return;
            if (!moving && begin_move(t, index)) {
                follow(t);
                return;
            }
        }
        vt_sleep(AGAIN_NS);
        if (vt_world.healing && i > TRIES / 4)
            return; /* the VM's host may refuse it for good reasons */
    }
}

/* The first move behind a plan that it makes worthless. */
static void move_past_plan(struct vt_task *t)
{
    Towline__V1__VmState state = 0;
    bool moving, expired = plans(t, VT_PLAN_EXPIRED);
    char token[64], before[64];
    bool made = vm_get(t, &state, &moving) == TW_OK && vt_plan_make(t, 0, host_next(t), token);
    snprintf(before, sizeof before, "%s", t->host);
    if (made && expired)
        vt_sleep(PLAN_LIVES_NS + TW_SEC);
    if (made && expired)
        vt_plan_must_fail(token, "too old");
    move(t, 0);
    if (made && !expired && vm_get(t, &state, &moving) == TW_OK && strcmp(before, t->host) != 0)
        vt_plan_must_fail(token, "for a VM on another host");
}

static void *work(void *arg)
{
    struct vt_task *t = arg;
    t->created = create(t);
    for (unsigned i = 0; t->created && i < vt_world.scenario->moves && !vt_world.problem[0]; i++) {
        vt_sleep(vt_below(300 * TW_MS));
        if (i == 0 && (plans(t, VT_PLAN_STALE) || plans(t, VT_PLAN_EXPIRED)))
            move_past_plan(t);
        else
            move(t, i);
    }
    if (t->created && t->vm == 0 && vt_world.scenario->deletes)
        delete (t);
    t->done = true;
    return NULL;
}

/* ---- For the world --------------------------------------------------------------------------- */

static void *begin(void *arg)
{
    const struct tw_rpc_client_config config = {.url = "sim://controller"};
    (void)arg;
    if (tw_rpc_client_open(&config, &client, NULL) != TW_OK)
        abort();
    for (unsigned i = 0; i < vt_world.scenario->vms; i++) {
        tasks[i] = (struct vt_task){.vm = i, .slow = -1};
        snprintf(tasks[i].name, sizeof tasks[i].name, "vm-%u", i);
        vt_spawn_free(vt_here(), work, &tasks[i]);
    }
    return NULL;
}

void vt_operator_begin(void)
{
    memset(tasks, 0, sizeof tasks);
    vt_orders_begin();
    vt_spawn_free(&vt_world.nodes[VT_OPERATOR], begin, NULL);
}

void vt_operator_end(void)
{
    tw_rpc_client_close(client);
    client = NULL;
}

bool vt_operator_done(void)
{
    for (unsigned i = 0; i < vt_world.scenario->vms; i++)
        if (!tasks[i].done)
            return false;
    return true;
}

bool vt_operator_settled(void)
{
    for (unsigned i = 0; i < vt_world.scenario->vms; i++) {
        const struct vt_task *t = &tasks[i];
        unsigned copies = vt_guest_copies(t->name);
        if (!t->done || copies > 1 || (t->deleted && copies) ||
            (!t->deleted && !vt_guest_lost(t->name) && vt_guest_runs_on(t->name) < 0))
            return false;
    }
    return true;
}

/* What the controller says in the end against what is. Runs on a fiber of the operator. */
void vt_operator_check(void)
{
    for (unsigned i = 0; i < vt_world.scenario->vms; i++) {
        struct vt_task *t = &tasks[i];
        Towline__V1__VmState state = 0;
        bool moving = false;
        enum tw_code code = vm_get(t, &state, &moving);
        vt_guest_check_end(t->name, t->deleted);
        vt_check_owners_end(t->name);
        if (t->deleted) {
            if (code != TW_NOT_FOUND)
                vt_problem("%s is deleted and the controller still has it", t->name);
            continue;
        }
        if (code != TW_OK) {
            vt_problem("the controller does not know %s: %s", t->name, tw_code_name(code));
            continue;
        }
        int runs = vt_guest_runs_on(t->name);
        if (moving)
            vt_problem("%s is still said to be in a migration", t->name);
        if (vt_guest_lost(t->name)) {
            if (state != TOWLINE__V1__VM_STATE__VM_STATE_FAILED)
                vt_problem("%s is lost and said to be in state %d", t->name, (int)state);
        } else if (state != TOWLINE__V1__VM_STATE__VM_STATE_RUNNING || runs < 0 ||
                   strcmp(t->host, vt_world.nodes[runs].name) != 0) {
            vt_problem("%s runs on %s and is said to be on %s in state %d", t->name,
                       runs < 0 ? "no host" : vt_world.nodes[runs].name, t->host, (int)state);
        }
        if (t->migration[0])
            migration_get(t);
        if (t->migration[0] && !ended(t->state))
            vt_problem("migration %s has not ended", t->migration);
    }
}
