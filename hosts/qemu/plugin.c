/* The host end of the coherence link: a QEMU plugin that reports every store to guest RAM.
 *
 *   -plugin towline-plugin.so,link=FILE,ram=FILE[,guard=SOCKET][,mismatch=N][,recheck=N]
 *
 * Everything else stands in the link's header. QEMU calls us after each access (never before it),
 * which is the order that the link needs (link.h).
 *
 * Where did a store go? The plugin interface gives an opaque handle. Asking it for the physical
 * address takes locks and walks the list of RAM blocks; the host address that it holds (second
 * word on 7.2) minus the place where the RAM file is mapped is the same offset for the price of a
 * subtraction. Whether that word is there is found by comparing both ways: the first CHECKS stores
 * are reported by the API's answer and compared; if all agree we go on with the host address and
 * compare one store in RECHECK_EVERY; after any difference the API is used for good, and what was
 * reported so far is replaced by "everything is dirty". An access to a device holds a pointer to
 * something else in that word, which lies outside RAM.
 *
 * Asking for the handle is the dearest part of a store's report, so each vCPU remembers where the
 * pages led that it used last, until it executes an instruction that may change that (remap.h). The
 * comparisons cover what is remembered.
 *
 * Pages with paced lines (link.h) are not remembered, so that only stores there go the long way, at
 * whose end a store that has made a paced line dirty may have to wait. Who writes elsewhere pays
 * nothing for it.
 *
 * Not seen: what QEMU writes without a guest instruction at work (devices, the page walker's bits,
 * the frame that an interrupt pushes). The service compares at the end to find these.
 *
 * guard=SOCKET: hands out a userfaultfd of this process's memory there (guard.h).
 *
 * Each vCPU's callbacks run on one thread; several vCPUs run at once. For tests: mismatch=N makes
 * the Nth comparison come out different, recheck=N compares one store in N (a power of two). */
#include "hosts/link/link.h"
#include "hosts/qemu/guard.h"
#include "hosts/qemu/plugin_abi.h"
#include "hosts/qemu/ram_base.h"
#include "hosts/qemu/remap.h"
#include "hosts/qemu/slow_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT         __attribute__((visibility("default")))
#define LIKELY(x)      __builtin_expect(!!(x), 1)
#define UNLIKELY(x)    __builtin_expect(!!(x), 0)
#define CHECKS         4096u      /* comparisons before the host address is trusted */
#define RECHECK_EVERY  (1u << 16) /* stores of a vCPU; a power of two */
#define LOOK_EVERY     1024u      /* stores of a vCPU between two looks at what is paced */
#define UNKNOWN_SIZE   32u        /* bytes of an access; QEMU itself moves at most 16 at once */
#define SIZES          8u         /* of an access, as powers of two */
#define SIZE_AT_END    13u /* bit of its information at which the size may begin, and above */
#define INFOS          (1u << 16) /* values of an access's information that are tried at start */
#define INFO_BITS      20u        /* of it, in which one may tell a store from a load */
#define INFO_STEP      251u       /* so that all of its values need not be tried */
#define REMEMBERED     128u       /* pages a vCPU; a power of two */
#define VCPU_STRIDE    8192u      /* bytes; a power of two */
#define AGE_SHIFT      52u        /* a page number has 52 bits; above it stands the age */
#define AGE_ONE        (UINT64_C(1) << AGE_SHIFT)
#define AGE_LAST       (UINT64_MAX << AGE_SHIFT)
#define ABOVE_THE_HOLE (1ull << 32) /* guest-physical address of RAM that is not low memory */

#ifndef TOWLINE_PLUGIN_API
#define TOWLINE_PLUGIN_API 1
#endif
EXPORT int qemu_plugin_version = TOWLINE_PLUGIN_API;

static struct {
    /* What every store needs, in one cache line. */
    alignas(64) uint64_t base; /* host address of RAM offset 0 */
    uint64_t trusted;          /* bytes of RAM in mode host, else 0 */
    struct tw_link_map map;
    struct tw_link_header *header;
    uint32_t mode; /* enum tw_link_address; changes at most twice */
    uint32_t ring_events;
    uint64_t rare_mask;        /* stores of a vCPU between two rare ones, less one */
    uint32_t store_bit;        /* of an access's information; 0 = has to be asked for */
    uint8_t size_at;           /* the size of an access is (info >> size_at) % SIZES */
    uint8_t last_start[SIZES]; /* in a line, from which an access of this size stays within it */

    uint64_t recheck_mask; /* stores of a vCPU between two comparisons, less one */
    uint64_t size;         /* bytes of RAM */
    const uint64_t *paced; /* of each page the bitmap of its paced lines */
    uint8_t *rings;
    uint64_t ring_stride;
    uint64_t low_memory;
    uint64_t comparisons, agreements;
    uint64_t mismatch_at;
    char ram_path[PATH_MAX];
    uint64_t ram_inode;
} p;

/* Where the pages led that a vCPU used last. An entry counts while its age is the present one. */
struct remembered {
    uint64_t key;    /* virtual page number, age above it */
    uint64_t offset; /* of that page in RAM */
    uint8_t *marks;  /* of its lines */
    uint8_t *summary;
};
static struct vcpu {
    alignas(VCPU_STRIDE) uint64_t age; /* AGE_ONE..AGE_LAST; 0 = the vCPU has not started */
    struct tw_slow_writer slow;
    alignas(64) struct remembered pages[REMEMBERED];
} vcpus[TW_LINK_VCPUS_MAX];
static_assert(sizeof(struct vcpu) == VCPU_STRIDE, "found by a shift");

static pthread_once_t base_once = PTHREAD_ONCE_INIT;

/* Counters have one writer; the agent reads them at any time. */
static inline uint64_t count(uint64_t *counter)
{
    const uint64_t n = __atomic_load_n(counter, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(counter, n, __ATOMIC_RELAXED);
    return n;
}

static inline struct tw_link_vcpu *counters_of(unsigned vcpu)
{
    return &p.header->vcpu[vcpu % TW_LINK_VCPUS_MAX];
}

static inline uint32_t mode_now(void)
{
    return __atomic_load_n(&p.mode, __ATOMIC_RELAXED);
}

static void mode_set(enum tw_link_address mode)
{
    __atomic_store_n(&p.mode, mode, __ATOMIC_SEQ_CST);
    __atomic_store_n(&p.trusted, mode == TW_LINK_HOST ? p.size : 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&p.header->address_mode, mode, __ATOMIC_SEQ_CST);
}

/* `info` is opaque, but the size of an access has always stood in three bits of it. Where, is found
 * by asking for all values once; if nowhere, 32 bytes are assumed, and who needs to know it better
 * asks each time. */
static inline bool may_leave_line(qemu_plugin_meminfo_t info, uint64_t vaddr)
{
    return vaddr % TW_LINE_SIZE > p.last_start[(info >> p.size_at) % SIZES];
}

static uint64_t length_of(qemu_plugin_meminfo_t info)
{
    return UINT64_C(1) << qemu_plugin_mem_size_shift(info);
}

static bool size_is_at(unsigned at)
{
    for (qemu_plugin_meminfo_t info = 0; info < INFOS; info++)
        if (qemu_plugin_mem_size_shift(info) != (info >> at) % SIZES)
            return false;
    return true;
}

static void find_size(void)
{
    unsigned at = 0;
    while (at < SIZE_AT_END && !size_is_at(at))
        at++;
    p.size_at = (uint8_t)(at % SIZE_AT_END);
    for (unsigned i = 0; i < SIZES; i++) {
        const unsigned bytes = at < SIZE_AT_END ? 1u << i : UNKNOWN_SIZE;
        p.last_start[i] = (uint8_t)(bytes < TW_LINE_SIZE ? TW_LINE_SIZE - bytes : 0);
    }
}

static bool tells_store(uint32_t bit)
{
    for (qemu_plugin_meminfo_t info = 0; info < 1u << INFO_BITS; info += INFO_STEP)
        if (qemu_plugin_mem_is_store(info) != ((info & bit) != 0))
            return false;
    return true;
}

static void find_store(void)
{
    uint32_t bit = 1;
    while (bit < 1u << INFO_BITS && !tells_store(bit))
        bit <<= 1;
    p.store_bit = bit < 1u << INFO_BITS ? bit : 0;
}

static inline bool is_store(qemu_plugin_meminfo_t info)
{
    return LIKELY(p.store_bit) ? info & p.store_bit : qemu_plugin_mem_is_store(info);
}

/* ---- What is reported ------------------------------------------------------------------------ */

static inline void report_line(unsigned vcpu, uint64_t offset, bool store)
{
    if (p.ring_events == 0) {
        tw_link_mark(&p.map, offset);
        return;
    }
    struct tw_link_ring *ring = tw_link_ring_at(p.rings, p.ring_stride, vcpu);
    if (LIKELY(tw_link_ring_push(ring, p.ring_events, tw_link_event(offset, store))))
        return;
    if (store) {
        count(&counters_of(vcpu)->ring_overflows);
        tw_link_mark(&p.map, offset);
    } else {
        count(&counters_of(vcpu)->loads_dropped);
    }
}

/* The lines of [offset, offset + length), as far as they are RAM. */
static void report(unsigned vcpu, uint64_t offset, uint64_t length, bool store)
{
    if (offset >= p.size)
        return;
    const uint64_t last = tw_line_of(offset + length - 1);
    for (uint64_t line = tw_line_of(offset); line <= last; line++)
        if (line << TW_LINE_SHIFT < p.size)
            report_line(vcpu, line << TW_LINE_SHIFT, store);
    struct tw_link_vcpu *c = counters_of(vcpu);
    count(store ? &c->stores : &c->loads);
}

static void report_everything(void)
{
    memset(p.map.marks, 1, p.map.page_count * TW_LINES_PER_PAGE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memset(p.map.summary, 1, p.map.page_count);
}

/* ---- Pacing ---------------------------------------------------------------------------------- */

static inline struct vcpu *vcpu_of(unsigned vcpu)
{
    return &vcpus[vcpu % TW_LINK_VCPUS_MAX];
}

static void forget(unsigned vcpu, void *unused)
{
    (void)unused;
    struct vcpu *v = vcpu_of(vcpu);
    if (UNLIKELY(v->age == AGE_LAST)) { /* ages begin anew: no key of an earlier one may be left */
        memset(v->pages, 0, sizeof v->pages);
        v->age = 0;
    }
    v->age += AGE_ONE;
}

/* What is paced has changed: no page of it may be remembered from before. */
static void look_at_pace(unsigned vcpu)
{
    struct vcpu *v = vcpu_of(vcpu);
    if (UNLIKELY(tw_slow_writer_look(&v->slow, &p.header->pace)) && v->age)
        forget(vcpu, NULL);
}

static uint64_t paced_lines(const struct vcpu *v, uint64_t offset)
{
    return tw_slow_writer_lines(&v->slow, &p.header->pace, &p.paced[tw_page_of(offset)]);
}

/* Whether a store here makes a paced line dirty, to be asked before it is reported. A ring does not
 * tell: there each store counts. */
static bool owes(uint64_t paced, uint64_t offset, bool store)
{
    const uint8_t *mark = &p.map.marks[tw_line_of(offset)];
    return store && (paced & tw_line_bit(offset)) &&
           (p.ring_events || __atomic_load_n(mark, __ATOMIC_RELAXED) == 0);
}

static void slow_down(unsigned vcpu)
{
    tw_slow_writer_wait(&vcpu_of(vcpu)->slow, &p.header->pace, counters_of(vcpu));
}

/* ---- Both ways to an address ----------------------------------------------------------------- */

static inline uint64_t host_offset(const struct qemu_plugin_hwaddr *where)
{
    uint64_t host;
    memcpy(&host, (const char *)where + sizeof(uint64_t), sizeof host);
    return host - p.base;
}

/* The API's "physical address" is the offset in RAM on 7.2, and guest-physical where it is what it
 * says. They differ only above low memory; both readings of such an address are kept. */
struct physical {
    uint64_t flat;
    uint64_t split; /* UINT64_MAX when it is no other reading */
};

static bool ask_api(const struct qemu_plugin_hwaddr *where, struct physical *out)
{
    if (!where || qemu_plugin_hwaddr_is_io(where))
        return false;
    out->flat = qemu_plugin_hwaddr_phys_addr(where);
    out->split = UINT64_MAX;
    if (out->flat >= ABOVE_THE_HOLE && p.low_memory < p.size)
        out->split = out->flat - ABOVE_THE_HOLE + p.low_memory;
    return true;
}

static bool agrees(uint64_t host, const struct physical *api)
{
    if (host < p.size)
        return api && (host == api->flat || host == api->split);
    return !api || api->flat >= p.size || api->split >= p.size;
}

/* `reported` is what was told of the access: what the handle says, or what was remembered of it. */
static void compare(struct tw_link_vcpu *c, uint64_t host, uint64_t reported,
                    const struct physical *api)
{
    const uint64_t nth = __atomic_add_fetch(&p.comparisons, 1, __ATOMIC_RELAXED);
    count(&c->self_checks);
    if (UNLIKELY(host != reported || !agrees(host, api) || nth == p.mismatch_at)) {
        const bool trusted = mode_now() == TW_LINK_HOST;
        count(&c->self_check_failures);
        mode_set(TW_LINK_API);
        if (trusted)
            report_everything();
    } else if (mode_now() == TW_LINK_CHECKING && host < p.size &&
               __atomic_add_fetch(&p.agreements, 1, __ATOMIC_RELAXED) == CHECKS) {
        mode_set(TW_LINK_HOST);
    }
}

/* ---- Callbacks ------------------------------------------------------------------------------- */

static void report_paced(unsigned vcpu, uint64_t offset, uint64_t length, bool store)
{
    look_at_pace(vcpu);
    const bool slow = offset < p.size && owes(paced_lines(vcpu_of(vcpu), offset), offset, store);
    report(vcpu, offset, length, store);
    if (slow)
        slow_down(vcpu);
}

/* A part of an access that lies in one page, by the API's address. */
static void report_part_by_api(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr,
                               uint64_t length, bool store)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    struct physical api;
    const bool is_ram = ask_api(where, &api);
    if (mode_now() == TW_LINK_CHECKING && where)
        compare(counters_of(vcpu), host_offset(where), host_offset(where), is_ram ? &api : NULL);
    if (!is_ram)
        return;
    report_paced(vcpu, api.flat, length, store);
    if (api.split != UINT64_MAX)
        report_paced(vcpu, api.split, length, store);
}

static __attribute__((noinline)) void report_by_api(unsigned vcpu, qemu_plugin_meminfo_t info,
                                                    uint64_t vaddr, bool store)
{
    const uint64_t length = length_of(info);
    const uint64_t in_page = TW_PAGE_SIZE - vaddr % TW_PAGE_SIZE;
    if (length <= in_page) {
        report_part_by_api(vcpu, info, vaddr, length, store);
    } else {
        report_part_by_api(vcpu, info, vaddr, in_page, store);
        report_part_by_api(vcpu, info, vaddr + in_page, length - in_page, store);
    }
}

/* The access reaches into the next line, and the next page is anywhere. Its first line is reported
 * already. */
static __attribute__((noinline)) void report_rest(unsigned vcpu, qemu_plugin_meminfo_t info,
                                                  uint64_t vaddr, uint64_t offset, bool store)
{
    const uint64_t in_line = TW_LINE_SIZE - offset % TW_LINE_SIZE;
    uint64_t next = offset + in_line;
    if (next % TW_PAGE_SIZE == 0) {
        const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr + in_line);
        if (!where)
            return;
        next = host_offset(where);
    }
    if (next >= p.size)
        return;
    const bool slow = owes(paced_lines(vcpu_of(vcpu), next), next, store);
    report_line(vcpu, next, store);
    if (slow)
        slow_down(vcpu);
}

static __attribute__((noinline)) void recheck(unsigned vcpu, qemu_plugin_meminfo_t info,
                                              uint64_t vaddr, uint64_t offset)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    struct physical api;
    const bool is_ram = ask_api(where, &api);
    if (where)
        compare(counters_of(vcpu), host_offset(where), offset, is_ram ? &api : NULL);
}

/* ---- What is remembered ---------------------------------------------------------------------- */

static void remember(struct vcpu *v, uint64_t vaddr, uint64_t offset)
{
    const uint64_t page = tw_page_of(offset);
    v->pages[tw_page_of(vaddr) % REMEMBERED] = (struct remembered){
        .key = tw_page_of(vaddr) | v->age,
        .offset = page * TW_PAGE_SIZE,
        .marks = p.map.marks + page * TW_LINES_PER_PAGE,
        .summary = p.map.summary + page,
    };
}

/* Outside trusted RAM: a device, memory that is not ours, or the host address is not trusted. */
static __attribute__((noinline)) void on_untrusted(unsigned vcpu, qemu_plugin_meminfo_t info,
                                                   uint64_t vaddr, bool store)
{
    if (mode_now() != TW_LINK_HOST)
        report_by_api(vcpu, info, vaddr, store);
}

/* An access that may reach into the next line, or is to be compared, or comes after so many others
 * that a look at what is paced is due. */
static __attribute__((noinline)) void on_rare(unsigned vcpu, qemu_plugin_meminfo_t info,
                                              uint64_t vaddr, uint64_t offset, bool store)
{
    if (offset % TW_LINE_SIZE + length_of(info) > TW_LINE_SIZE)
        report_rest(vcpu, info, vaddr, offset, store);
    struct tw_link_vcpu *c = counters_of(vcpu);
    const uint64_t nth = store ? c->stores : c->loads;
    if ((nth & p.recheck_mask) == 0)
        recheck(vcpu, info, vaddr, offset);
    if ((nth & p.rare_mask) == 0)
        look_at_pace(vcpu);
}

/* The access lies at `offset` in RAM and is reported; is there more to it? No call on the way, so
 * that no register needs saving. */
static inline __attribute__((always_inline)) void after_ram(unsigned vcpu,
                                                            qemu_plugin_meminfo_t info,
                                                            uint64_t vaddr, uint64_t offset,
                                                            bool store)
{
    struct tw_link_vcpu *c = counters_of(vcpu);
    const uint64_t nth = count(store ? &c->stores : &c->loads);
    if (UNLIKELY(may_leave_line(info, vaddr) || (nth & p.rare_mask) == 0))
        on_rare(vcpu, info, vaddr, offset, store);
}

/* The page is not remembered: asks for the handle. Only RAM is remembered, only while the handle is
 * trusted, and no page with paced lines. */
static __attribute__((noinline)) void on_unknown(unsigned vcpu, qemu_plugin_meminfo_t info,
                                                 uint64_t vaddr, bool store)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    const uint64_t offset = where ? host_offset(where) : UINT64_MAX;
    if (offset >= __atomic_load_n(&p.trusted, __ATOMIC_RELAXED)) {
        on_untrusted(vcpu, info, vaddr, store);
        return;
    }
    look_at_pace(vcpu);
    struct vcpu *v = vcpu_of(vcpu);
    const uint64_t paced = paced_lines(v, offset);
    const bool slow = owes(paced, offset, store);
    if (v->age && !paced)
        remember(v, vaddr, offset);
    report_line(vcpu, offset, store);
    after_ram(vcpu, info, vaddr, offset, store);
    if (slow)
        slow_down(vcpu);
}

/* The common way of both links; `store` and `ring` are constants where it is inlined. Pages of the
 * guest's and of RAM are aligned alike, so the line in its page is known from either address. */
static inline __attribute__((always_inline)) void on_access(unsigned vcpu,
                                                            qemu_plugin_meminfo_t info,
                                                            uint64_t vaddr, bool store, bool ring)
{
    const struct vcpu *v = vcpu_of(vcpu);
    const struct remembered *m = &v->pages[tw_page_of(vaddr) % REMEMBERED];
    if (UNLIKELY(m->key != (tw_page_of(vaddr) | v->age) ||
                 __atomic_load_n(&p.trusted, __ATOMIC_RELAXED) == 0)) {
        on_unknown(vcpu, info, vaddr, store);
        return;
    }
    const uint64_t offset = m->offset + vaddr % TW_PAGE_SIZE;
    if (ring)
        report_line(vcpu, offset, store);
    else
        tw_link_mark_line(m->marks, m->summary, tw_line_of(vaddr) % TW_LINES_PER_PAGE);
    after_ram(vcpu, info, vaddr, offset, store);
}

/* QEMU 7.2 also calls for loads, whatever was asked for. */
static void on_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *unused)
{
    (void)unused;
    if (is_store(info))
        on_access(vcpu, info, vaddr, true, false);
}

/* One callback for both kinds: for an access made by a helper, QEMU 7.2 stops at the first callback
 * of an instruction that does not want its kind, so two callbacks would hide each other. */
static void on_load_or_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t vaddr,
                             void *unused)
{
    (void)unused;
    if (is_store(info))
        on_access(vcpu, info, vaddr, true, true);
    else
        on_access(vcpu, info, vaddr, false, true);
}

/* RAM is mapped after plugins are loaded and before the first instruction is translated. */
static void find_base(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    const bool found = maps && tw_ram_base_find(maps, p.ram_path, p.ram_inode, p.size, &p.base);
    if (maps)
        fclose(maps);
    if (!found)
        mode_set(TW_LINK_API);
}

static bool may_remap(const struct qemu_plugin_insn *insn)
{
    uint8_t copy[TW_INSN_MAX];
    const size_t size = qemu_plugin_insn_size(insn);
    const uintptr_t answer = qemu_plugin_insn_data(insn, copy, sizeof copy);
    if (answer <= sizeof copy) /* a length: the bytes were copied */
        return answer < size || tw_insn_may_remap(copy, size);
    return tw_insn_may_remap((const uint8_t *)answer, size);
}

static void on_vcpu_start(qemu_plugin_id_t id, unsigned vcpu)
{
    (void)id;
    forget(vcpu, NULL);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    pthread_once(&base_once, find_base);
    const size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (p.ring_events == 0)
            qemu_plugin_register_vcpu_mem_cb(insn, on_store, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_W, NULL);
        else
            qemu_plugin_register_vcpu_mem_cb(insn, on_load_or_store, QEMU_PLUGIN_CB_NO_REGS,
                                             QEMU_PLUGIN_MEM_RW, NULL);
        if (may_remap(insn))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, forget, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
}

/* ---- Start ----------------------------------------------------------------------------------- */

static int refuse(const char *what, const char *given)
{
    fprintf(stderr, "towline-plugin: %s: %s\n", given ? given : "(none)", what);
    return -1;
}

static int map_link(const char *path)
{
    const int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return refuse("cannot open the link (link=FILE)", path);
    struct stat st;
    struct tw_link_header *h = MAP_FAILED;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size >= sizeof *h)
        h = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (h == MAP_FAILED)
        return refuse("cannot map the link", path);
    const struct tw_link_header want =
        tw_link_layout((enum tw_link_kind)h->kind, h->memory_bytes, h->vcpus, h->ring_events);
    if (h->magic != TW_LINK_MAGIC || h->version != TW_LINK_VERSION ||
        want.file_bytes != (uint64_t)st.st_size || want.file_bytes != h->file_bytes)
        return refuse("not a link of this version", path);
    p.header = h;
    p.size = h->memory_bytes;
    p.low_memory = h->low_memory_bytes;
    p.ring_events = want.ring_events;
    p.map = (struct tw_link_map){.summary = (uint8_t *)h + want.summary_offset,
                                 .marks = (uint8_t *)h + want.marks_offset,
                                 .page_count = h->memory_bytes / TW_PAGE_SIZE};
    p.paced = (const uint64_t *)(const void *)((uint8_t *)h + want.paced_offset);
    p.rings = (uint8_t *)h + want.rings_offset;
    p.ring_stride = want.ring_stride;
    return 0;
}

static const char *argument(int argc, char **argv, const char *key)
{
    const size_t n = strlen(key);
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    return NULL;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_plugin_info *info, int argc,
                               char **argv)
{
    const char *ram = argument(argc, argv, "ram");
    const char *mismatch = argument(argc, argv, "mismatch");
    const char *recheck_every = argument(argc, argv, "recheck");
    struct stat st;
    if (!info->system_emulation)
        return refuse("wants a whole machine, not a user program", info->target_name);
    if (!ram || !realpath(ram, p.ram_path) || stat(ram, &st) < 0)
        return refuse("cannot find the RAM file (ram=FILE)", ram);
    p.ram_inode = (uint64_t)st.st_ino;
    if (mismatch)
        p.mismatch_at = strtoull(mismatch, NULL, 10);
    const uint64_t every = recheck_every ? strtoull(recheck_every, NULL, 10) : RECHECK_EVERY;
    if (every == 0 || every & (every - 1))
        return refuse("expected a power of two (recheck=N)", recheck_every);
    p.recheck_mask = every - 1;
    p.rare_mask = (every < LOOK_EVERY ? every : LOOK_EVERY) - 1;
    find_size();
    find_store();
    if (map_link(argument(argc, argv, "link")) < 0)
        return -1;
    if (info->system.max_vcpus > (int)p.header->vcpus)
        return refuse("the machine has more vCPUs than the link", ram);
    const char *guard = argument(argc, argv, "guard");
    const int number = guard ? tw_guard_serve(guard, p.ram_path, p.ram_inode, p.size) : 0;
    if (number)
        return refuse(strerror(number), guard);
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_start);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    __atomic_store_n(&p.header->attached, 1, __ATOMIC_RELEASE);
    return 0;
}
