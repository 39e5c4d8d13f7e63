#include "tests/property/world.h"

#include "hosts/cache/check.h"
#include "tests/property/world_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_object(struct world *w, const char *what, ...)
{
    if (w->failed)
        return;
    w->failed = true;
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(w->failure->what, sizeof w->failure->what, what, arguments);
    va_end(arguments);
}

/* ---- The link, watched. ---------------------------------------------------------------------- */

static bool fits(const struct world *w, enum tw_link_message message, enum tw_line_state state)
{
    switch (message) {
    case TW_MEM_RD_DATA:
    case TW_MEM_RD_INV:
        return state == TW_LINE_I;
    case TW_MEM_INV:
    case TW_MEM_CLN_EVCT:
        return state == TW_LINE_S;
    case TW_MEM_WR:
        return state == TW_LINE_A || w->around || !w->caches;
    case TW_MEM_WR_KEEP:
        return state == TW_LINE_A;
    }
    return false;
}

static void on_message(void *ctx, enum tw_link_message message, uint64_t address)
{
    struct world *w = ctx;
    /* Asking makes the device deliver what it has posted: half of the worlds leave it alone. */
    enum tw_line_state state = w->asks ? tw_device_line_state(w->device, address) : TW_LINE_I;
    if (w->asks && !fits(w, message, state))
        world_object(w, "message %d about line %llu, which is in state %d", (int)message,
                     (unsigned long long)tw_line_of(address), (int)state);
    tw_device_message(w->device, message, address);
}

static uint64_t on_snoop(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct world *w = ctx;
    return tw_cache_snoop(w->cache, page, lines, kind);
}

void world_sync(struct world *w)
{
    for (unsigned p = 0; p < w->pages; p++) {
        if (w->marked[p])
            tw_device_message_page(w->device, TW_MEM_WR, p, w->marked[p]);
        w->marked[p] = 0;
    }
}

/* ---- Making a world. ------------------------------------------------------------------------- */

static struct tw_cache_level_config pick_level(struct world *w, unsigned sets_max_log2)
{
    unsigned ways = 1 + world_pick(w, world_chance(w, 10) ? 32 : 4);
    unsigned sets = 1u << world_pick(w, sets_max_log2 + 1);
    return (struct tw_cache_level_config){(uint64_t)ways * sets * TW_LINE_SIZE, ways};
}

static bool world_open(struct world *w, uint64_t seed, struct tw_device_mutations mutations)
{
    w->random.state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w->pages = 1 + world_pick(w, PAGES_MAX);
    w->cores = 1 + world_pick(w, 4);
    unsigned levels = world_pick(w, 10); /* bits: l1, l2, last; 8, 9: none */
    struct tw_cache_config cache = {.cores = w->cores};
    if (levels < 8 && (levels & 1))
        cache.l1 = pick_level(w, 2);
    if (levels < 8 && (levels & 2))
        cache.l2 = pick_level(w, 4);
    if (levels < 8 && (levels & 4))
        cache.last = pick_level(w, 6);
    w->caches = levels > 0 && levels < 8;
    w->asks = world_chance(w, 50);
    w->marks = !w->caches && world_chance(w, 50);
    struct tw_link_sink sink = {on_message, w};
    struct tw_snoop_ops snoop = {on_snoop, w};
    struct tw_device_config device = {
        .memory_bytes = (uint64_t)w->pages * TW_PAGE_SIZE,
        .snoop = w->caches || world_chance(w, 30) ? &snoop : NULL,
    };
    for (unsigned i = 0; i < CONSUMERS; i++)
        snprintf(w->consumers[i].name, sizeof w->consumers[i].name, "consumer-%u", i);
    if (tw_device_open(&device, &w->device, NULL) || tw_cache_open(&cache, &sink, &w->cache, NULL))
        return false;
    tw_device_mutate(w->device, mutations);
    return true;
}

static void world_close(struct world *w)
{
    tw_device_close(w->device); /* and the trackers */
    tw_cache_close(w->cache);
    free(w);
}

/* ---- What the program and the consumers do. -------------------------------------------------- */

/* Half of the accesses go to a few hot pages, and within a page to a few lines. */
static uint64_t pick_address(struct world *w)
{
    unsigned page = world_pick(w, w->pages);
    unsigned line = world_pick(w, TW_LINES_PER_PAGE);
    if (world_chance(w, 50))
        page %= 3;
    if (world_chance(w, 60))
        line %= 5;
    page = page < w->pages ? page : 0;
    return (uint64_t)page * TW_PAGE_SIZE + line * TW_LINE_SIZE + world_pick(w, TW_LINE_SIZE);
}

/* The oracle hears of a store as it happens: before the caches do. */
static void note_store(struct world *w, uint64_t address)
{
    w->memory[tw_line_of(address)] = ++w->generation;
    for (unsigned i = 0; i < CONSUMERS; i++) {
        struct consumer *c = &w->consumers[i];
        if (c->tracker && c->watched[tw_page_of(address)])
            c->stored[tw_page_of(address)] |= tw_line_bit(address);
    }
}

static void store(struct world *w)
{
    uint64_t address = pick_address(w);
    note_store(w, address);
    if (w->marks)
        w->marked[tw_page_of(address)] |= tw_line_bit(address);
    else
        tw_cache_store(w->cache, world_pick(w, w->cores), address);
}

static void run(struct world *w)
{
    uint64_t events[16];
    unsigned count = 1 + world_pick(w, 16);
    for (unsigned i = 0; i < count; i++) {
        uint64_t address = pick_address(w);
        bool is_store = world_chance(w, 50) && !w->marks;
        events[i] = tw_line_of(address) << 1 | is_store;
        if (is_store)
            note_store(w, address);
    }
    tw_cache_run(w->cache, world_pick(w, w->cores), events, count);
}

static void write_around(struct world *w)
{
    uint64_t address = pick_address(w);
    note_store(w, address);
    w->around = true;
    if (world_chance(w, 50))
        tw_cache_store_nontemporal(w->cache, world_pick(w, w->cores), address);
    else
        tw_cache_dma_write(w->cache, address);
    w->around = false;
}

static void consumer_step(struct world *w, struct consumer *c)
{
    unsigned what = world_pick(w, 100);
    if (!c->tracker) {
        if (what < 30)
            consumer_start(w, c);
    } else if (what < 4) {
        consumer_stop(c);
    } else if (what < 18) {
        consumer_collect(w, c);
    } else if (what < 45) {
        consumer_read(w, c);
    } else if (what < 85) {
        consumer_copy(w, c);
    } else if (what < 92) {
        consumer_put_back(w, c);
    } else if (what < 94) {
        consumer_settle(w, c);
    } else {
        consumer_check_stats(w, c);
    }
}

static void check_caches(struct world *w)
{
    const char *wrong = tw_cache_check(w->cache);
    if (wrong)
        world_object(w, "cache: %s", wrong);
}

static void world_step(struct world *w)
{
    unsigned what = world_pick(w, 100);
    if (what < 32)
        store(w);
    else if (what < 34)
        world_sync(w);
    else if (what < 45)
        tw_cache_load(w->cache, world_pick(w, w->cores), pick_address(w));
    else if (what < 50)
        run(w);
    else if (what < 56)
        write_around(w);
    else if (what < 60)
        tw_cache_flush(w->cache, pick_address(w));
    else if (what < 62)
        check_caches(w);
    else
        consumer_step(w, &w->consumers[world_pick(w, CONSUMERS)]);
}

bool world_run(uint64_t seed, struct tw_device_mutations mutations, struct world_failure *failure)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *failure = (struct world_failure){.seed = seed};
    w->failure = failure;
    if (!world_open(w, seed, mutations))
        world_object(w, "the world does not open");
    unsigned steps = 1 + world_pick(w, STEPS_MAX);
    for (; failure->step < steps && !w->failed; failure->step++)
        world_step(w);
    for (unsigned i = 0; i < CONSUMERS && !w->failed; i++) {
        if (w->consumers[i].tracker)
            consumer_settle(w, &w->consumers[i]);
    }
    bool passed = !w->failed;
    world_close(w);
    return passed;
}
