/* At every state of a migration: kill -9 of every process, and the path between the agents broken
 * or silent for a while. Never two running copies; the VM runs on unless its own QEMU was killed;
 * every migration ends; nothing is left behind. */
#include "tests/cluster/cluster.h"

#include "services/migration/migration.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REACH_MS 15000u
#define END_MS   40000u

enum victim {
    SOURCE_AGENT,
    DESTINATION_AGENT,
    CONTROLLER,
    SOURCE_QEMU,
    DESTINATION_QEMU,
    PATH_BROKEN, /* connections end, and new ones get nowhere until it is mended */
    PATH_SILENT, /* connections stand, but nothing comes through until it is mended */
    VICTIMS
};
static const char *const victim_names[] = {"source agent",    "destination agent", "controller",
                                           "source QEMU",     "destination QEMU",  "broken path",
                                           "path gone silent"};

#define SILENT_MS 1000u /* shorter than the fabric takes for a loss */
#define BROKEN_MS 300u

/* How a state is come by. */
enum way {
    COMMIT,      /* a migration that succeeds */
    FOLLOW,      /* the same in post-copy: most of the memory follows the VM */
    MIRRORED,    /* ... kept by a third agent, too */
    CANCEL,      /* one that the operator cancels while it copies */
    REFUSE,      /* one that the destination refuses when it is to prepare (its disk is full) */
    LOSE_SOURCE, /* the source's QEMU dies while it copies */
    LOSE_DESTINATION,    /* the destination's QEMU dies between commit and resume */
    RESTART_DESTINATION, /* post-copy; the destination's agent dies while memory follows */
    LOSE_PATH,           /* post-copy; the wire is cut while memory follows, and mended later */
    STAY_APART,          /* the same for so long that the destination gives up to connect */
};

struct crash {
    char point[48]; /* "source.final_pass" */
    enum way way;
    enum victim victim;
};

#include "tests/cluster/crash_points.h"

static bool follows(enum way way)
{
    return way == FOLLOW || way == MIRRORED || way >= RESTART_DESTINATION;
}

static bool is_cut(enum way way)
{
    return way == LOSE_PATH || way == STAY_APART;
}

static bool is_path(enum victim victim)
{
    return victim == PATH_BROKEN || victim == PATH_SILENT;
}

static bool at_source(const struct crash *k)
{
    return strncmp(k->point, "source.", 7) == 0;
}

/* The process at whose state we stop kills itself there; others are killed while it holds. */
static bool kills_itself(const struct crash *k)
{
    return k->victim == (at_source(k) ? SOURCE_AGENT : DESTINATION_AGENT);
}

/* One more fault for a process: `what` follows the point's name. */
static void add_fault(struct tw_process *p, const char *point, const char *what)
{
    char old[sizeof p->fault];
    memcpy(old, p->fault, sizeof old);
    snprintf(p->fault, sizeof p->fault, "%s%s%s:%s", old, old[0] ? "," : "", point, what);
}

static void arm(struct tw_cluster *c, const struct crash *k)
{
    char hold[96], early[96];
    struct tw_process *a = &c->processes[TW_AGENT_A], *b = &c->processes[TW_AGENT_B];
    snprintf(hold, sizeof hold, "hold=%s/hold", c->dir);
    snprintf(early, sizeof early, "hold=%s/early", c->dir);
    if (k->way == RESTART_DESTINATION) /* the point itself is for its next start */
        add_fault(b, "destination.fetching", "kill");
    else
        add_fault(at_source(k) ? a : b, k->point, kills_itself(k) ? "kill" : hold);
    if (k->way == REFUSE)
        add_fault(b, "journal.prepared", "fail");
    if (k->way == LOSE_DESTINATION)
        add_fault(b, "destination.resuming", early);
    if (k->way == MIRRORED) /* the mirror does not say that it has all before we strike */
        add_fault(&c->processes[TW_AGENT_C], "mirror.whole", early);
    if (is_cut(k->way)) /* each side has to know that the VM runs */
        add_fault(at_source(k) ? a : b, at_source(k) ? "source.serving" : "destination.fetching",
                  early);
}

static void cancel(struct tw_cluster *c, const char *id)
{
    Towline__V1__CancelMigrationRequest r = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    if (tw_rpc_call(c->client, &towline__v1__migration_service__descriptor, "Cancel", &r.base, 3000,
                    TW_RPC_IDEMPOTENT, &m, NULL) == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
}

static void kill_guest(struct tw_cluster *c, enum tw_role agent)
{
    pid_t pid = tw_cluster_guest_pid(c, agent);
    if (pid > 0)
        kill(pid, SIGKILL);
}

static void await_copying(struct tw_cluster *c, const char *id)
{
    bool copying = false;
    for (unsigned ms = 0; !copying && ms < REACH_MS; ms += 20) {
        Towline__V1__Migration *m = tw_cluster_migration(c, id);
        copying = m && m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING;
        if (m)
            towline__v1__migration__free_unpacked(m, NULL);
        tw_sleep_ms(20);
    }
    cr_assert(copying, "the migration did not begin to copy");
}

/* Its agent has died with the memory on its way; what starts now is to get to the point. */
static void start_again(struct tw_cluster *c, const struct crash *k)
{
    struct tw_process *b = &c->processes[TW_AGENT_B];
    char hold[96];
    bool ended = false;
    for (unsigned ms = 0; !ended && ms < REACH_MS; ms += 2) {
        ended = tw_cluster_process_ended(c, TW_AGENT_B);
        tw_sleep_ms(2);
    }
    cr_assert(ended, "destination.fetching was not reached");
    snprintf(hold, sizeof hold, "hold=%s/hold", c->dir);
    b->fault[0] = 0;
    add_fault(b, k->point, kills_itself(k) ? "kill" : hold);
    tw_cluster_spawn(c, TW_AGENT_B);
}

/* What has to happen on the way to the state, beside the migration itself. */
static void go_the_way(struct tw_cluster *c, const struct crash *k, const char *id)
{
    char path[128];
    switch (k->way) {
    case CANCEL:
        await_copying(c, id);
        cancel(c, id);
        break;
    case LOSE_SOURCE:
        await_copying(c, id);
        kill_guest(c, TW_AGENT_A);
        break;
    case LOSE_DESTINATION:
    case LOSE_PATH:
    case STAY_APART:
        snprintf(path, sizeof path, "%s/early.reached", c->dir);
        cr_assert(tw_await_file(path, REACH_MS), "the destination did not get to the VM");
        if (k->way == LOSE_DESTINATION)
            kill_guest(c, TW_AGENT_B);
        else
            tw_cluster_cut(c);
        snprintf(path, sizeof path, "%s/early.release", c->dir);
        tw_touch(path);
        break;
    case RESTART_DESTINATION:
        start_again(c, k);
        break;
    default:
        break;
    }
}

static void await_point(struct tw_cluster *c, const struct crash *k)
{
    char path[128];
    enum tw_role role = at_source(k) ? TW_AGENT_A : TW_AGENT_B;
    snprintf(path, sizeof path, "%s/hold.reached", c->dir);
    for (unsigned ms = 0; ms < REACH_MS; ms += 2) {
        if (kills_itself(k) ? tw_cluster_process_ended(c, role) : tw_await_file(path, 1))
            return;
        tw_sleep_ms(2);
    }
    cr_assert_fail("%s was not reached", k->point);
}

static void strike(struct tw_cluster *c, const struct crash *k)
{
    char path[128];
    switch (k->victim) {
    case PATH_BROKEN:
    case PATH_SILENT:
        if (!is_cut(k->way))
            tw_cluster_cut(c);
        if (k->victim == PATH_BROKEN)
            tw_cluster_break(c);
        break;
    case CONTROLLER:
        tw_cluster_kill(c, TW_CONTROLLER);
        break;
    case SOURCE_AGENT:
    case DESTINATION_AGENT:
        if (!kills_itself(k))
            tw_cluster_kill(c, k->victim == SOURCE_AGENT ? TW_AGENT_A : TW_AGENT_B);
        break;
    default:
        kill_guest(c, k->victim == SOURCE_QEMU ? TW_AGENT_A : TW_AGENT_B);
        break;
    }
    snprintf(path, sizeof path, "%s/hold.release", c->dir);
    tw_touch(path);
    snprintf(path, sizeof path, "%s/early.release", c->dir);
    tw_touch(path);
    if (is_path(k->victim))
        tw_sleep_ms(k->victim == PATH_BROKEN ? BROKEN_MS : SILENT_MS);
    if (is_path(k->victim) || is_cut(k->way)) /* before: an agent that starts needs its address */
        tw_cluster_mend(c);
}

static void restart(struct tw_cluster *c)
{
    for (unsigned role = 0; role < TW_ROLES; role++) {
        c->processes[role].fault[0] = 0;
        if (tw_cluster_process_ended(c, (enum tw_role)role))
            tw_cluster_spawn(c, (enum tw_role)role);
    }
    tw_cluster_await_agents(c);
}

/* The VM's own process was killed: it is gone, and is said to be gone. */
static bool own_qemu_killed(const struct crash *k, bool moved)
{
    return k->victim == (moved ? DESTINATION_QEMU : SOURCE_QEMU) ||
           k->way == (moved ? LOSE_DESTINATION : LOSE_SOURCE);
}

static void check_one_copy(struct tw_cluster *c, const struct crash *k,
                           const Towline__V1__Migration *m)
{
    bool moved = m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
    enum tw_role owner = moved ? TW_AGENT_B : TW_AGENT_A;
    enum tw_role other = moved ? TW_AGENT_A : TW_AGENT_B;
    struct tw_sparse_control control = {0};
    cr_assert(tw_cluster_await_clean(c, other, 5000), "%s at %s: %s kept something of the VM",
              victim_names[k->victim], k->point, c->processes[other].name);
    if (own_qemu_killed(k, moved)) {
        cr_assert_eq(tw_cluster_guest_pid(c, owner), 0);
        return;
    }
    cr_assert(tw_cluster_guest_runs(c, owner, 5000), "the VM does not run on %s (migration %d: %s)",
              c->processes[owner].name, m->state, m->error ? m->error->what : "");
    cr_assert(tw_cluster_guest_control(c, owner, &control));
    cr_assert_eq(control.bad, 0, "the guest found %llu bad pages", (unsigned long long)control.bad);
}

static bool in_round(const struct crash *k)
{
    return strcmp(k->point, "source.round") == 0;
}

/* Rounds are made when what is dirty does not fit the downtime: next to none is allowed, and a slow
 * copy gives the guest time to write. */
static void want_rounds(Towline__V1__MigrationLimits *limits)
{
    limits->bandwidth_bytes_per_s = 4u << 20;
    limits->downtime_ms = 1;
    limits->max_rounds = 3;
    limits->on_no_convergence = TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP;
}

/* Asked for whether or not the destination has given up to connect: both are right. */
static void resume(struct tw_cluster *c, const char *id)
{
    Towline__V1__ReconnectMigrationRequest r = TOWLINE__V1__RECONNECT_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    if (tw_rpc_call(c->client, &towline__v1__migration_service__descriptor, "Reconnect", &r.base,
                    3000, TW_RPC_IDEMPOTENT, &m, NULL) == TW_OK)
        protobuf_c_message_free_unpacked(m, NULL);
}

static Towline__V1__Migration *await_end(struct tw_cluster *c, const struct crash *k,
                                         const char *id)
{
    Towline__V1__Migration *m = NULL;
    if (k->way != STAY_APART)
        return tw_cluster_await_end(c, id, END_MS);
    for (unsigned ms = 0; !m && ms < END_MS; ms += 500) {
        resume(c, id);
        m = tw_cluster_await_end(c, id, 500);
    }
    return m;
}

static struct tw_cluster cluster;
static bool opened;

/* Also after a check that failed: no process is left behind. */
static void close_cluster(void)
{
    if (opened)
        tw_cluster_close(&cluster);
    opened = false;
}

static void run(const struct crash *k)
{
    struct tw_cluster *c = &cluster;
    struct tw_error err = {0};
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    char id[64];
    if (is_cut(k->way) || is_path(k->victim))
        tw_cluster_open_apart(c);
    else
        tw_cluster_open(c);
    opened = true;
    c->third = k->way == MIRRORED;
    arm(c, k);
    if (k->way == STAY_APART)
        strcpy(c->settings[TW_AGENT_B], "postcopy_recover: 1s\n");
    strcpy(c->settings[TW_AGENT_A], "switchover_hook: /bin/true\n");
    tw_cluster_start(c);
    tw_cluster_create_guest(
        c, 16, in_round(k) ? "mode=dense pages=1024" : "mode=sparse pages=1024 rate=50000 fill=1");
    if (k->way == CANCEL || k->way == LOSE_SOURCE)
        limits.bandwidth_bytes_per_s = 1u << 20;
    if (in_round(k))
        want_rounds(&limits);
    if (follows(k->way)) { /* slow enough that lines are still to follow when we strike */
        limits.method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY;
        limits.bandwidth_bytes_per_s = 4u << 20;
    }
    if (k->way == MIRRORED)
        limits.mirror = (char *)(uintptr_t) "node-c";
    cr_assert_eq(tw_cluster_migrate(c, "guest", "node-b", &limits, id, &err), TW_OK, "%s: %s",
                 err.where, err.what);
    go_the_way(c, k, id);
    await_point(c, k);
    strike(c, k);
    restart(c);
    Towline__V1__Migration *m = await_end(c, k, id);
    cr_assert(m, "%s at %s: the migration did not end; logs in %s", victim_names[k->victim],
              k->point, c->dir);
    check_one_copy(c, k, m);
    cr_assert_eq(c->two_running, 0, "%s at %s: two copies ran at once (%u samples)",
                 victim_names[k->victim], k->point, c->two_running);
    towline__v1__migration__free_unpacked(m, NULL);
}

ParameterizedTestParameters(crash, strikes)
{
    static struct crash cases[sizeof crash_points / sizeof *crash_points * VICTIMS];
    size_t n = 0;
    const char *only = getenv("TOWLINE_CRASH_POINT"); /* by hand: one point */
    for (size_t p = 0; p < sizeof crash_points / sizeof *crash_points; p++) {
        if (only && strcmp(only, crash_points[p].point) != 0)
            continue;
        for (unsigned v = 0; v < VICTIMS; v++) {
            cases[n] = crash_points[p];
            cases[n++].victim = (enum victim)v;
        }
    }
    return cr_make_param_array(struct crash, cases, n);
}

ParameterizedTest(struct crash *k, crash, strikes, .timeout = 150, .fini = close_cluster)
{
    cr_log_info("%s at %s", victim_names[k->victim], k->point);
    run(k);
}

static bool listed(const struct tw_machine_table *table, const char *state)
{
    char point[96];
    snprintf(point, sizeof point, "%s.%s", table->name, state);
    for (size_t p = 0; p < sizeof crash_points / sizeof *crash_points; p++)
        if (strcmp(crash_points[p].point, point) == 0)
            return true;
    return false;
}

/* A state that is added to a machine must be added to the list (state 0 is entered silently). */
Test(crash, every_state_is_a_crash_point)
{
    const struct tw_machine_table *tables[] = {&tw_source_table, &tw_destination_table};
    for (unsigned t = 0; t < 2; t++)
        for (unsigned s = 1; s < tables[t]->count; s++)
            cr_expect(listed(tables[t], tables[t]->states[s].name), "%s.%s is not listed",
                      tables[t]->name, tables[t]->states[s].name);
}
