#include "agentd/agent.h"
#include "base/log.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct tw_agent_config config_of(enum tw_agent_fabric fabric)
{
    tw_log_configure("test", TW_LOG_OFF);
    return (struct tw_agent_config){.name = "node-a",
                                    .fabric = fabric,
                                    .fabric_listen = "127.0.0.1:0",
                                    .verbs_listen = "127.0.0.1:0",
                                    .verbs_device = "no-such-device",
                                    .verbs_queues = 1};
}

Test(paths, tcp_because_configured)
{
    struct tw_paths paths;
    struct tw_error err = {0};
    const struct tw_agent_config c = config_of(TW_AGENT_FABRIC_TCP);
    cr_assert_eq(tw_paths_open(&paths, &c, NULL, &tw_job_fabric_events, NULL, &err), TW_OK, "%s",
                 err.what);
    cr_assert_null(paths.verbs);
    cr_assert_str_eq(paths.reason, "configured: fabric: tcp");
    cr_assert_str_eq(tw_paths_verbs_address(&paths), "");
    tw_paths_poll(&paths);
    tw_paths_close(&paths);
}

Test(paths, auto_goes_on_by_tcp_and_says_why)
{
    struct tw_paths paths;
    struct tw_error err = {0};
    const struct tw_agent_config c = config_of(TW_AGENT_FABRIC_AUTO);
    cr_assert_eq(tw_paths_open(&paths, &c, NULL, &tw_job_fabric_events, NULL, &err), TW_OK, "%s",
                 err.what);
    cr_assert_null(paths.verbs);
    cr_assert(strncmp(paths.reason, "no verbs: ", 10) == 0, "%s", paths.reason);
    cr_assert_gt(strlen(paths.reason), 20, "%s", paths.reason);
    tw_paths_close(&paths);
}

Test(paths, verbs_without_a_device_is_an_error)
{
    struct tw_paths paths;
    struct tw_error err = {0};
    const struct tw_agent_config c = config_of(TW_AGENT_FABRIC_VERBS);
    cr_assert_eq(tw_paths_open(&paths, &c, NULL, &tw_job_fabric_events, NULL, &err),
                 TW_UNAVAILABLE);
    cr_assert_str_eq(err.expected, "an RDMA device with a usable port");
    cr_assert_str_eq(err.given, "no-such-device");
    cr_assert_gt(strlen(err.what), 0);
    cr_assert_null(paths.tcp, "nothing stays open");
}

/* A second TCP endpoint stands in for verbs: the choice does not look behind it. */
static void open_both(struct tw_paths *paths)
{
    struct tw_paths other;
    const struct tw_agent_config c = config_of(TW_AGENT_FABRIC_TCP);
    cr_assert_eq(tw_paths_open(&other, &c, NULL, &tw_job_fabric_events, NULL, NULL), TW_OK);
    cr_assert_eq(tw_paths_open(paths, &c, NULL, &tw_job_fabric_events, NULL, NULL), TW_OK);
    paths->verbs = other.tcp;
    strcpy(paths->reason, "rxe0 port 1 (RoCE) is usable");
}

Test(paths, verbs_where_both_sides_have_it)
{
    struct tw_paths paths;
    struct tw_fabric *fabric;
    const char *address;
    open_both(&paths);
    const struct tw_path *path =
        tw_paths_choose(&paths, "node-b", "m-1", "10.0.0.2:1", "10.1.0.2:2", &fabric, &address);
    cr_assert_eq(fabric, paths.verbs);
    cr_assert_str_eq(address, "10.1.0.2:2");
    cr_assert_str_eq(path->fabric, "verbs");
    cr_assert_str_eq(path->reason, "both sides have verbs; here rxe0 port 1 (RoCE) is usable");

    path = tw_paths_choose(&paths, "node-b", "m-2", "10.0.0.2:1", "", &fabric, &address);
    cr_assert_eq(fabric, paths.tcp);
    cr_assert_str_eq(address, "10.0.0.2:1");
    cr_assert_str_eq(path->fabric, "tcp");
    cr_assert_str_eq(path->reason, "node-b offers no verbs");
    cr_assert_eq(paths.count, 1, "one entry a peer");
    cr_assert_str_eq(paths.list[0].migration, "m-2");
    tw_paths_close(&paths);
}

Test(paths, tcp_where_this_side_has_no_verbs)
{
    struct tw_paths paths;
    struct tw_fabric *fabric;
    const char *address;
    const struct tw_agent_config c = config_of(TW_AGENT_FABRIC_AUTO);
    cr_assert_eq(tw_paths_open(&paths, &c, NULL, &tw_job_fabric_events, NULL, NULL), TW_OK);
    const struct tw_path *path =
        tw_paths_choose(&paths, "node-b", "m-1", "10.0.0.2:1", "10.1.0.2:2", &fabric, &address);
    cr_assert_eq(fabric, paths.tcp);
    cr_assert_str_eq(address, "10.0.0.2:1");
    cr_assert_str_eq(path->reason, paths.reason);
    tw_paths_close(&paths);
}

Test(paths, the_least_recent_peer_is_forgotten)
{
    struct tw_paths paths;
    struct tw_fabric *fabric;
    const char *address;
    char peer[16];
    open_both(&paths);
    for (unsigned i = 0; i < TW_PATHS_MAX; i++) {
        snprintf(peer, sizeof peer, "node-%u", i);
        tw_paths_choose(&paths, peer, "m-1", "10.0.0.2:1", "", &fabric, &address);
    }
    tw_paths_choose(&paths, "node-0", "m-2", "10.0.0.2:1", "", &fabric, &address);
    tw_paths_choose(&paths, "newcomer", "m-3", "10.0.0.2:1", "", &fabric, &address);
    cr_assert_eq(paths.count, TW_PATHS_MAX);
    cr_assert_str_eq(paths.list[0].peer, "newcomer");
    cr_assert_str_eq(paths.list[1].peer, "node-0");
    for (unsigned i = 0; i < paths.count; i++)
        cr_assert_str_neq(paths.list[i].peer, "node-1");
    tw_paths_close(&paths);
}
