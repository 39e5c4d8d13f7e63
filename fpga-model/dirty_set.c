#include "fpga-model/dirty_set.h"

#include "fpga-model/lazy.h"

#include <string.h>

static bool half_open(struct tw_dirty_half *half, uint64_t pages, uint32_t capacity)
{
    half->entries = tw_lazy_alloc(capacity * sizeof *half->entries);
    return tw_page_set_open(&half->overflow, pages) && half->entries;
}

static void half_close(struct tw_dirty_half *half, uint32_t capacity)
{
    tw_lazy_free(half->entries, capacity * sizeof *half->entries);
    tw_page_set_close(&half->overflow);
}

bool tw_dirty_set_open(struct tw_dirty_set *set, uint64_t pages, uint32_t capacity,
                       const struct tw_device_mutations *mutations)
{
    memset(set, 0, sizeof *set);
    set->pages = pages;
    set->capacity = capacity;
    set->mutations = mutations;
    set->slots = tw_lazy_alloc(pages * sizeof *set->slots);
    bool opened = half_open(&set->open, pages, capacity);
    return half_open(&set->closed, pages, capacity) && opened && set->slots;
}

void tw_dirty_set_close(struct tw_dirty_set *set)
{
    half_close(&set->open, set->capacity);
    half_close(&set->closed, set->capacity);
    tw_lazy_free(set->slots, set->pages * sizeof *set->slots);
    memset(set, 0, sizeof *set);
}

void tw_dirty_set_add_page(struct tw_dirty_set *set, uint32_t page, uint64_t lines)
{
    struct tw_dirty_half *open = &set->open;
    if (open->count < set->capacity) {
        set->slots[page] = open->count;
        open->entries[open->count++] = (struct tw_dirty_entry){.lines = lines, .page = page};
        open->lines += tw_popcount(lines);
    } else if (!set->mutations->drop_on_overflow && tw_page_set_add(&open->overflow, page)) {
        set->overflowed++;
    }
}

/* A page whose lines an earlier epoch lost count of: whole it stays. */
static void merge_whole(struct tw_dirty_set *set, uint32_t page)
{
    uint32_t slot = set->slots[page];
    if (slot < set->open.count && set->open.entries[slot].page == page) {
        tw_dirty_set_add(set, page, TW_ALL_LINES);
        set->open.entries[slot].whole = 1;
    } else {
        tw_page_set_add(&set->open.overflow, page);
    }
}

/* Brings what the reader left unread into the open half. Whole pages come first: they are apart
 * from the unread entries, so no page ends up both as an entry and in the overflow set. */
static void merge_unread(struct tw_dirty_set *set)
{
    struct tw_dirty_half *closed = &set->closed;
    for (uint64_t page = 0; closed->overflow.count; page++) {
        page = tw_page_set_next(&closed->overflow, page, set->pages);
        tw_page_set_remove(&closed->overflow, page);
        merge_whole(set, (uint32_t)page);
    }
    for (uint32_t i = 0; i < closed->count; i++) {
        const struct tw_dirty_entry *entry = &closed->entries[i];
        if (entry->whole)
            merge_whole(set, entry->page);
        else
            tw_dirty_set_add(set, entry->page, entry->lines);
    }
    closed->count = 0;
    closed->lines = 0;
}

/* Mutation of R3: forgets the entries handed out by the last read, with whatever was added to them
 * since. */
static void clear_handed(struct tw_dirty_set *set)
{
    struct tw_dirty_half *open = &set->open;
    for (uint32_t i = 0; i < set->handed; i++)
        open->lines -= tw_popcount(open->entries[i].lines);
    open->count -= set->handed;
    memmove(open->entries, open->entries + set->handed, open->count * sizeof *open->entries);
    for (uint32_t i = 0; i < open->count; i++)
        set->slots[open->entries[i].page] = i;
    set->handed = 0;
}

uint64_t tw_dirty_set_swap(struct tw_dirty_set *set)
{
    if (set->mutations->clear_after_read) {
        clear_handed(set);
        return set->open.count + set->open.overflow.count;
    }
    merge_unread(set);
    struct tw_dirty_half full = set->open;
    set->open = set->closed;
    set->closed = full;
    return full.count + full.overflow.count;
}

static void entry_out(const struct tw_dirty_entry *entry, uint64_t first_page,
                      struct tw_dirty_page *out)
{
    out->page = first_page + entry->page;
    out->lines = entry->lines;
    out->whole_page = entry->whole != 0;
}

static size_t read_overflow(struct tw_dirty_half *half, uint64_t first_page,
                            struct tw_dirty_page *out, size_t max)
{
    size_t n = 0;
    for (uint64_t page = 0; n < max && half->overflow.count; page++) {
        page = tw_page_set_next(&half->overflow, page, half->overflow.pages);
        tw_page_set_remove(&half->overflow, page);
        out[n++] = (struct tw_dirty_page){first_page + page, TW_ALL_LINES, true};
    }
    return n;
}

/* Mutation of R3: reads the half that is still filling and clears later what it gave out. */
static size_t read_then_clear(struct tw_dirty_set *set, uint64_t first_page,
                              struct tw_dirty_page *out, size_t max)
{
    clear_handed(set);
    while (set->handed < max && set->handed < set->open.count) {
        entry_out(&set->open.entries[set->handed], first_page, &out[set->handed]);
        set->handed++;
    }
    return set->handed +
           read_overflow(&set->open, first_page, out + set->handed, max - set->handed);
}

size_t tw_dirty_set_read(struct tw_dirty_set *set, uint64_t first_page, struct tw_dirty_page *out,
                         size_t max)
{
    if (set->mutations->clear_after_read)
        return read_then_clear(set, first_page, out, max);
    struct tw_dirty_half *closed = &set->closed;
    size_t n = 0;
    while (n < max && closed->count)
        entry_out(&closed->entries[--closed->count], first_page, &out[n++]);
    return n + read_overflow(closed, first_page, out + n, max - n);
}
