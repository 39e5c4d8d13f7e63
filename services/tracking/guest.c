#include "services/tracking/guest.h"

#include <stdlib.h>
#include <time.h>

#define TRACKER    "meter"
#define STEP_PAGES 4096u /* visited in one step: well under a millisecond */
#define READ_PAGES 256u

struct tw_guest_meter {
    const struct tw_clock *clock;
    uint64_t every_ns;
    uint64_t began_ns, due_ns; /* the present epoch; due 0 = there is none */
    bool reading;              /* what was collected is being counted */
    struct tw_figures counting;
    struct tw_regions regions;
    uint64_t own_ns; /* of the epoch that is being counted */
    struct tw_guest_figures figures;
};

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * TW_SEC + (uint64_t)t.tv_nsec;
}

struct tw_guest_meter *tw_guest_meter_open(const struct tw_clock *clock, uint64_t every_ns)
{
    struct tw_guest_meter *m = calloc(1, sizeof *m);
    if (m) {
        m->clock = clock;
        m->every_ns = every_ns;
    }
    return m;
}

void tw_guest_meter_close(struct tw_guest_meter *meter, const struct tw_host *host)
{
    if (!meter)
        return;
    if (host && host->device)
        tw_tracker_stop(tw_tracker_find(host->device, TRACKER));
    tw_regions_free(&meter->regions);
    free(meter);
}

/* Stores before it do not count (R1). */
static void begin(struct tw_guest_meter *m, const struct tw_host *host, uint64_t now_ns)
{
    const struct tw_range all = {0, host->memory_bytes};
    const struct tw_tracker_config config = {.name = TRACKER, .ranges = &all, .range_count = 1};
    struct tw_tracker *tracker;
    host->ops->sync(host->ctx);
    /* The device has no room for another tracker: asked again later. */
    m->due_ns = tw_after(now_ns, m->every_ns);
    m->began_ns = now_ns;
    m->reading = false;
    tw_tracker_start(host->device, &config, &tracker, NULL);
}

static void collect(struct tw_guest_meter *m, const struct tw_host *host,
                    struct tw_tracker *tracker, uint64_t now_ns)
{
    host->ops->sync(host->ctx);
    tw_tracker_collect(tracker);
    m->counting = (struct tw_figures){.epochs = 1, .duration_ns = now_ns - m->began_ns};
    m->began_ns = now_ns;
    m->due_ns = tw_after(now_ns, m->every_ns);
    tw_regions_clear(&m->regions);
    m->own_ns = 0;
    m->reading = true;
}

static void count(struct tw_guest_meter *m, const struct tw_dirty_page *page)
{
    struct tw_figures *f = &m->counting;
    f->lines += tw_popcount(page->lines);
    f->pages++;
    f->whole_pages += page->whole_page;
    if (!tw_regions_add(&m->regions, page->page * TW_PAGE_SIZE, tw_popcount(page->lines), 0))
        f->regions_lost++;
    f->regions = m->regions.count;
}

static void finish(struct tw_guest_meter *m)
{
    struct tw_guest_figures *f = &m->figures;
    m->reading = false;
    f->last = m->counting;
    tw_figures_add(&f->total, &m->counting);
    f->hot_count = tw_regions_hottest(&m->regions, f->hot, TW_GUEST_HOT);
}

static void read_some(struct tw_guest_meter *m, struct tw_tracker *tracker)
{
    struct tw_dirty_page pages[READ_PAGES];
    for (unsigned done = 0; m->reading && done < STEP_PAGES; done += READ_PAGES) {
        const size_t n = tw_tracker_read(tracker, pages, READ_PAGES);
        for (size_t i = 0; i < n; i++)
            count(m, &pages[i]);
        if (n < READ_PAGES)
            finish(m);
    }
}

uint64_t tw_guest_meter_step(struct tw_guest_meter *meter, const struct tw_host *host)
{
    const uint64_t now = tw_now(meter->clock), own = thread_ns();
    struct tw_tracker *tracker = tw_tracker_find(host->device, TRACKER);
    const bool due = now >= meter->due_ns;
    if (!tracker && due) {
        begin(meter, host, now);
        return meter->due_ns;
    }
    if (!tracker)
        return meter->due_ns;
    if (!meter->reading && due)
        collect(meter, host, tracker, now);
    const bool counted = meter->reading;
    read_some(meter, tracker);
    meter->own_ns += thread_ns() - own;
    if (counted && !meter->reading)
        meter->figures.own_ns = meter->own_ns;
    return meter->reading ? now : meter->due_ns;
}

void tw_guest_meter_get(const struct tw_guest_meter *meter, struct tw_guest_figures *out)
{
    *out = meter->figures;
}
