/* A guest that is slowed because its pre-copy would not converge, through real agents: it is shown,
 * an operator ends it, and it ends with the migration and with the agent. What the guest's process
 * was told last, and how often it has waited, stand in its link. */
#include "hosts/link/link.h"
#include "tests/cluster/cluster.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define AWAIT_MS 40000u

static struct tw_cluster c;
static char id[64];

static void open_cluster(void)
{
    tw_cluster_open(&c);
}

static void close_cluster(void)
{
    tw_cluster_close(&c);
}

TestSuite(pacing, .init = open_cluster, .fini = close_cluster, .timeout = 200);

static struct tw_link_header link_of_guest(void)
{
    struct tw_link_header h;
    char path[160];
    snprintf(path, sizeof path, "%s/node-a-run/guest/link", c.dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &h, sizeof h, 0), (ssize_t)sizeof h);
    close(fd);
    return h;
}

static Towline__V1__Migration *look(void)
{
    Towline__V1__Migration *m = tw_cluster_migration(&c, id);
    cr_assert(m, "the controller does not answer");
    return m;
}

/* Until it is told so, while the VM is still at its source. */
static void await_paced(bool paced)
{
    for (unsigned ms = 0; ms < AWAIT_MS; ms += 50) {
        Towline__V1__Migration *m = look();
        bool is = m->progress && m->progress->paced_lines != 0 && m->progress->pace_delay_ns != 0;
        cr_assert_leq(m->state, TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COPYING, "ended: %s",
                      m->error ? m->error->what : "");
        towline__v1__migration__free_unpacked(m, NULL);
        if (is == paced)
            return;
        tw_sleep_ms(50);
    }
    cr_assert_fail("paced: never %d", paced);
}

/* Four MiB that are written again all the time, 4 MiB/s, and 1 ms: no rounds converge. */
static void start_paced(void)
{
    struct tw_error err = {0};
    Towline__V1__MigrationLimits l = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    l.method = TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY;
    l.bandwidth_bytes_per_s = 4u << 20;
    l.downtime_ms = 1;
    l.max_rounds = 63;
    l.slow_down_percent = 50;
    tw_cluster_start(&c);
    tw_cluster_create_guest(&c, 16, "mode=dense pages=1000");
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", &l, id, &err), TW_OK, "%s", err.what);
    await_paced(true);
    for (unsigned ms = 0; ms < AWAIT_MS && link_of_guest().vcpu[0].pace_waits == 0; ms += 20)
        tw_sleep_ms(20);
    struct tw_link_header h = link_of_guest();
    cr_assert_gt(h.vcpu[0].pace_waits, 0);
    cr_assert_eq(h.pace.share_permille, 500);
}

static void expect_unslowed(void)
{
    tw_sleep_ms(1000);
    uint64_t waits = link_of_guest().vcpu[0].pace_waits;
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_A, 5000));
    tw_sleep_ms(500);
    cr_assert_eq(link_of_guest().vcpu[0].pace_waits, waits);
}

static void call(const char *method, const ProtobufCMessage *request)
{
    ProtobufCMessage *m;
    struct tw_error err = {0};
    cr_assert_eq(tw_rpc_call(c.client, &towline__v1__migration_service__descriptor, method, request,
                             3000, TW_RPC_IDEMPOTENT, &m, &err),
                 TW_OK, "%s: %s", method, err.what);
    protobuf_c_message_free_unpacked(m, NULL);
}

Test(pacing, is_shown_and_ends_when_told_and_with_a_cancel)
{
    Towline__V1__AdjustMigrationRequest set = TOWLINE__V1__ADJUST_MIGRATION_REQUEST__INIT;
    Towline__V1__CancelMigrationRequest cancel = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    start_paced();
    Towline__V1__Migration *m = look();
    cr_assert(m->progress->pace_reason[0]);
    cr_assert_eq(m->progress->pace_budget_permille, 500);
    cr_assert_leq(m->progress->pace_share_permille, 600);
    towline__v1__migration__free_unpacked(m, NULL);
    set.id = cancel.id = id;
    set.set_slow_down = true;
    call("Adjust", &set.base);
    cr_assert_eq(link_of_guest().pace.delay_ns, 0);
    expect_unslowed();
    set.slow_down_percent = 60;
    call("Adjust", &set.base);
    await_paced(true);
    call("Cancel", &cancel.base);
    m = tw_cluster_await_end(&c, id, AWAIT_MS);
    cr_assert(m && m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_CANCELLED);
    cr_assert_eq(m->progress->paced_lines, 0);
    cr_assert_gt(m->progress->paced_lines_most, 0);
    towline__v1__migration__free_unpacked(m, NULL);
    cr_assert_eq(link_of_guest().pace.delay_ns, 0);
    expect_unslowed();
}

Test(pacing, ends_with_the_agent)
{
    start_paced();
    tw_cluster_kill(&c, TW_AGENT_A);
    cr_assert_neq(link_of_guest().pace.delay_ns, 0, "nobody has ended it");
    expect_unslowed();
    tw_cluster_spawn(&c, TW_AGENT_A);
    Towline__V1__Migration *m = tw_cluster_await_end(&c, id, AWAIT_MS);
    cr_assert(m, "the migration did not end");
    cr_assert_eq(m->state, TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_FAILED);
    towline__v1__migration__free_unpacked(m, NULL);
    cr_assert_eq(link_of_guest().pace.delay_ns, 0);
    expect_unslowed();
}
