/* Inside the world. */
#ifndef TOWLINE_TESTS_PROPERTY_WORLD_IMPL_H
#define TOWLINE_TESTS_PROPERTY_WORLD_IMPL_H

#include "base/random.h"
#include "fpga-model/device.h"
#include "hosts/cache/cache.h"
#include "tests/property/world.h"

#define PAGES_MAX    24u
#define LINES_MAX    (PAGES_MAX * TW_LINES_PER_PAGE)
#define CONSUMERS    6u
#define RANGES_MAX   3u
#define UNCOPIED_MAX (4u * PAGES_MAX)
#define STEPS_MAX    600u

/* Someone who keeps a copy of some ranges by means of a tracker. */
struct consumer {
    struct tw_tracker *tracker; /* NULL: not running */
    char name[16];
    bool watched[PAGES_MAX];
    bool bounded;               /* the buffer is smaller than the tracked pages */
    uint64_t stored[PAGES_MAX]; /* lines stored to since the last collect (or the start) */
    uint64_t due[PAGES_MAX];    /* collected by now, not yet reported */
    bool to_copy[PAGES_MAX];    /* the initial copy has not come to this page */
    struct tw_dirty_page uncopied[UNCOPIED_MAX]; /* reported, data not yet read */
    unsigned uncopied_count;
    uint32_t copy[LINES_MAX];
};

struct world {
    struct tw_random random;
    struct world_failure *failure;
    bool failed;
    unsigned pages;
    unsigned cores;
    bool caches; /* some level is present */
    bool marks;  /* stores are marked and told page by page, as the mark link does */
    bool around; /* a write past the caches is under way: MemWr may come in any state */
    bool asks;   /* each message is held against the device's state of the line */
    struct tw_cache *cache;
    struct tw_device *device;
    uint64_t marked[PAGES_MAX];
    uint32_t memory[LINES_MAX]; /* generation of each line's content: what the program sees */
    uint32_t generation;
    struct consumer consumers[CONSUMERS];
};

/* The first objection counts. */
void world_object(struct world *w, const char *what, ...) __attribute__((format(printf, 2, 3)));

static inline unsigned world_pick(struct world *w, unsigned bound)
{
    return (unsigned)tw_random_below(&w->random, bound);
}

/* True in `percent` of the cases. */
static inline bool world_chance(struct world *w, unsigned percent)
{
    return world_pick(w, 100) < percent;
}

/* Tells the device what is marked. */
void world_sync(struct world *w);

/* consumer.c */
void consumer_start(struct world *w, struct consumer *c);
void consumer_stop(struct consumer *c);
void consumer_collect(struct world *w, struct consumer *c);
/* Reads into a small buffer; returns the number of pages, 0 = all read. */
unsigned consumer_read(struct world *w, struct consumer *c);
/* One step of copying: a page of the initial copy, or lines that were reported. */
void consumer_copy(struct world *w, struct consumer *c);
/* Lines that were reported could not be sent. */
void consumer_put_back(struct world *w, struct consumer *c);
/* Collects, reads and copies everything; then the copy must equal memory. */
void consumer_settle(struct world *w, struct consumer *c);
void consumer_check_stats(struct world *w, struct consumer *c);

#endif
