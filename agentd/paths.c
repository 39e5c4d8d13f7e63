#include "agentd/paths.h"

#include "base/log.h"
#include "fabric/verbs.h"
#include "fabric/verbs_probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening --------------------------------------------------------------------------------- */

static enum tw_code open_and_listen(const struct tw_fabric_backend *backend, void *arg,
                                    const struct tw_fabric_config *config, const char *address,
                                    struct tw_fabric **fabric, struct tw_error *err)
{
    enum tw_code code = tw_fabric_open(backend, arg, config, fabric, err);
    if (!code)
        code = tw_fabric_listen(*fabric, address, err);
    if (code) {
        tw_fabric_close(*fabric);
        *fabric = NULL;
    }
    return code;
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0;
}

/* The first usable port of the device that the configuration names, or of any. */
static const struct tw_verbs_port *usable_port(const struct tw_verbs_probe *probe,
                                               const char *device, const char **why)
{
    *why = probe->why;
    for (uint32_t i = 0; i < probe->port_count; i++) {
        const struct tw_verbs_port *port = &probe->ports[i];
        if (*device && strcmp(port->device, device) != 0)
            continue;
        if (port->usable)
            return port;
        *why = port->why;
    }
    if (*device && !**why)
        *why = "there is no device of this name";
    return NULL;
}

/* RDMA knows no TLS: what goes by it must have been asked for. */
static enum tw_code permitted(const struct tw_agent_config *config,
                              const struct tw_verbs_port *port, struct tw_error *err)
{
    if (config->fabric == TW_AGENT_FABRIC_AUTO && is_loopback(config->verbs_listen))
        return tw_fail(err, TW_UNAVAILABLE, "verbs_listen", "an address of an RDMA device",
                       config->verbs_listen, "%s is a loopback address, which no peer can reach",
                       config->verbs_listen);
    if (config->verbs_unencrypted != TW_AGENT_ALLOW)
        return tw_fail(err, TW_FAILED_PRECONDITION, "verbs", "verbs_unencrypted: allow",
                       "verbs_unencrypted: refuse",
                       "%s port %u is usable, but what goes by RDMA is not encrypted, and "
                       "verbs_unencrypted: allow is not set",
                       port->device, port->port);
    return TW_OK;
}

static enum tw_code open_verbs(struct tw_paths *paths, const struct tw_agent_config *config,
                               const struct tw_fabric_config *fabric, struct tw_error *err)
{
    struct tw_verbs_config verbs = {.device = config->verbs_device,
                                    .bulk_queues = (uint32_t)config->verbs_queues};
    const char *why;
    struct tw_verbs_probe *probe = malloc(sizeof *probe);
    if (!probe)
        return tw_fail_errno(err, ENOMEM, "verbs", "cannot probe");
    tw_fabric_verbs_probe(probe);
    const struct tw_verbs_port *port = usable_port(probe, config->verbs_device, &why);
    enum tw_code code =
        port ? permitted(config, port, err)
             : tw_fail(err, TW_UNAVAILABLE, "verbs", "an RDMA device with a usable port",
                       config->verbs_device, "%s", why);
    if (!code)
        code = open_and_listen(&tw_fabric_verbs, &verbs, fabric, config->verbs_listen,
                               &paths->verbs, err);
    if (!code) {
        /* The address may have led to another device than the first usable one. */
        const char *other;
        const struct tw_verbs_port *used =
            usable_port(probe, tw_fabric_verbs_device(paths->verbs), &other);
        port = used ? used : port;
        snprintf(paths->reason, sizeof paths->reason, "%s port %u (%s) is usable, not encrypted",
                 port->device, port->port, tw_verbs_transport_name(port->transport));
    }
    free(probe);
    return code;
}

static const char *choice_name(enum tw_agent_fabric choice)
{
    return choice == TW_AGENT_FABRIC_AUTO    ? "auto"
           : choice == TW_AGENT_FABRIC_VERBS ? "verbs"
                                             : "tcp";
}

enum tw_code tw_paths_open(struct tw_paths *paths, const struct tw_agent_config *config,
                           struct tw_tls *tls, const struct tw_fabric_events *events, void *ctx,
                           struct tw_error *err)
{
    struct tw_fabric_tcp_settings tcp = {tls};
    const struct tw_fabric_config fabric = {.name = config->name,
                                            .clock = &tw_monotonic,
                                            .events = events,
                                            .ctx = ctx,
                                            .handshake_timeout_ns = config->fabric_timeout_ns,
                                            .idle_timeout_ns = config->fabric_timeout_ns};
    struct tw_error why = {0};
    *paths = (struct tw_paths){0};
    enum tw_code code =
        open_and_listen(&tw_fabric_tcp, &tcp, &fabric, config->fabric_listen, &paths->tcp, err);
    if (code)
        return code;
    if (config->fabric == TW_AGENT_FABRIC_TCP) {
        snprintf(paths->reason, sizeof paths->reason, "configured: fabric: tcp");
    } else if (open_verbs(paths, config, &fabric, &why)) {
        if (config->fabric == TW_AGENT_FABRIC_VERBS) {
            tw_paths_close(paths);
            if (err)
                *err = why;
            return why.code;
        }
        snprintf(paths->reason, sizeof paths->reason, "no verbs: %.148s", why.what);
    }
    tw_log(TW_LOG_INFO, "fabric", "chosen", "configured=%s using=%s why=\"%s\" tcp=%s verbs=%s",
           choice_name(config->fabric), paths->verbs ? "verbs" : "tcp", paths->reason,
           tw_fabric_address(paths->tcp), tw_paths_verbs_address(paths));
    return TW_OK;
}

void tw_paths_close(struct tw_paths *paths)
{
    tw_fabric_close(paths->tcp);
    tw_fabric_close(paths->verbs);
    paths->tcp = paths->verbs = NULL;
}

void tw_paths_poll(struct tw_paths *paths)
{
    tw_fabric_poll(paths->tcp, 0);
    if (paths->verbs)
        tw_fabric_poll(paths->verbs, 0);
}

const char *tw_paths_verbs_address(const struct tw_paths *paths)
{
    return paths->verbs ? tw_fabric_address(paths->verbs) : "";
}

/* ---- Peers ----------------------------------------------------------------------------------- */

/* The entry of a peer, moved to the front; the last one makes room for a new peer. */
static struct tw_path *front(struct tw_paths *paths, const char *peer)
{
    unsigned at = 0;
    while (at < paths->count && strcmp(paths->list[at].peer, peer) != 0)
        at++;
    if (at == paths->count && paths->count < TW_PATHS_MAX)
        paths->count++;
    if (at == TW_PATHS_MAX)
        at--;
    memmove(&paths->list[1], &paths->list[0], at * sizeof paths->list[0]);
    return &paths->list[0];
}

static const struct tw_path *remember(struct tw_paths *paths, const char *peer,
                                      const char *migration, const char *fabric, const char *why,
                                      ...) __attribute__((format(printf, 5, 6)));

static const struct tw_path *remember(struct tw_paths *paths, const char *peer,
                                      const char *migration, const char *fabric, const char *why,
                                      ...)
{
    struct tw_path path = {.fabric = fabric};
    va_list arguments;
    va_start(arguments, why);
    vsnprintf(path.reason, sizeof path.reason, why, arguments);
    va_end(arguments);
    snprintf(path.peer, sizeof path.peer, "%s", peer);
    snprintf(path.migration, sizeof path.migration, "%s", migration);
    struct tw_path *entry = front(paths, path.peer);
    *entry = path;
    tw_log(TW_LOG_INFO, "fabric", "path", "peer=%s fabric=%s migration=%s why=\"%s\"", entry->peer,
           fabric, entry->migration, entry->reason);
    return entry;
}

const struct tw_path *tw_paths_choose(struct tw_paths *paths, const char *peer,
                                      const char *migration, const char *tcp_address,
                                      const char *verbs_address, struct tw_fabric **fabric,
                                      const char **address)
{
    if (paths->verbs && *verbs_address) {
        *fabric = paths->verbs;
        *address = verbs_address;
        return remember(paths, peer, migration, "verbs", "both sides have verbs; here %.100s",
                        paths->reason);
    }
    *fabric = paths->tcp;
    *address = tcp_address;
    if (paths->verbs)
        return remember(paths, peer, migration, "tcp", "%s offers no verbs", peer);
    return remember(paths, peer, migration, "tcp", "%s", paths->reason);
}

const struct tw_path *tw_paths_came(struct tw_paths *paths, const char *peer, const char *migration,
                                    const struct tw_conn *conn)
{
    const char *kind = tw_conn_kind(conn);
    return remember(paths, peer, migration, kind, "%s connected by %s; here %.70s", peer, kind,
                    paths->reason);
}
