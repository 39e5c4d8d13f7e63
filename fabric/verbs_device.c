#include "fabric/memlock.h"
#include "fabric/verbs_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#define SIW_VENDOR    0x626d74u /* Soft-iWARP */
#define COVER_ENTRIES 32000     /* of 32 bytes */

/* What a region has at the device. */
struct verbs_slices {
    struct verbs_domain *domain;
    uint64_t count;
    struct ibv_mr *mrs[];
};

/* ---- The device ------------------------------------------------------------------------------ */

static enum tw_code open_channel(struct verbs_fabric *f, struct tw_error *err)
{
    f->completions = ibv_create_comp_channel(f->context);
    if (!f->completions)
        return tw_fail_errno(err, errno, "fabric", "completion channel");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = f->completions->fd};
    const int flags = fcntl(f->completions->fd, F_GETFL);
    if (flags < 0 || fcntl(f->completions->fd, F_SETFL, flags | O_NONBLOCK) ||
        epoll_ctl(f->set, EPOLL_CTL_ADD, f->completions->fd, &event))
        return tw_fail_errno(err, errno, "fabric", "completion channel");
    return TW_OK;
}

/* Soft-iWARP's library takes a queue that the kernel offers for mapping at 0x90000 for a failed
 * one, which a process reaches with its seventh connection or so. One queue that begins before and
 * ends behind that place keeps all others away from it. */
static enum tw_code cover_place(struct verbs_fabric *f, struct tw_error *err)
{
    f->cover = ibv_create_cq(f->context, COVER_ENTRIES, NULL, NULL, 0);
    return f->cover ? TW_OK : tw_fail_errno(err, errno, "fabric", "completion queue");
}

enum tw_code verbs_device_adopt(struct verbs_fabric *f, struct ibv_context *context,
                                struct tw_error *err)
{
    if (f->context == context && f->completions)
        return TW_OK;
    const char *name = ibv_get_device_name(context->device);
    const char *wanted = f->context ? ibv_get_device_name(f->context->device) : f->config.device;
    if (wanted && wanted[0] && strcmp(wanted, name) != 0)
        return tw_fail(err, TW_FAILED_PRECONDITION, "fabric", wanted, name,
                       "the address belongs to another RDMA device");
    f->context = context;
    if (ibv_query_device(context, &f->attributes))
        return tw_fail_errno(err, errno, name, "the device cannot be asked");
    f->iwarp = context->device->transport_type == IBV_TRANSPORT_IWARP;
    f->strict_memlock = f->attributes.vendor_id == SIW_VENDOR;
    const enum tw_code code = f->strict_memlock ? cover_place(f, err) : TW_OK;
    return code ? code : open_channel(f, err);
}

enum tw_code verbs_device_find(struct verbs_fabric *f, struct tw_error *err)
{
    int count = 0;
    if (f->context)
        return TW_OK;
    struct ibv_context **contexts = rdma_get_devices(&count), *found = NULL;
    const char *wanted = f->config.device;
    for (int i = 0; contexts && i < count && !found; i++)
        if (!wanted || !wanted[0] || strcmp(wanted, ibv_get_device_name(contexts[i]->device)) == 0)
            found = contexts[i];
    if (contexts)
        rdma_free_devices(contexts);
    if (!found)
        return tw_fail(err, TW_NOT_FOUND, "fabric", wanted && wanted[0] ? wanted : "any", NULL,
                       "no such RDMA device on this host");
    return verbs_device_adopt(f, found, err);
}

enum tw_code verbs_memlock_check(const struct verbs_fabric *f, uint64_t bytes, const char *where,
                                 struct tw_error *err)
{
    struct tw_memlock memlock;
    tw_memlock_get(&memlock);
    return tw_memlock_check(&memlock, f->strict_memlock, bytes, where, err);
}

/* ---- Protection domains ---------------------------------------------------------------------- */

struct verbs_domain *verbs_domain_get(struct verbs_fabric *f, const uint8_t token[TW_OWNER_SIZE],
                                      struct tw_error *err)
{
    for (struct verbs_domain *d = f->domains; d; d = d->next)
        if (memcmp(d->token, token, TW_OWNER_SIZE) == 0) {
            d->uses++;
            return d;
        }
    struct verbs_domain *d = calloc(1, sizeof *d);
    if (d)
        d->pd = ibv_alloc_pd(f->context);
    if (!d || !d->pd) {
        tw_fail_errno(err, d ? errno : ENOMEM, f->base.name, "protection domain");
        free(d);
        return NULL;
    }
    memcpy(d->token, token, TW_OWNER_SIZE);
    d->uses = 1;
    d->next = f->domains;
    f->domains = d;
    return d;
}

void verbs_domain_put(struct verbs_fabric *f, struct verbs_domain *domain)
{
    if (!domain || --domain->uses)
        return;
    struct verbs_domain **at = &f->domains;
    while (*at != domain)
        at = &(*at)->next;
    *at = domain->next;
    ibv_dealloc_pd(domain->pd);
    free(domain);
}

/* ---- Registrations --------------------------------------------------------------------------- */

struct ibv_mr *verbs_register(struct verbs_fabric *f, struct verbs_domain *domain,
                              const void *memory, size_t length, int access, const char *where,
                              struct tw_error *err)
{
    const uint64_t began = tw_now(&tw_monotonic);
    struct ibv_mr *mr = ibv_reg_mr(domain->pd, (void *)(uintptr_t)memory, length, (unsigned)access);
    if (!mr) {
        tw_fail_errno(err, errno, where, "%zu bytes cannot be registered with %s", length,
                      ibv_get_device_name(f->context->device));
        return NULL;
    }
    f->stats.register_ns += tw_now(&tw_monotonic) - began;
    f->stats.registrations++;
    f->stats.registered_slices++;
    f->stats.registered_bytes += length;
    return mr;
}

void verbs_deregister(struct verbs_fabric *f, struct ibv_mr *mr)
{
    if (!mr)
        return;
    const uint64_t began = tw_now(&tw_monotonic);
    const size_t length = mr->length;
    ibv_dereg_mr(mr);
    f->stats.deregister_ns += tw_now(&tw_monotonic) - began;
    f->stats.registered_slices--;
    f->stats.registered_bytes -= length;
}

/* ---- The memory of a connection -------------------------------------------------------------- */

static size_t pages(size_t bytes)
{
    return (bytes + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE * TW_PAGE_SIZE;
}

static enum tw_code register_parts(struct verbs_fabric *f, struct verbs_domain *domain,
                                   struct verbs_memory *m, const char *where, struct tw_error *err)
{
    const size_t rings = (size_t)(m->bytes + m->size - m->rings[TW_LANE_URGENT]);
    const size_t local = (size_t)(m->rings[TW_LANE_URGENT] - m->greetings);
    const int remote = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    m->acks_mr = verbs_register(f, domain, m->acks, TW_PAGE_SIZE, remote, where, err);
    if (m->acks_mr)
        m->local_mr =
            verbs_register(f, domain, m->greetings, local, IBV_ACCESS_LOCAL_WRITE, where, err);
    if (m->local_mr)
        m->rings_mr = verbs_register(f, domain, m->rings[TW_LANE_URGENT], rings,
                                     f->iwarp ? IBV_ACCESS_LOCAL_WRITE : remote, where, err);
    return m->rings_mr ? TW_OK : TW_RESOURCE_EXHAUSTED;
}

struct verbs_memory *verbs_memory_new(struct verbs_fabric *f, struct verbs_domain *domain,
                                      uint32_t bulk_slots, const char *where, struct tw_error *err)
{
    const size_t greetings = (size_t)2 * (1 + VERBS_QUEUES_MAX) * VERBS_GREETING;
    const size_t local = pages(greetings + (size_t)(VERBS_URGENT_SLOTS + 1) * VERBS_COPY);
    const size_t urgent = pages((size_t)VERBS_URGENT_SLOTS * VERBS_STRIDE);
    const size_t bulk = pages((size_t)bulk_slots * VERBS_STRIDE);
    const size_t size = TW_PAGE_SIZE + local + urgent + bulk;
    /* The shared half's rings, which are registered later, would fail later. */
    const size_t chunks = (size_t)(bulk_slots + TW_URGENT_CREDITS) * TW_FRAME_MAX;
    if (verbs_memlock_check(f, size + pages(chunks), where, err))
        return NULL;
    struct verbs_memory *m = calloc(1, sizeof *m);
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!m || bytes == MAP_FAILED) {
        tw_fail_errno(err, ENOMEM, where, "rings of %u slots", bulk_slots);
        free(m);
        return NULL;
    }
    m->uses = 1;
    m->bytes = bytes;
    m->size = size;
    m->acks = bytes;
    m->greetings = m->bytes + TW_PAGE_SIZE;
    m->copies = m->greetings + greetings;
    m->rings[TW_LANE_URGENT] = m->greetings + local;
    m->rings[TW_LANE_BULK] = m->rings[TW_LANE_URGENT] + urgent;
    if (register_parts(f, domain, m, where, err)) {
        verbs_memory_put(f, m);
        return NULL;
    }
    return m;
}

void verbs_memory_put(struct verbs_fabric *f, struct verbs_memory *m)
{
    if (!m || --m->uses)
        return;
    verbs_reads_unmap(f, m);
    for (unsigned lane = 0; lane < TW_LANES; lane++)
        verbs_deregister(f, m->chunks_mr[lane]);
    verbs_deregister(f, m->rings_mr);
    verbs_deregister(f, m->local_mr);
    verbs_deregister(f, m->acks_mr);
    munmap(m->bytes, m->size);
    free(m);
}

enum tw_code verbs_chunks_register(struct verbs_conn *conn, struct tw_error *err)
{
    struct verbs_fabric *f = verbs_fabric_of(&conn->base);
    for (unsigned lane = 0; lane < TW_LANES; lane++) {
        const struct tw_lane_state *l = &conn->base.lanes[lane];
        conn->memory->chunks_mr[lane] = verbs_register(
            f, conn->domain, l->ring, (size_t)l->credits * TW_FRAME_MAX, 0, conn->base.label, err);
        if (!conn->memory->chunks_mr[lane])
            return TW_RESOURCE_EXHAUSTED;
    }
    return TW_OK;
}

/* ---- Regions --------------------------------------------------------------------------------- */

static void slices_free(struct verbs_fabric *f, struct verbs_slices *s)
{
    for (uint64_t i = 0; i < s->count; i++)
        verbs_deregister(f, s->mrs[i]);
    verbs_domain_put(f, s->domain);
    free(s);
}

enum tw_code verbs_region_open(struct tw_fabric *base, struct tw_region *region,
                               struct tw_error *err)
{
    struct verbs_fabric *f = (struct verbs_fabric *)base;
    const uint64_t step = f->config.slice_bytes;
    const uint64_t count = verbs_slice_count(region->length, step);
    const uintptr_t at = (uintptr_t)region->memory;
    char where[64];
    snprintf(where, sizeof where, "region of %llu bytes", (unsigned long long)region->length);
    if (count > VERBS_SLICES_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, NULL, NULL,
                       "too many slices: make slice_bytes larger");
    enum tw_code code = verbs_device_find(f, err);
    if (!code)
        code = verbs_memlock_check(f, verbs_slices_pinned(at, region->length, step), where, err);
    if (code)
        return code;
    struct verbs_slices *s = calloc(1, sizeof *s + count * sizeof s->mrs[0]);
    if (!s)
        return tw_fail_errno(err, ENOMEM, where, "slices");
    s->domain = verbs_domain_get(f, region->token, err);
    for (; s->domain && s->count < count; s->count++) {
        const struct tw_range r = verbs_slice_at(region->length, step, s->count);
        s->mrs[s->count] = verbs_register(f, s->domain, region->memory + r.start, r.length,
                                          IBV_ACCESS_REMOTE_READ, where, err);
        if (!s->mrs[s->count])
            break;
    }
    if (!s->domain || s->count < count) {
        slices_free(f, s);
        return TW_RESOURCE_EXHAUSTED;
    }
    region->backend = s;
    return TW_OK;
}

void verbs_region_close(struct tw_fabric *base, struct tw_region *region)
{
    slices_free((struct verbs_fabric *)base, region->backend);
    region->backend = NULL;
}

bool verbs_region_slice(const struct tw_region *region, uint64_t address, uint64_t step,
                        struct verbs_slice *out)
{
    const struct verbs_slices *s = region->backend;
    if (address >= region->length || address / step >= s->count)
        return false;
    const struct tw_range r = verbs_slice_at(region->length, step, address / step);
    *out = (struct verbs_slice){
        .key = region->key,
        .rkey = s->mrs[address / step]->rkey,
        .start = r.start,
        .length = r.length,
        .address = (uintptr_t)region->memory + r.start,
    };
    return true;
}
