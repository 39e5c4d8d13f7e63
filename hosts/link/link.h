/* The coherence link as shared memory: what the plugin inside QEMU writes and the agent reads.
 *
 *   file:  header | summary: a byte a page | marks: a byte a line | paced: a bit a line |
 *          one event ring a vCPU
 *
 * Mark link (no cache model: every store is a write-back at once). After the guest's store the
 * writer sets the line's mark, then the page's summary byte, both unconditionally. The reader takes
 * summary bytes by exchange with zero, then the marks of those pages by exchange with zero, and
 * only then anyone reads the data (R3). Why nothing is lost on x86, where stores of one processor
 * become visible in program order: let a mark appear after the reader took that page's marks. Its
 * summary byte appears later still, so after the reader took the summary: it stays set for the next
 * scan. And a mark that the reader did take was preceded by its store, so the data is visible.
 *   Testing a byte before setting it would break this: the mark waits in the store buffer while
 * the test already read the old summary byte that the reader is about to clear.
 *
 * Ring link (cache model): each vCPU appends its loads and stores to a ring of its own, one
 * producer, one consumer. A full ring never blocks the guest: the line of a store is marked in the
 * map instead (as R4 asks, nothing is lost), a load is dropped.
 *
 * Pacing: the reader may name lines whose writers are to be slowed (hosts/pace.h), in the map of
 * paced lines, and how much, in the header. That holds for a short time unless it is said again:
 * who dies slows nobody. A writer notices within a thousand of its stores or so, and waits on the
 * word that each change changes, so that a wait ends at once.
 *
 * Thread rules: one writer thread a vCPU, one reader. Fields written by the plugin and by the agent
 * never share a cache line. Addresses are offsets into the RAM file. */
#ifndef TOWLINE_HOSTS_LINK_LINK_H
#define TOWLINE_HOSTS_LINK_LINK_H

#include "base/error.h"
#include "base/line.h"
#include "hosts/pace.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_LINK_MAGIC         UINT64_C(0x314b4e494c5754) /* "TWLINK1" */
#define TW_LINK_VERSION       2u
#define TW_LINK_VCPUS_MAX     64u
#define TW_LINK_MEMORY_MAX    (UINT64_C(1) << 40) /* bytes */
#define TW_LINK_RING_DEFAULT  (1u << 18)          /* events: 2 MiB a vCPU */
#define TW_LINK_RING_MAX      (1u << 24)          /* events; a power of two */
#define TW_LINK_SUMMARY_BLOCK 64u                 /* summary bytes looked at together */
#define TW_LINK_PACE_HOLDS_NS UINT64_C(500000000) /* what was said of pacing, if not said again */

enum tw_link_kind {
    TW_LINK_MARK = 1,
    TW_LINK_RING = 2,
};

/* How the plugin gets addresses. Decided by comparing both ways at start, never by version. */
enum tw_link_address {
    TW_LINK_CHECKING = 0, /* still comparing; the API's answer is what counts */
    TW_LINK_HOST = 1,     /* host address out of the handle, minus where RAM is mapped */
    TW_LINK_API = 2,      /* they differed, or there is no such address: API calls only */
};

/* What one vCPU's thread counts; a cache line of its own. */
struct tw_link_vcpu {
    uint64_t stores;              /* stores to RAM seen */
    uint64_t loads;               /* loads from RAM seen (ring link) */
    uint64_t ring_overflows;      /* stores that were marked because the ring was full */
    uint64_t loads_dropped;       /* loads that were dropped because the ring was full */
    uint64_t self_checks;         /* addresses compared */
    uint64_t self_check_failures; /* of these, different */
    uint64_t pace_waits;          /* stores that waited because their line is paced */
    uint64_t pace_ns;             /* ... and how long in all */
};

/* How the writers of paced lines are slowed; written by the agent alone. */
struct tw_link_pace {
    uint32_t generation;     /* another one with each change; waits are on it */
    uint32_t share_permille; /* of struct tw_pace_rule, as the next */
    uint64_t delay_ns;       /* 0 = nobody is slowed */
    uint64_t until_ns;       /* CLOCK_MONOTONIC: from then on nobody is, either */
    uint64_t reserved[5];
};

struct tw_link_header {
    /* Written by the agent before QEMU starts, then constant. */
    uint64_t magic;
    uint32_t version;
    uint32_t kind; /* enum tw_link_kind */
    uint64_t memory_bytes;
    uint64_t low_memory_bytes; /* RAM below the 4 GiB hole of the guest-physical space */
    uint32_t vcpus;
    uint32_t ring_events; /* 0 with a mark link */
    uint64_t summary_offset;
    uint64_t marks_offset;
    uint64_t rings_offset;
    uint64_t ring_stride; /* bytes from one vCPU's ring to the next */
    uint64_t file_bytes;
    uint64_t paced_offset;
    uint64_t reserved0[5];
    /* Written by the plugin. */
    uint32_t attached;     /* 1 once the plugin has accepted the file */
    uint32_t address_mode; /* enum tw_link_address */
    uint64_t reserved1[7];
    struct tw_link_pace pace;
    struct tw_link_vcpu vcpu[TW_LINK_VCPUS_MAX];
};

static_assert(sizeof(struct tw_link_vcpu) == 64, "counters of two vCPUs never share a line");
static_assert(offsetof(struct tw_link_header, attached) == 128, "plugin's part on its own line");
static_assert(offsetof(struct tw_link_header, pace) == 192, "the agent's part on its own line");
static_assert(offsetof(struct tw_link_header, vcpu) == 256, "counters are aligned to lines");
static_assert(sizeof(struct tw_link_header) <= 2 * TW_PAGE_SIZE, "header fits its room");

/* An event is (line number << 1) | is-a-store. */
struct tw_link_ring {
    alignas(64) uint64_t head; /* plugin: events written since the start */
    uint64_t tail_seen;        /* plugin: its last look at tail */
    alignas(64) uint64_t tail; /* agent: events taken since the start */
    alignas(64) uint64_t events[];
};
static_assert(offsetof(struct tw_link_ring, tail) == 64, "writers do not share a line");
static_assert(offsetof(struct tw_link_ring, events) == 128, "events start on a line");

/* The two byte maps, wherever they live. Both aligned to 64 bytes; the summary is readable up to
 * the next multiple of TW_LINK_SUMMARY_BLOCK beyond page_count. */
struct tw_link_map {
    uint8_t *summary; /* page_count bytes */
    uint8_t *marks;   /* page_count * 64 bytes */
    uint64_t page_count;
};

/* Places the parts of a link file; pure arithmetic. The other fields are zero. */
static inline struct tw_link_header tw_link_layout(enum tw_link_kind kind, uint64_t memory_bytes,
                                                   uint32_t vcpus, uint32_t ring_events)
{
    const uint64_t page = TW_PAGE_SIZE;
    const uint64_t pages = memory_bytes / TW_PAGE_SIZE;
    struct tw_link_header h = {
        .magic = TW_LINK_MAGIC,
        .version = TW_LINK_VERSION,
        .kind = (uint32_t)kind,
        .memory_bytes = memory_bytes,
        .vcpus = vcpus,
        .ring_events = kind == TW_LINK_RING ? ring_events : 0,
    };
    h.summary_offset = 2 * page;
    h.marks_offset = h.summary_offset + (pages + page - 1) / page * page;
    h.paced_offset = (h.marks_offset + pages * TW_LINES_PER_PAGE + page - 1) / page * page;
    h.rings_offset = (h.paced_offset + pages * sizeof(uint64_t) + page - 1) / page * page;
    h.ring_stride = sizeof(struct tw_link_ring) + (uint64_t)h.ring_events * sizeof(uint64_t);
    h.ring_stride = (h.ring_stride + page - 1) / page * page;
    h.file_bytes = h.rings_offset + (kind == TW_LINK_RING ? vcpus * h.ring_stride : 0);
    return h;
}

/* Writer's side, where it knows the page's marks and summary byte: call after the guest's store. */
static inline void tw_link_mark_line(uint8_t *marks, uint8_t *summary, uint64_t line)
{
    /* Release stores are plain stores on x86; they keep the compiler from reordering the two. */
    __atomic_store_n(&marks[line], 1, __ATOMIC_RELEASE);
    __atomic_store_n(summary, 1, __ATOMIC_RELEASE);
}

/* The same by the line's address. */
static inline void tw_link_mark(const struct tw_link_map *map, uint64_t address)
{
    const uint64_t page = tw_page_of(address);
    tw_link_mark_line(&map->marks[page * TW_LINES_PER_PAGE], &map->summary[page],
                      tw_line_of(address) % TW_LINES_PER_PAGE);
}

/* Writer's side: false when the ring is full. `capacity` is a power of two. */
static inline bool tw_link_ring_push(struct tw_link_ring *ring, uint32_t capacity, uint64_t event)
{
    const uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
    if (__builtin_expect(head - ring->tail_seen >= capacity, 0)) {
        ring->tail_seen = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
        if (head - ring->tail_seen >= capacity)
            return false;
    }
    ring->events[head & (capacity - 1)] = event;
    __atomic_store_n(&ring->head, head + 1, __ATOMIC_RELEASE);
    return true;
}

static inline uint64_t tw_link_event(uint64_t address, bool store)
{
    return tw_line_of(address) << 1 | (store ? 1 : 0);
}

/* Reader's side: takes every mark that was set before the call and tells `page` of each page with
 * its lines. Marks set meanwhile are taken now or by the next scan. Returns the lines told. */
uint64_t tw_link_scan(const struct tw_link_map *map,
                      void (*page)(void *ctx, uint64_t page, uint64_t lines), void *ctx);

/* The same where loads are marked as well: a byte of TW_LINK_LOADED is a line that was only loaded,
 * one with its lowest bit set one that was stored to. Of `count` pages from `first` on, which is a
 * multiple of TW_LINK_SUMMARY_BLOCK. */
#define TW_LINK_LOADED UINT8_C(2)
typedef void (*tw_link_page_fn)(void *ctx, uint64_t page, uint64_t stored, uint64_t loaded);
void tw_link_scan_loads(const struct tw_link_map *map, uint64_t first, uint64_t count,
                        tw_link_page_fn page, void *ctx);

/* The agent's hold on a link file. Sizes and places are its own copies: what the header says may
 * change under the hands of a QEMU that its guest has taken over. */
struct tw_link {
    struct tw_link_header *header;
    struct tw_link_map map;
    uint64_t *paced; /* of each page the bitmap of its paced lines */
    uint32_t ring_count;
    uint32_t ring_events;
    uint8_t *rings;
    uint64_t ring_stride;
    uint8_t *base;
    uint64_t bytes;
};

struct tw_link_config {
    enum tw_link_kind kind;
    uint64_t memory_bytes;     /* page multiple */
    uint64_t low_memory_bytes; /* 0 = memory is not split */
    uint32_t vcpus;            /* 1..TW_LINK_VCPUS_MAX */
    uint32_t ring_events;      /* power of two; 0 = TW_LINK_RING_DEFAULT */
};

/* Makes the file (it must not exist) and maps it. */
enum tw_code tw_link_create(const char *path, const struct tw_link_config *config,
                            struct tw_link *link, struct tw_error *err);
/* Maps a file that tw_link_create made with the same config, after checking that it is one. */
enum tw_code tw_link_attach(const char *path, const struct tw_link_config *config,
                            struct tw_link *link, struct tw_error *err);
void tw_link_close(struct tw_link *link);

static inline struct tw_link_ring *tw_link_ring_at(uint8_t *rings, uint64_t stride, uint32_t vcpu)
{
    return (struct tw_link_ring *)(void *)(rings + vcpu * stride);
}

/* Takes the events that were in `vcpu`'s ring at the call, at most one ring full; returns how
 * many. False in *sane when the ring's positions make no sense: it was emptied, and everything
 * must be taken for dirty. Events beyond memory are not told. */
uint64_t tw_link_ring_drain(struct tw_link *link, uint32_t vcpu,
                            void (*event)(void *ctx, uint32_t vcpu, uint64_t address, bool store),
                            void *ctx, bool *sane);

/* Which lines of a page are paced; holds from the next tw_link_pace() on. */
void tw_link_pace_lines(struct tw_link *link, uint64_t page, uint64_t lines);
/* Slows the writers of paced lines, or goes on to, for the next TW_LINK_PACE_HOLDS_NS; a delay of 0
 * ends it, waits that are under way included, and forgets the lines. */
void tw_link_pace(struct tw_link *link, const struct tw_pace_rule *rule, uint64_t now_ns);

/* Sums the counters over the vCPUs. */
void tw_link_counters_sum(const struct tw_link *link, struct tw_link_vcpu *out);

#endif
