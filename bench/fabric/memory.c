#include "base/random.h"
#include "bench/fabric/bench.h"

#include <stdlib.h>
#include <string.h>

uint8_t *memory_new(uint64_t bytes)
{
    struct tw_random r = {7};
    uint8_t *memory = aligned_alloc(TW_PAGE_SIZE, bytes);
    if (!memory)
        bench_fail("memory", "not enough");
    for (uint64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        const uint64_t word = tw_random_next(&r);
        memcpy(memory + i, &word, sizeof word);
    }
    return memory;
}

struct dirty *dirty_new(unsigned lines)
{
    struct tw_random r = {8};
    struct dirty *d = calloc(1, sizeof *d);
    if (!d)
        bench_fail("memory", "not enough");
    d->lines = lines;
    for (uint64_t i = 0; i < DIRTY_PAGES; i++) {
        /* Each page once: a permutation of all pages, of which the first are taken. */
        d->pages[i].page =
            i * UINT64_C(0x9e3779b97f4a7c15) % tw_page_of(MEMORY_BYTES) * TW_PAGE_SIZE;
        while (tw_popcount(d->pages[i].bitmap) < lines)
            d->pages[i].bitmap |= UINT64_C(1) << tw_random_below(&r, TW_LINES_PER_PAGE);
    }
    return d;
}
