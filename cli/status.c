/* tow status: everything at a glance, from four calls. */
#include "cli/command.h"
#include "cli/format.h"
#include "cli/json.h"
#include "cli/progress.h"

#include "base/clock.h"
#include "base/units.h"

#include "towline/v1/health.pb-c.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/migration.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#define MIGRATIONS_LOOKED_AT 100u
#define PATHS_SHOWN          32u

struct answers {
    Towline__V1__HealthResponse *health;
    Towline__V1__ListHostsResponse *hosts;
    Towline__V1__ListVmsResponse *vms;
    Towline__V1__ListMigrationsResponse *migrations;
};

static void answers_free(struct answers *a)
{
    ProtobufCMessage *const all[] = {
        a->health ? &a->health->base : NULL, a->hosts ? &a->hosts->base : NULL,
        a->vms ? &a->vms->base : NULL, a->migrations ? &a->migrations->base : NULL};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            protobuf_c_message_free_unpacked(all[i], NULL);
}

static bool answers_get(struct tow *tow, struct answers *a, int *status)
{
    Towline__V1__HealthRequest health = TOWLINE__V1__HEALTH_REQUEST__INIT;
    Towline__V1__ListHostsRequest hosts = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    Towline__V1__ListVmsRequest vms = TOWLINE__V1__LIST_VMS_REQUEST__INIT;
    Towline__V1__ListMigrationsRequest migrations = TOWLINE__V1__LIST_MIGRATIONS_REQUEST__INIT;
    migrations.limit = MIGRATIONS_LOOKED_AT;
    *a = (struct answers){0};
    return (a->health = (void *)tow_ask(tow, &towline__v1__health_service__descriptor, "Check",
                                        &health.base, status)) &&
           (a->hosts = (void *)tow_ask(tow, &towline__v1__host_service__descriptor, "List",
                                       &hosts.base, status)) &&
           (a->vms = (void *)tow_ask(tow, &towline__v1__vm_service__descriptor, "List", &vms.base,
                                     status)) &&
           (a->migrations = (void *)tow_ask(tow, &towline__v1__migration_service__descriptor,
                                            "List", &migrations.base, status));
}

static void print_json(struct tow *tow, const struct answers *a)
{
    const struct {
        const char *name;
        const ProtobufCMessage *message;
    } parts[] = {{"health", &a->health->base},
                 {"hosts", &a->hosts->base},
                 {"vms", &a->vms->base},
                 {"migrations", &a->migrations->base}};
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        fprintf(tow->out, "%s\"%s\": ", i ? ",\n" : "{", parts[i].name);
        tow_json_print(parts[i].message, TOW_JSON_ONE_LINE, tow->out);
    }
    fputs("}\n", tow->out);
}

static void print_controller(struct tow *tow, const Towline__V1__HealthResponse *health)
{
    char uptime[TW_SIZE_TEXT], safe[256];
    enum tow_tone tone = health->ready ? TOW_TONE_GOOD : TOW_TONE_BAD;
    fprintf(tow->out, "controller  %s%s%s, version %s, up %s, at %s\n",
            tow_tone_begin(tone, tow->color_out), health->ready ? "ready" : "not ready",
            tow_tone_end(tone, tow->color_out), tow_safe_text(health->version, safe, sizeof safe),
            tw_duration_format(health->uptime_ms * TW_MS, uptime), tow->controller);
    for (size_t i = 0; i < health->n_items; i++) {
        const Towline__V1__HealthItem *item = health->items[i];
        char name[64];
        if (!item->ok)
            fprintf(tow->out, "            %s: %s\n", tow_safe_text(item->name, name, sizeof name),
                    tow_safe_text(item->detail, safe, sizeof safe));
    }
}

static void print_hosts(struct tow *tow, const Towline__V1__ListHostsResponse *hosts)
{
    size_t alive = 0;
    uint64_t capacity = 0, free_bytes = 0;
    char all[TW_SIZE_TEXT], left[TW_SIZE_TEXT];
    for (size_t i = 0; i < hosts->n_hosts; i++) {
        const Towline__V1__Host *host = hosts->hosts[i];
        if (host->state != TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE)
            continue;
        alive++;
        capacity += host->description ? host->description->memory_capacity_bytes : 0;
        free_bytes += host->memory_free_bytes;
    }
    enum tow_tone tone = alive < hosts->n_hosts ? TOW_TONE_BAD : TOW_TONE_PLAIN;
    fprintf(tow->out, "hosts       %s%zu of %zu alive%s, %s of %s free\n",
            tow_tone_begin(tone, tow->color_out), alive, hosts->n_hosts,
            tow_tone_end(tone, tow->color_out), tw_size_format(free_bytes, left),
            tw_size_format(capacity, all));
}

/* How hosts reach, or last reached, each other, and why so. */
static void print_paths(struct tow *tow, const Towline__V1__ListHostsResponse *hosts)
{
    size_t count = 0;
    for (size_t i = 0; i < hosts->n_hosts; i++) {
        const Towline__V1__HostDescription *d = hosts->hosts[i]->description;
        if (!d || hosts->hosts[i]->state != TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE)
            continue;
        for (size_t p = 0; p < d->n_paths; p++, count++) {
            const Towline__V1__FabricPath *path = d->paths[p];
            char line[768], safe[768];
            if (count >= PATHS_SHOWN)
                continue;
            snprintf(line, sizeof line, "%s -> %s by %s%s%s: %s", d->name, path->peer, path->fabric,
                     *path->migration ? ", in use by " : "", path->migration, path->reason);
            fprintf(tow->out, "%s%s\n", count ? "            " : "paths       ",
                    tow_safe_text(line, safe, sizeof safe));
        }
    }
    if (count > PATHS_SHOWN)
        fprintf(tow->out, "            and %zu more\n", count - PATHS_SHOWN);
}

static void print_vms(struct tow *tow, const Towline__V1__ListVmsResponse *vms)
{
    const ProtobufCEnumDescriptor *states = &towline__v1__vm_state__descriptor;
    fprintf(tow->out, "vms         %zu", vms->n_vms);
    for (unsigned s = 0; s < states->n_values; s++) {
        char name[TOW_ENUM_TEXT];
        size_t count = 0;
        for (size_t i = 0; i < vms->n_vms; i++)
            count += (int)vms->vms[i]->state == states->values[s].value;
        if (count == 0)
            continue;
        tow_enum_name(states, states->values[s].value, name);
        enum tow_tone tone = tow_tone_of_state(name);
        fprintf(tow->out, ", %s%zu %s%s", tow_tone_begin(tone, tow->color_out), count, name,
                tow_tone_end(tone, tow->color_out));
    }
    fputc('\n', tow->out);
}

static void print_migrations(struct tow *tow, const Towline__V1__ListMigrationsResponse *list)
{
    size_t running = 0;
    for (size_t i = 0; i < list->n_migrations; i++)
        running += !tow_migration_ended(list->migrations[i]);
    fprintf(tow->out, "migrations  %zu running\n", running);
    for (size_t i = 0; i < list->n_migrations; i++) {
        const Towline__V1__Migration *m = list->migrations[i];
        char state[TOW_ENUM_TEXT], line[384], safe[384];
        if (tow_migration_ended(m))
            continue;
        snprintf(line, sizeof line, "%s  vm %s  %s -> %s  %s", m->id, m->vm, m->source,
                 m->destination,
                 tow_enum_name(&towline__v1__migration_state__descriptor, (int)m->state, state));
        fprintf(tow->out, "            %s\n", tow_safe_text(line, safe, sizeof safe));
    }
}

int tow_status(struct tow *tow, const struct tow_arguments *arguments)
{
    struct answers answers;
    int status = TOW_EXIT_OK;
    (void)arguments;
    if (answers_get(tow, &answers, &status)) {
        if (tow->json) {
            print_json(tow, &answers);
        } else {
            print_controller(tow, answers.health);
            print_hosts(tow, answers.hosts);
            print_paths(tow, answers.hosts);
            print_vms(tow, answers.vms);
            print_migrations(tow, answers.migrations);
        }
        status = answers.health->ready ? TOW_EXIT_OK : TOW_EXIT_FAILED;
    }
    answers_free(&answers);
    return status;
}
