#include "tests/property/world_impl.h"

#include <stdio.h>
#include <string.h>

/* Some disjoint ranges of whole pages; returns how many. */
static size_t pick_ranges(struct world *w, struct consumer *c, struct tw_range ranges[RANGES_MAX])
{
    size_t count = 0;
    unsigned page = world_pick(w, w->pages);
    memset(c->watched, 0, sizeof c->watched);
    if (world_chance(w, 40))
        page = 0;
    while (page < w->pages && count < RANGES_MAX) {
        unsigned length = 1 + world_pick(w, w->pages - page);
        ranges[count++] =
            (struct tw_range){(uint64_t)page * TW_PAGE_SIZE, (uint64_t)length * TW_PAGE_SIZE};
        for (unsigned i = 0; i < length; i++)
            c->watched[page + i] = true;
        page += length + world_pick(w, 4); /* adjoining ranges are welcome */
    }
    if (count > 1 && world_chance(w, 50)) { /* order does not matter */
        struct tw_range first = ranges[0];
        ranges[0] = ranges[count - 1];
        ranges[count - 1] = first;
    }
    return count;
}

void consumer_start(struct world *w, struct consumer *c)
{
    struct tw_range ranges[RANGES_MAX];
    struct tw_tracker_config config = {.name = c->name, .ranges = ranges};
    struct tw_error err;
    char text[256];
    config.range_count = pick_ranges(w, c, ranges);
    config.buffer_pages = world_chance(w, 50) ? 0 : 1 + world_pick(w, 5);
    world_sync(w);
    if (tw_tracker_start(w->device, &config, &c->tracker, &err)) {
        world_object(w, "%s does not start: %s", c->name, tw_error_text(&err, text, sizeof text));
        return;
    }
    unsigned tracked = 0;
    memset(c->stored, 0, sizeof c->stored);
    memset(c->due, 0, sizeof c->due);
    c->uncopied_count = 0;
    for (unsigned p = 0; p < w->pages; p++) {
        tracked += c->watched[p];
        c->to_copy[p] = c->watched[p];
    }
    c->bounded = config.buffer_pages && config.buffer_pages < tracked;
}

void consumer_stop(struct consumer *c)
{
    tw_tracker_stop(c->tracker);
    c->tracker = NULL;
}

void consumer_collect(struct world *w, struct consumer *c)
{
    world_sync(w);
    size_t pages = tw_tracker_collect(c->tracker);
    size_t due_pages = 0;
    for (unsigned p = 0; p < w->pages; p++) {
        c->due[p] |= c->stored[p];
        c->stored[p] = 0;
        due_pages += c->due[p] != 0;
    }
    if (pages != due_pages)
        world_object(w, "%s: collect promises %zu pages, %zu are due", c->name, pages, due_pages);
}

static void check_page(struct world *w, struct consumer *c, const struct tw_dirty_page *dirty)
{
    if (dirty->page >= w->pages || !c->watched[dirty->page]) {
        world_object(w, "%s: page %llu is reported and not tracked", c->name,
                     (unsigned long long)dirty->page);
        return;
    }
    uint64_t *due = &c->due[dirty->page];
    if (dirty->whole_page) {
        if (!c->bounded || !*due || dirty->lines != TW_ALL_LINES)
            world_object(w, "%s: page %u is whole without reason", c->name, (unsigned)dirty->page);
        *due = 0;
        return;
    }
    if (!dirty->lines || (dirty->lines & ~*due))
        world_object(w, "%s: page %u: lines %llx are reported, %llx are due", c->name,
                     (unsigned)dirty->page, (unsigned long long)dirty->lines,
                     (unsigned long long)*due);
    *due &= ~dirty->lines;
}

unsigned consumer_read(struct world *w, struct consumer *c)
{
    unsigned room = UNCOPIED_MAX - c->uncopied_count;
    unsigned max = 1 + world_pick(w, 5);
    if (room < max)
        max = room;
    if (max == 0)
        return 1;
    struct tw_dirty_page *out = &c->uncopied[c->uncopied_count];
    unsigned n = (unsigned)tw_tracker_read(c->tracker, out, max);
    for (unsigned i = 0; i < n; i++)
        check_page(w, c, &out[i]);
    c->uncopied_count += n;
    if (n > 0)
        return n;
    for (unsigned p = 0; p < w->pages; p++) {
        if (c->due[p])
            world_object(w, "%s: page %u: lines %llx are missed", c->name, p,
                         (unsigned long long)c->due[p]);
    }
    return 0;
}

static void copy_lines(struct world *w, struct consumer *c, uint64_t page, uint64_t lines)
{
    for (; lines; lines &= lines - 1) {
        uint64_t line = page * TW_LINES_PER_PAGE + (unsigned)__builtin_ctzll(lines);
        c->copy[line] = w->memory[line];
    }
}

void consumer_copy(struct world *w, struct consumer *c)
{
    if (c->uncopied_count && world_chance(w, 60)) {
        const struct tw_dirty_page *last = &c->uncopied[--c->uncopied_count];
        copy_lines(w, c, last->page, last->lines);
        return;
    }
    for (unsigned p = 0; p < w->pages; p++) {
        if (c->to_copy[p]) {
            c->to_copy[p] = false;
            copy_lines(w, c, p, TW_ALL_LINES);
            return;
        }
    }
}

void consumer_put_back(struct world *w, struct consumer *c)
{
    if (!c->uncopied_count)
        return;
    unsigned at = world_pick(w, c->uncopied_count);
    struct tw_dirty_page dirty = c->uncopied[at];
    c->uncopied[at] = c->uncopied[--c->uncopied_count];
    tw_tracker_put_back(c->tracker, dirty.page, dirty.lines);
    c->stored[dirty.page] |= dirty.lines;
}

void consumer_settle(struct world *w, struct consumer *c)
{
    consumer_collect(w, c);
    while (consumer_read(w, c) && !w->failed) {
        while (c->uncopied_count)
            consumer_copy(w, c);
    }
    for (unsigned p = 0; p < w->pages; p++) {
        if (c->to_copy[p])
            copy_lines(w, c, p, TW_ALL_LINES);
        c->to_copy[p] = false;
    }
    while (c->uncopied_count)
        consumer_copy(w, c);
    for (unsigned line = 0; line < w->pages * TW_LINES_PER_PAGE; line++) {
        if (c->watched[line / TW_LINES_PER_PAGE] && c->copy[line] != w->memory[line]) {
            world_object(w, "%s: line %u of the copy has generation %u, memory %u", c->name, line,
                         c->copy[line], w->memory[line]);
            return;
        }
    }
}

/* Without caches and overflow the device knows the lines of the present epoch exactly. */
void consumer_check_stats(struct world *w, struct consumer *c)
{
    struct tw_tracker_stats stats;
    uint64_t lines = 0;
    uint64_t pages = 0;
    world_sync(w);
    tw_tracker_stats_get(c->tracker, &stats);
    for (unsigned p = 0; p < w->pages; p++) {
        lines += tw_popcount(c->stored[p]);
        pages += c->stored[p] != 0;
    }
    if (c->bounded ? stats.dirty_pages > pages : stats.overflowed_pages != 0)
        world_object(w, "%s: %llu pages dirty, %llu overflowed", c->name,
                     (unsigned long long)stats.dirty_pages,
                     (unsigned long long)stats.overflowed_pages);
    if (!w->caches && !c->bounded && (stats.dirty_lines != lines || stats.dirty_pages != pages))
        world_object(w, "%s: stats say %llu lines, %llu are dirty", c->name,
                     (unsigned long long)stats.dirty_lines, (unsigned long long)lines);
}
