#include "controller/fake_agent.h"

#include "base/clock.h"
#include "towline/v1/agent.pb-c.h"
#include "towline/v1/host.pb-c.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUMP_US  4000u
#define HEART_MS 50u
#define DEAD_US  50000u /* until the caller of a dead agent gives up */

/* ---- The played world; called with its lock ------------------------------------------------ */

static struct fake_vm *vm_find(struct fake_agent *a, const char *name)
{
    for (unsigned i = 0; i < a->vm_count; i++)
        if (strcmp(a->vms[i].name, name) == 0)
            return &a->vms[i];
    return NULL;
}

static void vm_drop(struct fake_agent *a, const char *name)
{
    struct fake_vm *vm = vm_find(a, name);
    if (vm)
        *vm = a->vms[--a->vm_count];
}

static struct fake_side *side_find(struct fake_agent *a, const char *id)
{
    for (unsigned i = 0; i < a->side_count; i++)
        if (strcmp(a->sides[i].id, id) == 0)
            return &a->sides[i];
    return NULL;
}

static struct fake_side *side_add(struct fake_agent *a, const char *id, const char *vm)
{
    if (a->side_count == FAKE_SIDES)
        abort();
    struct fake_side *s = &a->sides[a->side_count++];
    memset(s, 0, sizeof *s);
    snprintf(s->id, sizeof s->id, "%s", id);
    snprintf(s->vm, sizeof s->vm, "%s", vm);
    s->hand_over = TW_KNOWN_ACTIVE;
    return s;
}

static void watch(struct fake_world *w)
{
    for (unsigned i = 0; i < FAKE_AGENTS; i++)
        for (unsigned k = 0; k < w->agents[i].vm_count; k++)
            for (unsigned j = i + 1; j < FAKE_AGENTS; j++) {
                const struct fake_vm *one = &w->agents[i].vms[k];
                const struct fake_vm *two = vm_find(&w->agents[j], one->name);
                w->two_running += two && one->runs && two->runs;
            }
}

/* The source keeps its VM. */
static void source_back(struct fake_agent *a, struct fake_side *s, const char *why)
{
    struct fake_vm *vm = vm_find(a, s->vm);
    s->hand_over = TW_KNOWN_ABORTED;
    snprintf(s->error, sizeof s->error, "%s", why);
    if (vm) {
        vm->copy = FAKE_OWNED;
        vm->runs = !vm->dead;
        vm->migration[0] = 0;
    }
}

static void destination_out(struct fake_agent *a, struct fake_side *s, const char *why)
{
    s->hand_over = TW_KNOWN_ABORTED;
    snprintf(s->error, sizeof s->error, "%s", why);
    vm_drop(a, s->vm);
}

static void peer_lost(struct fake_agent *a, struct fake_side *s)
{
    if (s->peer_lost || s->hand_over == TW_KNOWN_COMMITTED || s->hand_over == TW_KNOWN_ABORTED)
        return;
    s->peer_lost = true;
    /* A dead agent notices when it is back. */
    if (!a->up || s->hand_over != TW_KNOWN_ACTIVE)
        return;
    if (s->source)
        source_back(a, s, "the peer is lost");
    else
        destination_out(a, s, "the peer is lost");
}

static void cut(struct fake_agent *a)
{
    for (unsigned i = 0; i < a->side_count; i++) {
        struct fake_side *s = &a->sides[i], *other = s->peer ? side_find(s->peer, s->id) : NULL;
        if (other)
            peer_lost(s->peer, other);
        peer_lost(a, s);
    }
}

static void enter(struct fake_agent *a, struct fake_side *s, struct fake_side *d)
{
    struct fake_vm *here = vm_find(a, s->vm), *there = vm_find(s->peer, s->vm);
    switch (s->step) {
    case FAKE_STOPPING:
        here->runs = false;
        break;
    case FAKE_PREPARED:
        d->hand_over = TW_KNOWN_PREPARED;
        there->copy = FAKE_READY;
        break;
    case FAKE_GIVEN_UP:
        s->hand_over = TW_KNOWN_GIVEN_UP;
        here->copy = FAKE_GAVE;
        break;
    case FAKE_COMMITTED:
        d->hand_over = TW_KNOWN_COMMITTED;
        there->copy = FAKE_OWNED;
        there->runs = true;
        there->migration[0] = 0;
        break;
    case FAKE_FINISHED:
        s->hand_over = TW_KNOWN_COMMITTED;
        vm_drop(a, s->vm);
        break;
    default:
        break;
    }
}

static void advance(struct fake_agent *a, struct fake_side *s)
{
    struct fake_world *w = a->world;
    bool alive = s->hand_over == TW_KNOWN_ACTIVE || s->hand_over == TW_KNOWN_GIVEN_UP;
    if (!s->source || !alive || s->peer_lost || !a->up || !s->peer->up ||
        s->step + 1 >= FAKE_STEPS || s->step + 1 >= w->hold)
        return;
    struct fake_side *d = side_find(s->peer, s->id);
    struct fake_vm *here = vm_find(a, s->vm);
    if (!d || d->hand_over == TW_KNOWN_ABORTED) {
        peer_lost(a, s);
        return;
    }
    if (!here || here->dead) {
        source_back(a, s, "the VM's process ended");
        peer_lost(s->peer, d);
        return;
    }
    s->step++;
    enter(a, s, d);
}

static void *pump_main(void *arg)
{
    struct fake_world *w = arg;
    while (!atomic_load(&w->pump_stop)) {
        usleep(PUMP_US);
        pthread_mutex_lock(&w->lock);
        for (unsigned i = 0; i < FAKE_AGENTS; i++)
            for (unsigned k = 0; k < w->agents[i].side_count; k++)
                advance(&w->agents[i], &w->agents[i].sides[k]);
        watch(w);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* ---- What a test does to it ---------------------------------------------------------------- */

/* A port that nobody uses at the moment. */
static void free_url(char url[64])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&address, length) != 0 ||
        getsockname(s, (struct sockaddr *)&address, &length) != 0)
        abort();
    close(s);
    snprintf(url, 64, "tcp://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
}

void fake_world_open(struct fake_world *w)
{
    static const char *const names[FAKE_AGENTS] = {"node-a", "node-b", "node-c", "node-d"};
    memset(w, 0, sizeof *w);
    pthread_mutex_init(&w->lock, NULL);
    strcpy(w->dir, "/tmp/towline-fake-XXXXXX");
    if (!mkdtemp(w->dir))
        abort();
    w->hold = FAKE_STEPS;
    free_url(w->controller_url);
    for (unsigned i = 0; i < FAKE_AGENTS; i++) {
        struct fake_agent *a = &w->agents[i];
        a->world = w;
        a->capacity_bytes = UINT64_C(1) << 30;
        snprintf(a->name, sizeof a->name, "%s", names[i]);
        free_url(a->url);
    }
    if (pthread_create(&w->pump, NULL, pump_main, w) != 0)
        abort();
}

void fake_world_close(struct fake_world *w)
{
    atomic_store(&w->pump_stop, true);
    pthread_join(w->pump, NULL);
    for (unsigned i = 0; i < FAKE_AGENTS; i++) {
        if (!w->agents[i].server)
            continue;
        atomic_store(&w->agents[i].heart_stop, true);
        pthread_join(w->agents[i].heart, NULL);
        tw_rpc_server_close(w->agents[i].server);
    }
    pthread_mutex_destroy(&w->lock);
    fake_world_unlink(w);
}

void fake_world_unlink(struct fake_world *w)
{
    char path[128];
    static const char *const files[] = {"store.db",     "store.db.lock",   "store.db-wal",
                                        "store.db-shm", "controller.yaml", "controller.log"};
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, files[i]);
        unlink(path);
    }
    rmdir(w->dir);
}

void fake_kill(struct fake_world *w, unsigned agent)
{
    struct fake_agent *a = &w->agents[agent];
    pthread_mutex_lock(&w->lock);
    bool was_up = a->up;
    a->up = false;
    if (was_up)
        cut(a);
    pthread_mutex_unlock(&w->lock);
}

/* What an agent finds when it starts: sides without a connection. */
static void read_back(struct fake_agent *a)
{
    a->instance++;
    for (unsigned i = 0; i < a->side_count; i++) {
        struct fake_side *s = &a->sides[i];
        if (s->hand_over == TW_KNOWN_ACTIVE && s->source)
            source_back(a, s, "the agent was restarted");
        else if (s->hand_over == TW_KNOWN_ACTIVE)
            destination_out(a, s, "the agent was restarted");
        s->peer_lost = true;
    }
}

void fake_wipe(struct fake_world *w, unsigned agent)
{
    pthread_mutex_lock(&w->lock);
    w->agents[agent].vm_count = w->agents[agent].side_count = 0;
    pthread_mutex_unlock(&w->lock);
}

void fake_cut(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < FAKE_AGENTS; i++)
        cut(&w->agents[i]);
    pthread_mutex_unlock(&w->lock);
}

void fake_hold(struct fake_world *w, enum fake_step step)
{
    pthread_mutex_lock(&w->lock);
    w->hold = step;
    pthread_mutex_unlock(&w->lock);
}

void fake_vm_die(struct fake_world *w, unsigned agent, const char *name)
{
    pthread_mutex_lock(&w->lock);
    struct fake_vm *vm = vm_find(&w->agents[agent], name);
    if (vm) {
        vm->dead = true;
        vm->runs = false;
    }
    pthread_mutex_unlock(&w->lock);
}

bool fake_vm_get(struct fake_world *w, unsigned agent, const char *name, struct fake_vm *out)
{
    pthread_mutex_lock(&w->lock);
    struct fake_vm *vm = vm_find(&w->agents[agent], name);
    if (vm)
        *out = *vm;
    pthread_mutex_unlock(&w->lock);
    return vm != NULL;
}

enum tw_known fake_hand_over(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = side_find(&w->agents[agent], id);
    enum tw_known known = s ? s->hand_over : TW_KNOWN_UNKNOWN;
    pthread_mutex_unlock(&w->lock);
    return known;
}

enum fake_step fake_step_of(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = side_find(&w->agents[agent], id);
    enum fake_step step = s ? s->step : FAKE_STEPS;
    pthread_mutex_unlock(&w->lock);
    return step;
}

/* ---- AgentService -------------------------------------------------------------------------- */

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
static Towline__V1__HostDescription *describe_host(const struct fake_agent *a)
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

static Towline__V1__VmReport **reports(const struct fake_agent *a, size_t *count)
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
    watch(a->world);
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
    p->host = describe_host(a);
    p->vms = reports(a, &p->n_vms);
    return TW_OK;
}

HANDLER(start_vm, Towline__V1__StartVmRequest, Towline__V1__StartVmResponse)
{
    struct fake_vm *vm = vm_find(a, r->spec->name);
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
    struct fake_vm *vm = vm_find(a, r->name);
    if (vm && vm->epoch > r->epoch)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->name, NULL, NULL, "a newer copy is here");
    if (vm && vm->migration[0])
        return tw_fail(err, TW_FAILED_PRECONDITION, r->name, NULL, vm->migration, "is migrated");
    vm_drop(a, r->name);
    return TW_OK;
}

HANDLER(prepare, Towline__V1__PrepareIncomingRequest, Towline__V1__PrepareIncomingResponse)
{
    struct fake_side *s = side_find(a, r->migration);
    atomic_fetch_add(&a->prepares, 1);
    if (a->refuse_prepare)
        return tw_fail(err, (enum tw_code)a->refuse_prepare, a->name, "room", "none",
                       "played refusal");
    if (s && s->hand_over != TW_KNOWN_ACTIVE)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->migration, NULL, NULL, "has ended here");
    if (!s && (vm_find(a, r->spec->name) || a->vm_count == FAKE_VMS))
        return tw_fail(err, TW_ALREADY_EXISTS, r->spec->name, NULL, NULL, "a copy is here");
    if (!s) {
        s = side_add(a, r->migration, r->spec->name);
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
    struct fake_vm *vm = vm_find(a, r->vm);
    struct fake_side *s = side_find(a, r->migration);
    struct fake_agent *peer = agent_named(a->world, r->destination);
    struct fake_side *d = peer ? side_find(peer, r->migration) : NULL;
    if (s)
        return s->hand_over == TW_KNOWN_ABORTED
                   ? tw_fail(err, TW_FAILED_PRECONDITION, r->migration, NULL, NULL, "has ended")
                   : TW_OK;
    if (!vm || !vm->runs || vm->copy != FAKE_OWNED)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->vm, "a running VM", NULL, "does not run");
    s = side_add(a, r->migration, r->vm);
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
    p->bytes_sent = 1000 * (uint64_t)(s->step + 1);
    p->bytes_if_pages = 40000 * (uint64_t)(s->step + 1);
    p->downtime_us = s->step == FAKE_FINISHED ? 12345 : 0;
    return p;
}

HANDLER(get_migration, Towline__V1__AgentGetMigrationRequest,
        Towline__V1__AgentGetMigrationResponse)
{
    (void)err;
    const struct fake_side *s = side_find(a, r->migration);
    if (!s) {
        p->hand_over = TOWLINE__V1__HAND_OVER__HAND_OVER_UNKNOWN;
        return TW_OK;
    }
    p->hand_over = (Towline__V1__HandOver)s->hand_over;
    p->peer_lost = s->peer_lost;
    p->source = s->source;
    if (s->source)
        p->progress = progress(s);
    if (s->error[0]) {
        struct tw_error why;
        tw_fail(&why, TW_ABORTED, a->name, NULL, NULL, "%s", s->error);
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
    struct fake_side *s = side_find(a, r->migration);
    if (!s) {
        s = side_add(a, r->migration, "");
        s->hand_over = TW_KNOWN_ABORTED;
    } else if (s->hand_over == TW_KNOWN_ACTIVE && s->source) {
        struct fake_side *d = s->peer ? side_find(s->peer, s->id) : NULL;
        source_back(a, s, "cancelled");
        if (d)
            peer_lost(s->peer, d);
    } else if (s->hand_over != TW_KNOWN_ABORTED) {
        return refuse(r->migration, s->hand_over, err);
    }
    p->hand_over = (Towline__V1__HandOver)s->hand_over;
    return TW_OK;
}

static enum tw_code decide_destination(struct fake_agent *a, struct fake_side *s, bool commit,
                                       uint64_t epoch, struct tw_error *err)
{
    struct fake_vm *vm = vm_find(a, s->vm);
    if (commit && s->hand_over == TW_KNOWN_PREPARED && vm && epoch == s->epoch) {
        s->hand_over = TW_KNOWN_COMMITTED;
        vm->copy = FAKE_OWNED;
        vm->runs = true;
        vm->migration[0] = 0;
    } else if (!commit && (s->hand_over == TW_KNOWN_PREPARED || s->hand_over == TW_KNOWN_ACTIVE)) {
        destination_out(a, s, "aborted");
    } else if (s->hand_over != (commit ? TW_KNOWN_COMMITTED : TW_KNOWN_ABORTED)) {
        return refuse(s->id, s->hand_over, err);
    }
    return TW_OK;
}

static enum tw_code decide_source(struct fake_agent *a, struct fake_side *s, bool finish,
                                  uint64_t epoch, struct tw_error *err)
{
    struct fake_vm *vm = vm_find(a, s->vm);
    if (s->hand_over == TW_KNOWN_GIVEN_UP && finish) {
        s->hand_over = TW_KNOWN_COMMITTED;
        vm_drop(a, s->vm);
    } else if (s->hand_over == TW_KNOWN_GIVEN_UP && epoch > s->epoch && vm && !vm->dead) {
        vm->epoch = epoch;
        source_back(a, s, "taken back");
    } else if (s->hand_over != (finish ? TW_KNOWN_COMMITTED : TW_KNOWN_ABORTED)) {
        return refuse(s->id, s->hand_over, err);
    }
    return TW_OK;
}

HANDLER(resolve, Towline__V1__ResolveMigrationRequest, Towline__V1__ResolveMigrationResponse)
{
    struct fake_side *s = side_find(a, r->migration);
    enum tw_code code;
    if (!s && r->decision == TOWLINE__V1__DECISION__DECISION_ABORT) {
        s = side_add(a, r->migration, "");
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

static const struct tw_rpc_method methods[] = {
    {"Describe", describe},
    {"StartVm", start_vm},
    {"RemoveVm", remove_vm},
    {"PrepareIncoming", prepare},
    {"StartOutgoing", start_outgoing},
    {"GetMigration", get_migration},
    {"CancelMigration", cancel},
    {"ResolveMigration", resolve},
};

/* ---- Start --------------------------------------------------------------------------------- */

static void beat(struct fake_agent *a, struct tw_rpc_client *client)
{
    Towline__V1__HeartbeatRequest *r = malloc(sizeof *r);
    ProtobufCMessage *answer;
    if (!r)
        abort();
    towline__v1__heartbeat_request__init(r);
    pthread_mutex_lock(&a->world->lock);
    bool up = a->up;
    r->host = describe_host(a);
    r->vms = reports(a, &r->n_vms);
    pthread_mutex_unlock(&a->world->lock);
    if (up && tw_rpc_call(client, &towline__v1__host_service__descriptor, "Heartbeat", &r->base,
                          300, TW_RPC_IDEMPOTENT, &answer, NULL) == TW_OK)
        protobuf_c_message_free_unpacked(answer, NULL);
    towline__v1__heartbeat_request__free_unpacked(r, NULL);
}

static void *heart_main(void *arg)
{
    struct fake_agent *a = arg;
    const struct tw_rpc_client_config config = {.url = a->world->controller_url};
    struct tw_rpc_client *client;
    if (tw_rpc_client_open(&config, &client, NULL) != TW_OK)
        abort();
    while (!atomic_load(&a->heart_stop)) {
        beat(a, client);
        usleep(HEART_MS * 1000);
    }
    tw_rpc_client_close(client);
    return NULL;
}

void fake_start(struct fake_world *w, unsigned agent)
{
    struct fake_agent *a = &w->agents[agent];
    const struct tw_rpc_server_config config = {.url = a->url, .workers = 8};
    pthread_mutex_lock(&w->lock);
    read_back(a);
    a->up = true;
    pthread_mutex_unlock(&w->lock);
    if (a->server)
        return;
    if (tw_rpc_server_open(&config, &a->server, NULL) != TW_OK ||
        tw_rpc_server_add(a->server, &towline__v1__agent_service__descriptor, methods,
                          sizeof methods / sizeof *methods, a, NULL) != TW_OK ||
        tw_rpc_server_start(a->server, NULL) != TW_OK)
        abort();
    atomic_store(&a->heart_stop, false);
    if (pthread_create(&a->heart, NULL, heart_main, a) != 0)
        abort();
}
