#include "services/migration/found.h"

#include <assert.h>
#include <stdlib.h>

bool tw_found_put(struct tw_found *f, uint64_t page, uint64_t lines)
{
    assert(f->count == 0 || f->pages[f->count - 1].page < page);
    if (f->count == f->room) {
        size_t room = f->room ? 2 * f->room : 256;
        if (room > TW_FOUND_PAGES_MAX)
            return false;
        struct tw_found_page *pages = realloc(f->pages, room * sizeof *pages);
        if (!pages)
            return false;
        f->pages = pages;
        f->room = room;
    }
    f->pages[f->count++] = (struct tw_found_page){page, lines};
    return true;
}

uint64_t tw_found_take(struct tw_found *f, uint64_t page)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (f->pages[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == f->count || f->pages[low].page != page)
        return 0;
    uint64_t lines = f->pages[low].lines;
    f->pages[low].lines = 0;
    return lines;
}

bool tw_found_next(struct tw_found *f, struct tw_found_page *out)
{
    while (f->next < f->count) {
        *out = f->pages[f->next++];
        if (out->lines)
            return true;
    }
    f->count = 0;
    f->next = 0;
    return false;
}

void tw_found_close(struct tw_found *f)
{
    free(f->pages);
    *f = (struct tw_found){0};
}
