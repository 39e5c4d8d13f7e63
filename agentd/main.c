/* towline-agent: the process on each host. */
#include "agentd/agent.h"

#include "base/log.h"
#include "rpc/http.h"
#include "rpc/rpc.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: towline-agent --config FILE [--check]\n"
    "\n"
    "Runs the agent of one host: its VMs, their emulated coherent devices, and the lines\n"
    "that it streams to other agents. VMs run on when the agent ends and are adopted by\n"
    "the next one.\n"
    "\n"
    "  --config FILE  configuration (YAML; keys in docs/operations.md)\n"
    "  --check        reads the configuration, says whether it is good, and ends\n"
    "  --version      prints the version\n"
    "  --help         prints this\n"
    "\n"
    "Signals: SIGTERM and SIGINT end the agent, SIGHUP reads log_level and\n"
    "the certificates again.\n"
    "Exit status: 0 ended by a signal, 1 could not start, 2 wrong usage.\n";

struct servers {
    struct tw_rpc_server *rpc;
    struct tw_http_server *http;
    struct tw_heartbeat *heartbeat;
};

static int complain(const struct tw_error *err)
{
    char text[600];
    fprintf(stderr, "towline-agent: %s\n", tw_error_text(err, text, sizeof text));
    return 1;
}

static void *data_thread(void *arg)
{
    tw_agent_run(arg);
    return NULL;
}

static void reload(const char *path, struct tw_agent *agent)
{
    struct tw_agent_config fresh;
    struct tw_error err = {0};
    char text[600];
    if (tw_agent_config_load(path, &fresh, &err))
        tw_log(TW_LOG_WARN, "config", "not reloaded", "what=\"%s\"",
               tw_error_text(&err, text, sizeof text));
    else
        tw_log_configure(agent->config.name, (enum tw_log_level)fresh.log_level);
    if (agent->tls)
        tw_tls_reload(agent->tls, NULL); /* says itself how it went */
}

static void await_end(const char *path, struct tw_agent *agent, const sigset_t *signals)
{
    int signal;
    while (sigwait(signals, &signal) == 0 && signal == SIGHUP)
        reload(path, agent);
    tw_log(TW_LOG_INFO, "agent", "stopping", "signal=%d", signal);
}

static enum tw_code start_servers(struct tw_agent *agent, struct servers *s, struct tw_error *err)
{
    enum tw_code code = tw_agent_serve(agent, &s->rpc, err);
    if (!code)
        code = tw_agent_http(agent, &s->http, err);
    if (!code)
        code = tw_heartbeat_start(agent, &s->heartbeat, err);
    if (!code)
        tw_log(TW_LOG_INFO, "agent", "ready", "rpc=%s fabric=%s verbs=%s http=%s controller=%s",
               agent->config.advertise, tw_fabric_address(agent->paths.tcp),
               tw_paths_verbs_address(&agent->paths),
               s->http ? tw_http_server_url(s->http) : "none", agent->config.controller);
    return code;
}

static int run(const char *path, const struct tw_agent_config *config)
{
    struct tw_agent *agent;
    struct tw_error err = {0};
    struct servers s = {0};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    if (tw_agent_open(config, &agent, &err))
        return complain(&err);
    pthread_t thread;
    int status = 0;
    if (pthread_create(&thread, NULL, data_thread, agent) != 0) {
        tw_agent_close(agent);
        return 1;
    }
    if (start_servers(agent, &s, &err))
        status = complain(&err);
    else
        await_end(path, agent, &signals);
    atomic_store(&agent->stopping, true);
    pthread_join(thread, NULL);
    tw_heartbeat_stop(s.heartbeat);
    tw_http_server_close(s.http);
    tw_rpc_server_close(s.rpc);
    tw_agent_close(agent);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *path = NULL;
    bool check = false;
    for (int c; (c = getopt_long(argc, argv, "c:h", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'v':
            puts("towline-agent " TOWLINE_VERSION);
            return 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!path || optind != argc) {
        fprintf(stderr, "towline-agent: --config FILE is needed\n\n%s", usage);
        return 2;
    }
    struct tw_agent_config config;
    struct tw_error err = {0};
    if (tw_agent_config_load(path, &config, &err))
        return complain(&err);
    if (check) {
        printf("%s: good\n", path);
        return 0;
    }
    tw_log_configure(config.name, (enum tw_log_level)config.log_level);
    return run(path, &config);
}
