#include "tests/attachments/contract.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void contract_object(struct contract *c, const char *format, ...)
{
    va_list list;
    if (c->objections++)
        return;
    va_start(list, format);
    vsnprintf(c->first, sizeof c->first, format, list);
    va_end(list);
}

static void must(struct contract *c, enum tw_code code, const char *what)
{
    if (code) {
        fprintf(stderr, "%s: %s: %s\n", c->world.kind->name, what, tw_code_name(code));
        abort();
    }
}

void contract_open(struct contract *c, const struct world_kind *kind, uint64_t seed)
{
    memset(c, 0, sizeof *c);
    c->world.kind = kind;
    c->random.state = seed;
    kind->open(&c->world);
    if (c->world.attachment.same_value_is_dirty != kind->same_value_is_dirty ||
        c->world.attachment.sees_loads != kind->sees_loads ||
        (kind->whole_pages && !c->world.attachment.whole_pages))
        contract_object(c, "says of itself what it is not");
    kind->read(&c->world, c->seen);
}

void contract_close(struct contract *c)
{
    for (unsigned i = 0; i < CONTRACT_CONSUMERS; i++)
        contract_end(c, i);
    c->world.kind->close(&c->world);
}

/* ---- Stores ---------------------------------------------------------------------------------- */

void contract_store(struct contract *c, enum contract_kind kind, uint32_t offset, uint32_t size)
{
    const struct world_kind *world = c->world.kind;
    if (world->verdicts[kind] == ABSENT)
        return;
    const struct contract_store store = {
        .kind = kind,
        .thread = (uint32_t)tw_random_below(&c->random, CONTRACT_THREADS),
        .offset = offset,
        .size = size < CONTRACT_BYTES - offset ? size : CONTRACT_BYTES - offset,
        .value = tw_random_next(&c->random),
    };
    world->perform(&c->world, &store);
    for (uint64_t line = offset / 64; line <= (offset + store.size - 1) / 64; line++) {
        const uint64_t bit = UINT64_C(1) << (line % 64);
        if (world->verdicts[kind] == TOLD)
            c->pending[line / 64] |= bit;
        if (world->verdicts[kind] == TOLD || kind == CONTRACT_LOAD)
            c->accessed[line / 64] |= bit;
    }
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static bool watches(const struct contract_consumer *consumer, uint32_t page)
{
    return consumer->tracker && page >= consumer->first && page < consumer->end;
}

static bool is_watched(const struct contract *c, uint32_t page)
{
    bool watched = false;
    for (unsigned i = 0; i < CONTRACT_CONSUMERS; i++)
        watched = watched || watches(&c->consumers[i], page);
    return watched;
}

static uint64_t differing(const struct contract *c, uint32_t page)
{
    uint64_t lines = 0;
    for (uint32_t line = 0; line < 64; line++) {
        const uint32_t at = (page * 64 + line) * 64;
        lines |= (uint64_t)(memcmp(c->seen + at, c->now + at, 64) != 0) << line;
    }
    return lines;
}

static void book(struct contract *c, uint32_t page)
{
    const uint64_t stored = c->pending[page];
    const uint64_t lines =
        c->world.kind->same_value_is_dirty ? stored : stored & differing(c, page);
    const bool whole = c->world.kind->whole_pages && !c->known[page] && stored;
    for (unsigned i = 0; i < CONTRACT_CONSUMERS; i++) {
        struct contract_consumer *consumer = &c->consumers[i];
        if (!watches(consumer, page))
            continue;
        consumer->owed[page] |= lines;
        consumer->owed_accessed[page] |= c->accessed[page];
        consumer->whole[page] |= whole;
    }
    if (stored && is_watched(c, page))
        c->known[page] = true;
    c->pending[page] = c->accessed[page] = 0;
}

static void pass(struct contract *c)
{
    const struct tw_attachment *a = &c->world.attachment;
    must(c, a->ops->pass_begin(a->ctx, NULL), "pass");
    for (bool done = false; !done;)
        must(c, a->ops->step(a->ctx, 0, &done, NULL), "step");
}

void contract_pass(struct contract *c)
{
    pass(c);
    c->world.kind->read(&c->world, c->now);
    for (uint32_t page = 0; page < CONTRACT_PAGES; page++)
        book(c, page);
    memcpy(c->seen, c->now, sizeof c->seen);
}

/* ---- Consumers ------------------------------------------------------------------------------- */

void contract_begin(struct contract *c, unsigned consumer, uint32_t first_page, uint32_t pages)
{
    const struct tw_attachment *a = &c->world.attachment;
    struct contract_consumer *new = &c->consumers[consumer];
    const struct tw_range range = {c->world.region + (uint64_t)first_page * TW_PAGE_SIZE,
                                   (uint64_t)pages * TW_PAGE_SIZE};
    struct tw_tracker_config config = {.name = new->name};
    memset(new, 0, sizeof *new);
    snprintf(new->name, sizeof new->name, "consumer %u", consumer);
    must(c, a->ops->watch(a->ctx, &range, 1, &new->watch, NULL), "watch");
    contract_pass(c);
    for (uint32_t page = first_page; page < first_page + pages; page++)
        c->known[page] = c->known[page] && is_watched(c, page);
    config.ranges = a->ops->watch_ranges(new->watch, &config.range_count);
    must(c, tw_tracker_start(a->device, &config, &new->tracker, NULL), "start");
    if (c->world.kind->sees_loads) {
        char name[32];
        snprintf(name, sizeof name, "%s accessed", new->name);
        config.name = name;
        config.accessed = true;
        must(c, tw_tracker_start(a->device, &config, &new->accessed, NULL), "start");
    }
    a->ops->settle(a->ctx);
    new->first = first_page;
    new->end = first_page + pages;
}

void contract_end(struct contract *c, unsigned consumer)
{
    const struct tw_attachment *a = &c->world.attachment;
    struct contract_consumer *old = &c->consumers[consumer];
    if (!old->tracker)
        return;
    tw_tracker_stop(old->tracker);
    tw_tracker_stop(old->accessed);
    a->ops->unwatch(a->ctx, old->watch);
    old->tracker = old->accessed = NULL;
}

static void take_page(struct contract *c, struct contract_consumer *consumer,
                      const struct tw_dirty_page *dirty, bool accessed)
{
    const struct tw_attachment *a = &c->world.attachment;
    const uint64_t address = a->ops->address(a->ctx, dirty->page);
    const uint64_t page = (address - c->world.region) / TW_PAGE_SIZE;
    if (address < c->world.region || page < consumer->first || page >= consumer->end) {
        contract_object(c, "%s is told of 0x%" PRIx64 ", which it does not watch", consumer->name,
                        address);
        return;
    }
    if (a->ops->device_address(a->ctx, address) != dirty->page * TW_PAGE_SIZE)
        contract_object(c, "the way back from page %" PRIu64 " is another", page);
    if (accessed) {
        if (consumer->told_accessed[page] || dirty->whole_page)
            contract_object(c, "%s is told of accesses to page %" PRIu64 " as a whole or twice",
                            consumer->name, page);
        consumer->told_accessed[page] = dirty->lines;
        return;
    }
    if (consumer->told[page] || consumer->told_whole[page])
        contract_object(c, "%s is told of page %" PRIu64 " twice", consumer->name, page);
    consumer->told[page] = dirty->lines;
    consumer->told_whole[page] = dirty->whole_page;
}

static void take_list(struct contract *c, struct contract_consumer *from,
                      struct tw_tracker *tracker, size_t promised)
{
    struct tw_dirty_page some[4];
    for (size_t n; (n = tw_tracker_read(tracker, some, 1 + tw_random_below(&c->random, 4))) > 0;) {
        for (size_t i = 0; i < n; i++)
            take_page(c, from, &some[i], tracker == from->accessed);
        if (n > promised) {
            contract_object(c, "more pages than promised");
            promised = n;
        }
        promised -= n;
    }
    if (promised)
        contract_object(c, "%zu pages promised and not told", promised);
}

void contract_take(struct contract *c, unsigned consumer)
{
    const struct tw_attachment *a = &c->world.attachment;
    struct contract_consumer *from = &c->consumers[consumer];
    memset(from->told, 0, sizeof from->told);
    memset(from->told_whole, 0, sizeof from->told_whole);
    memset(from->told_accessed, 0, sizeof from->told_accessed);
    const size_t dirty = tw_tracker_collect(from->tracker);
    const size_t accessed = from->accessed ? tw_tracker_collect(from->accessed) : 0;
    a->ops->settle(a->ctx);
    take_list(c, from, from->tracker, dirty);
    if (from->accessed)
        take_list(c, from, from->accessed, accessed);
}

static void check(struct contract *c, struct contract_consumer *consumer, uint32_t page)
{
    const uint64_t owed = consumer->owed[page], told = consumer->told[page];
    const bool whole = consumer->told_whole[page];
    if (whole && !consumer->whole[page])
        contract_object(c, "%s: page %u is told as a whole", consumer->name, page);
    else if (owed & ~told)
        contract_object(c, "%s: page %u: lines 0x%" PRIx64 " are missed", consumer->name, page,
                        owed & ~told);
    else if (!whole && told & ~owed)
        contract_object(c, "%s: page %u: lines 0x%" PRIx64 " are invented", consumer->name, page,
                        told & ~owed);
    if (consumer->accessed && consumer->owed_accessed[page] != consumer->told_accessed[page])
        contract_object(
            c, "%s: page %u: accesses to lines 0x%" PRIx64 " are missed, to 0x%" PRIx64 " invented",
            consumer->name, page, consumer->owed_accessed[page] & ~consumer->told_accessed[page],
            consumer->told_accessed[page] & ~consumer->owed_accessed[page]);
    consumer->owed[page] = consumer->owed_accessed[page] = 0;
    consumer->whole[page] = false;
}

void contract_collect(struct contract *c, unsigned consumer)
{
    contract_pass(c);
    contract_take(c, consumer);
    for (uint32_t page = 0; page < CONTRACT_PAGES; page++)
        check(c, &c->consumers[consumer], page);
}
