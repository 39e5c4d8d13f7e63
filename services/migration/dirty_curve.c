#include "services/migration/dirty_curve.h"

#include "base/clock.h"
#include "base/line.h"

#define FIRST_NS (2 * TW_MS)

uint64_t tw_dirty_curve_due_ns(unsigned index)
{
    uint64_t due = FIRST_NS;
    while (index--)
        due += due / 4;
    return due;
}

void tw_dirty_curve_add(struct tw_dirty_curve *curve, unsigned index, uint64_t after_ns,
                        uint64_t lines, uint64_t pages)
{
    if (index >= TW_CURVE_SAMPLES)
        return;
    struct tw_curve_sample *s = &curve->sample[index];
    s->after_ns += after_ns;
    s->lines += lines;
    s->pages += pages;
    s->epochs++;
}

/* A point of the curve: a set only grows, so an average over other epochs that is smaller than what
 * stood before it is not believed. */
struct point {
    uint64_t at_ns;
    struct tw_dirt dirt;
};

static bool point_of(const struct tw_curve_sample *s, const struct point *before, struct point *out)
{
    if (s->epochs == 0 || s->after_ns / s->epochs <= before->at_ns)
        return false;
    *out = (struct point){s->after_ns / s->epochs, {s->lines / s->epochs, s->pages / s->epochs}};
    if (out->dirt.lines < before->dirt.lines)
        out->dirt.lines = before->dirt.lines;
    if (out->dirt.pages < before->dirt.pages)
        out->dirt.pages = before->dirt.pages;
    return true;
}

static uint64_t on_line(uint64_t from, uint64_t to, uint64_t part_ns, uint64_t whole_ns)
{
    unsigned __int128 more = (unsigned __int128)(to - from) * part_ns / whole_ns;
    return more > UINT64_MAX / 4 ? UINT64_MAX / 4 : from + (uint64_t)more;
}

static struct tw_dirt between(const struct point *a, const struct point *b, uint64_t ns)
{
    uint64_t part = ns - a->at_ns, whole = b->at_ns - a->at_ns;
    return (struct tw_dirt){on_line(a->dirt.lines, b->dirt.lines, part, whole),
                            on_line(a->dirt.pages, b->dirt.pages, part, whole)};
}

uint64_t tw_dirty_curve_end_ns(const struct tw_dirty_curve *curve)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < TW_CURVE_SAMPLES; i++)
        if (curve->sample[i].epochs && curve->sample[i].after_ns / curve->sample[i].epochs > end)
            end = curve->sample[i].after_ns / curve->sample[i].epochs;
    return end;
}

static struct tw_dirt bounded(struct tw_dirt d, uint64_t pages_max)
{
    uint64_t lines_max = pages_max * TW_LINES_PER_PAGE;
    d.pages = d.pages < pages_max ? d.pages : pages_max;
    d.lines = d.lines < lines_max ? d.lines : lines_max;
    return d;
}

struct tw_dirt tw_dirty_curve_at(const struct tw_dirty_curve *curve, uint64_t ns,
                                 uint64_t pages_max)
{
    struct point before = {0}, next, half = {0};
    uint64_t end_ns = tw_dirty_curve_end_ns(curve);
    for (unsigned i = 0; i < TW_CURVE_SAMPLES; i++) {
        if (!point_of(&curve->sample[i], &before, &next))
            continue;
        if (ns < next.at_ns)
            return bounded(between(&before, &next, ns), pages_max);
        before = next;
        if (before.at_ns <= end_ns / 2)
            half = before;
    }
    if (before.at_ns == 0 || ns == before.at_ns)
        return bounded(before.dirt, pages_max);
    return bounded(between(&half, &before, ns), pages_max);
}
