#include "services/migration/hot_lines.h"

#include "base/line.h"
#include "services/migration/big_array.h"

enum { LOW, HIGH, CHOSEN, TOLD, PLANES };

enum tw_code tw_hot_lines_open(struct tw_hot_lines *h, uint64_t pages, struct tw_error *err)
{
    *h = (struct tw_hot_lines){.pages = pages};
    h->planes = tw_big_array_open(pages * PLANES, "hot lines", err);
    return h->planes ? TW_OK : TW_RESOURCE_EXHAUSTED;
}

void tw_hot_lines_close(struct tw_hot_lines *h)
{
    tw_big_array_close(h->planes, h->pages * PLANES);
    *h = (struct tw_hot_lines){0};
}

void tw_hot_lines_round(struct tw_hot_lines *h)
{
    h->round++;
}

uint64_t tw_hot_lines_add(struct tw_hot_lines *h, uint64_t page, uint64_t lines)
{
    uint64_t *p = h->planes + page * PLANES;
    const bool in_a_row = p[TOLD] + 1 == h->round;
    const uint64_t low = in_a_row ? p[LOW] & lines : 0;
    const uint64_t high = in_a_row ? p[HIGH] & lines : 0;
    p[TOLD] = h->round;
    /* One more, and three stay three; who is not among them begins anew. */
    p[LOW] = (lines & ~low) | (low & high);
    p[HIGH] = high | low;
    return p[LOW] & p[HIGH];
}

/* The first `n` of them. */
static uint64_t first_of(uint64_t lines, uint64_t n)
{
    uint64_t out = 0;
    for (; n && lines; n--, lines &= lines - 1)
        out |= lines & -lines;
    return out;
}

uint64_t tw_hot_lines_choose(struct tw_hot_lines *h, uint64_t page, uint64_t lines)
{
    uint64_t *p = h->planes + page * PLANES;
    const uint64_t fresh = first_of(lines & ~p[CHOSEN], TW_HOT_LINES_MAX - h->chosen);
    h->chosen += tw_popcount(fresh);
    p[CHOSEN] |= fresh;
    return p[CHOSEN];
}
