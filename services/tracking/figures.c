#include "services/tracking/figures.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 64u

void tw_figures_add(struct tw_figures *sum, const struct tw_figures *one)
{
    sum->epochs += one->epochs;
    sum->lines += one->lines;
    sum->pages += one->pages;
    sum->whole_pages += one->whole_pages;
    sum->regions += one->regions;
    sum->regions_lost += one->regions_lost;
    sum->duration_ns += one->duration_ns;
    sum->known_lines += one->known_lines;
    sum->changed_bytes += one->changed_bytes;
    sum->clean_pages += one->clean_pages;
    sum->same_lines += one->same_lines;
    sum->accessed_lines += one->accessed_lines;
    sum->accessed_pages += one->accessed_pages;
}

void tw_regions_free(struct tw_regions *r)
{
    free(r->slots);
    *r = (struct tw_regions){0};
}

void tw_regions_clear(struct tw_regions *r)
{
    if (r->slots)
        memset(r->slots, 0, r->capacity * sizeof *r->slots);
    r->count = 0;
}

/* The region's slot, or the free one where it would be. `capacity` is a power of two. */
static struct tw_region *slot_of(struct tw_region *slots, uint32_t capacity, uint64_t address)
{
    uint64_t hash = (address >> TW_REGION_SHIFT) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t at = (uint32_t)(hash >> 32) & (capacity - 1);
    while (slots[at].pages && slots[at].address != address)
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static bool grow(struct tw_regions *r)
{
    uint32_t capacity = r->capacity ? 2 * r->capacity : CAPACITY_FIRST;
    struct tw_region *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < r->capacity; i++)
        if (r->slots[i].pages)
            *slot_of(slots, capacity, r->slots[i].address) = r->slots[i];
    free(r->slots);
    r->slots = slots;
    r->capacity = capacity;
    return true;
}

bool tw_regions_add(struct tw_regions *r, uint64_t page_address, unsigned lines, uint64_t bytes)
{
    uint64_t address = page_address & ~(TW_REGION_SIZE - 1);
    /* At most half full, so that a search is short. */
    if (2 * r->count >= r->capacity && r->count < TW_REGIONS_MAX && !grow(r))
        return false;
    struct tw_region *slot = slot_of(r->slots, r->capacity, address);
    if (!slot->pages) {
        if (r->count == TW_REGIONS_MAX)
            return false;
        r->count++;
        slot->address = address;
    }
    slot->pages++;
    slot->lines += lines;
    slot->bytes += bytes;
    return true;
}

const struct tw_region *tw_regions_find(const struct tw_regions *r, uint64_t address)
{
    const struct tw_region *slot =
        r->capacity ? slot_of(r->slots, r->capacity, address & ~(TW_REGION_SIZE - 1)) : NULL;
    return slot && slot->pages ? slot : NULL;
}

static bool hotter(const struct tw_region *a, const struct tw_region *b)
{
    return a->lines != b->lines ? a->lines > b->lines : a->address < b->address;
}

size_t tw_regions_hottest(const struct tw_regions *r, struct tw_region *out, size_t max)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->capacity; i++) {
        const struct tw_region *one = &r->slots[i];
        if (!one->pages || (n == max && (max == 0 || !hotter(one, &out[n - 1]))))
            continue;
        size_t at = n < max ? n++ : n - 1;
        for (; at > 0 && hotter(one, &out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = *one;
    }
    return n;
}
