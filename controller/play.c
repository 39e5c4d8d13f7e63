#include "controller/play.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALL_MS  4000u
/* A machine that is busy is slow, not wrong: what a test reckons with, times this. */
#define PATIENCE 10u

static pid_t spawned; /* for play_failed */

void play_open(struct play *p)
{
    memset(p, 0, sizeof *p);
    const char *level = getenv("TOWLINE_TEST_LOG");
    enum tw_log_level l = TW_LOG_OFF;
    if (level)
        tw_log_level_parse(level, &l);
    tw_log_configure("test", l);
    p->lease_ms = 1500;
    fake_world_open(&p->world);
    const struct tw_rpc_client_config config = {.url = p->world.controller_url, .insecure = true};
    CHECK(tw_rpc_client_open(&config, &p->client, NULL) == TW_OK, "client");
}

void play_failed(void)
{
    if (spawned > 0)
        kill(spawned, SIGKILL);
    _exit(1);
}

static void check_owners(struct play *p)
{
    pthread_mutex_lock(&p->world.lock);
    unsigned seen = p->world.two_running;
    pthread_mutex_unlock(&p->world.lock);
    CHECK(seen == 0, "two copies of a VM ran at once, seen %u times", seen);
}

void play_close(struct play *p)
{
    tw_controller_close(p->controller);
    play_kill(p);
    check_owners(p);
    tw_rpc_client_close(p->client);
    fake_world_close(&p->world);
}

void play_passed(struct play *p)
{
    play_kill(p);
    check_owners(p);
    fake_world_unlink(&p->world);
    _exit(0);
}

void play_start(struct play *p)
{
    struct tw_controller_config config;
    struct tw_error err = {0};
    tw_controller_config_defaults(&config);
    snprintf(config.listen, sizeof config.listen, "%s", p->world.controller_url);
    snprintf(config.store, sizeof config.store, "%s/store.db", p->world.dir);
    snprintf(config.http, sizeof config.http, "http://127.0.0.1:0");
    config.insecure = true;
    config.lease_ns = p->lease_ms * TW_MS;
    config.heartbeat_ns = 50 * TW_MS;
    CHECK(tw_controller_open(&config, &p->controller, &err) == TW_OK, "%s: %s", err.where,
          err.what);
}

void play_spawn(struct play *p, const char *fault)
{
    static const char program[] = TOWLINE_CONTROLLER;
    char armed[200], path[96], store[128], config[96], log[128];
    snprintf(armed, sizeof armed, "TOWLINE_FAULT=%s", fault);
    snprintf(path, sizeof path, "%s/store.db", p->world.dir);
    snprintf(config, sizeof config, "%s/controller.yaml", p->world.dir);
    snprintf(log, sizeof log, "%s/controller.log", p->world.dir);
    snprintf(store, sizeof store, "store: %s\n", path);
    FILE *f = fopen(config, "w");
    CHECK(f, "%s", config);
    fprintf(f, "listen: \"%s\"\ninsecure: true\n%slease: %llums\nheartbeat: 50ms\n",
            p->world.controller_url, store, (unsigned long long)p->lease_ms);
    fclose(f);
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "--config", config, NULL};
    char *envp[] = {armed, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int failed = posix_spawn(&p->pid, program, &actions, NULL, argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    CHECK(failed == 0, "%s: %s", program, strerror(failed));
    spawned = p->pid;
}

bool play_ended(struct play *p)
{
    if (p->pid > 0 && waitpid(p->pid, NULL, WNOHANG) == p->pid)
        p->pid = spawned = 0;
    return p->pid == 0;
}

void play_kill(struct play *p)
{
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    p->pid = spawned = 0;
}

enum tw_code play_call(struct play *p, const ProtobufCServiceDescriptor *service,
                       const char *method, const ProtobufCMessage *request,
                       ProtobufCMessage **answer, struct tw_error *err)
{
    struct tw_error ignored = {0};
    return tw_rpc_call(p->client, service, method, request, CALL_MS, TW_RPC_IDEMPOTENT, answer,
                       err ? err : &ignored);
}

static unsigned hosts_alive(struct play *p)
{
    Towline__V1__ListHostsRequest r = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    ProtobufCMessage *m;
    unsigned alive = 0;
    if (play_call(p, &towline__v1__host_service__descriptor, "List", &r.base, &m, NULL) != TW_OK)
        return 0;
    const Towline__V1__ListHostsResponse *list = (const void *)m;
    for (size_t i = 0; i < list->n_hosts; i++)
        alive += list->hosts[i]->state == TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE;
    protobuf_c_message_free_unpacked(m, NULL);
    return alive;
}

void play_await_hosts(struct play *p, unsigned count)
{
    for (unsigned ms = 0; ms < 8000 * PATIENCE; ms += 10) {
        if (hosts_alive(p) == count)
            return;
        usleep(10000);
    }
    CHECK(false, "%u hosts alive instead of %u", hosts_alive(p), count);
}

enum tw_code play_create(struct play *p, const char *vm, const char *host, struct tw_error *err)
{
    Towline__V1__VmSpec spec = TOWLINE__V1__VM_SPEC__INIT;
    Towline__V1__CreateVmRequest r = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    spec.name = (char *)(uintptr_t)vm;
    spec.memory_bytes = 16u << 20;
    spec.kernel = (char *)(uintptr_t) "/boot/kernel";
    r.spec = &spec;
    r.host = (char *)(uintptr_t)host;
    enum tw_code code = tw_rpc_call(p->client, &towline__v1__vm_service__descriptor, "Create",
                                    &r.base, CALL_MS, TW_RPC_ONCE, &m, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

enum tw_code play_migrate(struct play *p, const char *vm, const char *host, char id[64],
                          struct tw_error *err)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.vm = (char *)(uintptr_t)vm;
    r.destination = (char *)(uintptr_t)host;
    enum tw_code code = tw_rpc_call(p->client, &towline__v1__migration_service__descriptor, "Start",
                                    &r.base, CALL_MS, TW_RPC_ONCE, &m, err);
    if (code != TW_OK)
        return code;
    snprintf(id, 64, "%s", ((const Towline__V1__StartMigrationResponse *)m)->migration->id);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

enum tw_code play_cancel(struct play *p, const char *id, struct tw_error *err)
{
    Towline__V1__CancelMigrationRequest r = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    enum tw_code code =
        play_call(p, &towline__v1__migration_service__descriptor, "Cancel", &r.base, &m, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

enum tw_code play_recover(struct play *p, const char *id, bool to_source, bool fenced,
                          struct tw_error *err)
{
    Towline__V1__RecoverMigrationRequest r = TOWLINE__V1__RECOVER_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    r.to = to_source ? TOWLINE__V1__RECOVER_TO__RECOVER_TO_SOURCE
                     : TOWLINE__V1__RECOVER_TO__RECOVER_TO_DESTINATION;
    r.other_side_is_fenced = fenced;
    enum tw_code code =
        play_call(p, &towline__v1__migration_service__descriptor, "Recover", &r.base, &m, err);
    if (code == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

enum tw_code play_lost(struct play *p, const char *id, const char *host, bool confirmed,
                       Towline__V1__LostOutcome *outcome, struct tw_error *err)
{
    Towline__V1__DeclareLostRequest r = TOWLINE__V1__DECLARE_LOST_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    r.host = (char *)(uintptr_t)host;
    r.confirmed = confirmed;
    enum tw_code code =
        play_call(p, &towline__v1__migration_service__descriptor, "DeclareLost", &r.base, &m, err);
    if (code != TW_OK)
        return code;
    *outcome = ((const Towline__V1__DeclareLostResponse *)m)->outcome;
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

Towline__V1__Migration *play_migration(struct play *p, const char *id)
{
    Towline__V1__GetMigrationRequest r = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    if (play_call(p, &towline__v1__migration_service__descriptor, "Get", &r.base, &m, NULL))
        return NULL;
    Towline__V1__GetMigrationResponse *g = (void *)m;
    Towline__V1__Migration *migration = g->migration;
    g->migration = NULL;
    protobuf_c_message_free_unpacked(m, NULL);
    return migration;
}

Towline__V1__Vm *play_vm(struct play *p, const char *name)
{
    Towline__V1__GetVmRequest r = TOWLINE__V1__GET_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    r.name = (char *)(uintptr_t)name;
    if (play_call(p, &towline__v1__vm_service__descriptor, "Get", &r.base, &m, NULL))
        return NULL;
    Towline__V1__GetVmResponse *g = (void *)m;
    Towline__V1__Vm *vm = g->vm;
    g->vm = NULL;
    protobuf_c_message_free_unpacked(m, NULL);
    return vm;
}

Towline__V1__MigrationState play_state(struct play *p, const char *id)
{
    Towline__V1__Migration *m = play_migration(p, id);
    Towline__V1__MigrationState state = m ? m->state : PLAY_STATE(UNSPECIFIED);
    if (m)
        towline__v1__migration__free_unpacked(m, NULL);
    return state;
}

static void tell_state(struct play *p, const char *id)
{
    Towline__V1__Migration *m = play_migration(p, id);
    if (m)
        fprintf(stderr, "%s is in state %d: %s\n", id, (int)m->state,
                m->error ? m->error->what : "no error");
    if (m)
        towline__v1__migration__free_unpacked(m, NULL);
}

void play_await_state(struct play *p, const char *id, Towline__V1__MigrationState state,
                      unsigned within_ms)
{
    uint64_t end = tw_now(&tw_monotonic) + within_ms * PATIENCE * TW_MS;
    while (tw_now(&tw_monotonic) < end) {
        if (play_state(p, id) == state)
            return;
        usleep(5000);
    }
    tell_state(p, id);
    CHECK(false, "%s did not come to state %d", id, (int)state);
}

Towline__V1__MigrationState play_await_end(struct play *p, const char *id, unsigned within_ms)
{
    uint64_t end = tw_now(&tw_monotonic) + within_ms * PATIENCE * TW_MS;
    while (tw_now(&tw_monotonic) < end) {
        Towline__V1__MigrationState state = play_state(p, id);
        if (state >= PLAY_STATE(COMPLETED))
            return state;
        usleep(5000);
    }
    tell_state(p, id);
    CHECK(false, "%s did not end", id);
    return PLAY_STATE(UNSPECIFIED);
}

void play_await_vm(struct play *p, const char *name, const char *host, Towline__V1__VmState state,
                   unsigned within_ms)
{
    uint64_t end = tw_now(&tw_monotonic) + within_ms * PATIENCE * TW_MS;
    char last[256] = "no answer";
    while (tw_now(&tw_monotonic) < end) {
        Towline__V1__Vm *vm = play_vm(p, name);
        bool there = vm && strcmp(vm->host, host) == 0 && vm->state == state;
        if (vm) {
            snprintf(last, sizeof last, "host %s state %d (%s)", vm->host, (int)vm->state,
                     vm->reason);
            towline__v1__vm__free_unpacked(vm, NULL);
        }
        if (there)
            return;
        usleep(5000);
    }
    CHECK(false, "%s is not on %s in state %d but: %s", name, host, (int)state, last);
}

bool play_event_seen(struct play *p, const char *kind, const char *subject)
{
    Towline__V1__WatchEventsRequest r = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    ProtobufCMessage *m;
    bool seen = false;
    r.subject = (char *)(uintptr_t)subject;
    r.max_events = 1000;
    if (play_call(p, &towline__v1__event_service__descriptor, "Watch", &r.base, &m, NULL) != TW_OK)
        return false;
    const Towline__V1__WatchEventsResponse *w = (const void *)m;
    for (size_t i = 0; i < w->n_events; i++)
        seen = seen || strcmp(w->events[i]->kind, kind) == 0;
    protobuf_c_message_free_unpacked(m, NULL);
    return seen;
}

void play_await_only_copy(struct play *p, const char *vm, unsigned agent, unsigned within_ms)
{
    uint64_t end = tw_now(&tw_monotonic) + within_ms * PATIENCE * TW_MS;
    struct fake_vm copy;
    unsigned others = 0;
    bool runs = false;
    while (tw_now(&tw_monotonic) < end) {
        others = 0;
        for (unsigned i = 0; i < FAKE_AGENTS; i++)
            others += i != agent && fake_vm_get(&p->world, i, vm, &copy);
        runs = fake_vm_get(&p->world, agent, vm, &copy) && copy.runs && copy.copy == FAKE_OWNED;
        if (runs && others == 0)
            return;
        usleep(5000);
    }
    CHECK(false, "%s %s on agent %u, and %u others hold a copy", vm, runs ? "runs" : "does not run",
          agent, others);
}

/* ---- Running the tests --------------------------------------------------------------------- */

#define AT_ONCE    2u
#define TEST_MAX_S 110u

struct running {
    pid_t pid;
    const char *name;
    unsigned variant;
    uint64_t began_ns;
};

static int run_here(char **argv, const struct play_test *tests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(tests[i].name, argv[1]) != 0)
            continue;
        tests[i].run(argv[2] ? (unsigned)strtoul(argv[2], NULL, 10) : 0);
        return 0;
    }
    fprintf(stderr, "no test %s\n", argv[1]);
    return 2;
}

static void start_one(char *program, struct running *r)
{
    char number[16];
    snprintf(number, sizeof number, "%u", r->variant);
    char *argv[] = {program, (char *)(uintptr_t)r->name, number, NULL};
    posix_spawnattr_t attributes;
    r->began_ns = tw_now(&tw_monotonic);
    /* A group of its own: what a test that is killed leaves running is found by it. */
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    CHECK(posix_spawn(&r->pid, "/proc/self/exe", NULL, &attributes, argv, environ) == 0, "spawn");
    posix_spawnattr_destroy(&attributes);
}

/* Waits until one of the children has ended or has taken too long; true = it passed. */
static bool reap_one(struct running *slots, unsigned *freed)
{
    for (;; usleep(5000)) {
        for (unsigned i = 0; i < AT_ONCE; i++) {
            struct running *r = &slots[i];
            int status;
            if (!r->pid)
                continue;
            bool late = tw_now(&tw_monotonic) - r->began_ns > TEST_MAX_S * TW_SEC;
            if (late)
                kill(-r->pid, SIGKILL);
            if (waitpid(r->pid, &status, late ? 0 : WNOHANG) != r->pid)
                continue;
            bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            fprintf(stderr, "%s %s %u (%llu ms)%s", passed ? "ok  " : "FAIL", r->name, r->variant,
                    (unsigned long long)((tw_now(&tw_monotonic) - r->began_ns) / TW_MS),
                    late ? " took too long" : "");
            if (WIFSIGNALED(status))
                fprintf(stderr, " ended by signal %d", WTERMSIG(status));
            fputc('\n', stderr);
            r->pid = 0;
            *freed = i;
            return passed;
        }
    }
}

int play_main(int argc, char **argv, const struct play_test *tests, size_t count)
{
    struct running slots[AT_ONCE] = {{0}};
    unsigned failed = 0, busy = 0, slot;
    signal(SIGPIPE,
           SIG_IGN); /* as in every program of ours: peers go away while they are written to */
    if (argc > 1)
        return run_here(argv, tests, count);
    for (size_t i = 0; i < count; i++) {
        for (unsigned v = 0; v < tests[i].count; v++) {
            slot = busy;
            if (busy == AT_ONCE)
                failed += !reap_one(slots, &slot);
            else
                busy++;
            slots[slot] = (struct running){.name = tests[i].name, .variant = v};
            start_one(argv[0], &slots[slot]);
        }
    }
    for (; busy; busy--)
        failed += !reap_one(slots, &slot);
    return failed ? 1 : 0;
}
