/* All hosts with what each could still take: its own word for the memory in use, or what the
 * controller has promised there, whichever is more. */
#include "controller/catalogue_inside.h"
#include "controller/mirror.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOVING_MAX 2048u /* VMs in a migration */

struct promise {
    char migration[TW_NAME_SIZE];
    uint64_t bytes;
};

struct tally {
    struct tw_host_view *views;
    uint64_t *promised; /* a host */
    size_t count;
    struct promise *moving; /* VMs in a migration */
    size_t moving_count, moving_max;
};

static int view_order(const void *a, const void *b)
{
    return strcmp(((const struct tw_host_view *)a)->record.name,
                  ((const struct tw_host_view *)b)->record.name);
}

static size_t view_index(const struct tally *t, const char *host)
{
    struct tw_host_view key;
    snprintf(key.record.name, sizeof key.record.name, "%s", host);
    const struct tw_host_view *v = bsearch(&key, t->views, t->count, sizeof *t->views, view_order);
    return v ? (size_t)(v - t->views) : t->count;
}

static void tally_vm(void *ctx, const struct tw_vm_record *vm)
{
    struct tally *t = ctx;
    size_t i = view_index(t, vm->host);
    bool holds =
        vm->state == TW_VM_STARTING || vm->state == TW_VM_RUNNING || vm->state == TW_VM_PAUSED;
    if (i < t->count && vm->wanted != TW_WANTED_GONE)
        t->views[i].vms++;
    if (i < t->count && holds)
        t->promised[i] += vm->memory_bytes;
    if (vm->migration[0] && t->moving_count < t->moving_max) {
        struct promise *p = &t->moving[t->moving_count++];
        memcpy(p->migration, vm->migration, sizeof p->migration);
        p->bytes = vm->memory_bytes;
    }
}

static void tally_migration(void *ctx, const struct tw_migration_record *m)
{
    struct tally *t = ctx;
    char mirror[TW_NAME_SIZE];
    tw_mirror_host(m, mirror);
    size_t i = view_index(t, m->destination), third = view_index(t, mirror);
    for (size_t k = 0; k < t->moving_count; k++) {
        if (strcmp(t->moving[k].migration, m->id) != 0)
            continue;
        if (i < t->count)
            t->promised[i] += t->moving[k].bytes;
        if (third < t->count) /* at most: what follows the VM is a part of it */
            t->promised[third] += t->moving[k].bytes;
    }
}

static enum tw_code tally_store(struct tw_store *store, struct tally *t, struct tw_error *err)
{
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code != TW_OK)
        return code;
    code = tw_store_vms_each(store, "", tally_vm, t, err);
    if (code == TW_OK && t->moving_count)
        code = tw_store_migrations_running(store, tally_migration, t, err);
    return tw_store_end(store, code, err);
}

static struct tw_host_view *views_copy(struct tw_catalogue *c, size_t *count)
{
    uint64_t now = tw_now(c->config.clock), wall = tw_wall_ms();
    struct tw_host_view *views = calloc(c->count + 1, sizeof *views);
    *count = views ? c->count : 0;
    for (size_t i = 0; i < *count; i++) {
        const struct tw_catalogue_host *h = c->hosts[i];
        uint64_t left = h->lease_until_ns > now ? h->lease_until_ns - now : 0;
        views[i].record = h->record;
        views[i].lease_expires_unix_ms = h->record.alive ? wall + left / TW_MS : 0;
    }
    return views;
}

enum tw_code tw_catalogue_hosts(struct tw_catalogue *c, struct tw_host_view **hosts, size_t *count,
                                struct tw_error *err)
{
    struct tally t = {.moving_max = MOVING_MAX};
    pthread_mutex_lock(&c->lock);
    t.views = views_copy(c, &t.count);
    pthread_mutex_unlock(&c->lock);
    t.promised = calloc(t.count + 1, sizeof *t.promised);
    t.moving = calloc(t.moving_max, sizeof *t.moving);
    enum tw_code code = t.views && t.promised && t.moving
                            ? TW_OK
                            : tw_fail_errno(err, ENOMEM, "hosts", "cannot list");
    if (code == TW_OK && t.count)
        qsort(t.views, t.count, sizeof *t.views, view_order);
    if (code == TW_OK)
        code = tally_store(c->config.store, &t, err);
    for (size_t i = 0; i < t.count && code == TW_OK; i++) {
        const struct tw_host_record *r = &t.views[i].record;
        uint64_t used = r->used_bytes > t.promised[i] ? r->used_bytes : t.promised[i];
        t.views[i].free_bytes = r->capacity_bytes > used ? r->capacity_bytes - used : 0;
    }
    free(t.promised);
    free(t.moving);
    if (code != TW_OK) {
        free(t.views);
        t.views = NULL;
        t.count = 0;
    }
    *hosts = t.views;
    *count = t.count;
    return code;
}
