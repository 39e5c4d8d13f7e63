/* The whole controller against played agents, with a main of its own, so that the thread sanitizer
 * can watch. A test is a process of its own; one can be chosen by "NAME VARIANT". */
#include "controller/scene.h"

#include "base/clock.h"

#include <string.h>
#include <unistd.h>

/* ---- The way it should go ------------------------------------------------------------------ */

static void moves_there_and_back(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    play_await_vm(&p, "web", "node-a", PLAY_VM(RUNNING), 1000);
    scene_migrate(&p, id);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "there");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 1000);
    play_await_only_copy(&p, "web", B, 1000);
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->epoch == 2 && !m->error && m->ended_unix_ms >= m->created_unix_ms, "record");
    CHECK(m->progress->downtime_us == 12345 && m->progress->bytes_sent == 8000, "progress");
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(play_migrate(&p, "web", "node-a", id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "back");
    play_await_only_copy(&p, "web", A, 1000);
    Towline__V1__Vm *vm = play_vm(&p, "web");
    CHECK(vm->epoch == 3 && !vm->migration[0], "epoch %llu", (unsigned long long)vm->epoch);
    towline__v1__vm__free_unpacked(vm, NULL);
    CHECK(play_event_seen(&p, "migration.state", id) && play_event_seen(&p, "vm.migrated", "web") &&
              play_event_seen(&p, "host.joined", "node-a"),
          "events");
    play_passed(&p);
}

static void cancelled_while_it_copies(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    scene_migrate(&p, id);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    CHECK(play_migrate(&p, "web", "node-b", id, &err) == TW_INVALID_ARGUMENT ||
              err.code == TW_FAILED_PRECONDITION,
          "busy");
    CHECK(play_cancel(&p, id, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, id, 3000) == PLAY_STATE(CANCELLED), "end");
    CHECK(play_cancel(&p, id, &err) == TW_OK, "cancel is idempotent: %s", err.what);
    play_await_only_copy(&p, "web", A, 1000);
    play_await_vm(&p, "web", "node-a", PLAY_VM(RUNNING), 1000);
    play_passed(&p);
}

static void cancel_is_refused_after_the_give_up(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    CHECK(play_cancel(&p, id, &err) == TW_FAILED_PRECONDITION, "%s", err.what);
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    CHECK(play_cancel(&p, id, &err) == TW_FAILED_PRECONDITION &&
              strcmp(err.given, "completed") == 0,
          "%s", err.given);
    play_await_only_copy(&p, "web", B, 1000);
    play_passed(&p);
}

static void refused_by_the_destination(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    p.world.agents[B].refuse_prepare = TW_RESOURCE_EXHAUSTED;
    scene_migrate(&p, id);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(FAILED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->error && m->error->code == TW_RESOURCE_EXHAUSTED && m->error->expected[0], "error");
    towline__v1__migration__free_unpacked(m, NULL);
    play_await_only_copy(&p, "web", A, 1000);
    play_passed(&p);
}

/* Alive, but with more to do than it can: nobody gives up while it reports itself. */
static void busy_destination(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    p.world.agents[B].refuse_prepare = TW_DEADLINE_EXCEEDED;
    scene_migrate(&p, id);
    for (unsigned ms = 0; ms < 30000 && play_state(&p, id) != PLAY_STATE(PREPARING); ms += 5)
        usleep(5000);
    usleep(1000000); /* some answers later */
    CHECK(play_state(&p, id) == PLAY_STATE(PREPARING), "it is still asked");
    p.world.agents[B].refuse_prepare = TW_OK;
    CHECK(play_await_end(&p, id, 10000) == PLAY_STATE(COMPLETED), "end");
    play_await_only_copy(&p, "web", B, 1000);
    play_passed(&p);
}

static void out_of_time(unsigned variant)
{
    (void)variant;
    struct play p;
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    ProtobufCMessage *answer;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    r.vm = (char *)(uintptr_t) "web";
    r.destination = (char *)(uintptr_t) "node-b";
    r.limits = &limits;
    limits.timeout_ms = 100;
    CHECK(play_call(&p, &towline__v1__migration_service__descriptor, "Start", &r.base, &answer,
                    NULL) == TW_OK,
          "start");
    snprintf(id, sizeof id, "%s",
             ((const Towline__V1__StartMigrationResponse *)answer)->migration->id);
    protobuf_c_message_free_unpacked(answer, NULL);
    CHECK(play_await_end(&p, id, 6000) == PLAY_STATE(FAILED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->error && m->error->code == TW_DEADLINE_EXCEEDED, "error");
    towline__v1__migration__free_unpacked(m, NULL);
    play_await_only_copy(&p, "web", A, 1000);
    play_passed(&p);
}

/* ---- Hosts and links that go away ---------------------------------------------------------- */

/* The link is cut when the migration stands before each step: who owns the VM then is known. */
static void link_cut_at_every_step(unsigned variant)
{
    unsigned step = FAKE_FULL_COPY + variant;
    struct play p;
    char id[64];
    bool moved = step > FAKE_GIVEN_UP;
    scene_begin(&p);
    fake_hold(&p.world, (enum fake_step)step);
    scene_migrate(&p, id);
    scene_await_step(&p, id, step);
    fake_cut(&p.world);
    CHECK(play_await_end(&p, id, 5000) == (moved ? PLAY_STATE(COMPLETED) : PLAY_STATE(FAILED)),
          "cut before step %u", step);
    play_await_only_copy(&p, "web", moved ? B : A, 2000);
    play_await_vm(&p, "web", moved ? "node-b" : "node-a", PLAY_VM(RUNNING), 1000);
    play_passed(&p);
}

/* An agent is killed at each step and comes back. */
static void agent_killed_at_every_step(unsigned agent, unsigned variant)
{
    unsigned step = FAKE_FULL_COPY + variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, (enum fake_step)step);
    scene_migrate(&p, id);
    scene_await_step(&p, id, step);
    fake_kill(&p.world, agent);
    usleep(100000);
    fake_hold(&p.world, FAKE_STEPS);
    fake_start(&p.world, agent);
    Towline__V1__MigrationState end = play_await_end(&p, id, 10000);
    bool moved = end == PLAY_STATE(COMPLETED);
    CHECK(moved || end == PLAY_STATE(FAILED), "end %d at step %u", (int)end, step);
    CHECK(moved == (step > FAKE_GIVEN_UP), "killed before step %u: end %d", step, (int)end);
    play_await_only_copy(&p, "web", moved ? B : A, 3000);
    play_await_vm(&p, "web", moved ? "node-b" : "node-a", PLAY_VM(RUNNING), 2000);
    play_passed(&p);
}

static void source_killed_at_every_step(unsigned variant)
{
    agent_killed_at_every_step(A, variant);
}
static void destination_killed_at_every_step(unsigned variant)
{
    agent_killed_at_every_step(B, variant);
}

/* The source has given up and dies for good: the destination is told to go on. */
static void source_lost_after_the_give_up(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    scene_let_it_see();
    fake_kill(&p.world, A);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 1000);
    /* It comes back with its old copy, and is told. */
    fake_start(&p.world, A);
    play_await_only_copy(&p, "web", B, 4000);
    play_passed(&p);
}

/* The destination owns the VM while the source is too busy to answer: its last figures are waited
 * for, but not for ever. */
static void busy_source_has_the_last_word(unsigned variant)
{
    struct play p;
    char id[64];
    const bool answers = variant == 0;
    scene_begin(&p);
    fake_hold(&p.world, FAKE_FINISHED);
    scene_migrate(&p, id);
    scene_await_step(&p, id, FAKE_FINISHED);
    scene_let_it_see();
    atomic_store(&p.world.agents[A].slow_ms, 1500); /* longer than an answer is waited for */
    usleep(2000000);
    CHECK(play_state(&p, id) == PLAY_STATE(SWITCHING), "it has ended without the source's word");
    if (answers) {
        fake_hold(&p.world, FAKE_STEPS);
        atomic_store(&p.world.agents[A].slow_ms, 0);
    }
    CHECK(play_await_end(&p, id, 15000) == PLAY_STATE(COMPLETED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    const char *phase = m->progress ? m->progress->phase : "none";
    CHECK(strcmp(phase, answers ? "completed" : "given_up") == 0, "the last word is of %s", phase);
    towline__v1__migration__free_unpacked(m, NULL);
    atomic_store(&p.world.agents[A].slow_ms, 0);
    fake_hold(&p.world, FAKE_STEPS);
    play_await_only_copy(&p, "web", B, 4000);
    play_passed(&p);
}

/* The source may have given up without anybody hearing: nothing is decided until it is back. */
static void source_silent_while_the_destination_waits(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_GIVEN_UP);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, B, id, TW_KNOWN_PREPARED);
    scene_let_it_see();
    fake_kill(&p.world, A);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    usleep(700000);
    CHECK(play_state(&p, id) == PLAY_STATE(RESOLVING), "it must wait");
    CHECK(fake_hand_over(&p.world, B, id) == TW_KNOWN_PREPARED, "and tell nobody anything");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m->error && strstr(m->error->what, "does not answer"), "%s",
          m->error ? m->error->what : "no reason");
    towline__v1__migration__free_unpacked(m, NULL);
    fake_start(&p.world, A);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(FAILED), "end");
    play_await_only_copy(&p, "web", A, 2000);
    play_passed(&p);
}

static void destination_lost_after_the_give_up(bool comes_back_whole)
{
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    scene_let_it_see();
    fake_kill(&p.world, B);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_vm(&p, "web", "node-a", PLAY_VM(PAUSED), 3000);
    if (!comes_back_whole)
        fake_wipe(&p.world, B);
    fake_start(&p.world, B);
    Towline__V1__MigrationState end = play_await_end(&p, id, 10000);
    CHECK(end == (comes_back_whole ? PLAY_STATE(COMPLETED) : PLAY_STATE(FAILED)), "end %d",
          (int)end);
    play_await_only_copy(&p, "web", comes_back_whole ? B : A, 3000);
    play_await_vm(&p, "web", comes_back_whole ? "node-b" : "node-a", PLAY_VM(RUNNING), 2000);
    Towline__V1__Vm *vm = play_vm(&p, "web");
    CHECK(vm->epoch == (comes_back_whole ? 2 : 3), "epoch %llu", (unsigned long long)vm->epoch);
    towline__v1__vm__free_unpacked(vm, NULL);
    play_passed(&p);
}

static void destination_back_with_its_copy(unsigned variant)
{
    (void)variant;
    destination_lost_after_the_give_up(true);
}
static void destination_back_with_nothing(unsigned variant)
{
    (void)variant;
    destination_lost_after_the_give_up(false);
}

static void vm_dies_while_it_is_moved(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    scene_migrate(&p, id);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    fake_vm_die(&p.world, A, "web");
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(LOST), "end");
    play_await_vm(&p, "web", "node-a", PLAY_VM(FAILED), 1000);
    struct fake_vm copy;
    CHECK(!fake_vm_get(&p.world, B, "web", &copy), "a copy is left");
    play_passed(&p);
}

/* ---- VMs ----------------------------------------------------------------------------------- */

static void vms_come_and_go(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct fake_vm copy;
    struct tw_error err = {0};
    scene_begin(&p);
    CHECK(play_create(&p, "web", "node-a", &err) == TW_ALREADY_EXISTS, "twice");
    CHECK(scene_vm_call(&p, "Stop", "web", &err) == TW_OK, "%s", err.what);
    play_await_vm(&p, "web", "node-a", PLAY_VM(STOPPED), 1000);
    CHECK(!fake_vm_get(&p.world, A, "web", &copy), "its process ended");
    CHECK(scene_vm_call(&p, "Stop", "web", &err) == TW_OK, "stop is idempotent");
    CHECK(play_migrate(&p, "web", "node-b", id, &err) == TW_FAILED_PRECONDITION, "stopped");
    CHECK(scene_vm_call(&p, "Delete", "web", &err) == TW_OK, "%s", err.what);
    CHECK(scene_vm_call(&p, "Delete", "web", &err) == TW_NOT_FOUND, "gone");
    CHECK(play_create(&p, "web", "", &err) == TW_OK, "again: %s", err.what);
    Towline__V1__Vm *vm = play_vm(&p, "web");
    CHECK(vm->epoch == 2, "epochs of a name never come twice");
    towline__v1__vm__free_unpacked(vm, NULL);
    p.world.agents[A].refuse_start_vm = TW_NOT_FOUND;
    CHECK(play_create(&p, "bad", "node-a", &err) == TW_NOT_FOUND && err.expected[0], "%s",
          err.what);
    CHECK(scene_vm_call(&p, "Stop", "bad", &err) == TW_NOT_FOUND, "a refused VM leaves no record");
    p.world.agents[A].refuse_start_vm = TW_OK;
    CHECK(play_create(&p, "bad", "node-a", &err) == TW_OK, "%s", err.what);
    play_passed(&p);
}

static void deleted_while_its_host_is_away(unsigned variant)
{
    (void)variant;
    struct play p;
    struct fake_vm copy;
    struct tw_error err = {0};
    scene_begin(&p);
    fake_kill(&p.world, A);
    play_await_hosts(&p, 1);
    play_await_vm(&p, "web", "node-a", PLAY_VM(UNKNOWN), 1000);
    CHECK(scene_vm_call(&p, "Delete", "web", &err) == TW_UNAVAILABLE, "%s", err.what);
    fake_start(&p.world, A);
    for (unsigned ms = 0; ms < 4000 && fake_vm_get(&p.world, A, "web", &copy); ms += 10)
        usleep(10000);
    CHECK(!fake_vm_get(&p.world, A, "web", &copy), "removed when the host is back");
    play_passed(&p);
}

static void vm_that_ends_by_itself(unsigned variant)
{
    (void)variant;
    struct play p;
    scene_begin(&p);
    fake_vm_die(&p.world, A, "web");
    play_await_vm(&p, "web", "node-a", PLAY_VM(FAILED), 2000);
    Towline__V1__Vm *vm = play_vm(&p, "web");
    CHECK(strstr(vm->reason, "killed"), "%s", vm->reason);
    towline__v1__vm__free_unpacked(vm, NULL);
    CHECK(play_event_seen(&p, "vm.failed", "web"), "event");
    play_passed(&p);
}

static void two_owners_are_told_loudly(unsigned variant)
{
    (void)variant;
    struct play p;
    scene_begin(&p);
    pthread_mutex_lock(&p.world.lock);
    struct fake_agent *b = &p.world.agents[B];
    b->vms[b->vm_count++] = p.world.agents[A].vms[0];
    b->vms[0].runs = false; /* it only claims */
    pthread_mutex_unlock(&p.world.lock);
    bool told = false;
    for (unsigned ms = 0; ms < 6000 && !told; ms += 50) {
        told = play_event_seen(&p, "vm.conflict", "web");
        usleep(50000);
    }
    CHECK(told, "no event");
    struct fake_vm copy;
    CHECK(fake_vm_get(&p.world, B, "web", &copy), "and nothing was removed");
    play_passed(&p);
}

/* ---- Many at once, slow ones among them ---------------------------------------------------- */

static void slow_agent_holds_up_nobody(unsigned variant)
{
    (void)variant;
    struct play p;
    char slow[64], quick[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_start(&p.world, C);
    fake_start(&p.world, D);
    play_await_hosts(&p, 4);
    CHECK(play_create(&p, "other", "node-c", &err) == TW_OK, "%s", err.what);
    atomic_store(&p.world.agents[B].slow_ms, 3000);
    CHECK(play_migrate(&p, "web", "node-b", slow, &err) == TW_OK, "%s", err.what);
    usleep(100000);
    uint64_t before = tw_now(&tw_monotonic);
    CHECK(play_migrate(&p, "other", "node-d", quick, &err) == TW_OK, "%s", err.what);
    CHECK(play_await_end(&p, quick, 3000) == PLAY_STATE(COMPLETED), "quick");
    CHECK(tw_now(&tw_monotonic) - before < 2 * TW_SEC, "held up");
    atomic_store(&p.world.agents[B].slow_ms, 0);
    play_await_end(&p, slow, 10000);
    play_passed(&p);
}

static void many_migrations_wait_their_turn(unsigned variant)
{
    (void)variant;
    enum { N = 40 };
    struct play p;
    char ids[N][64], name[16];
    struct tw_error err = {0};
    unsigned pending = 0;
    scene_begin(&p);
    fake_hold(&p.world, FAKE_STOPPING);
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof name, "vm-%u", i);
        CHECK(play_create(&p, name, "node-a", &err) == TW_OK, "%s", err.what);
        CHECK(play_migrate(&p, name, "node-b", ids[i], &err) == TW_OK, "%s: %s", err.where,
              err.what);
    }
    usleep(1000000);
    for (unsigned i = 0; i < N; i++)
        pending += play_state(&p, ids[i]) == PLAY_STATE(PENDING);
    CHECK(pending == N - 32, "%u wait", pending);
    fake_hold(&p.world, FAKE_STEPS);
    for (unsigned i = 0; i < N; i++)
        CHECK(play_await_end(&p, ids[i], 20000) == PLAY_STATE(COMPLETED), "%s", ids[i]);
    play_passed(&p);
}

/* ---- Events -------------------------------------------------------------------------------- */

static Towline__V1__WatchEventsResponse *watch(struct play *p, uint64_t after, const char *subject,
                                               uint32_t wait_ms, uint32_t max)
{
    Towline__V1__WatchEventsRequest r = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    ProtobufCMessage *m = NULL;
    struct tw_error err = {0};
    r.after_revision = after;
    r.subject = (char *)(uintptr_t)subject;
    r.wait_ms = wait_ms;
    r.max_events = max;
    CHECK(play_call(p, &towline__v1__event_service__descriptor, "Watch", &r.base, &m, &err) ==
              TW_OK,
          "%s", err.what);
    return (void *)m;
}

static void *create_later(void *arg)
{
    usleep(200000);
    play_create(arg, "later", "node-a", NULL);
    return NULL;
}

static void events_are_waited_for(unsigned variant)
{
    (void)variant;
    struct play p;
    pthread_t thread;
    scene_begin(&p);
    Towline__V1__WatchEventsResponse *w = watch(&p, 0, "", 0, 0);
    CHECK(w->n_events > 0 && w->events[0]->revision == 1 && w->oldest_revision == 1, "first");
    uint64_t next = w->next_revision;
    CHECK(next == w->events[w->n_events - 1]->revision, "next");
    towline__v1__watch_events_response__free_unpacked(w, NULL);
    w = watch(&p, 0, "", 0, 1);
    CHECK(w->n_events == 1 && w->next_revision == 1, "cut short");
    towline__v1__watch_events_response__free_unpacked(w, NULL);
    uint64_t before = tw_now(&tw_monotonic);
    w = watch(&p, next, "nobody", 300, 0);
    CHECK(w->n_events == 0 && tw_now(&tw_monotonic) - before > 250 * TW_MS, "waits");
    towline__v1__watch_events_response__free_unpacked(w, NULL);
    CHECK(pthread_create(&thread, NULL, create_later, &p) == 0, "thread");
    before = tw_now(&tw_monotonic);
    w = watch(&p, next, "later", 3000, 0);
    CHECK(w->n_events > 0 && strcmp(w->events[0]->kind, "vm.starting") == 0, "told");
    CHECK(tw_now(&tw_monotonic) - before < TW_SEC, "at once");
    towline__v1__watch_events_response__free_unpacked(w, NULL);
    pthread_join(thread, NULL);
    play_passed(&p);
}

static void *wait_long(void *arg)
{
    towline__v1__watch_events_response__free_unpacked(watch(arg, UINT32_MAX, "", 2000, 0), NULL);
    return NULL;
}

/* However many wait, calls that do work are served. */
static void watchers_do_not_use_up_the_workers(unsigned variant)
{
    (void)variant;
    struct play p;
    pthread_t threads[20];
    scene_begin(&p);
    for (unsigned i = 0; i < 20; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_long, &p) == 0, "thread");
    usleep(100000);
    uint64_t before = tw_now(&tw_monotonic);
    Towline__V1__Vm *vm = play_vm(&p, "web");
    CHECK(vm && tw_now(&tw_monotonic) - before < TW_SEC, "held up");
    towline__v1__vm__free_unpacked(vm, NULL);
    for (unsigned i = 0; i < 20; i++)
        pthread_join(threads[i], NULL);
    play_passed(&p);
}

/* ---- Everything is taken down in order ----------------------------------------------------- */

static void opens_and_closes(unsigned variant)
{
    struct play p;
    char id[64];
    (void)variant;
    scene_begin(&p);
    scene_migrate(&p, id);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    play_close(&p);
}

#define STEPS (FAKE_STEPS - FAKE_FULL_COPY)
static const struct play_test tests[] = {
    {"opens_and_closes", opens_and_closes, 1},
    {"moves_there_and_back", moves_there_and_back, 1},
    {"cancelled_while_it_copies", cancelled_while_it_copies, 1},
    {"cancel_is_refused_after_the_give_up", cancel_is_refused_after_the_give_up, 1},
    {"refused_by_the_destination", refused_by_the_destination, 1},
    {"busy_destination", busy_destination, 1},
    {"out_of_time", out_of_time, 1},
    {"link_cut_at_every_step", link_cut_at_every_step, STEPS},
    {"source_killed_at_every_step", source_killed_at_every_step, STEPS},
    {"destination_killed_at_every_step", destination_killed_at_every_step, STEPS},
    {"source_lost_after_the_give_up", source_lost_after_the_give_up, 1},
    {"busy_source_has_the_last_word", busy_source_has_the_last_word, 2},
    {"source_silent_while_the_destination_waits", source_silent_while_the_destination_waits, 1},
    {"destination_back_with_its_copy", destination_back_with_its_copy, 1},
    {"destination_back_with_nothing", destination_back_with_nothing, 1},
    {"vm_dies_while_it_is_moved", vm_dies_while_it_is_moved, 1},
    {"vms_come_and_go", vms_come_and_go, 1},
    {"deleted_while_its_host_is_away", deleted_while_its_host_is_away, 1},
    {"vm_that_ends_by_itself", vm_that_ends_by_itself, 1},
    {"two_owners_are_told_loudly", two_owners_are_told_loudly, 1},
    {"slow_agent_holds_up_nobody", slow_agent_holds_up_nobody, 1},
    {"many_migrations_wait_their_turn", many_migrations_wait_their_turn, 1},
    {"events_are_waited_for", events_are_waited_for, 1},
    {"watchers_do_not_use_up_the_workers", watchers_do_not_use_up_the_workers, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
