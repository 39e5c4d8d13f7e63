#include "fabric/backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fill_defaults(struct tw_fabric *f, const struct tw_fabric_config *config)
{
    f->config = *config;
    snprintf(f->name, sizeof f->name, "%s", config->name ? config->name : "");
    f->config.name = f->name;
    if (!f->config.clock)
        f->config.clock = &tw_monotonic;
    if (!f->config.bulk_credits)
        f->config.bulk_credits = 16;
    if (!f->config.handshake_timeout_ns)
        f->config.handshake_timeout_ns = 5 * TW_SEC;
    if (!f->config.idle_timeout_ns)
        f->config.idle_timeout_ns = 5 * TW_SEC;
    if (!f->config.max_connections)
        f->config.max_connections = 64;
}

enum tw_code tw_fabric_open(const struct tw_fabric_backend *backend, void *backend_arg,
                            const struct tw_fabric_config *config, struct tw_fabric **fabric,
                            struct tw_error *err)
{
    assert(config->events && config->events->on_accept && config->events->on_up &&
           config->events->on_chunk && config->events->on_down);
    *fabric = NULL;
    if (config->bulk_credits > TW_CREDITS_MAX) {
        char expected[32], given[32];
        snprintf(expected, sizeof expected, "at most %u", TW_CREDITS_MAX);
        snprintf(given, sizeof given, "%u", config->bulk_credits);
        return tw_fail(err, TW_INVALID_ARGUMENT, "fabric", expected, given, "too many credits");
    }
    struct tw_fabric *f = calloc(1, backend->fabric_size);
    if (!f)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "fabric", NULL, NULL, "out of memory");
    f->backend = backend;
    f->key_next = 1;
    fill_defaults(f, config);
    const enum tw_code code = backend->open(f, backend_arg, err);
    if (code) {
        backend->close(f);
        free(f);
        return code;
    }
    *fabric = f;
    return TW_OK;
}

/* Frees the connections that are gone. */
static void reap(struct tw_fabric *f)
{
    for (struct tw_conn **at = &f->conns; *at;) {
        struct tw_conn *conn = *at;
        if (conn->machine.state == TW_CONN_GONE) {
            *at = conn->sibling;
            tw_conn_free(conn);
        } else {
            at = &conn->sibling;
        }
    }
}

void tw_fabric_close(struct tw_fabric *f)
{
    if (!f)
        return;
    assert(!f->polling);
    for (struct tw_conn *conn = f->conns; conn; conn = conn->sibling)
        tw_conn_close(conn);
    reap(f);
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++)
        if (f->regions[i].memory)
            tw_fabric_unregister(f, f->regions[i].key);
    f->backend->close(f);
    free(f);
}

enum tw_code tw_fabric_listen(struct tw_fabric *f, const char *address, struct tw_error *err)
{
    if (f->address[0])
        return tw_fail(err, TW_FAILED_PRECONDITION, address, NULL, f->address,
                       "the fabric listens already");
    return f->backend->listen(f, address, err);
}

uint64_t tw_fabric_patience(const struct tw_fabric *f)
{
    return f->config.idle_timeout_ns;
}

const char *tw_fabric_address(const struct tw_fabric *f)
{
    return f->address;
}

const char *tw_fabric_kind(const struct tw_fabric *f)
{
    return f->backend->kind;
}

int tw_fabric_fd(const struct tw_fabric *f)
{
    return f->backend->fd ? f->backend->fd(f) : -1;
}

enum tw_code tw_fabric_connect(struct tw_fabric *f, const char *address,
                               const struct tw_hello *hello, uint64_t deadline_ns, void *conn_ctx,
                               struct tw_conn **conn, struct tw_error *err)
{
    *conn = NULL;
    struct tw_conn *c = tw_conn_new(f, TW_CONN_DIALLING, err);
    if (!c)
        return TW_RESOURCE_EXHAUSTED;
    c->ctx = conn_ctx;
    c->accepted = true;
    c->setup_by_ns = deadline_ns;
    snprintf(c->label, sizeof c->label, "%s", address);
    c->ours = *hello;
    if (!c->ours.version)
        c->ours.version = TW_FABRIC_VERSION;
    if (!c->ours.version_min)
        c->ours.version_min = TW_FABRIC_VERSION_MIN;
    if (!c->ours.name[0])
        memcpy(c->ours.name, f->name, sizeof f->name);
    const enum tw_code code = f->backend->connect(c, address, err);
    if (code) {
        tw_conn_close(c);
        return code;
    }
    *conn = c;
    return TW_OK;
}

/* ---- Poll ------------------------------------------------------------------------------------ */

static void report_down(struct tw_conn *conn)
{
    struct tw_fabric *f = conn->fabric;
    const struct tw_error why = conn->why;
    tw_conn_move(conn, TW_CONN_GONE, "reported");
    if (!conn->accepted)
        return;
    for (; conn->reads.done < conn->reads.next && f->config.events->on_read; conn->reads.done++) {
        const struct tw_read *read = &conn->reads.ring[conn->reads.done % TW_READS_MAX];
        f->config.events->on_read(conn->ctx, conn, read->cookie, TW_UNAVAILABLE);
    }
    f->config.events->on_down(conn->ctx, conn, &why);
}

/* Connections that callbacks add go to the head of the list, behind us. */
static unsigned report_downs(struct tw_fabric *f)
{
    unsigned events = 0;
    for (struct tw_conn *conn = f->conns; conn && f->downs; conn = conn->sibling) {
        if (conn->machine.state == TW_CONN_DOWN) {
            report_down(conn);
            events++;
        }
    }
    return events;
}

uint64_t tw_fabric_tick_next(const struct tw_fabric *f)
{
    uint64_t next = TW_NEVER;
    for (const struct tw_conn *conn = f->conns; conn; conn = conn->sibling) {
        const uint64_t due = tw_conn_tick_next(conn);
        next = due < next ? due : next;
    }
    return next;
}

unsigned tw_fabric_poll(struct tw_fabric *f, uint64_t deadline_ns)
{
    assert(!f->polling);
    f->polling = true;
    if (f->downs)
        deadline_ns = 0;
    const uint64_t tick = tw_fabric_tick_next(f);
    unsigned events = f->backend->poll(f, tick < deadline_ns ? tick : deadline_ns);
    const uint64_t now = tw_fabric_now(f);
    for (struct tw_conn *conn = f->conns; conn; conn = conn->sibling)
        tw_conn_tick(conn, now);
    events += report_downs(f);
    for (struct tw_conn *conn = f->conns; conn; conn = conn->sibling)
        tw_conn_settle(conn);
    f->polling = false;
    reap(f);
    return events;
}

/* ---- Registered memory ----------------------------------------------------------------------- */

enum tw_code tw_fabric_register(struct tw_fabric *f, const void *memory, uint64_t length,
                                const uint8_t token[TW_OWNER_SIZE], uint32_t *key,
                                struct tw_error *err)
{
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++) {
        struct tw_region *r = &f->regions[i];
        if (r->memory)
            continue;
        /* A key is not used again soon: a late read with an old one must miss. */
        *r = (struct tw_region){.memory = memory, .length = length, .key = f->key_next++};
        if (f->key_next == 0)
            f->key_next = 1;
        memcpy(r->token, token, TW_OWNER_SIZE);
        const enum tw_code code =
            f->backend->region_open ? f->backend->region_open(f, r, err) : TW_OK;
        if (code)
            *r = (struct tw_region){0};
        else
            *key = r->key;
        return code;
    }
    char limit[32];
    snprintf(limit, sizeof limit, "at most %u", TW_REGIONS_MAX);
    return tw_fail(err, TW_RESOURCE_EXHAUSTED, f->name, limit, NULL, "too many registered regions");
}

static void region_close(struct tw_fabric *f, struct tw_region *region)
{
    if (f->backend->region_close)
        f->backend->region_close(f, region);
    *region = (struct tw_region){0};
}

void tw_fabric_unregister(struct tw_fabric *f, uint32_t key)
{
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++)
        if (f->regions[i].memory && f->regions[i].key == key)
            region_close(f, &f->regions[i]);
}

const uint8_t *tw_fabric_region(const struct tw_fabric *f, uint32_t key, uint64_t address,
                                uint64_t length, const uint8_t token[TW_OWNER_SIZE])
{
    const struct tw_range range = {address, length};
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++) {
        const struct tw_region *r = &f->regions[i];
        if (r->memory && r->key == key && memcmp(r->token, token, TW_OWNER_SIZE) == 0)
            return tw_range_fits(range, r->length) ? r->memory + address : NULL;
    }
    return NULL;
}
