/* A collect pass of the mark link: scan the marks, tell the device, collect, read. The same 1000
 * pages of four lines are dirty whatever the size of the memory. The ceiling is one pass over the
 * map of summary bytes, which no scan can do without. */
#include "base/line.h"
#include "base/random.h"
#include "bench/device/bench.h"
#include "fpga-model/device.h"
#include "hosts/link/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRTY_PAGES    1000u
#define LINES_PER_PAGE 4u

struct pass {
    struct tw_link_map map;
    struct tw_device *device;
    struct tw_tracker *tracker;
    uint64_t seen; /* what the ceiling's pass found */
};

static void mark_pages(void *ctx)
{
    struct pass *p = ctx;
    struct tw_random r = {5};
    for (unsigned i = 0; i < DIRTY_PAGES; i++) {
        uint64_t page = i * UINT64_C(0x9e3779b97f4a7c15) % p->map.page_count;
        for (unsigned k = 0; k < LINES_PER_PAGE; k++)
            tw_link_mark(&p->map, page * TW_PAGE_SIZE + (k * 16 + tw_random_below(&r, 16)) * 64);
    }
}

static void tell(void *ctx, uint64_t page, uint64_t lines)
{
    struct pass *p = ctx;
    tw_device_message_page(p->device, TW_MEM_WR, page, lines);
}

static uint64_t pass_ours(void *ctx)
{
    struct pass *p = ctx;
    struct tw_dirty_page pages[256];
    uint64_t lines = 0;
    tw_link_scan(&p->map, tell, p);
    tw_tracker_collect(p->tracker);
    for (size_t n; (n = tw_tracker_read(p->tracker, pages, 256)) > 0;) {
        for (size_t i = 0; i < n; i++)
            lines += tw_popcount(pages[i].lines);
    }
    if (lines != DIRTY_PAGES * LINES_PER_PAGE)
        abort();
    return 1;
}

static uint64_t pass_ceiling(void *ctx)
{
    struct pass *p = ctx;
    const uint64_t *words = (const uint64_t *)(const void *)p->map.summary;
    uint64_t any = 0;
    for (uint64_t i = 0; i < p->map.page_count / sizeof *words; i++)
        any += words[i] != 0;
    p->seen = any;
    __asm__ volatile("" : : "r"(p) : "memory");
    return 1;
}

struct bench_row bench_collect(const struct bench_case *self, unsigned runs)
{
    struct pass p = {.map.page_count = tw_page_of(self->memory_bytes)};
    struct tw_device_config device = {self->memory_bytes, NULL};
    struct tw_range all = {0, self->memory_bytes};
    struct tw_tracker_config tracker = {"bench", &all, 1, 0, false};
    if (tw_device_open(&device, &p.device, NULL) ||
        tw_tracker_start(p.device, &tracker, &p.tracker, NULL))
        abort();
    p.map.summary = bench_alloc(p.map.page_count);
    p.map.marks = bench_alloc(p.map.page_count * TW_LINES_PER_PAGE);
    struct bench_pair pair = {pass_ours, pass_ceiling, mark_pages, &p};
    struct bench_result result = bench_measure(&pair, runs);
    tw_device_close(p.device);
    free(p.map.summary);
    free(p.map.marks);
    return bench_time_ms("pass_ms", result);
}
