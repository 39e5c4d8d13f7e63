#include "controller/convert.h"
#include "controller/services.h"

#include "base/clock.h"
#include "towline/v1/health.pb-c.h"

#include <stdlib.h>

#define ITEMS 2u

struct item {
    const char *name;
    bool ok;
    char detail[160];
};

static void store_item(struct tw_services *s, struct item *item)
{
    struct tw_store_figures figures;
    struct tw_error err = {0};
    uint64_t oldest, newest;
    item->name = "store";
    enum tw_code code = tw_store_begin(s->store, TW_STORE_READ, &err);
    if (code == TW_OK)
        code =
            tw_store_end(s->store, tw_store_events_bounds(s->store, &oldest, &newest, &err), &err);
    tw_store_figures(s->store, &figures);
    item->ok = code == TW_OK && figures.last_write_ok;
    snprintf(item->detail, sizeof item->detail, "%s",
             code != TW_OK           ? err.what
             : figures.last_write_ok ? "readable and writable"
                                     : "the last write failed");
}

/* A cluster without a living host is no fault of the controller: the item is for information. */
static void hosts_item(struct tw_services *s, struct item *item)
{
    struct tw_host_view *hosts;
    size_t count, alive = 0;
    item->name = "hosts";
    item->ok = tw_catalogue_hosts(s->catalogue, &hosts, &count, NULL) == TW_OK;
    for (size_t i = 0; i < count; i++)
        alive += hosts[i].record.alive;
    snprintf(item->detail, sizeof item->detail, "%zu of %zu alive", alive, count);
    free(hosts);
}

static bool items_fill(struct tw_services *s, struct item items[ITEMS])
{
    store_item(s, &items[0]);
    hosts_item(s, &items[1]);
    return items[0].ok && items[1].ok;
}

bool tw_services_ready(struct tw_services *s, FILE *out)
{
    struct item items[ITEMS];
    bool ready = items_fill(s, items);
    for (unsigned i = 0; i < ITEMS; i++)
        fprintf(out, "%s %s: %s\n", items[i].ok ? "ok" : "not ok", items[i].name, items[i].detail);
    return ready;
}

static Towline__V1__HealthItem *item_to_proto(const struct item *item)
{
    Towline__V1__HealthItem *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__health_item__init(p);
    p->ok = item->ok;
    if (tw_text_set(&p->name, item->name) && tw_text_set(&p->detail, item->detail))
        return p;
    towline__v1__health_item__free_unpacked(p, NULL);
    return NULL;
}

static enum tw_code check(struct tw_services *s, const struct tw_rpc_call *call,
                          const Towline__V1__HealthRequest *request,
                          Towline__V1__HealthResponse *response, struct tw_error *err)
{
    (void)call, (void)request;
    struct item items[ITEMS];
    response->ready = items_fill(s, items);
    response->protocol_version = TW_RPC_VERSION;
    response->protocol_version_min = TW_RPC_VERSION_MIN;
    response->uptime_ms = (tw_now(&tw_monotonic) - s->started_ns) / TW_MS;
    bool ok = tw_text_set(&response->component, "controller") &&
              tw_text_set(&response->version, TOWLINE_VERSION);
    for (unsigned i = 0; i < ITEMS && ok; i++) {
        Towline__V1__HealthItem *p = item_to_proto(&items[i]);
        ok = tw_append(&response->items, &response->n_items, p ? &p->base : NULL);
    }
    return ok ? TW_OK : tw_no_memory("health", err);
}

TW_SERVED(check, "HealthService/Check")

enum tw_code tw_health_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                   struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {{"Check", check_served}};
    return tw_rpc_server_add(server, &towline__v1__health_service__descriptor, methods, 1, services,
                             err);
}
