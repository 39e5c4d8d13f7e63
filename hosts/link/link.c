#include "hosts/link/link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK TW_LINK_SUMMARY_BLOCK

/* Eight marks, each 0 or 1, to eight bits in the same order. */
static uint64_t bits_of_marks(uint64_t word)
{
    return ((word & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080)) >> 56;
}

/* Takes the marks of a page whose summary byte was taken before; `loaded` gets those of loads
 * alone. A word seen as zero needs no exchange: a mark that comes later brings its summary byte
 * again. */
static inline uint64_t take_marks(uint8_t *marks, uint64_t *loaded)
{
    uint64_t *words = (uint64_t *)(void *)marks;
    uint64_t lines = 0;
    for (unsigned i = 0; i < TW_LINES_PER_PAGE / 8; i++) {
        if (__atomic_load_n(&words[i], __ATOMIC_RELAXED) == 0)
            continue;
        const uint64_t word = __atomic_exchange_n(&words[i], 0, __ATOMIC_SEQ_CST);
        lines |= bits_of_marks(word) << (i * 8);
        if (loaded)
            *loaded |= bits_of_marks(word >> 1) << (i * 8);
    }
    if (loaded)
        *loaded &= ~lines;
    return lines;
}

static uint64_t take_page(uint8_t *marks)
{
    return take_marks(marks, NULL);
}

/* Takes the summary bytes of a block; returns the number of page numbers put into `pages`. */
static unsigned take_block(const struct tw_link_map *map, uint64_t first, uint64_t pages[BLOCK])
{
    uint64_t *words = (uint64_t *)(void *)(map->summary + first);
    unsigned count = 0;
    for (unsigned i = 0; i < BLOCK / 8; i++) {
        if (__atomic_load_n(&words[i], __ATOMIC_RELAXED) == 0)
            continue;
        uint64_t word = __atomic_exchange_n(&words[i], 0, __ATOMIC_SEQ_CST);
        while (word) {
            const unsigned byte = (unsigned)__builtin_ctzll(word) / 8;
            const uint64_t page = first + i * 8 + byte;
            word &= ~(UINT64_C(0xff) << byte * 8); /* whatever value the byte had */
            if (page >= map->page_count)
                continue;
            __builtin_prefetch(map->marks + page * TW_LINES_PER_PAGE, 1);
            pages[count++] = page;
        }
    }
    return count;
}

static bool block_is_clear(const struct tw_link_map *map, uint64_t first)
{
    const uint64_t *words = (const uint64_t *)(const void *)(map->summary + first);
    uint64_t any = 0;
    for (unsigned i = 0; i < BLOCK / 8; i++)
        any |= __atomic_load_n(&words[i], __ATOMIC_RELAXED);
    return any == 0;
}

uint64_t tw_link_scan(const struct tw_link_map *map,
                      void (*page)(void *ctx, uint64_t page, uint64_t lines), void *ctx)
{
    uint64_t pages[BLOCK], told = 0;
    for (uint64_t first = 0; first < map->page_count; first += BLOCK) {
        if (block_is_clear(map, first))
            continue;
        const unsigned count = take_block(map, first, pages);
        for (unsigned i = 0; i < count; i++) {
            const uint64_t lines = take_page(map->marks + pages[i] * TW_LINES_PER_PAGE);
            if (lines == 0)
                continue; /* its marks went with an earlier scan */
            told += tw_popcount(lines);
            page(ctx, pages[i], lines);
        }
    }
    return told;
}

void tw_link_scan_loads(const struct tw_link_map *map, uint64_t first, uint64_t count,
                        tw_link_page_fn page, void *ctx)
{
    uint64_t pages[BLOCK];
    const uint64_t end = first + count;
    for (; first < end; first += BLOCK) {
        if (block_is_clear(map, first))
            continue;
        const unsigned taken = take_block(map, first, pages);
        for (unsigned i = 0; i < taken; i++) {
            uint64_t loaded = 0;
            const uint64_t stored = take_marks(map->marks + pages[i] * TW_LINES_PER_PAGE, &loaded);
            if (stored | loaded)
                page(ctx, pages[i], stored, loaded);
        }
    }
}

uint64_t tw_link_ring_drain(struct tw_link *link, uint32_t vcpu,
                            void (*event)(void *ctx, uint32_t vcpu, uint64_t address, bool store),
                            void *ctx, bool *sane)
{
    enum { PUBLISH_EVERY = 4096 }; /* events: hands room back while a long drain goes on */
    struct tw_link_ring *ring = tw_link_ring_at(link->rings, link->ring_stride, vcpu);
    const uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
    const uint64_t start = ring->tail;
    const uint64_t mask = link->ring_events - 1;

    *sane = head - start <= link->ring_events;
    if (!*sane) {
        __atomic_store_n(&ring->tail, head, __ATOMIC_RELEASE);
        return 0;
    }
    for (uint64_t at = start; at != head; at++) {
        const uint64_t e = ring->events[at & mask];
        const uint64_t address = (e >> 1) << TW_LINE_SHIFT;
        if (e >> 1 < link->map.page_count * TW_LINES_PER_PAGE)
            event(ctx, vcpu, address, e & 1);
        if ((at + 1) % PUBLISH_EVERY == 0)
            __atomic_store_n(&ring->tail, at + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&ring->tail, head, __ATOMIC_RELEASE);
    return head - start;
}

static enum tw_code check_config(const struct tw_link_config *c, const char *path,
                                 struct tw_error *err)
{
    if (c->memory_bytes == 0 || c->memory_bytes % TW_PAGE_SIZE ||
        c->memory_bytes > TW_LINK_MEMORY_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "a page multiple up to 1 TiB", NULL,
                       "memory of %llu bytes", (unsigned long long)c->memory_bytes);
    if (c->vcpus == 0 || c->vcpus > TW_LINK_VCPUS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "1..64", NULL, "%u vCPUs", c->vcpus);
    if (c->kind != TW_LINK_MARK && c->kind != TW_LINK_RING)
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "mark or ring", NULL, "link kind %d",
                       (int)c->kind);
    if (c->ring_events > TW_LINK_RING_MAX || (c->ring_events & (c->ring_events - 1)))
        return tw_fail(err, TW_INVALID_ARGUMENT, path, "a power of two up to 2^24", NULL,
                       "ring of %u events", c->ring_events);
    return TW_OK;
}

static struct tw_link_header header_for(const struct tw_link_config *c)
{
    const uint32_t events = c->ring_events ? c->ring_events : TW_LINK_RING_DEFAULT;
    struct tw_link_header h = tw_link_layout(c->kind, c->memory_bytes, c->vcpus, events);
    h.low_memory_bytes = c->low_memory_bytes ? c->low_memory_bytes : c->memory_bytes;
    return h;
}

static enum tw_code map_file(int fd, const char *path, const struct tw_link_header *h,
                             struct tw_link *link, struct tw_error *err)
{
    void *base = mmap(NULL, h->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return tw_fail_errno(err, errno, path, "cannot map the link");
    *link = (struct tw_link){
        .header = base,
        .map = {.summary = (uint8_t *)base + h->summary_offset,
                .marks = (uint8_t *)base + h->marks_offset,
                .page_count = h->memory_bytes / TW_PAGE_SIZE},
        .paced = (uint64_t *)(void *)((uint8_t *)base + h->paced_offset),
        .ring_count = h->kind == TW_LINK_RING ? h->vcpus : 0,
        .ring_events = h->ring_events,
        .rings = (uint8_t *)base + h->rings_offset,
        .ring_stride = h->ring_stride,
        .base = base,
        .bytes = h->file_bytes,
    };
    return TW_OK;
}

enum tw_code tw_link_create(const char *path, const struct tw_link_config *config,
                            struct tw_link *link, struct tw_error *err)
{
    enum tw_code code = check_config(config, path, err);
    if (code)
        return code;
    const struct tw_link_header h = header_for(config);
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "cannot create the link");
    if (ftruncate(fd, (off_t)h.file_bytes) < 0)
        code = tw_fail_errno(err, errno, path, "cannot size the link");
    else
        code = map_file(fd, path, &h, link, err);
    close(fd);
    if (code) {
        unlink(path);
        return code;
    }
    memcpy(link->header, &h, offsetof(struct tw_link_header, attached));
    return TW_OK;
}

enum tw_code tw_link_attach(const char *path, const struct tw_link_config *config,
                            struct tw_link *link, struct tw_error *err)
{
    enum tw_code code = check_config(config, path, err);
    if (code)
        return code;
    const struct tw_link_header h = header_for(config);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "cannot open the link");
    struct stat st;
    if (fstat(fd, &st) < 0)
        code = tw_fail_errno(err, errno, path, "cannot look at the link");
    else if ((uint64_t)st.st_size != h.file_bytes)
        code = tw_fail(err, TW_FAILED_PRECONDITION, path, NULL, NULL,
                       "link of %lld bytes where the configuration makes %llu",
                       (long long)st.st_size, (unsigned long long)h.file_bytes);
    else
        code = map_file(fd, path, &h, link, err);
    close(fd);
    if (code)
        return code;
    if (memcmp(link->header, &h, offsetof(struct tw_link_header, attached)) != 0) {
        tw_link_close(link);
        return tw_fail(err, TW_FAILED_PRECONDITION, path, "the header of this configuration", NULL,
                       "not the link of this machine");
    }
    return TW_OK;
}

void tw_link_close(struct tw_link *link)
{
    if (link->base)
        munmap(link->base, link->bytes);
    *link = (struct tw_link){0};
}

/* ---- Pacing ---------------------------------------------------------------------------------- */

/* Gives the map's memory back; where the file system cannot do that, it is cleared. */
static void forget_paced(struct tw_link *link)
{
    const uint64_t pages = link->map.page_count;
    const uint64_t bytes = (pages * sizeof *link->paced + TW_PAGE_SIZE - 1) / TW_PAGE_SIZE;
    if (madvise(link->paced, bytes * TW_PAGE_SIZE, MADV_REMOVE) == 0)
        return;
    memset(link->paced, 0, pages * sizeof *link->paced);
}

void tw_link_pace_lines(struct tw_link *link, uint64_t page, uint64_t lines)
{
    if (page < link->map.page_count && link->paced[page] != lines)
        __atomic_store_n(&link->paced[page], lines, __ATOMIC_RELAXED);
}

void tw_link_pace(struct tw_link *link, const struct tw_pace_rule *rule, uint64_t now_ns)
{
    struct tw_link_pace *pace = &link->header->pace;
    __atomic_store_n(&pace->share_permille, rule->share_permille, __ATOMIC_RELAXED);
    __atomic_store_n(&pace->until_ns, rule->delay_ns ? now_ns + TW_LINK_PACE_HOLDS_NS : 0,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&pace->delay_ns, rule->delay_ns, __ATOMIC_RELAXED);
    __atomic_add_fetch(&pace->generation, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &pace->generation, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    if (rule->delay_ns == 0)
        forget_paced(link);
}

void tw_link_counters_sum(const struct tw_link *link, struct tw_link_vcpu *out)
{
    *out = (struct tw_link_vcpu){0};
    for (uint32_t i = 0; i < TW_LINK_VCPUS_MAX; i++) {
        const struct tw_link_vcpu *v = &link->header->vcpu[i];
        out->stores += __atomic_load_n(&v->stores, __ATOMIC_RELAXED);
        out->loads += __atomic_load_n(&v->loads, __ATOMIC_RELAXED);
        out->ring_overflows += __atomic_load_n(&v->ring_overflows, __ATOMIC_RELAXED);
        out->loads_dropped += __atomic_load_n(&v->loads_dropped, __ATOMIC_RELAXED);
        out->self_checks += __atomic_load_n(&v->self_checks, __ATOMIC_RELAXED);
        out->self_check_failures += __atomic_load_n(&v->self_check_failures, __ATOMIC_RELAXED);
        out->pace_waits += __atomic_load_n(&v->pace_waits, __ATOMIC_RELAXED);
        out->pace_ns += __atomic_load_n(&v->pace_ns, __ATOMIC_RELAXED);
    }
}
