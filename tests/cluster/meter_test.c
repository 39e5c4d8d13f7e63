/* What a VM writes, as its agent's meter sees it: with the small guest, whose rate of writing and
 * pages are known. */
#include "client/towline.h"
#include "tests/cluster/cluster.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define PAGES 512u

static struct tw_cluster c;
static char socket_path[128];

static void open_cluster(void)
{
    tw_cluster_open(&c);
    snprintf(socket_path, sizeof socket_path, "%s/node-a.sock", c.dir);
    snprintf(c.settings[TW_AGENT_A], sizeof c.settings[TW_AGENT_A], "tracking_socket: %s\n",
             socket_path);
}

static void close_cluster(void)
{
    tw_cluster_close(&c);
}

TestSuite(vm_meter, .init = open_cluster, .fini = close_cluster, .timeout = 240);

static void start(void)
{
    tw_cluster_start(&c);
    tw_cluster_create_guest(&c, 16, "mode=sparse pages=512 rate=20000");
}

/* Until at least so many epochs were counted. */
static struct towline_guest await_epochs(uint64_t epochs)
{
    struct towline_guest g[2];
    size_t count;
    for (unsigned i = 0; i < 1200; i++) {
        cr_assert_eq(towline_guests(socket_path, g, 2, &count), TOWLINE_OK, "%s",
                     towline_last_error());
        if (count == 1 && g[0].total.epochs >= epochs)
            return g[0];
        tw_sleep_ms(50);
    }
    cr_assert_fail("not measured");
    return g[0];
}

/* The guest writes a line here and there: far fewer bytes than pages make of them. */
static void check(const struct towline_guest *g)
{
    cr_assert_str_eq(g->name, "guest");
    cr_assert_eq(g->pid, (uint64_t)tw_cluster_guest_pid(&c, TW_AGENT_A));
    cr_assert(g->last.lines >= 100 && g->last.pages >= 50, "%zu lines, %zu pages",
              (size_t)g->last.lines, (size_t)g->last.pages);
    cr_assert_lt(g->last.pages, 2 * PAGES, "its own pages, and few others");
    cr_assert_lt(g->last.lines, 64 * g->last.pages / 4, "lines, not pages");
    cr_assert(g->last.regions >= 1 && g->last.regions <= 8 && g->hot_count == g->last.regions);
    cr_assert_geq(g->last.duration_ns, UINT64_C(900000000));
}

Test(vm_meter, a_vm_is_measured_while_somebody_looks)
{
    start();
    struct towline_guest g = await_epochs(2);
    check(&g);
    /* Nobody looks: after the ten seconds it is not measured any more, and begins anew. */
    tw_sleep_ms(13000);
    g = await_epochs(1);
    cr_assert_lt(g.total.epochs, 8, "it was measured all the while");
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_A, 5000));
}

Test(vm_meter, a_migration_takes_the_vm_away_from_under_it)
{
    char id[64];
    struct tw_error err = {0};
    struct towline_guest g[2];
    size_t count;
    start();
    await_epochs(1);
    cr_assert_eq(tw_cluster_migrate(&c, "guest", "node-b", NULL, id, &err), TW_OK, "%s", err.what);
    Towline__V1__Migration *m = tw_cluster_await_end(&c, id, 60000);
    cr_assert(m && m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED);
    towline__v1__migration__free_unpacked(m, NULL);
    for (unsigned i = 0;; i++) {
        cr_assert_eq(towline_guests(socket_path, g, 2, &count), TOWLINE_OK);
        if (count == 0)
            break;
        cr_assert_lt(i, 600, "shown though it has gone");
        tw_sleep_ms(50);
    }
    cr_assert(tw_cluster_guest_runs(&c, TW_AGENT_B, 5000));
}

/* Measured always, it is in the agent's reports, and so with the controller. */
Test(vm_meter, the_controller_shows_it_where_it_is_measured_always)
{
    Towline__V1__GetHostRequest request = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    char name[] = "node-a";
    bool found = false;
    strcat(c.settings[TW_AGENT_A], "meter_vms: true\n");
    start();
    request.name = name;
    for (unsigned i = 0; i < 600 && !found; i++) {
        ProtobufCMessage *response = NULL;
        if (tw_rpc_call(c.client, &towline__v1__host_service__descriptor, "Get", &request.base,
                        10000, TW_RPC_ONCE, &response, NULL) == TW_OK) {
            const Towline__V1__GetHostResponse *r = (const void *)response;
            const Towline__V1__VmDirty *d = r->n_vms ? r->vms[0]->dirty : NULL;
            found = d && d->lines >= 100 && d->pages >= 50 && d->duration_us >= 900000;
            protobuf_c_message_free_unpacked(response, NULL);
        }
        tw_sleep_ms(100);
    }
    cr_assert(found, "no figures in the host's reports");
}
