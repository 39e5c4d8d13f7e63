#include "bench/tracking/amplification/copies.h"

#include "base/line.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 4096u

static struct page_copy *place(const struct page_copies *copies, uint64_t address)
{
    size_t at = (size_t)((address / TW_PAGE_SIZE) * UINT64_C(0x9e3779b97f4a7c15) >> 20);
    for (;; at++) {
        struct page_copy *copy = &copies->table[at & (copies->size - 1)];
        if (copy->address == 0 || copy->address == address)
            return copy;
    }
}

static bool grow(struct page_copies *copies)
{
    struct page_copies larger = {.size = copies->size ? 2 * copies->size : FIRST_SIZE,
                                 .used = copies->used};
    larger.table = calloc(larger.size, sizeof *larger.table);
    if (larger.table == NULL)
        return false;
    for (size_t i = 0; i < copies->size; i++) {
        if (copies->table[i].address)
            *place(&larger, copies->table[i].address) = copies->table[i];
    }
    free(copies->table);
    *copies = larger;
    return true;
}

uint8_t *page_copies_get(struct page_copies *copies, uint64_t address, bool *fresh)
{
    *fresh = false;
    if (2 * copies->used >= copies->size && !grow(copies))
        return NULL;
    struct page_copy *copy = place(copies, address);
    if (copy->address)
        return copy->bytes;
    copy->bytes = aligned_alloc(TW_LINE_SIZE, TW_PAGE_SIZE);
    if (copy->bytes == NULL)
        return NULL;
    memset(copy->bytes, 0, TW_PAGE_SIZE);
    copy->address = address;
    copies->used++;
    *fresh = true;
    return copy->bytes;
}

void page_copies_free(struct page_copies *copies)
{
    for (size_t i = 0; i < copies->size; i++)
        free(copies->table[i].bytes);
    free(copies->table);
    *copies = (struct page_copies){0};
}
