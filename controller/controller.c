#include "controller/controller.h"

#include "base/clock.h"
#include "base/log.h"
#include "controller/agents.h"
#include "controller/jobs.h"
#include "controller/mirror.h"
#include "controller/services.h"
#include "controller/settle.h"
#include "rpc/http.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define JOB_THREADS    40u      /* those that run at once, and some for the rest */
#define EXPIRE_LATEST  (TW_SEC) /* leases are looked at this often at least */
#define EXPIRE_SOONEST (10 * TW_MS)

struct tw_controller {
    struct tw_tls *tls; /* NULL: plain text on loopback */
    struct tw_store *store;
    struct tw_agents *agents;
    struct tw_catalogue *catalogue;
    struct tw_jobs *jobs;
    struct tw_vms *vms;
    struct tw_migrations *migrations;
    struct tw_events *events;
    struct tw_settle settle;
    struct tw_services services;
    struct tw_rpc_server *server;
    struct tw_http_server *http;
};

/* ---- What one part tells another ----------------------------------------------------------- */

static void on_heartbeat(void *ctx, const char *host)
{
    struct tw_controller *c = ctx;
    if (c->migrations)
        tw_migrations_host_heard(c->migrations, host);
}

static void on_owed(void *ctx)
{
    struct tw_controller *c = ctx;
    tw_jobs_wake(c->jobs, &c->settle);
}

static uint64_t expire_step(void *ctx)
{
    struct tw_catalogue *catalogue = ctx;
    uint64_t now = tw_now(&tw_monotonic), next = tw_catalogue_expire(catalogue);
    if (next < now + EXPIRE_SOONEST)
        return now + EXPIRE_SOONEST;
    return next < now + EXPIRE_LATEST ? next : now + EXPIRE_LATEST;
}

static void metrics_page(void *ctx, FILE *out)
{
    struct tw_controller *c = ctx;
    const struct tw_metrics_sources sources = {
        .store = c->store,
        .catalogue = c->catalogue,
        .migrations = c->migrations,
        .counts = &c->services.counts,
        .tls = c->tls,
        .started_unix_ms = c->services.started_unix_ms,
    };
    tw_metrics_print(&sources, out);
}

static bool ready_page(void *ctx, FILE *out)
{
    struct tw_controller *c = ctx;
    return tw_services_ready(&c->services, out);
}

/* ---- Opening, from the ground up ----------------------------------------------------------- */

static enum tw_code open_tls(struct tw_controller *c, const struct tw_controller_config *config,
                             struct tw_error *err)
{
    if (!tw_tls_files_given(&config->tls)) {
        tw_log(TW_LOG_WARN, "controller", "no TLS: whoever is on this machine may do anything", "");
        return TW_OK;
    }
    enum tw_code code = tw_tls_open(&config->tls, &c->tls, err);
    if (code == TW_OK)
        code = tw_tls_expect_me(c->tls, TW_ROLE_CONTROLLER, NULL, err);
    return code == TW_OK ? tw_tls_watch(c->tls, err) : code;
}

static enum tw_code open_ground(struct tw_controller *c, const struct tw_controller_config *config,
                                struct tw_error *err)
{
    enum tw_code code = open_tls(c, config, err);
    if (code == TW_OK)
        code = tw_events_open((unsigned)config->workers / 2, &c->events, err);
    const struct tw_store_config store = {.path = config->store,
                                          .bytes_max = config->store_limit_bytes,
                                          .on_events = tw_events_note,
                                          .ctx = c->events};
    if (code == TW_OK)
        code = tw_store_open(&store, &c->store, err);
    if (code == TW_OK)
        code = tw_agents_open(c->tls, config->insecure, &c->agents, err);
    const struct tw_catalogue_config catalogue = {.store = c->store,
                                                  .clock = &tw_monotonic,
                                                  .lease_ns = config->lease_ns,
                                                  .heartbeat_ns = config->heartbeat_ns,
                                                  .on_heartbeat = on_heartbeat,
                                                  .ctx = c};
    if (code == TW_OK)
        code = tw_catalogue_open(&catalogue, &c->catalogue, err);
    return code == TW_OK ? tw_jobs_open(JOB_THREADS, &c->jobs, err) : code;
}

static char mirror_auto[] = TW_MIRROR_AUTO, mirror_none[] = TW_MIRROR_NONE; /* only read */

static Towline__V1__MigrationLimits limits_of(const struct tw_migration_defaults *d)
{
    Towline__V1__MigrationLimits limits = TOWLINE__V1__MIGRATION_LIMITS__INIT;
    limits.method = (Towline__V1__MigrationMethod)d->method;
    limits.on_no_convergence = (Towline__V1__ConvergencePolicy)d->on_no_convergence;
    limits.bandwidth_bytes_per_s = d->bandwidth;
    limits.downtime_ms = (uint32_t)(d->downtime_ns / TW_MS);
    limits.total_ms = (uint32_t)(d->total_ns / TW_MS);
    limits.timeout_ms = (uint32_t)(d->give_up_after_ns / TW_MS);
    if (d->mirror)
        limits.mirror = d->mirror == 1 ? mirror_auto : mirror_none;
    limits.slow_down_percent = (uint32_t)d->slow_down;
    limits.max_rounds = (uint32_t)d->max_rounds;
    return limits;
}

static enum tw_code open_work(struct tw_controller *c, const struct tw_controller_config *config,
                              struct tw_error *err)
{
    const struct tw_reach reach = {c->agents, c->catalogue};
    enum tw_code code = tw_vms_open(c->store, &reach, &c->vms, err);
    c->settle = (struct tw_settle){.store = c->store, .reach = reach, .vms = c->vms};
    const struct tw_migrations_config migrations = {.limits = limits_of(&config->migration),
                                                    .store = c->store,
                                                    .reach = reach,
                                                    .jobs = c->jobs,
                                                    .on_owed = on_owed,
                                                    .ctx = c};
    if (code == TW_OK)
        code = tw_migrations_open(&migrations, &c->migrations, err);
    if (code == TW_OK)
        code = tw_jobs_add(c->jobs, expire_step, c->catalogue, NULL, err);
    return code == TW_OK ? tw_jobs_add(c->jobs, tw_settle_step, &c->settle, NULL, err) : code;
}

static enum tw_code open_doors(struct tw_controller *c, const struct tw_controller_config *config,
                               struct tw_error *err)
{
    const struct tw_rpc_server_config rpc = {.url = config->listen,
                                             .tls = c->tls,
                                             .insecure = config->insecure,
                                             .workers = (unsigned)config->workers};
    const struct tw_http_pages pages = {metrics_page, ready_page, c};
    c->services.store = c->store;
    c->services.catalogue = c->catalogue;
    c->services.vms = c->vms;
    c->services.migrations = c->migrations;
    c->services.events = c->events;
    c->services.reach = (struct tw_reach){c->agents, c->catalogue};
    c->services.started_ns = tw_now(&tw_monotonic);
    c->services.started_unix_ms = tw_wall_ms();
    if (getrandom(&c->services.controller_id, sizeof c->services.controller_id, 0) !=
        (ssize_t)sizeof c->services.controller_id)
        c->services.controller_id = tw_store_generation(c->store);
    enum tw_code code = tw_rpc_server_open(&rpc, &c->server, err);
    if (code == TW_OK)
        code = tw_services_add(&c->services, c->server, err);
    if (code == TW_OK)
        code = tw_rpc_server_start(c->server, err);
    if (code == TW_OK && config->http[0])
        code = tw_http_server_open(config->http, &pages, &c->http, err);
    return code;
}

enum tw_code tw_controller_open(const struct tw_controller_config *config,
                                struct tw_controller **out, struct tw_error *err)
{
    struct tw_controller *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return tw_fail_errno(err, ENOMEM, "controller", "cannot start");
    enum tw_code code = open_ground(c, config, err);
    if (code == TW_OK)
        code = open_work(c, config, err);
    if (code == TW_OK)
        code = open_doors(c, config, err);
    if (code != TW_OK) {
        tw_controller_close(c);
        return code;
    }
    *out = c;
    return TW_OK;
}

const char *tw_controller_url(const struct tw_controller *controller)
{
    return tw_rpc_server_url(controller->server);
}

const char *tw_controller_http_url(const struct tw_controller *controller)
{
    return controller->http ? tw_http_server_url(controller->http) : "";
}

void tw_controller_reload(struct tw_controller *controller)
{
    if (controller->tls)
        tw_tls_reload(controller->tls, NULL);
}

void tw_controller_close(struct tw_controller *c)
{
    if (!c)
        return;
    if (c->events)
        tw_events_stop(c->events);
    if (c->http)
        tw_http_server_close(c->http);
    tw_rpc_server_close(c->server);
    tw_jobs_close(c->jobs);
    tw_migrations_close(c->migrations);
    tw_vms_close(c->vms);
    tw_catalogue_close(c->catalogue);
    tw_agents_close(c->agents);
    tw_store_close(c->store);
    tw_events_close(c->events);
    tw_tls_close(c->tls);
    free(c);
}
