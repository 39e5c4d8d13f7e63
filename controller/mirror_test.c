/* A third host that keeps what follows a VM, against played agents: who it is, what is said of it,
 * and what becomes of the VM by its word. A test is a process of its own. */
#include "controller/scene.h"

#include <string.h>

#define OUTCOME(name) TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_##name
#define MIRROR(name)  TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_##name
#define SERVICE       (&towline__v1__migration_service__descriptor)

static void begin(struct play *p, unsigned hosts)
{
    scene_begin(p);
    for (unsigned i = C; i < hosts; i++)
        fake_start(&p->world, i);
    play_await_hosts(p, hosts);
}

static void migrate(struct play *p, const char *mirror, char id[64])
{
    Towline__V1__MigrationLimits l = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    struct tw_error err = {0};
    ProtobufCMessage *m;
    l.method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY;
    l.mirror = (char *)(uintptr_t)mirror;
    r.vm = (char *)(uintptr_t) "web";
    r.destination = (char *)(uintptr_t) "node-b";
    r.limits = &l;
    CHECK(play_call(p, SERVICE, "Start", &r.base, &m, &err) == TW_OK, "%s: %s", err.where,
          err.what);
    snprintf(id, 64, "%s", ((const Towline__V1__StartMigrationResponse *)m)->migration->id);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void await_mirror(struct play *p, const char *id, Towline__V1__MirrorState state)
{
    Towline__V1__MirrorState now = MIRROR(UNSPECIFIED);
    for (unsigned ms = 0; ms < 60000 && now != state; ms += 20) {
        Towline__V1__Migration *m = play_migration(p, id);
        if (m && m->progress)
            now = m->progress->mirror_state;
        if (m)
            towline__v1__migration__free_unpacked(m, NULL);
        usleep(20000);
    }
    CHECK(now == state, "mirror %d instead of %d", (int)now, (int)state);
}

static void power_off(struct play *p, unsigned agent)
{
    fake_kill(&p->world, agent);
    fake_vm_die(&p->world, agent, "web");
}

/* The VM runs at the destination, misses memory, and the host of its source is off. */
static void lose_source_behind_the_switch(struct play *p, char id[64])
{
    begin(p, 3);
    fake_hold(&p->world, FAKE_COMMITTED);
    migrate(p, "node-c", id);
    scene_await_partly(p, id);
    fake_misses(&p->world, B, id);
    await_mirror(p, id, MIRROR(HOLDING));
    scene_let_it_see();
    power_off(p, A);
    play_await_state(p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(p, 2);
}

static void declare(struct play *p, const char *id, const char *host, bool confirmed,
                    Towline__V1__LostOutcome expected)
{
    struct tw_error err = {0};
    Towline__V1__LostOutcome outcome;
    CHECK(play_lost(p, id, host, confirmed, &outcome, &err) == TW_OK, "%s: %s", err.what,
          err.given);
    CHECK(outcome == expected, "outcome %d instead of %d", (int)outcome, (int)expected);
}

/* Until what is said is what is expected: the controller asks now and then. */
static void await_outcome(struct play *p, const char *id, const char *host,
                          Towline__V1__LostOutcome expected)
{
    struct tw_error err = {0};
    Towline__V1__LostOutcome outcome = OUTCOME(UNSPECIFIED);
    for (unsigned ms = 0; ms < 60000; ms += 50) {
        if (play_lost(p, id, host, false, &outcome, &err) == TW_OK && outcome == expected)
            return;
        usleep(50000);
    }
    CHECK(false, "outcome %d instead of %d: %s", (int)outcome, (int)expected, err.what);
}

/* ---- The source is lost ---------------------------------------------------------------------- */

static void lost_source_and_a_mirror_that_holds_all(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    lose_source_behind_the_switch(&p, id);
    declare(&p, id, "node-a", false, OUTCOME(MIRROR_TAKES_OVER));
    CHECK(p.world.agents[B].from_mirror == 0, "decided without a word");
    declare(&p, id, "node-a", true, OUTCOME(MIRROR_TAKES_OVER));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
    CHECK(p.world.agents[B].from_mirror > 0, "no order to go on from it");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 1000);
    play_passed(&p);
}

/* Variant 1: it comes back instead of being declared lost. */
static void lost_source_and_a_mirror_that_does_not_answer(unsigned variant)
{
    struct play p;
    char id[64];
    struct tw_error err = {0};
    Towline__V1__LostOutcome outcome;
    lose_source_behind_the_switch(&p, id);
    CHECK(play_lost(&p, id, "node-c", true, &outcome, &err) == TW_FAILED_PRECONDITION,
          "the mirror answers");
    fake_kill(&p.world, C);
    play_await_hosts(&p, 1);
    await_outcome(&p, id, "node-c", OUTCOME(UNMIRRORED));
    await_outcome(&p, id, "node-a", OUTCOME(MIRROR_AWAITED));
    declare(&p, id, "node-a", true, OUTCOME(MIRROR_AWAITED));
    for (unsigned ms = 0; ms < 30000 && !p.world.agents[B].from_mirror; ms += 10)
        usleep(10000);
    CHECK(p.world.agents[B].from_mirror == 1, "the destination is told once, and tries");
    await_outcome(&p, id, "node-c", OUTCOME(VM_LOST));
    CHECK(play_state(&p, id) == PLAY_STATE(RESOLVING), "nobody decides against it");
    if (variant == 1) {
        fake_start(&p.world, C);
        await_mirror(&p, id, MIRROR(HOLDING));
        /* It tries by itself. */
        fake_decided(&p.world, B, id, TW_KNOWN_COMMITTED);
        CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
        play_passed(&p);
    }
    declare(&p, id, "node-c", true, OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(LOST), "end");
    play_passed(&p);
}

static void lost_source_and_a_mirror_with_nothing(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    lose_source_behind_the_switch(&p, id);
    p.world.agents[C].mirror_fills = true;
    await_outcome(&p, id, "node-a", OUTCOME(VM_LOST));
    declare(&p, id, "node-a", true, OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(LOST), "end");
    play_passed(&p);
}

/* Prepared, never told to run, and its memory is nowhere but at the mirror. Variant 1: which does
 * not hold all. */
static void prepared_destination_gets_it_by_the_mirrors_word(unsigned variant)
{
    struct play p;
    char id[64];
    struct tw_error err = {0};
    begin(&p, 3);
    p.world.agents[C].mirror_fills = variant == 1;
    fake_hold(&p.world, FAKE_GIVEN_UP);
    migrate(&p, "node-c", id);
    scene_await_hand_over(&p, B, id, TW_KNOWN_PREPARED);
    fake_misses(&p.world, B, id);
    await_mirror(&p, id, variant == 1 ? MIRROR(FILLING) : MIRROR(HOLDING));
    scene_let_it_see();
    power_off(&p, A);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 2);
    if (variant == 0) {
        declare(&p, id, "node-a", false, OUTCOME(DESTINATION_RESUMES));
        CHECK(play_recover(&p, id, false, true, &err) == TW_OK, "%s: %s", err.what, err.given);
        CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
        play_passed(&p);
    }
    CHECK(play_recover(&p, id, false, true, &err) == TW_FAILED_PRECONDITION &&
              strcmp(err.expected, "a mirror that holds what the destination misses") == 0,
          "%s", err.what);
    declare(&p, id, "node-a", true, OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(LOST), "end");
    play_passed(&p);
}

/* ---- Who it is ------------------------------------------------------------------------------- */

static void insisted_on_and_silent_is_refused_in_time(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    begin(&p, 3);
    p.world.agents[C].refuse_mirror = TW_DEADLINE_EXCEEDED;
    migrate(&p, "node-c", id);
    CHECK(play_await_end(&p, id, 20000) == PLAY_STATE(FAILED), "end");
    play_await_vm(&p, "web", "node-a", PLAY_VM(RUNNING), 1000);
    play_await_only_copy(&p, "web", A, 2000);
    play_passed(&p);
}

static void of_two_the_next_is_asked(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    begin(&p, 4);
    p.world.agents[C].capacity_bytes = UINT64_C(1) << 40; /* the first choice */
    scene_let_it_see();
    p.world.agents[C].refuse_mirror = TW_UNAVAILABLE;
    fake_hold(&p.world, FAKE_FINISHED);
    migrate(&p, "auto", id);
    await_mirror(&p, id, MIRROR(HOLDING));
    CHECK(strcmp(p.world.agents[D].mirrors, id) == 0, "node-d keeps nothing");
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
    play_passed(&p);
}

static void when_none_does_it_the_vm_moves_without(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    begin(&p, 3);
    p.world.agents[C].refuse_mirror = TW_UNAVAILABLE;
    migrate(&p, "auto", id);
    CHECK(play_await_end(&p, id, 20000) == PLAY_STATE(COMPLETED), "end");
    Towline__V1__Migration *m = play_migration(&p, id);
    CHECK(m && m->progress && m->progress->mirror_state == MIRROR(WITHOUT), "it is not told");
    CHECK(strstr(m->progress->mirror_reason, "node-c"), "why: %s", m->progress->mirror_reason);
    towline__v1__migration__free_unpacked(m, NULL);
    CHECK(play_event_seen(&p, "migration.mirror", id), "no event");
    play_passed(&p);
}

static const struct play_test tests[] = {
    {"lost_source_and_a_mirror_that_holds_all", lost_source_and_a_mirror_that_holds_all, 1},
    {"lost_source_and_a_mirror_that_does_not_answer", lost_source_and_a_mirror_that_does_not_answer,
     2},
    {"lost_source_and_a_mirror_with_nothing", lost_source_and_a_mirror_with_nothing, 1},
    {"prepared_destination_gets_it_by_the_mirrors_word",
     prepared_destination_gets_it_by_the_mirrors_word, 2},
    {"insisted_on_and_silent_is_refused_in_time", insisted_on_and_silent_is_refused_in_time, 1},
    {"of_two_the_next_is_asked", of_two_the_next_is_asked, 1},
    {"when_none_does_it_the_vm_moves_without", when_none_does_it_the_vm_moves_without, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
