#include "services/tracking/shared.h"

#include <stdlib.h>
#include <string.h>

/* Where the line goes: where it is already, a free place, or that of one that matters less. */
static struct tw_shared_line *place(struct tw_shared_lines *s, const struct tw_shared_line *line)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->lines[i].address == line->address)
            return &s->lines[i];
    }
    if (s->count < TW_SHARED_LINES_MAX)
        return &s->lines[s->count++];
    for (uint32_t i = 0; line->disjoint && i < s->count; i++) {
        if (!s->lines[i].disjoint)
            return &s->lines[i];
    }
    return NULL;
}

void tw_shared_lines_add(struct tw_shared_lines *s, const struct tw_shared_line *line)
{
    s->total++;
    s->falsely += line->disjoint;
    if (s->lines == NULL)
        s->lines = calloc(TW_SHARED_LINES_MAX, sizeof *s->lines);
    struct tw_shared_line *at = s->lines ? place(s, line) : NULL;
    if (at)
        *at = *line;
}

void tw_shared_lines_clear(struct tw_shared_lines *s)
{
    s->count = 0;
    s->total = s->falsely = 0;
}

void tw_shared_lines_free(struct tw_shared_lines *s)
{
    free(s->lines);
    *s = (struct tw_shared_lines){0};
}

static int falsely_first(const void *a, const void *b)
{
    const struct tw_shared_line *x = a, *y = b;
    if (x->disjoint != y->disjoint)
        return x->disjoint ? -1 : 1;
    return (x->address > y->address) - (x->address < y->address);
}

size_t tw_shared_lines_list(const struct tw_shared_lines *s, struct tw_shared_line *out, size_t max)
{
    struct tw_shared_line sorted[TW_SHARED_LINES_MAX];
    const size_t count = s->count < max ? s->count : max;
    if (s->count == 0)
        return 0;
    memcpy(sorted, s->lines, s->count * sizeof *sorted);
    qsort(sorted, s->count, sizeof *sorted, falsely_first);
    memcpy(out, sorted, count * sizeof *out);
    return count;
}
