#include "controller/convert.h"

#include "rpc/rpc.h"

#include <stdlib.h>
#include <string.h>

bool tw_text_set(char **field, const char *text)
{
    if (!*text)
        return true;
    char *copy = strdup(text);
    if (copy)
        *field = copy;
    return copy != NULL;
}

bool tw_append(void *array, size_t *count, ProtobufCMessage *item)
{
    void ***list = array;
    if (!item)
        return false;
    /* Grows at powers of two. */
    if ((*count & (*count - 1)) == 0) {
        void **bigger = realloc(*list, (*count ? 2 * *count : 1) * sizeof **list);
        if (!bigger) {
            protobuf_c_message_free_unpacked(item, NULL);
            return false;
        }
        *list = bigger;
    }
    (*list)[(*count)++] = item;
    return true;
}

/* The message when it is whole, else nothing. */
static void *whole(bool ok, ProtobufCMessage *message)
{
    if (!ok) {
        protobuf_c_message_free_unpacked(message, NULL);
        return NULL;
    }
    return message;
}

static ProtobufCMessage *path_to_proto(const struct tw_path_record *r)
{
    Towline__V1__FabricPath *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__fabric_path__init(p);
    bool ok = tw_text_set(&p->peer, r->peer) && tw_text_set(&p->fabric, r->fabric) &&
              tw_text_set(&p->reason, r->reason) && tw_text_set(&p->migration, r->migration);
    return whole(ok, &p->base);
}

static Towline__V1__HostDescription *description(const struct tw_host_record *r)
{
    Towline__V1__HostDescription *d = malloc(sizeof *d);
    if (!d)
        return NULL;
    towline__v1__host_description__init(d);
    d->memory_capacity_bytes = r->capacity_bytes;
    d->memory_used_bytes = r->used_bytes;
    d->cpus = r->cpus;
    d->instance = r->instance;
    bool ok = tw_text_set(&d->name, r->name) && tw_text_set(&d->rpc_url, r->rpc_url) &&
              tw_text_set(&d->fabric_address, r->fabric_address) &&
              tw_text_set(&d->fabric, r->fabric) && tw_text_set(&d->version, r->version) &&
              tw_text_set(&d->verbs_address, r->verbs_address) &&
              tw_text_set(&d->fabric_reason, r->fabric_reason);
    for (unsigned i = 0; i < r->path_count && ok; i++)
        ok = tw_append(&d->paths, &d->n_paths, path_to_proto(&r->paths[i]));
    return whole(ok, &d->base);
}

Towline__V1__Host *tw_host_to_proto(const struct tw_host_view *view)
{
    Towline__V1__Host *h = malloc(sizeof *h);
    if (!h)
        return NULL;
    towline__v1__host__init(h);
    h->description = description(&view->record);
    h->state = view->record.alive ? TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE
                                  : TOWLINE__V1__HOST_STATE__HOST_STATE_DEAD;
    h->last_seen_unix_ms = view->record.last_seen_unix_ms;
    h->lease_expires_unix_ms = view->lease_expires_unix_ms;
    h->vms = view->vms;
    h->memory_free_bytes = view->free_bytes;
    return whole(h->description != NULL, &h->base);
}

Towline__V1__VmReport *tw_report_to_proto(const struct tw_report *report)
{
    Towline__V1__VmReport *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    towline__v1__vm_report__init(r);
    r->epoch = report->epoch;
    r->state = (Towline__V1__VmState)report->state;
    r->memory_bytes = report->memory_bytes;
    r->pid = report->pid;
    r->lines_written = report->lines_written;
    if (report->dirty.duration_us && (r->dirty = malloc(sizeof *r->dirty))) {
        towline__v1__vm_dirty__init(r->dirty);
        r->dirty->duration_us = report->dirty.duration_us;
        r->dirty->lines = report->dirty.lines;
        r->dirty->pages = report->dirty.pages;
        r->dirty->regions = report->dirty.regions;
    }
    bool ok = tw_text_set(&r->name, report->name) &&
              tw_text_set(&r->migration, report->migration) &&
              tw_text_set(&r->reason, report->reason);
    return whole(ok, &r->base);
}

Towline__V1__Vm *tw_vm_to_proto(const struct tw_vm_record *record, bool host_alive)
{
    char reason[TW_REASON_SIZE + 64];
    Towline__V1__Vm *vm = malloc(sizeof *vm);
    if (!vm)
        return NULL;
    towline__v1__vm__init(vm);
    vm->spec = towline__v1__vm_spec__unpack(NULL, record->spec_size, record->spec);
    vm->epoch = record->epoch;
    vm->state = (Towline__V1__VmState)record->state;
    vm->created_unix_ms = record->created_unix_ms;
    snprintf(reason, sizeof reason, "%s", record->reason);
    bool lives = record->state == TW_VM_STARTING || record->state == TW_VM_RUNNING ||
                 record->state == TW_VM_PAUSED;
    if (lives && !host_alive) {
        vm->state = TOWLINE__V1__VM_STATE__VM_STATE_UNKNOWN;
        snprintf(reason, sizeof reason, "host %s is not heard of", record->host);
    }
    bool ok = vm->spec && tw_text_set(&vm->host, record->host) &&
              tw_text_set(&vm->reason, reason) && tw_text_set(&vm->migration, record->migration);
    return whole(ok, &vm->base);
}

Towline__V1__Migration *tw_migration_to_proto(const struct tw_migration_record *r)
{
    Towline__V1__Migration *m = malloc(sizeof *m);
    if (!m)
        return NULL;
    towline__v1__migration__init(m);
    m->state = (Towline__V1__MigrationState)((unsigned)r->state + 1);
    m->limits = towline__v1__migration_limits__unpack(NULL, r->limits_size, r->limits);
    m->progress = towline__v1__migration_progress__unpack(NULL, r->progress_size, r->progress);
    m->error = tw_error_to_proto(&r->error);
    m->epoch = r->epoch;
    m->created_unix_ms = r->created_unix_ms;
    m->ended_unix_ms = r->ended_unix_ms;
    m->cancel_requested = r->cancel_requested;
    bool ok = m->limits && m->progress && (m->error || !r->error.code) &&
              tw_text_set(&m->id, r->id) && tw_text_set(&m->vm, r->vm) &&
              tw_text_set(&m->source, r->source) && tw_text_set(&m->destination, r->destination);
    return whole(ok, &m->base);
}
