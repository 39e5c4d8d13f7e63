#include "fpga-model/page_set.h"

#include "fpga-model/lazy.h"

#include <assert.h>
#include <string.h>

static uint64_t words_for(uint64_t bits)
{
    return (bits + 63) / 64;
}

bool tw_page_set_open(struct tw_page_set *set, uint64_t pages)
{
    uint64_t words = words_for(pages);
    memset(set, 0, sizeof *set);
    set->pages = pages;
    set->bits = tw_lazy_alloc(words * sizeof *set->bits);
    set->summary = tw_lazy_alloc(words_for(words) * sizeof *set->summary);
    return set->bits && set->summary;
}

void tw_page_set_close(struct tw_page_set *set)
{
    uint64_t words = words_for(set->pages);
    tw_lazy_free(set->bits, words * sizeof *set->bits);
    tw_lazy_free(set->summary, words_for(words) * sizeof *set->summary);
    memset(set, 0, sizeof *set);
}

/* The first word at or after `from` whose summary bit is set; `end` if there is none. */
static uint64_t next_word(const struct tw_page_set *set, uint64_t from, uint64_t end)
{
    for (uint64_t group = from / 64; group * 64 < end; group++) {
        uint64_t live = set->summary[group];
        if (group == from / 64)
            live &= UINT64_MAX << (from % 64);
        if (live) {
            uint64_t word = group * 64 + (uint64_t)__builtin_ctzll(live);
            return word < end ? word : end;
        }
    }
    return end;
}

uint64_t tw_page_set_next(const struct tw_page_set *set, uint64_t from, uint64_t end)
{
    assert(end <= set->pages);
    if (from >= end)
        return end;
    uint64_t words = words_for(end);
    uint64_t word = from / 64;
    uint64_t members = set->bits[word] & (UINT64_MAX << (from % 64));
    while (!members) {
        word = next_word(set, word + 1, words);
        if (word == words)
            return end;
        members = set->bits[word];
    }
    uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(members);
    return page < end ? page : end;
}
