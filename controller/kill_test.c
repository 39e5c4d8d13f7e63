/* The controller is killed, at any time and at each of its states, and started again; its store is
 * lost. A test is a process of its own; one can be chosen by "NAME VARIANT". */
#include "controller/scene.h"

#include <string.h>

/* ---- The controller goes away -------------------------------------------------------------- */

static void controller_killed_at_every_step(unsigned variant)
{
    unsigned step = FAKE_FULL_COPY + variant;
    struct play p;
    char id[64];
    scene_begin_apart(&p);
    fake_hold(&p.world, (enum fake_step)step);
    scene_migrate(&p, id);
    if (step == FAKE_STEPS)
        play_await_state(&p, id, PLAY_STATE(COMPLETED), 5000);
    else
        scene_await_step(&p, id, step);
    play_kill(&p);
    fake_hold(&p.world, FAKE_STEPS);
    usleep(50000);
    play_spawn(&p, "");
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "step %u", step);
    play_await_only_copy(&p, "web", B, 2000);
    play_passed(&p);
}

/* ... and while it is away the link is cut: it comes back to a migration that nobody leads. */
static void link_cut_while_the_controller_is_away(unsigned variant)
{
    unsigned step = FAKE_FULL_COPY + variant;
    struct play p;
    char id[64];
    bool moved = step > FAKE_GIVEN_UP;
    scene_begin_apart(&p);
    fake_hold(&p.world, (enum fake_step)step);
    scene_migrate(&p, id);
    scene_await_step(&p, id, step);
    play_kill(&p);
    fake_cut(&p.world);
    play_spawn(&p, "");
    CHECK(play_await_end(&p, id, 5000) == (moved ? PLAY_STATE(COMPLETED) : PLAY_STATE(FAILED)),
          "step %u", step);
    play_await_only_copy(&p, "web", moved ? B : A, 2000);
    play_passed(&p);
}

/* The store is lost: VMs are taken over from the hosts that own them, ids are not given out twice.
 */
static void store_lost(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64], second[64], path[128];
    struct tw_error err = {0};
    scene_begin_apart(&p);
    scene_migrate(&p, id);
    CHECK(play_await_end(&p, id, 5000) == PLAY_STATE(COMPLETED), "end");
    play_kill(&p);
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/store.db%s", p.world.dir, ends[i]);
        unlink(path);
    }
    play_spawn(&p, "");
    play_await_hosts(&p, 2);
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 3000);
    CHECK(play_event_seen(&p, "vm.adopted", "web"), "event");
    CHECK(play_migrate(&p, "web", "node-a", second, &err) == TW_FAILED_PRECONDITION,
          "its specification is not known");
    CHECK(play_create(&p, "new", "node-a", &err) == TW_OK, "%s", err.what);
    CHECK(play_migrate(&p, "new", "node-b", second, &err) == TW_OK && strcmp(id, second) == 0,
          "the same id again: %s", second);
    CHECK(play_await_end(&p, second, 5000) == PLAY_STATE(FAILED), "refused: the id is taken");
    Towline__V1__Migration *m = play_migration(&p, second);
    CHECK(m->error && strstr(m->error->what, "another store"), "%s",
          m->error ? m->error->what : "no reason");
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(play_migrate(&p, "new", "node-b", second, &err) == TW_OK, "%s", err.what);
    CHECK(strcmp(second, "m-2") != 0, "ids of the lost store are jumped over");
    CHECK(play_await_end(&p, second, 5000) == PLAY_STATE(COMPLETED), "then it works");
    play_passed(&p);
}

/* ---- The controller kills itself at each of its states ------------------------------------- */

enum scenario { MOVE, CUT_LINK, CANCEL, REFUSE, DIE, CREATE, DELETE };
struct crash {
    const char *point;
    enum scenario scenario;
    Towline__V1__MigrationState end; /* of the migration */
};
static const struct crash crashes[] = {
    {"migration.preparing", MOVE, PLAY_STATE(COMPLETED)},
    {"migration.copying", MOVE, PLAY_STATE(FAILED)},
    {"migration.switching", MOVE, PLAY_STATE(COMPLETED)},
    {"migration.completed", MOVE, PLAY_STATE(COMPLETED)},
    {"migration.resolving", CUT_LINK, PLAY_STATE(COMPLETED)},
    {"migration.decided", CUT_LINK, PLAY_STATE(COMPLETED)},
    {"migration.told", CUT_LINK, PLAY_STATE(COMPLETED)},
    {"migration.cancelled", CANCEL, PLAY_STATE(CANCELLED)},
    {"migration.failed", REFUSE, PLAY_STATE(FAILED)},
    {"migration.lost", DIE, PLAY_STATE(LOST)},
    {"vm.recorded", CREATE, PLAY_STATE(UNSPECIFIED)},
    {"vm.started", CREATE, PLAY_STATE(UNSPECIFIED)},
    {"vm.removed", DELETE, PLAY_STATE(UNSPECIFIED)},
};
#ifdef TOWLINE_FAULTS
#define CRASHES (sizeof crashes / sizeof *crashes)
#else
#define CRASHES 0
#endif

static void provoke(struct play *p, enum scenario scenario, char id[64])
{
    struct tw_error err = {0};
    if (scenario == CREATE) {
        play_create(p, "new", "node-b", &err);
        return;
    }
    if (scenario == DELETE) {
        scene_vm_call(p, "Delete", "web", &err);
        return;
    }
    if (scenario == REFUSE)
        p->world.agents[B].refuse_prepare = TW_RESOURCE_EXHAUSTED;
    fake_hold(&p->world, scenario == CUT_LINK ? FAKE_COMMITTED
                         : scenario == MOVE   ? FAKE_GIVEN_UP
                                              : FAKE_STOPPING);
    scene_migrate(p, id);
    if (scenario == CUT_LINK) {
        scene_await_hand_over(p, A, id, TW_KNOWN_GIVEN_UP);
        fake_cut(&p->world);
    } else if (scenario == CANCEL) {
        scene_await_step(p, id, FAKE_STOPPING);
        play_cancel(p, id, &err);
    } else if (scenario == DIE) {
        scene_await_step(p, id, FAKE_STOPPING);
        fake_vm_die(&p->world, A, "web");
        fake_hold(&p->world, FAKE_STEPS);
    } else if (scenario == MOVE) {
        usleep(300000);
        fake_hold(&p->world, FAKE_STEPS);
    }
}

static void check_outcome(struct play *p, const struct crash *k, const char *id)
{
    struct fake_vm copy;
    if (k->scenario == CREATE) {
        play_await_vm(p, "new", "node-b", PLAY_VM(RUNNING), 5000);
        play_await_only_copy(p, "new", B, 1000);
        return;
    }
    if (k->scenario == DELETE) {
        for (unsigned ms = 0; ms < 5000 && fake_vm_get(&p->world, A, "web", &copy); ms += 10)
            usleep(10000);
        CHECK(!fake_vm_get(&p->world, A, "web", &copy), "it must go");
        return;
    }
    CHECK(play_await_end(p, id, 8000) == k->end, "%s: end %d", k->point, (int)play_state(p, id));
    if (k->end == PLAY_STATE(LOST)) {
        play_await_vm(p, "web", "node-a", PLAY_VM(FAILED), 2000);
        return;
    }
    play_await_only_copy(p, "web", k->end == PLAY_STATE(COMPLETED) ? B : A, 3000);
    play_await_vm(p, "web", k->end == PLAY_STATE(COMPLETED) ? "node-b" : "node-a", PLAY_VM(RUNNING),
                  2000);
}

static void controller_kills_itself(unsigned variant)
{
    const struct crash *k = &crashes[variant];
    char armed[64], id[64] = "m-1";
    struct play p;
    bool at_create = k->scenario == CREATE;
    snprintf(armed, sizeof armed, "%s:kill", k->point);
    play_open(&p);
    play_spawn(&p, "");
    if (!at_create) {
        scene_populate(&p);
    } else {
        fake_start(&p.world, A);
        fake_start(&p.world, B);
    }
    play_kill(&p);
    play_spawn(&p, armed);
    play_await_hosts(&p, 2);
    provoke(&p, k->scenario, id);
    for (unsigned ms = 0; ms < 5000 && !play_ended(&p); ms += 5)
        usleep(5000);
    CHECK(play_ended(&p), "%s was not reached", k->point);
    fake_hold(&p.world, FAKE_STEPS);
    play_spawn(&p, "");
    check_outcome(&p, k, id);
    play_passed(&p);
}

#define STEPS (FAKE_STEPS - FAKE_FULL_COPY)
static const struct play_test tests[] = {
    {"controller_killed_at_every_step", controller_killed_at_every_step, STEPS + 1},
    {"link_cut_while_the_controller_is_away", link_cut_while_the_controller_is_away, STEPS},
    {"controller_kills_itself", controller_kills_itself, CRASHES},
    {"store_lost", store_lost, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
