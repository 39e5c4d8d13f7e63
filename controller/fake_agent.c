#include "controller/fake_agent.h"

#include "base/clock.h"
#include "controller/fake_inside.h"
#include "towline/v1/host.pb-c.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUMP_US    4000u
#define HEART_MS   50u
#define FIRST_PORT 20000u
#define LAST_PORT  32767u

/* ---- The played world; called with its lock ------------------------------------------------ */

struct fake_vm *fake_vm_find(struct fake_agent *a, const char *name)
{
    for (unsigned i = 0; i < a->vm_count; i++)
        if (strcmp(a->vms[i].name, name) == 0)
            return &a->vms[i];
    return NULL;
}

void fake_vm_drop(struct fake_agent *a, const char *name)
{
    struct fake_vm *vm = fake_vm_find(a, name);
    if (vm)
        *vm = a->vms[--a->vm_count];
}

struct fake_side *fake_side_find(struct fake_agent *a, const char *id)
{
    for (unsigned i = 0; i < a->side_count; i++)
        if (strcmp(a->sides[i].id, id) == 0)
            return &a->sides[i];
    return NULL;
}

struct fake_side *fake_side_add(struct fake_agent *a, const char *id, const char *vm)
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

void fake_watch(struct fake_world *w)
{
    for (unsigned i = 0; i < FAKE_AGENTS; i++)
        for (unsigned k = 0; k < w->agents[i].vm_count; k++)
            for (unsigned j = i + 1; j < FAKE_AGENTS; j++) {
                const struct fake_vm *one = &w->agents[i].vms[k];
                const struct fake_vm *two = fake_vm_find(&w->agents[j], one->name);
                w->two_running += two && one->runs && two->runs;
            }
}

/* The source keeps its VM. */
void fake_source_back(struct fake_agent *a, struct fake_side *s, const char *why)
{
    struct fake_vm *vm = fake_vm_find(a, s->vm);
    s->hand_over = TW_KNOWN_ABORTED;
    snprintf(s->error, sizeof s->error, "%s", why);
    if (vm) {
        vm->copy = FAKE_OWNED;
        vm->runs = !vm->dead;
        vm->migration[0] = 0;
    }
}

void fake_destination_out(struct fake_agent *a, struct fake_side *s, const char *why)
{
    s->hand_over = TW_KNOWN_ABORTED;
    snprintf(s->error, sizeof s->error, "%s", why);
    fake_vm_drop(a, s->vm);
}

void fake_peer_lost(struct fake_agent *a, struct fake_side *s)
{
    if (s->peer_lost || s->hand_over == TW_KNOWN_COMMITTED || s->hand_over == TW_KNOWN_ABORTED)
        return;
    s->peer_lost = true;
    /* A dead agent notices when it is back. */
    if (!a->up || s->hand_over != TW_KNOWN_ACTIVE)
        return;
    if (s->source)
        fake_source_back(a, s, "the peer is lost");
    else
        fake_destination_out(a, s, "the peer is lost");
}

static void cut(struct fake_agent *a)
{
    for (unsigned i = 0; i < a->side_count; i++) {
        struct fake_side *s = &a->sides[i],
                         *other = s->peer ? fake_side_find(s->peer, s->id) : NULL;
        if (other)
            fake_peer_lost(s->peer, other);
        fake_peer_lost(a, s);
    }
}

static void enter(struct fake_agent *a, struct fake_side *s, struct fake_side *d)
{
    struct fake_vm *here = fake_vm_find(a, s->vm), *there = fake_vm_find(s->peer, s->vm);
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
        d->hand_over = d->follows ? TW_KNOWN_PARTLY : TW_KNOWN_COMMITTED;
        there->copy = FAKE_OWNED;
        there->runs = true;
        there->migration[0] = 0;
        break;
    case FAKE_FINISHED:
        s->hand_over = TW_KNOWN_COMMITTED;
        fake_vm_drop(a, s->vm);
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
    struct fake_side *d = fake_side_find(s->peer, s->id);
    struct fake_vm *here = fake_vm_find(a, s->vm);
    if (!d || d->hand_over == TW_KNOWN_ABORTED) {
        fake_peer_lost(a, s);
        return;
    }
    if (!here || here->dead) {
        fake_source_back(a, s, "the VM's process ended");
        fake_peer_lost(s->peer, d);
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
        fake_watch(w);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* ---- What a test does to it ---------------------------------------------------------------- */

/* A port that nobody uses at the moment, and that no connection is given by itself: those come from
 * 32768 on. */
static void free_url(char url[64])
{
    for (unsigned tries = 0; tries < 200; tries++) {
        uint32_t any;
        if (getrandom(&any, sizeof any, 0) != sizeof any)
            abort();
        const uint16_t port = (uint16_t)(FIRST_PORT + any % (LAST_PORT - FIRST_PORT + 1));
        const struct sockaddr_in address = {.sin_family = AF_INET,
                                            .sin_port = htons(port),
                                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const bool mine = s >= 0 && bind(s, (const struct sockaddr *)&address, sizeof address) == 0;
        if (s >= 0)
            close(s);
        snprintf(url, 64, "tcp://127.0.0.1:%u", (unsigned)port);
        if (mine)
            return;
    }
    fprintf(stderr, "no free port on 127.0.0.1 between %u and %u\n", FIRST_PORT, LAST_PORT);
    abort();
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
            fake_source_back(a, s, "the agent was restarted");
        else if (s->hand_over == TW_KNOWN_ACTIVE)
            fake_destination_out(a, s, "the agent was restarted");
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
    struct fake_vm *vm = fake_vm_find(&w->agents[agent], name);
    if (vm) {
        vm->dead = true;
        vm->runs = false;
    }
    pthread_mutex_unlock(&w->lock);
}

bool fake_vm_get(struct fake_world *w, unsigned agent, const char *name, struct fake_vm *out)
{
    pthread_mutex_lock(&w->lock);
    struct fake_vm *vm = fake_vm_find(&w->agents[agent], name);
    if (vm)
        *out = *vm;
    pthread_mutex_unlock(&w->lock);
    return vm != NULL;
}

enum tw_known fake_hand_over(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = fake_side_find(&w->agents[agent], id);
    enum tw_known known = s ? s->hand_over : TW_KNOWN_UNKNOWN;
    pthread_mutex_unlock(&w->lock);
    return known;
}

enum fake_step fake_step_of(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = fake_side_find(&w->agents[agent], id);
    enum fake_step step = s ? s->step : FAKE_STEPS;
    pthread_mutex_unlock(&w->lock);
    return step;
}

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
    r->host = fake_describe(a);
    r->vms = fake_reports(a, &r->n_vms);
    pthread_mutex_unlock(&a->world->lock);
    if (up && tw_rpc_call(client, &towline__v1__host_service__descriptor, "Heartbeat", &r->base,
                          300, TW_RPC_IDEMPOTENT, &answer, NULL) == TW_OK)
        protobuf_c_message_free_unpacked(answer, NULL);
    towline__v1__heartbeat_request__free_unpacked(r, NULL);
}

static void *heart_main(void *arg)
{
    struct fake_agent *a = arg;
    const struct tw_rpc_client_config config = {.url = a->world->controller_url, .insecure = true};
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
    const struct tw_rpc_server_config config = {.url = a->url, .workers = 8, .insecure = true};
    pthread_mutex_lock(&w->lock);
    read_back(a);
    a->up = true;
    pthread_mutex_unlock(&w->lock);
    if (a->server)
        return;
    struct tw_error err = {0};
    if (tw_rpc_server_open(&config, &a->server, &err) != TW_OK ||
        tw_rpc_server_add(a->server, &towline__v1__agent_service__descriptor, fake_methods,
                          fake_method_count, a, &err) != TW_OK ||
        tw_rpc_server_start(a->server, &err) != TW_OK) {
        fprintf(stderr, "%s: %s: %s\n", a->name, a->url, err.what);
        abort();
    }
    atomic_store(&a->heart_stop, false);
    if (pthread_create(&a->heart, NULL, heart_main, a) != 0)
        abort();
}

void fake_decided(struct fake_world *w, unsigned agent, const char *id, enum tw_known known)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = fake_side_find(&w->agents[agent], id);
    struct fake_vm *vm = s ? fake_vm_find(&w->agents[agent], s->vm) : NULL;
    if (!s || !vm)
        abort();
    s->hand_over = known;
    vm->copy = FAKE_OWNED;
    vm->migration[0] = 0;
    pthread_mutex_unlock(&w->lock);
}

void fake_misses(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = fake_side_find(&w->agents[agent], id);
    if (!s)
        abort();
    s->lines_left = 7;
    pthread_mutex_unlock(&w->lock);
}

void fake_memory_follows(struct fake_world *w, unsigned agent, const char *id)
{
    pthread_mutex_lock(&w->lock);
    struct fake_side *s = fake_side_find(&w->agents[agent], id);
    if (!s)
        abort();
    s->follows = true;
    pthread_mutex_unlock(&w->lock);
}
