/* The cache model alone: what drives it is in this process. */
#include "hosts/cache/cache.h"
#include "tests/attachments/world.h"

#include <stdlib.h>
#include <string.h>

struct own {
    struct identity identity;
    struct tw_device *device;
    struct tw_cache *cache;
    uint32_t storm; /* state of its generator; 0 = there is none */
    uint8_t memory[CONTRACT_BYTES];
};

static const char *const blind_spots[] = {NULL};

static void message(void *ctx, enum tw_link_message message, uint64_t address)
{
    struct own *own = ctx;
    tw_device_message(own->device, message, address);
}

static uint64_t snoop(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct own *own = ctx;
    return tw_cache_snoop(own->cache, page, lines, kind);
}

/* No threads here: a storm is stores between any two looks at the device. */
static void sync_storm(void *ctx)
{
    struct own *own = ctx;
    for (unsigned i = 0; own->storm && i < 500; i++) {
        uint8_t before[CONTRACT_BYTES];
        memcpy(before, own->memory, sizeof before);
        contract_storm(own->memory, &own->storm);
        for (uint32_t line = 0; line < CONTRACT_LINES; line++) {
            if (memcmp(before + line * 64u, own->memory + line * 64u, 64))
                tw_cache_store(own->cache, i % CONTRACT_THREADS, line * 64u);
        }
    }
}

static void world_open(struct world *w)
{
    static const struct tw_cache_config with = {.cores = CONTRACT_THREADS,
                                                .l1 = {4096, 4},
                                                .l2 = {16384, 4},
                                                .last = {65536, 8}},
                                        without = {.cores = CONTRACT_THREADS};
    struct own *own = calloc(1, sizeof *own);
    const struct tw_snoop_ops snoops = {snoop, own};
    const struct tw_device_config device = {CONTRACT_BYTES, w->kind->variant ? &snoops : NULL};
    const struct tw_link_sink sink = {message, own};
    if (!own || tw_device_open(&device, &own->device, NULL) ||
        tw_cache_open(w->kind->variant ? &with : &without, &sink, &own->cache, NULL))
        abort();
    memset(own->memory, CONTRACT_FILL, sizeof own->memory);
    own->identity = (struct identity){.sync = sync_storm, .own = own};
    w->own = own;
    w->attachment = identity_attachment(&own->identity, own->device, blind_spots);
    w->attachment.sees_loads = w->kind->variant != 0;
}

static void perform(struct world *w, const struct contract_store *s)
{
    struct own *own = w->own;
    if (s->kind == CONTRACT_SET)
        memset(own->memory + s->offset, (int)(s->value & 0xff), s->size);
    else if (s->kind == CONTRACT_COPY || s->kind == CONTRACT_OUTSIDE)
        for (uint32_t i = 0; i < s->size; i++)
            own->memory[s->offset + i] = (uint8_t)(s->value + i);
    else if (!contract_perform(own->memory, s))
        abort();
    for (uint64_t at = s->offset & ~63u; at < s->offset + s->size; at += TW_LINE_SIZE) {
        if (s->kind == CONTRACT_NONTEMPORAL)
            tw_cache_store_nontemporal(own->cache, s->thread, at);
        else if (s->kind == CONTRACT_OUTSIDE)
            tw_cache_dma_write(own->cache, at);
        else if (s->kind == CONTRACT_LOAD)
            tw_cache_load(own->cache, s->thread, at);
        else
            tw_cache_store(own->cache, s->thread, at);
    }
}

static void read_region(struct world *w, uint8_t copy[CONTRACT_BYTES])
{
    const struct own *own = w->own;
    memcpy(copy, own->memory, CONTRACT_BYTES);
}

static void storm(struct world *w, bool begin)
{
    struct own *own = w->own;
    own->storm = begin ? 12345 : 0;
}

static void world_close(struct world *w)
{
    struct own *own = w->own;
    w->attachment.ops->close(w->attachment.ctx);
    tw_device_close(own->device);
    tw_cache_close(own->cache);
    free(own);
}

#define CACHE_WORLD(title, with_levels)                                                            \
    {                                                                                              \
        .name = title, .open = world_open, .perform = perform, .read = read_region,                \
        .storm = storm, .close = world_close, .same_value_is_dirty = true,                         \
        .sees_loads = (with_levels) != 0, .variant = with_levels, .verdicts = {                    \
            [CONTRACT_ASSEMBLY] = ABSENT, /* the model is told of stores, not of compilers */      \
            [CONTRACT_KERNEL] = ABSENT,                                                            \
            [CONTRACT_LOAD] = HIDDEN,                                                              \
        }                                                                                          \
    }

const struct world_kind world_cache = CACHE_WORLD("cache model", 1);
const struct world_kind world_uncached = CACHE_WORLD("no caches", 0);
