/* What operators decide for hosts that never return, against played agents. A test is a process of
 * its own; one can be chosen by "NAME VARIANT". */
#include "controller/scene.h"

#include <string.h>

/* ---- Who gets the VM ------------------------------------------------------------------------ */

static void operator_gives_it_to_the_source(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    CHECK(play_recover(&p, id, true, true, &err) == TW_FAILED_PRECONDITION, "nothing to recover");
    scene_let_it_see();
    fake_kill(&p.world, B);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    CHECK(play_recover(&p, id, true, false, &err) == TW_INVALID_ARGUMENT, "not without the word");
    CHECK(play_recover(&p, id, true, true, &err) == TW_OK, "%s: %s", err.what, err.given);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(FAILED), "end");
    play_await_vm(&p, "web", "node-a", PLAY_VM(RUNNING), 1000);
    /* The fenced host comes back with its prepared copy: it must go. */
    fake_start(&p.world, B);
    play_await_only_copy(&p, "web", A, 4000);
    play_passed(&p);
}

static void operator_gives_it_to_the_destination(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_GIVEN_UP);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, B, id, TW_KNOWN_PREPARED);
    scene_let_it_see();
    fake_kill(&p.world, A);
    fake_vm_die(&p.world, A, "web");
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    CHECK(play_recover(&p, id, true, true, &err) == TW_FAILED_PRECONDITION,
          "the destination answers: it is not fenced");
    CHECK(play_recover(&p, id, false, true, &err) == TW_OK, "%s: %s", err.what, err.given);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 1000);
    /* The fenced host comes back and believes it owns the VM: its old copy goes. */
    fake_start(&p.world, A);
    play_await_only_copy(&p, "web", B, 4000);
    play_passed(&p);
}

static void operator_cannot_resume_half_a_vm(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_ROUND);
    scene_migrate(&p, id);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    scene_let_it_see();
    fake_kill(&p.world, A);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    CHECK(play_recover(&p, id, false, true, &err) == TW_FAILED_PRECONDITION &&
              strcmp(err.expected, "a prepared destination") == 0,
          "%s", err.what);
    fake_start(&p.world, A);
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(FAILED), "end");
    play_await_only_copy(&p, "web", A, 2000);
    play_passed(&p);
}

/* ---- A host is declared lost ----------------------------------------------------------------- */

#define OUTCOME(name) TOWLINE__V1__LOST_OUTCOME__LOST_OUTCOME_##name

/* The host is off, and its processes with it. */
static void power_off(struct play *p, unsigned agent)
{
    fake_kill(&p->world, agent);
    fake_vm_die(&p->world, agent, "web");
}

static void await_gone(struct play *p, unsigned agent)
{
    struct fake_vm copy;
    for (unsigned ms = 0; ms < 40000 && fake_vm_get(&p->world, agent, "web", &copy); ms += 10)
        usleep(10000);
    CHECK(!fake_vm_get(&p->world, agent, "web", &copy), "a copy is left");
}

/* Told first what becomes of the VM, then it becomes that. */
static void declare(struct play *p, const char *id, const char *host,
                    Towline__V1__LostOutcome expected)
{
    struct tw_error err = {0};
    Towline__V1__LostOutcome outcome;
    CHECK(play_lost(p, id, host, false, &outcome, &err) == TW_OK, "%s: %s", err.what, err.given);
    CHECK(outcome == expected, "outcome %d", (int)outcome);
    CHECK(play_state(p, id) == PLAY_STATE(RESOLVING), "decided without a word");
    CHECK(play_lost(p, id, host, true, &outcome, &err) == TW_OK, "%s: %s", err.what, err.given);
    CHECK(outcome == expected, "outcome %d", (int)outcome);
}

static void expect_audited(struct play *p, const char *id, const char *host)
{
    Towline__V1__Migration *m = play_migration(p, id);
    bool found = false;
    for (size_t i = 0; m && i < m->n_audit; i++)
        found |= strcmp(m->audit[i]->what, "host lost") == 0 && strcmp(m->audit[i]->to, host) == 0;
    CHECK(found, "no audit entry");
    towline__v1__migration__free_unpacked(m, NULL);
}

static void lost_destination_that_ran_the_vm(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_partly(&p, id);
    scene_let_it_see();
    power_off(&p, B);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 1);
    CHECK(play_recover(&p, id, true, true, &err) == TW_FAILED_PRECONDITION, "it ran there");
    declare(&p, id, "node-b", OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(LOST), "end");
    play_await_vm(&p, "web", "node-a", PLAY_VM(FAILED), 1000);
    expect_audited(&p, id, "node-b");
    await_gone(&p, A);
    /* It comes back and believes that it owns the VM. */
    fake_start(&p.world, B);
    await_gone(&p, B);
    play_await_vm(&p, "web", "node-a", PLAY_VM(FAILED), 1000);
    CHECK(scene_vm_call(&p, "Delete", "web", &err) == TW_OK, "%s", err.what);
    play_passed(&p);
}

/* Variant 1: it was told to commit, and nobody heard whether it did. */
static void lost_destination_that_was_prepared(unsigned variant)
{
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    scene_let_it_see();
    power_off(&p, B);
    if (variant == 1)
        fake_decided(&p.world, B, id, TW_KNOWN_COMMITTED);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 1);
    declare(&p, id, "node-b", OUTCOME(SOURCE_RESUMES));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(FAILED), "end");
    play_await_vm(&p, "web", "node-a", PLAY_VM(RUNNING), 1000);
    fake_start(&p.world, B);
    play_await_only_copy(&p, "web", A, 4000);
    play_passed(&p);
}

static void lost_source_with_the_only_copy(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    scene_begin(&p);
    fake_hold(&p.world, FAKE_ROUND);
    scene_migrate(&p, id);
    play_await_state(&p, id, PLAY_STATE(COPYING), 3000);
    scene_let_it_see();
    power_off(&p, A);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 1);
    declare(&p, id, "node-a", OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(LOST), "end");
    play_await_vm(&p, "web", "node-b", PLAY_VM(FAILED), 1000);
    await_gone(&p, B);
    fake_start(&p.world, A);
    await_gone(&p, A);
    CHECK(scene_vm_call(&p, "Delete", "web", &err) == TW_OK, "%s", err.what);
    play_passed(&p);
}

static void lost_source_with_a_prepared_destination(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_GIVEN_UP);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, B, id, TW_KNOWN_PREPARED);
    scene_let_it_see();
    power_off(&p, A);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 1);
    declare(&p, id, "node-a", OUTCOME(DESTINATION_RESUMES));
    CHECK(play_await_end(&p, id, 8000) == PLAY_STATE(COMPLETED), "end");
    play_await_vm(&p, "web", "node-b", PLAY_VM(RUNNING), 1000);
    fake_start(&p.world, A);
    play_await_only_copy(&p, "web", B, 4000);
    play_passed(&p);
}

static void both_hosts_lost(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    scene_begin(&p);
    fake_hold(&p.world, FAKE_GIVEN_UP);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, B, id, TW_KNOWN_PREPARED);
    scene_let_it_see();
    power_off(&p, A);
    power_off(&p, B);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    play_await_hosts(&p, 0);
    declare(&p, id, "node-a", OUTCOME(UNSPECIFIED));
    declare(&p, id, "node-b", OUTCOME(VM_LOST));
    CHECK(play_await_end(&p, id, 15000) == PLAY_STATE(LOST), "end");
    fake_start(&p.world, A);
    fake_start(&p.world, B);
    await_gone(&p, A);
    await_gone(&p, B);
    play_passed(&p);
}

static void not_lost(unsigned variant)
{
    (void)variant;
    struct play p;
    char id[64];
    struct tw_error err = {0};
    Towline__V1__LostOutcome outcome;
    scene_begin(&p);
    fake_hold(&p.world, FAKE_COMMITTED);
    scene_migrate(&p, id);
    scene_await_hand_over(&p, A, id, TW_KNOWN_GIVEN_UP);
    CHECK(play_lost(&p, id, "node-b", true, &outcome, &err) == TW_FAILED_PRECONDITION,
          "there is nothing to decide");
    scene_let_it_see();
    fake_kill(&p.world, B);
    play_await_state(&p, id, PLAY_STATE(RESOLVING), 5000);
    CHECK(play_lost(&p, id, "node-a", true, &outcome, &err) == TW_FAILED_PRECONDITION,
          "the source answers");
    CHECK(play_lost(&p, id, "node-c", true, &outcome, &err) == TW_INVALID_ARGUMENT,
          "it has no part in it");
    fake_start(&p.world, B);
    fake_hold(&p.world, FAKE_STEPS);
    CHECK(play_await_end(&p, id, 15000) == PLAY_STATE(COMPLETED), "end");
    CHECK(play_lost(&p, id, "node-b", true, &outcome, &err) == TW_FAILED_PRECONDITION, "ended");
    CHECK(play_lost(&p, "m-99", "node-b", true, &outcome, &err) == TW_NOT_FOUND, "no such one");
    play_passed(&p);
}

static const struct play_test tests[] = {
    {"operator_gives_it_to_the_source", operator_gives_it_to_the_source, 1},
    {"operator_gives_it_to_the_destination", operator_gives_it_to_the_destination, 1},
    {"operator_cannot_resume_half_a_vm", operator_cannot_resume_half_a_vm, 1},
    {"lost_destination_that_ran_the_vm", lost_destination_that_ran_the_vm, 1},
    {"lost_destination_that_was_prepared", lost_destination_that_was_prepared, 2},
    {"lost_source_with_the_only_copy", lost_source_with_the_only_copy, 1},
    {"lost_source_with_a_prepared_destination", lost_source_with_a_prepared_destination, 1},
    {"both_hosts_lost", both_hosts_lost, 1},
    {"not_lost", not_lost, 1},
};

int main(int argc, char **argv)
{
    return play_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
