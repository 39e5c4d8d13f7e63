/* libfabric's tcp provider: one message endpoint, RMA writes straight into the peer's registered
 * memory, RMA reads. Both processes spin on their completion queues, as it makes progress there. */
#include "bench/fabric/bench.h"
#include "fabric/record.h"

#include <arpa/inet.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS   2048u /* of one measured stream */
#define BUSY     8u    /* blocks in flight while reads are measured */
#define CQ_SIZE  512u
#define KEY      77u
#define EVENT_MS 10000

struct link {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_eq *eq;
    struct fid_domain *domain;
    struct fid_cq *cq;
    struct fid_mr *mr;
    struct fid_ep *ep;
    uint8_t *memory;
    uint64_t posted, done;
    uint64_t base, key; /* of the peer */
    char read_mark;     /* its address is the context of reads */
    bool read_done;
};

static void must(long code, const char *what)
{
    if (code < 0)
        bench_fail(what, fi_strerror((int)-code));
}

static struct fi_info *info_of(const char *host, const char *port, uint64_t flags)
{
    struct fi_info *hints = fi_allocinfo(), *info = NULL;
    if (!hints)
        bench_fail("libfabric", "no memory");
    hints->ep_attr->type = FI_EP_MSG;
    hints->caps = FI_MSG | FI_RMA;
    hints->addr_format = FI_SOCKADDR_IN;
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->fabric_attr->prov_name = strdup("tcp");
    must(fi_getinfo(FI_VERSION(1, 17), host, port, flags, hints, &info), "fi_getinfo");
    fi_freeinfo(hints);
    return info;
}

static void event(struct link *l, uint32_t expected, struct fi_info **request)
{
    struct fi_eq_cm_entry entry;
    uint32_t kind = 0;
    const ssize_t n = fi_eq_sread(l->eq, &kind, &entry, sizeof entry, EVENT_MS, 0);
    must(n, "fi_eq_sread");
    if (kind != expected)
        bench_fail("libfabric", "an event that was not expected");
    if (request)
        *request = entry.info;
}

/* Everything behind the event queue, for an endpoint as `info` says. */
static void endpoint_open(struct link *l, struct fi_info *info)
{
    struct fi_cq_attr cq = {
        .size = CQ_SIZE, .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE};
    must(fi_domain(l->fabric, info, &l->domain, NULL), "fi_domain");
    must(fi_mr_reg(l->domain, l->memory, MEMORY_BYTES,
                   FI_REMOTE_READ | FI_REMOTE_WRITE | FI_READ | FI_WRITE, 0, KEY, 0, &l->mr, NULL),
         "fi_mr_reg");
    must(fi_cq_open(l->domain, &cq, &l->cq, NULL), "fi_cq_open");
    must(fi_endpoint(l->domain, info, &l->ep, NULL), "fi_endpoint");
    must(fi_ep_bind(l->ep, &l->eq->fid, 0), "fi_ep_bind");
    must(fi_ep_bind(l->ep, &l->cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
    must(fi_enable(l->ep), "fi_enable");
}

static void link_close(struct link *l)
{
    fi_close(&l->ep->fid);
    fi_close(&l->mr->fid);
    fi_close(&l->cq->fid);
    fi_close(&l->domain->fid);
    fi_close(&l->eq->fid);
    fi_close(&l->fabric->fid);
    fi_freeinfo(l->info);
}

static void link_open(struct link *l, struct fi_info *info)
{
    struct fi_eq_attr eq = {.wait_obj = FI_WAIT_UNSPEC};
    l->info = info;
    must(fi_fabric(info->fabric_attr, &l->fabric, NULL), "fi_fabric");
    must(fi_eq_open(l->fabric, &eq, &l->eq, NULL), "fi_eq_open");
}

/* ---- The side that serves -------------------------------------------------------------------- */

static void serve(struct shared *shared, void *ctx)
{
    struct link l = {.memory = ctx};
    struct fid_pep *pep;
    struct fi_info *request;
    struct sockaddr_in a;
    size_t size = sizeof a;
    link_open(&l, info_of("127.0.0.1", NULL, FI_SOURCE));
    must(fi_passive_ep(l.fabric, l.info, &pep, NULL), "fi_passive_ep");
    must(fi_pep_bind(pep, &l.eq->fid, 0), "fi_pep_bind");
    must(fi_listen(pep), "fi_listen");
    must(fi_getname(&pep->fid, &a, &size), "fi_getname");
    snprintf(shared->address, sizeof shared->address, "%u", ntohs(a.sin_port));
    shared->ready = true;
    event(&l, FI_CONNREQ, &request);
    endpoint_open(&l, request);
    shared->key = fi_mr_key(l.mr);
    shared->base = request->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uintptr_t)l.memory : 0;
    must(fi_accept(l.ep, NULL, 0), "fi_accept");
    event(&l, FI_CONNECTED, NULL);
    while (!shared->stop) {
        struct fi_cq_entry entry;
        fi_cq_read(l.cq, &entry, 1);
    }
    fi_freeinfo(request);
    fi_close(&pep->fid);
    link_close(&l);
}

/* ---- The side that measures ------------------------------------------------------------------ */

static void dial(struct link *l, struct pair *pair)
{
    *l = (struct link){.memory = memory_new(MEMORY_BYTES)};
    pair_open(pair, serve, l->memory);
    link_open(l, info_of("127.0.0.1", pair->shared->address, 0));
    endpoint_open(l, l->info);
    must(fi_connect(l->ep, l->info->dest_addr, NULL, 0), "fi_connect");
    event(l, FI_CONNECTED, NULL);
    l->key = pair->shared->key;
    l->base = pair->shared->base;
}

static void hang_up(struct link *l, struct pair *pair)
{
    pair_close(pair);
    link_close(l);
    free(l->memory);
}

static void progress(struct link *l)
{
    struct fi_cq_entry entries[64];
    const ssize_t n = fi_cq_read(l->cq, entries, 64);
    if (n < 0 && n != -FI_EAGAIN)
        must(n, "fi_cq_read");
    for (ssize_t i = 0; i < n; i++) {
        if (entries[i].op_context == &l->read_mark)
            l->read_done = true;
        else
            l->done++;
    }
}

static void write_to(struct link *l, uint64_t at, size_t size)
{
    ssize_t code;
    while ((code = fi_write(l->ep, l->memory + at, size, fi_mr_desc(l->mr), 0, l->base + at, l->key,
                            NULL)) == -FI_EAGAIN)
        progress(l);
    must(code, "fi_write");
    l->posted++;
    while (l->posted - l->done >= CQ_SIZE / 2)
        progress(l);
}

static void read_begin(struct link *l, uint64_t at, size_t size, uint8_t *into)
{
    ssize_t code;
    l->read_done = false;
    while ((code = fi_read(l->ep, into, size, fi_mr_desc(l->mr), 0, l->base + at, l->key,
                           &l->read_mark)) == -FI_EAGAIN)
        progress(l);
    must(code, "fi_read");
}

/* A read behind the writes: when it is answered, they have been placed. */
static void drain(struct link *l)
{
    read_begin(l, 0, 8, l->memory);
    while (!l->read_done || l->done < l->posted)
        progress(l);
}

static double libfabric_stream(const struct contender *self)
{
    struct link l;
    struct pair pair;
    const unsigned blocks = MEMORY_BYTES / TW_CHUNK_PAYLOAD;
    (void)self;
    dial(&l, &pair);
    for (unsigned i = 0; i < blocks; i++)
        write_to(&l, i % blocks * (uint64_t)TW_CHUNK_PAYLOAD, TW_CHUNK_PAYLOAD);
    drain(&l);
    const double start = bench_now_s();
    for (unsigned i = 0; i < BLOCKS; i++)
        write_to(&l, i % blocks * (uint64_t)TW_CHUNK_PAYLOAD, TW_CHUNK_PAYLOAD);
    drain(&l);
    const double took = bench_now_s() - start;
    hang_up(&l, &pair);
    return BLOCKS * (double)TW_CHUNK_PAYLOAD / took * 1e-6;
}

static void write_dirty(struct link *l, const struct dirty *d, unsigned pages, int how)
{
    for (unsigned i = 0; i < pages; i++) {
        const uint64_t page = d->pages[i].page;
        if (how == WRITE_PAGES) {
            write_to(l, page, TW_PAGE_SIZE);
            continue;
        }
        for (uint64_t bits = d->pages[i].bitmap; bits; bits &= bits - 1)
            write_to(l, page + (unsigned)__builtin_ctzll(bits) * TW_LINE_SIZE, TW_LINE_SIZE);
    }
}

static double libfabric_lines(const struct contender *self, const struct dirty *d, int how)
{
    struct link l;
    struct pair pair;
    const unsigned writes = how == WRITE_PAGES ? 1 : d->lines;
    const unsigned pages = DIRTY_PAGES, passes = 1 + 15 / writes;
    (void)self;
    dial(&l, &pair);
    write_dirty(&l, d, pages / 4, how);
    drain(&l);
    const double start = bench_now_s();
    for (unsigned i = 0; i < passes; i++)
        write_dirty(&l, d, pages, how);
    drain(&l);
    const double took = bench_now_s() - start;
    hang_up(&l, &pair);
    return (double)passes * pages * d->lines / took;
}

static struct latency libfabric_reads(const struct contender *self, uint32_t size, bool busy)
{
    static double us[READS];
    struct link l;
    struct pair pair;
    uint64_t block = 0;
    (void)self;
    dial(&l, &pair);
    for (unsigned i = 0; i < READS + READS / 10; i++) {
        const uint64_t at = i * UINT64_C(0x9e3779b97f4a7c15) % (MEMORY_BYTES / 4096) * 4096;
        const double start = bench_now_s();
        read_begin(&l, at, size, l.memory);
        while (!l.read_done) {
            if (busy && l.posted - l.done < BUSY)
                write_to(&l, block++ % 256 * TW_CHUNK_PAYLOAD, TW_CHUNK_PAYLOAD);
            progress(&l);
        }
        if (i >= READS / 10)
            us[i - READS / 10] = (bench_now_s() - start) * 1e6;
    }
    drain(&l);
    hang_up(&l, &pair);
    return latency_of(us, READS);
}

const struct contender contender_libfabric = {.name = "libfabric-tcp",
                                              .stream = libfabric_stream,
                                              .lines = libfabric_lines,
                                              .reads = libfabric_reads};
