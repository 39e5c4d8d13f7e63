#include "controller/catalogue.h"

#include "base/log.h"
#include "controller/catalogue_inside.h"
#include "controller/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SAVE_EVERY_MS 10000u /* last_seen on disk is at most that old */

/* ---- Opening ------------------------------------------------------------------------------- */

struct loader {
    struct tw_catalogue *catalogue;
    enum tw_code code;
};

static void load_host(void *ctx, const struct tw_host_record *record)
{
    struct loader *loader = ctx;
    struct tw_catalogue *c = loader->catalogue;
    struct tw_catalogue_host *h = c->count < TW_HOSTS_MAX ? calloc(1, sizeof *h) : NULL;
    if (!h) {
        loader->code = TW_RESOURCE_EXHAUSTED;
        return;
    }
    h->record = *record;
    h->saved_unix_ms = record->last_seen_unix_ms;
    /* Nobody could report while no controller ran: the lease of the living begins anew. */
    h->lease_until_ns = tw_after(tw_now(c->config.clock), c->config.lease_ns);
    c->hosts[c->count++] = h;
}

enum tw_code tw_catalogue_open(const struct tw_catalogue_config *config, struct tw_catalogue **out,
                               struct tw_error *err)
{
    struct tw_catalogue *c = calloc(1, sizeof *c);
    *out = c;
    if (!c)
        return tw_fail_errno(err, ENOMEM, "catalogue", "cannot start");
    c->config = *config;
    pthread_mutex_init(&c->lock, NULL);
    struct loader loader = {c, TW_OK};
    enum tw_code code = tw_store_begin(config->store, TW_STORE_READ, err);
    if (code == TW_OK)
        code = tw_store_end(config->store,
                            tw_store_hosts_each(config->store, load_host, &loader, err), err);
    if (code == TW_OK && loader.code != TW_OK)
        code = tw_fail(err, loader.code, "catalogue", NULL, NULL, "too many hosts in the store");
    if (code != TW_OK) {
        tw_catalogue_close(c);
        *out = NULL;
    }
    return code;
}

void tw_catalogue_close(struct tw_catalogue *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++) {
        free(c->hosts[i]->reports);
        free(c->hosts[i]);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct tw_catalogue_host *tw_catalogue_find(struct tw_catalogue *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->hosts[i]->record.name, name) == 0)
            return c->hosts[i];
    return NULL;
}

const struct tw_report *tw_catalogue_find_report(const struct tw_catalogue_host *h, const char *vm)
{
    for (size_t i = 0; h && i < h->count; i++)
        if (strcmp(h->reports[i].name, vm) == 0)
            return &h->reports[i];
    return NULL;
}

/* ---- What comes in ------------------------------------------------------------------------- */

static enum tw_code check_length(const char *what, const char *text, size_t size,
                                 struct tw_error *err)
{
    char expected[48];
    snprintf(expected, sizeof expected, "at most %zu bytes", size - 1);
    return strlen(text) < size ? TW_OK
                               : tw_fail(err, TW_INVALID_ARGUMENT, "heartbeat", expected, NULL,
                                         "%s is too long", what);
}

static enum tw_code check_request(const Towline__V1__HeartbeatRequest *r, struct tw_error *err)
{
    const Towline__V1__HostDescription *d = r->host;
    char given[32];
    if (!d)
        return tw_fail(err, TW_INVALID_ARGUMENT, "heartbeat", "a host", "none",
                       "the description is missing");
    enum tw_code code = tw_name_check("host name", d->name, err);
    if (code == TW_OK && !d->rpc_url[0])
        code = tw_fail(err, TW_INVALID_ARGUMENT, d->name, "a URL", "none", "rpc_url is missing");
    if (code == TW_OK)
        code = check_length("rpc_url", d->rpc_url, TW_URL_SIZE, err);
    if (code == TW_OK)
        code = check_length("fabric_address", d->fabric_address, TW_URL_SIZE, err);
    if (code == TW_OK)
        code = check_length("verbs_address", d->verbs_address, TW_URL_SIZE, err);
    if (code == TW_OK && r->n_vms > TW_REPORTS_MAX) {
        snprintf(given, sizeof given, "%zu", r->n_vms);
        code = tw_fail(err, TW_INVALID_ARGUMENT, d->name, "at most 1024 VMs", given,
                       "too many reports");
    }
    for (size_t i = 0; i < r->n_vms && code == TW_OK; i++) {
        const Towline__V1__VmReport *v = r->vms[i];
        code = tw_name_check("VM name", v->name, err);
        if (code == TW_OK)
            code = check_length("a migration id", v->migration, TW_NAME_SIZE, err);
        if (code == TW_OK &&
            ((unsigned)v->state < TW_VM_STARTING || (unsigned)v->state > TW_VM_GIVEN_UP))
            code = tw_fail(err, TW_INVALID_ARGUMENT, v->name, "a known state", NULL,
                           "unknown state %d", (int)v->state);
    }
    return code;
}

static struct tw_report *read_reports(const Towline__V1__HeartbeatRequest *r,
                                      const struct tw_catalogue_host *before)
{
    struct tw_report *reports = calloc(r->n_vms + 1, sizeof *reports);
    for (size_t i = 0; reports && i < r->n_vms; i++) {
        const Towline__V1__VmReport *v = r->vms[i];
        struct tw_report *to = &reports[i];
        snprintf(to->name, sizeof to->name, "%s", v->name);
        snprintf(to->migration, sizeof to->migration, "%s", v->migration);
        snprintf(to->reason, sizeof to->reason, "%s", v->reason);
        to->epoch = v->epoch;
        to->state = (enum tw_vm_state)v->state;
        to->memory_bytes = v->memory_bytes;
        to->pid = v->pid;
        to->lines_written = v->lines_written;
        const struct tw_report *old = tw_catalogue_find_report(before, v->name);
        if (old && old->epoch == to->epoch &&
            tw_report_owns(old->state) == tw_report_owns(to->state)) {
            to->repeats = old->repeats + 1;
            to->silence = old->silence ? old->silence + 1 : 0;
        }
    }
    return reports;
}

static void describe(struct tw_host_record *to, const Towline__V1__HostDescription *d)
{
    snprintf(to->name, sizeof to->name, "%s", d->name);
    snprintf(to->rpc_url, sizeof to->rpc_url, "%s", d->rpc_url);
    snprintf(to->fabric_address, sizeof to->fabric_address, "%s", d->fabric_address);
    snprintf(to->fabric, sizeof to->fabric, "%s", d->fabric);
    snprintf(to->version, sizeof to->version, "%s", d->version);
    snprintf(to->verbs_address, sizeof to->verbs_address, "%s", d->verbs_address);
    snprintf(to->fabric_reason, sizeof to->fabric_reason, "%s", d->fabric_reason);
    for (size_t i = 0; i < d->n_paths && i < TW_HOST_PATHS_MAX; i++) {
        struct tw_path_record *path = &to->paths[to->path_count++];
        snprintf(path->peer, sizeof path->peer, "%s", d->paths[i]->peer);
        snprintf(path->migration, sizeof path->migration, "%s", d->paths[i]->migration);
        snprintf(path->fabric, sizeof path->fabric, "%s", d->paths[i]->fabric);
        snprintf(path->reason, sizeof path->reason, "%s", d->paths[i]->reason);
    }
    to->capacity_bytes = d->memory_capacity_bytes;
    to->used_bytes = d->memory_used_bytes;
    to->cpus = d->cpus;
    to->instance = d->instance;
    to->alive = true;
    to->last_seen_unix_ms = tw_wall_ms();
}

/* ---- What is written down ------------------------------------------------------------------ */

static enum tw_code host_event(struct tw_store *store, const char *kind,
                               const struct tw_host_record *r, const char *text,
                               struct tw_error *err)
{
    const char *pairs[] = {"rpc_url", r->rpc_url, "version", r->version, NULL};
    return tw_store_event(store, kind, r->name, pairs, err, "%s", text);
}

static enum tw_code host_write(struct tw_store *store, const struct tw_host_record *now,
                               const struct tw_host_record *before, struct tw_error *err)
{
    enum tw_code code = tw_store_host_put(store, now, err);
    if (code != TW_OK)
        return code;
    if (!before)
        return host_event(store, "host.joined", now, "the host reports for the first time", err);
    if (now->alive && !before->alive)
        return host_event(store, "host.alive", now, "the host reports again", err);
    if (!now->alive && before->alive)
        return host_event(store, "host.dead", now, "the host's lease has run out", err);
    if (now->instance != before->instance)
        return host_event(store, "host.restarted", now, "the host's agent was restarted", err);
    return TW_OK;
}

/* What hosts are is worth less than that they are served: a failing store is logged, and what
 * could not be written is tried again with the next heartbeat. */
static bool host_save(struct tw_catalogue *c, const struct tw_host_record *now,
                      const struct tw_host_record *before)
{
    struct tw_error err = {0};
    struct tw_store *store = c->config.store;
    enum tw_code code = tw_store_begin(store, TW_STORE_RELAXED, &err);
    if (code == TW_OK)
        code = tw_store_end(store, host_write(store, now, before, &err), &err);
    if (code != TW_OK)
        tw_log(TW_LOG_ERROR, "catalogue", "host not written", "host=%s what=\"%s\"", now->name,
               err.what);
    return code == TW_OK;
}

static bool worth_saving(const struct tw_catalogue_host *h, const struct tw_host_record *now)
{
    const struct tw_host_record *b = &h->record;
    return !b->alive || b->instance != now->instance || strcmp(b->rpc_url, now->rpc_url) != 0 ||
           strcmp(b->fabric_address, now->fabric_address) != 0 ||
           strcmp(b->version, now->version) != 0 || b->capacity_bytes != now->capacity_bytes ||
           now->last_seen_unix_ms >= h->saved_unix_ms + SAVE_EVERY_MS;
}

/* ---- Heartbeats and leases ----------------------------------------------------------------- */

static enum tw_code heartbeat_locked(struct tw_catalogue *c, const Towline__V1__HeartbeatRequest *r,
                                     struct tw_error *err)
{
    struct tw_host_record now = {0};
    struct tw_catalogue_host *h = tw_catalogue_find(c, r->host->name);
    struct tw_report *reports = read_reports(r, h);
    describe(&now, r->host);
    now.clock_known = r->unix_ms != 0;
    now.clock_ahead_ms = (int64_t)(r->unix_ms - now.last_seen_unix_ms);
    bool fresh = !h;
    if (fresh && c->count < TW_HOSTS_MAX)
        h = calloc(1, sizeof *h);
    if (!h || !reports) {
        free(reports);
        if (fresh)
            free(h);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, r->host->name, "at most 1024 hosts", NULL,
                       "no room for the host");
    }
    if (fresh)
        c->hosts[c->count++] = h;
    if ((fresh || worth_saving(h, &now)) && host_save(c, &now, fresh ? NULL : &h->record))
        h->saved_unix_ms = now.last_seen_unix_ms;
    h->record = now;
    h->lease_until_ns = tw_after(tw_now(c->config.clock), c->config.lease_ns);
    free(h->reports);
    h->reports = reports;
    h->count = r->n_vms;
    tw_catalogue_reconcile(c, h);
    return TW_OK;
}

enum tw_code tw_catalogue_heartbeat(struct tw_catalogue *c, const Towline__V1__HeartbeatRequest *r,
                                    struct tw_error *err)
{
    enum tw_code code = check_request(r, err);
    if (code != TW_OK)
        return code;
    pthread_mutex_lock(&c->lock);
    code = heartbeat_locked(c, r, err);
    pthread_mutex_unlock(&c->lock);
    if (code == TW_OK && c->config.on_heartbeat)
        c->config.on_heartbeat(c->config.ctx, r->host->name);
    return code;
}

uint64_t tw_catalogue_expire(struct tw_catalogue *c)
{
    uint64_t next = TW_NEVER;
    pthread_mutex_lock(&c->lock);
    uint64_t now = tw_now(c->config.clock);
    for (size_t i = 0; i < c->count; i++) {
        struct tw_catalogue_host *h = c->hosts[i];
        if (!h->record.alive)
            continue;
        if (h->lease_until_ns <= now) {
            struct tw_host_record dead = h->record;
            dead.alive = false;
            host_save(c, &dead, &h->record);
            h->record.alive = false;
        } else if (h->lease_until_ns < next) {
            next = h->lease_until_ns;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return next;
}

/* ---- Questions ----------------------------------------------------------------------------- */

bool tw_catalogue_locate(struct tw_catalogue *c, const char *host, char url[TW_URL_SIZE],
                         bool *alive)
{
    pthread_mutex_lock(&c->lock);
    const struct tw_catalogue_host *h = tw_catalogue_find(c, host);
    *alive = h && h->record.alive;
    snprintf(url, TW_URL_SIZE, "%s", h ? h->record.rpc_url : "");
    pthread_mutex_unlock(&c->lock);
    return h != NULL;
}

enum tw_code tw_catalogue_reports(struct tw_catalogue *c, const char *host,
                                  struct tw_report **reports, size_t *count, struct tw_error *err)
{
    char where[80];
    snprintf(where, sizeof where, "host %.63s", host);
    *reports = NULL;
    *count = 0;
    pthread_mutex_lock(&c->lock);
    const struct tw_catalogue_host *h = tw_catalogue_find(c, host);
    if (h && (*reports = malloc((h->count + 1) * sizeof **reports))) {
        if (h->count)
            memcpy(*reports, h->reports, h->count * sizeof **reports);
        *count = h->count;
    }
    pthread_mutex_unlock(&c->lock);
    if (!h)
        return tw_fail(err, TW_NOT_FOUND, where, NULL, NULL, "no such host");
    return *reports ? TW_OK : tw_fail_errno(err, ENOMEM, where, "cannot list");
}

bool tw_catalogue_report(struct tw_catalogue *c, const char *host, const char *vm,
                         struct tw_report *report)
{
    pthread_mutex_lock(&c->lock);
    const struct tw_report *found = tw_catalogue_find_report(tw_catalogue_find(c, host), vm);
    if (found)
        *report = *found;
    pthread_mutex_unlock(&c->lock);
    return found != NULL;
}

uint64_t tw_catalogue_lease_ms(const struct tw_catalogue *c)
{
    return c->config.lease_ns / TW_MS;
}

uint64_t tw_catalogue_heartbeat_ms(const struct tw_catalogue *c)
{
    return c->config.heartbeat_ns / TW_MS;
}
