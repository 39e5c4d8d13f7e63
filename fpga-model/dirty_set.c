#include "fpga-model/dirty_set.h"

#include "fpga-model/lazy.h"

#include <assert.h>
#include <string.h>

static bool half_open(struct tw_dirty_half *half, uint64_t pages, uint32_t capacity)
{
    half->lines = tw_lazy_alloc(pages * sizeof *half->lines);
    half->entries = tw_lazy_alloc(capacity * sizeof *half->entries);
    return tw_page_set_open(&half->overflow, pages) && half->lines && half->entries;
}

static void half_close(struct tw_dirty_half *half, uint64_t pages, uint32_t capacity)
{
    tw_lazy_free(half->lines, pages * sizeof *half->lines);
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
    bool opened = half_open(&set->open, pages, capacity);
    return half_open(&set->closed, pages, capacity) && opened;
}

void tw_dirty_set_close(struct tw_dirty_set *set)
{
    half_close(&set->open, set->pages, set->capacity);
    half_close(&set->closed, set->pages, set->capacity);
    memset(set, 0, sizeof *set);
}

static void overflow_add(struct tw_dirty_half *half, uint64_t page)
{
    half->overflow_count += !tw_page_set_has(&half->overflow, page);
    tw_page_set_assign(&half->overflow, page, true);
}

/* Takes out the first page that is at or after `from`; there is one. */
static uint64_t overflow_take(struct tw_dirty_half *half, uint64_t from)
{
    uint64_t page = tw_page_set_next(&half->overflow, from, half->overflow.pages);
    assert(page < half->overflow.pages);
    tw_page_set_assign(&half->overflow, page, false);
    half->overflow_count--;
    return page;
}

void tw_dirty_set_add_page(struct tw_dirty_set *set, uint32_t page, uint64_t lines)
{
    struct tw_dirty_half *open = &set->open;
    if (open->overflow_count && tw_page_set_has(&open->overflow, page))
        return;
    if (open->count < set->capacity) {
        open->entries[open->count++] = page;
        open->lines[page] = lines;
        open->dirty += tw_count_lines(lines);
    } else if (!set->mutations->drop_on_overflow) {
        overflow_add(open, page);
        set->overflowed++;
    }
}

/* A page that is whole needs no lines. Its entry, if it has one, stays until the halves are
 * swapped: entries are not found by page. */
static void make_whole(struct tw_dirty_half *half, uint64_t page)
{
    half->dirty -= tw_count_lines(half->lines[page]);
    half->emptied += half->lines[page] != 0;
    half->lines[page] = 0;
    overflow_add(half, page);
}

void tw_dirty_set_add_whole(struct tw_dirty_set *set, uint32_t page)
{
    set->overflowed += !tw_page_set_has(&set->open.overflow, page);
    make_whole(&set->open, page);
}

/* Takes an entry's page out of a half. */
static struct tw_dirty_page take_lines(struct tw_dirty_half *half, uint32_t entry)
{
    struct tw_dirty_page taken = {.page = half->entries[entry]};
    taken.lines = half->lines[taken.page];
    half->lines[taken.page] = 0;
    half->dirty -= tw_count_lines(taken.lines);
    return taken;
}

/* Whole pages that the reader left stay whole: one that has been written to again in this epoch
 * gives up its lines, so that it is told once. */
static void merge_overflow(struct tw_dirty_half *open, struct tw_dirty_half *closed)
{
    for (uint64_t page = 0; closed->overflow_count; page++) {
        page = overflow_take(closed, page);
        make_whole(open, page);
    }
}

static void pack_entries(struct tw_dirty_half *half)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < half->count; i++) {
        if (half->lines[half->entries[i]])
            half->entries[kept++] = half->entries[i];
    }
    half->count = kept;
    half->emptied = 0;
}

/* Brings what the reader left unread into the open half. */
static void merge_unread(struct tw_dirty_set *set)
{
    merge_overflow(&set->open, &set->closed);
    if (set->open.emptied)
        pack_entries(&set->open);
    for (uint32_t i = 0; i < set->closed.count; i++) {
        struct tw_dirty_page unread = take_lines(&set->closed, i);
        tw_dirty_set_add(set, (uint32_t)unread.page, unread.lines);
    }
    set->closed.count = 0;
}

/* Mutation of R3: forgets the entries handed out by the last read, with whatever was added to them
 * since. */
static void clear_handed(struct tw_dirty_set *set)
{
    struct tw_dirty_half *open = &set->open;
    for (uint32_t i = 0; i < set->handed; i++)
        take_lines(open, i);
    open->count -= set->handed;
    memmove(open->entries, open->entries + set->handed, open->count * sizeof *open->entries);
    set->handed = 0;
}

uint64_t tw_dirty_set_swap(struct tw_dirty_set *set)
{
    if (set->mutations->clear_after_read) {
        clear_handed(set);
        return set->open.count + set->open.overflow_count;
    }
    merge_unread(set);
    struct tw_dirty_half full = set->open;
    set->open = set->closed;
    set->closed = full;
    return full.count + full.overflow_count;
}

static size_t read_overflow(struct tw_dirty_half *half, uint64_t first_page,
                            struct tw_dirty_page *out, size_t max)
{
    size_t n = 0;
    for (uint64_t page = 0; n < max && half->overflow_count; page++) {
        page = overflow_take(half, page);
        out[n++] = (struct tw_dirty_page){first_page + page, TW_ALL_LINES, true};
    }
    return n;
}

/* Mutation of R3: reads the half that is still filling and clears later what it gave out. */
static size_t read_then_clear(struct tw_dirty_set *set, uint64_t first_page,
                              struct tw_dirty_page *out, size_t max)
{
    clear_handed(set);
    for (; set->handed < max && set->handed < set->open.count; set->handed++) {
        uint32_t page = set->open.entries[set->handed];
        out[set->handed] =
            (struct tw_dirty_page){.page = first_page + page, .lines = set->open.lines[page]};
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
    for (; n < max && closed->count; n++) {
        out[n] = take_lines(closed, --closed->count);
        out[n].page += first_page;
    }
    return n + read_overflow(closed, first_page, out + n, max - n);
}
