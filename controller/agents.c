#include "controller/agents.h"

#include "towline/v1/agent.pb-c.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    char host[64];
    char url[256];
    struct tw_rpc_client *client;
};

struct tw_agents {
    pthread_mutex_t lock;
    struct entry entries[TW_AGENTS_MAX];
    unsigned count;
    struct tw_tls *tls;
    bool insecure;
};

enum tw_code tw_agents_open(struct tw_tls *tls, bool insecure, struct tw_agents **agents,
                            struct tw_error *err)
{
    *agents = calloc(1, sizeof **agents);
    if (!*agents)
        return tw_fail_errno(err, ENOMEM, "agents", "cannot start");
    pthread_mutex_init(&(*agents)->lock, NULL);
    if (tls)
        tw_tls_hold(tls);
    (*agents)->tls = tls;
    (*agents)->insecure = insecure;
    return TW_OK;
}

void tw_agents_close(struct tw_agents *agents)
{
    if (!agents)
        return;
    for (unsigned i = 0; i < agents->count; i++)
        tw_rpc_client_close(agents->entries[i].client);
    pthread_mutex_destroy(&agents->lock);
    tw_tls_close(agents->tls);
    free(agents);
}

/* Clients are only closed at the end, so that a call under way never loses its client. */
static enum tw_code client_find(struct tw_agents *agents, const char *host, const char *url,
                                struct tw_rpc_client **client, struct tw_error *err)
{
    for (unsigned i = 0; i < agents->count; i++) {
        if (strcmp(agents->entries[i].url, url) == 0 &&
            strcmp(agents->entries[i].host, host) == 0) {
            *client = agents->entries[i].client;
            return TW_OK;
        }
    }
    struct entry *e = &agents->entries[agents->count];
    if (agents->count == TW_AGENTS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, url, NULL, NULL, "too many agents");
    if (snprintf(e->url, sizeof e->url, "%s", url) >= (int)sizeof e->url)
        return tw_fail(err, TW_INVALID_ARGUMENT, "agent", NULL, NULL, "the URL is too long");
    snprintf(e->host, sizeof e->host, "%s", host);
    const struct tw_rpc_client_config config = {.url = e->url,
                                                .tls = agents->tls,
                                                .expected = {TW_ROLE_AGENT, e->host},
                                                .insecure = agents->insecure};
    enum tw_code code = tw_rpc_client_open(&config, &e->client, err);
    if (code == TW_OK) {
        agents->count++;
        *client = e->client;
    }
    return code;
}

enum tw_code tw_agents_call(struct tw_agents *agents, const char *host, const char *url,
                            const char *method, const ProtobufCMessage *request,
                            unsigned timeout_ms, ProtobufCMessage **response, struct tw_error *err)
{
    struct tw_rpc_client *client = NULL;
    *response = NULL;
    pthread_mutex_lock(&agents->lock);
    enum tw_code code = client_find(agents, host, url, &client, err);
    pthread_mutex_unlock(&agents->lock);
    if (code == TW_OK)
        code = tw_rpc_call(client, &towline__v1__agent_service__descriptor, method, request,
                           timeout_ms, TW_RPC_IDEMPOTENT, response, err);
    if (tw_agents_silent(code) && err)
        snprintf(err->where, sizeof err->where, "host %s", host);
    return code;
}
