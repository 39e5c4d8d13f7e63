/* A migration with a mirror, in real processes: the source's host is lost behind the switch, agent
 * and machine, and the VM goes on from what the third agent keeps. */
#include "tests/cluster/cluster.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY   (UINT64_C(16) << 20)
#define PAGES    512u /* that the guest works on: slowly, so that most of them are still missing */
#define SERVICE  (&towline__v1__migration_service__descriptor)
#define STATE(s) TOWLINE__V1__MIRROR_STATE__MIRROR_STATE_##s

static struct tw_cluster c;

static void open_cluster(void)
{
    tw_cluster_open(&c);
    c.third = true;
}

static void close_cluster(void)
{
    tw_cluster_close(&c);
}

TestSuite(mirror, .init = open_cluster, .fini = close_cluster, .timeout = 180);

static void start(void)
{
    tw_cluster_start(&c);
    tw_cluster_create_guest(&c, MEMORY >> 20, "mode=sparse pages=512 rate=400 fill=1");
}

static Towline__V1__MigrationLimits limits_of(const char *mirror)
{
    Towline__V1__MigrationLimits l = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    l.method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY;
    l.bandwidth_bytes_per_s = 256u << 10;
    l.mirror = (char *)(uintptr_t)mirror;
    return l;
}

static void migrate(const char *mirror, char id[64])
{
    struct tw_error err = {0};
    const Towline__V1__MigrationLimits limits = limits_of(mirror);
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &limits, id, &err), TW_OK, "%s",
                 err.what);
}

/* The VM runs at the destination, and much of its memory is not there. */
static void await_following(const char *id)
{
    for (unsigned ms = 0; ms < 60000; ms += 10) {
        Towline__V1__Migration *m = tw_cluster_migration(&c, id);
        const Towline__V1__MigrationProgress *p = m ? m->progress : NULL;
        bool there = p && strcmp(p->phase, "serving") == 0;
        bool ended = m && m->ended_unix_ms;
        cr_assert(!ended, "it has ended before: %s", m->error ? m->error->what : "completed");
        if (there) {
            cr_assert_gt(p->lines_left, 0);
            cr_assert_str_eq(m->limits->mirror, "node-c");
        }
        if (m)
            towline__v1__migration__free_unpacked(m, NULL);
        if (there)
            return;
        tw_sleep_ms(10);
    }
    cr_assert_fail("the VM did not move; logs in %s", c.dir);
}

static uint8_t *memory_of(enum tw_role agent)
{
    char path[160];
    uint8_t *bytes = calloc(1, MEMORY);
    snprintf(path, sizeof path, "%s/%s-run/guest/ram", c.dir, c.processes[agent].name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && bytes, "%s", path);
    cr_assert_eq(pread(fd, bytes, MEMORY, 0), (ssize_t)MEMORY);
    close(fd);
    return bytes;
}

/* Agent, machine and memory; *bytes = what that was. */
static void lose_source_host(uint8_t **bytes)
{
    char command[160];
    pid_t guest = tw_cluster_guest_pid(&c, TW_AGENT_A);
    *bytes = memory_of(TW_AGENT_A); /* it stands still there */
    tw_cluster_kill(&c, TW_AGENT_A);
    cr_assert_gt(guest, 0);
    cr_assert_eq(kill(guest, SIGKILL), 0);
    snprintf(command, sizeof command, "rm -rf -- '%s/node-a-run' '%s/node-a-state'", c.dir, c.dir);
    cr_assert_eq(system(command), 0);
}

#define ENDED(s) TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_##s

static Towline__V1__Migration *end_in(const char *id, Towline__V1__MigrationState state)
{
    Towline__V1__Migration *m = tw_cluster_await_end(&c, id, 90000);
    cr_assert(m, "the migration did not end; logs in %s", c.dir);
    cr_assert_eq(m->state, state, "%s", m->error ? m->error->what : "");
    return m;
}

static Towline__V1__Migration *end_of(const char *id)
{
    return end_in(id, ENDED(COMPLETED));
}

/* Its own check tells what it works on; all else has to be what it was. */
static void check_guest(const uint8_t *before)
{
    struct tw_sparse_control control;
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_B, 20000));
    cr_assert(tw_cluster_guest_control(&c, TW_AGENT_B, &control));
    cr_assert_eq(control.bad, 0, "pages were not what the guest had written");
    cr_assert_eq(c.two_running, 0);
    if (!before)
        return;
    uint8_t *now = memory_of(TW_AGENT_B);
    uint64_t from = TW_SPARSE_DATA + PAGES * TW_SPARSE_PAGE, differ = 0;
    for (uint64_t at = 0; at < MEMORY; at += TW_SPARSE_PAGE) {
        bool own = at >= 0x100000 && at < from; /* program, stack, control block, pages */
        differ += !own && memcmp(before + at, now + at, TW_SPARSE_PAGE) != 0;
    }
    cr_assert_eq(differ, 0);
    free(now);
}

static void check_mirror_empty(void)
{
    Towline__V1__GetHostRequest r = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    r.name = (char *)(uintptr_t) "node-c";
    for (unsigned ms = 0; ms < 20000; ms += 50) {
        ProtobufCMessage *m;
        if (tw_rpc_call(c.client, &towline__v1__host_service__descriptor, "Get", &r.base, 2000,
                        TW_RPC_IDEMPOTENT, &m, NULL) == TW_OK) {
            const Towline__V1__GetHostResponse *h = (const Towline__V1__GetHostResponse *)m;
            bool empty = h->host->description->memory_used_bytes == 0;
            protobuf_c_message_free_unpacked(m, NULL);
            if (empty)
                return;
        }
        tw_sleep_ms(50);
    }
    cr_assert_fail("the mirror keeps its memory");
}

static void reconnect_from_mirror(const char *id)
{
    Towline__V1__ReconnectMigrationRequest r = TOWLINE__V1__RECONNECT_MIGRATION_REQUEST__INIT;
    r.id = (char *)(uintptr_t)id;
    r.from_mirror = true;
    for (unsigned ms = 0; ms < 30000; ms += 100) { /* once the destination has noticed */
        ProtobufCMessage *m;
        if (tw_rpc_call(c.client, SERVICE, "Reconnect", &r.base, 3000, TW_RPC_IDEMPOTENT, &m,
                        NULL) == TW_OK) {
            protobuf_c_message_free_unpacked(m, NULL);
            return;
        }
        tw_sleep_ms(100);
    }
    cr_assert_fail("the order was refused");
}

Test(mirror, the_vm_goes_on_when_the_host_of_its_source_is_lost)
{
    char id[64];
    uint8_t *before;
    strcpy(c.settings[TW_AGENT_B], "mirror_after: 1s\n");
    start();
    migrate("auto", id);
    await_following(id);
    lose_source_host(&before);
    Towline__V1__Migration *m = end_of(id);
    cr_expect(m->progress->from_mirror);
    cr_expect_gt(m->progress->mirror_lines, 0);
    towline__v1__migration__free_unpacked(m, NULL);
    check_guest(before);
    check_mirror_empty();
    free(before);
}

Test(mirror, an_operator_need_not_wait_for_the_deadline)
{
    char id[64];
    uint8_t *before;
    strcpy(c.settings[TW_AGENT_B], "mirror_after: 1h\npostcopy_recover: 3h\n");
    start();
    migrate("node-c", id);
    await_following(id);
    lose_source_host(&before);
    reconnect_from_mirror(id);
    Towline__V1__Migration *m = end_of(id);
    cr_expect(m->progress->from_mirror);
    bool entry = false;
    for (size_t i = 0; i < m->n_audit; i++)
        entry |= strcmp(m->audit[i]->what, "reconnect") == 0;
    cr_expect(entry, "the order left no audit entry");
    towline__v1__migration__free_unpacked(m, NULL);
    check_guest(before);
    check_mirror_empty();
    free(before);
}

Test(mirror, that_is_lost_is_told_and_the_migration_goes_on)
{
    char id[64];
    start();
    migrate("auto", id);
    await_following(id);
    tw_cluster_kill(&c, TW_AGENT_C);
    Towline__V1__Migration *m = end_of(id);
    cr_expect_not(m->progress->from_mirror);
    towline__v1__migration__free_unpacked(m, NULL);
    check_guest(NULL);
    cr_assert(tw_cluster_await_clean(&c, TW_AGENT_A, 20000));
}

/* ---- It does not answer -----------------------------------------------------------------------
 */

static void migrate_fast(const char *mirror, char id[64])
{
    struct tw_error err = {0};
    Towline__V1__MigrationLimits limits = limits_of(mirror);
    limits.bandwidth_bytes_per_s = 0;
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &limits, id, &err), TW_OK, "%s",
                 err.what);
}

static void expect_stayed(const char *id, const char *why)
{
    Towline__V1__Migration *m = end_in(id, ENDED(FAILED));
    cr_expect(m->error && strstr(m->error->what, why), "%s", m->error ? m->error->what : "");
    towline__v1__migration__free_unpacked(m, NULL);
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_A, 20000));
    cr_assert(tw_cluster_await_clean(&c, TW_AGENT_B, 20000));
    cr_assert_eq(c.two_running, 0);
}

static void expect_moved_without(const char *id)
{
    Towline__V1__Migration *m = end_of(id);
    cr_expect_eq(m->progress->mirror_state, STATE(WITHOUT), "%d", (int)m->progress->mirror_state);
    cr_expect(m->progress->mirror_reason[0], "it is not said why");
    towline__v1__migration__free_unpacked(m, NULL);
    check_guest(NULL);
    cr_assert(tw_cluster_await_clean(&c, TW_AGENT_A, 20000));
}

/* Stopped, not ended: its connections stay, and nothing comes over them. */
static void stop_mirror(void)
{
    cr_assert_eq(kill(c.processes[TW_AGENT_C].pid, SIGSTOP), 0);
}

Test(silent_mirror, that_is_insisted_on_is_waited_for_some_time_only, .init = open_cluster,
     .fini = close_cluster, .timeout = 180)
{
    char id[64];
    start();
    stop_mirror();
    migrate_fast("node-c", id);
    expect_stayed(id, "");
}

Test(silent_mirror, that_is_not_insisted_on_is_done_without, .init = open_cluster,
     .fini = close_cluster, .timeout = 180)
{
    char id[64];
    start();
    stop_mirror();
    migrate_fast("auto", id);
    expect_moved_without(id);
}

#ifdef TOWLINE_FAULTS
/* Stopped in the middle of what it is to keep, while the VM stands still. */
Test(silent_mirror, in_the_middle_keeps_the_vm_where_it_is, .init = open_cluster,
     .fini = close_cluster, .timeout = 180)
{
    char id[64], file[96], reached[112];
    snprintf(file, sizeof file, "%s/filling", c.dir);
    snprintf(reached, sizeof reached, "%s.reached", file);
    snprintf(c.processes[TW_AGENT_C].fault, sizeof c.processes[TW_AGENT_C].fault,
             "mirror.filling:hold=%s", file);
    start();
    migrate_fast("node-c", id);
    cr_assert(tw_await_file(reached, 30000));
    stop_mirror();
    expect_stayed(id, "does not move without its mirror");
}

Test(silent_mirror, in_the_middle_is_gone_and_the_vm_moves_without, .init = open_cluster,
     .fini = close_cluster, .timeout = 180)
{
    char id[64];
    strcpy(c.processes[TW_AGENT_C].fault, "mirror.filling:kill");
    start();
    migrate_fast("auto", id);
    expect_moved_without(id);
}
#endif

static void check_refused(const char *mirror, enum tw_code expected)
{
    struct tw_error err = {0};
    char id[64];
    const Towline__V1__MigrationLimits limits = limits_of(mirror);
    cr_expect_eq(tw_cluster_migrate(&c, "guest", "node-b", &limits, id, &err), expected, "%s: %s",
                 mirror, err.what);
    cr_expect(err.where[0] && err.what[0]);
}

Test(mirror, has_to_be_a_third_host_with_room)
{
    strcpy(c.settings[TW_AGENT_C], "memory: 8MiB\n");
    start();
    check_refused("node-a", TW_INVALID_ARGUMENT);
    check_refused("node-b", TW_INVALID_ARGUMENT);
    check_refused("node-z", TW_NOT_FOUND);
    check_refused("node-c", TW_RESOURCE_EXHAUSTED);
    check_refused("auto", TW_RESOURCE_EXHAUSTED);
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_A, 20000));
}
