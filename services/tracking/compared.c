#include "services/tracking/compared.h"

#include "base/line.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 64u

struct tw_compared_page {
    uint64_t address, same, changed, unsure;
};

void tw_compared_free(struct tw_compared *c)
{
    free(c->slots);
    *c = (struct tw_compared){0};
}

void tw_compared_clear(struct tw_compared *c)
{
    if (c->slots && c->count)
        memset(c->slots, 0, c->capacity * sizeof *c->slots);
    c->count = 0;
}

static bool used(const struct tw_compared_page *slot)
{
    return (slot->same | slot->changed | slot->unsure) != 0;
}

/* The page's slot, or the free one where it would be. `capacity` is a power of two. */
static struct tw_compared_page *slot_of(struct tw_compared_page *slots, uint32_t capacity,
                                        uint64_t address)
{
    const uint64_t hash = (address >> TW_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t at = (uint32_t)(hash >> 32) & (capacity - 1);
    while (used(&slots[at]) && slots[at].address != address)
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static void grow(struct tw_compared *c)
{
    const uint32_t capacity = c->capacity ? 2 * c->capacity : CAPACITY_FIRST;
    struct tw_compared_page *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return;
    for (uint32_t i = 0; i < c->capacity; i++)
        if (used(&c->slots[i]))
            *slot_of(slots, capacity, c->slots[i].address) = c->slots[i];
    free(c->slots);
    c->slots = slots;
    c->capacity = capacity;
}

void tw_compared_add(struct tw_compared *c, uint64_t page_address, uint64_t same, uint64_t changed,
                     uint64_t unsure)
{
    /* At most half full, so that a search is short. */
    if (2 * c->count >= c->capacity && c->count < TW_COMPARED_MAX)
        grow(c);
    if (c->capacity == 0)
        return;
    struct tw_compared_page *slot = slot_of(c->slots, c->capacity, page_address);
    if (!used(slot) && 2 * c->count >= c->capacity)
        return;
    c->count += !used(slot);
    slot->address = page_address;
    slot->same |= same;
    slot->changed |= changed;
    slot->unsure |= unsure;
}

void tw_compared_find(const struct tw_compared *c, uint64_t page_address, uint64_t *known,
                      uint64_t *changed)
{
    const struct tw_compared_page *slot =
        c->capacity ? slot_of(c->slots, c->capacity, page_address) : NULL;
    *known = slot ? (slot->same & ~slot->unsure) | slot->changed : 0;
    *changed = slot ? slot->changed : 0;
}
