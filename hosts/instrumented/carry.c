/* Carrying: what may have been on its way when an epoch was closed belongs to the next one, too.
 *
 * What is announced is noted at once, after the epoch was closed and before anyone reads data; the
 * device is told in the next pass, piece by piece, which every collect of the next epoch has to
 * make before it ends. A mark is only in need of being carried when it was taken, so nothing but
 * pages that were taken lately is looked at: what a program announces costs us no more than what it
 * marked, whatever it says. */
#include "hosts/instrumented/private.h"

#include <stdlib.h>
#include <string.h>

static int by_first(const void *a, const void *b)
{
    const struct tw_inst_flight *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* Sorted, disjoint. */
static void merge(struct tw_instrumented *p)
{
    size_t kept = 0;
    qsort(p->flights, p->flight_count, sizeof *p->flights, by_first);
    for (size_t i = 0; i < p->flight_count; i++) {
        const struct tw_inst_flight f = p->flights[i];
        if (kept && f.first <= p->flights[kept - 1].last + 1) {
            if (f.last > p->flights[kept - 1].last)
                p->flights[kept - 1].last = f.last;
        } else {
            p->flights[kept++] = f;
        }
    }
    p->flight_count = kept;
}

static void add(struct tw_instrumented *p, struct tw_inst_flight flight)
{
    if (p->flight_count == TW_INST_FLIGHTS_MAX)
        merge(p);
    if (p->flight_count == TW_INST_FLIGHTS_MAX)
        p->flights_all = true;
    else
        p->flights[p->flight_count++] = flight;
}

/* Of its lines, those that somebody may watch. */
static uint64_t watched_lines(const struct tw_instrumented *p, struct tw_inst_flight flight)
{
    const uint64_t a_window = TW_INSTRUMENTED_WINDOW / TW_LINE_SIZE;
    uint64_t lines = 0;
    for (uint64_t line = flight.first; line <= flight.last;) {
        const uint64_t next = (line / a_window + 1) * a_window;
        const uint64_t end = next <= flight.last ? next : flight.last + 1;
        if (tw_inst_window_at(p, line << TW_LINE_SHIFT))
            lines += end - line;
        line = end;
    }
    return lines;
}

size_t tw_inst_carry_note(struct tw_instrumented *p)
{
    unsigned looks = TW_INST_PROC_MAX;
    size_t lines = 0;
    p->settled = true;
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        const uint64_t announced = tw_inst_in_flight_within(p, i, &looks);
        if (announced == 0)
            continue;
        if (announced >> TW_INST_MORE_SHIFT == TW_INST_MORE_MAX)
            p->flights_all = true;
        const uint64_t first = tw_line_of(tw_inst_flight_address(announced));
        const struct tw_inst_flight flight = {first, first + tw_inst_flight_lines(announced) - 1};
        add(p, flight);
        lines += watched_lines(p, flight);
    }
    return lines;
}

void tw_inst_carry_begin(struct tw_instrumented *p)
{
    merge(p);
}

/* The first flight that ends at or after the line. */
static size_t find(const struct tw_instrumented *p, uint64_t line)
{
    size_t low = 0, high = p->flight_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (p->flights[middle].last < line)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Lines of the page that begins with line `first`. */
static uint64_t lines_in_flight(const struct tw_instrumented *p, uint64_t first)
{
    const uint64_t last = first + TW_LINES_PER_PAGE - 1;
    uint64_t lines = 0;
    if (p->flights_all)
        return TW_ALL_LINES;
    for (size_t i = find(p, first); i < p->flight_count && p->flights[i].first <= last; i++) {
        const struct tw_inst_flight f = p->flights[i];
        const uint64_t from = (f.first > first ? f.first : first) - first;
        const uint64_t to = (f.last < last ? f.last : last) - first;
        lines |= (TW_ALL_LINES >> (TW_LINES_PER_PAGE - 1 - (to - from))) << from;
    }
    return lines;
}

void tw_inst_carry_window(struct tw_instrumented *p, struct tw_inst_window *w)
{
    bool kept = false;
    for (size_t word = 0; w->has_recent && word < TW_WINDOW_PAGES / 64; word++) {
        for (uint64_t pages = w->recent[word]; pages; pages &= pages - 1) {
            const uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(pages);
            const uint64_t lines =
                lines_in_flight(p, tw_line_of(w->address) + page * TW_LINES_PER_PAGE);
            if (lines == 0)
                w->recent[word] &= ~(UINT64_C(1) << (page % 64));
            tw_device_message_page(p->device, TW_MEM_WR, tw_page_of(w->device_address) + page,
                                   lines);
            tw_inst_compare_lines(p, w, page, lines, true);
            kept |= lines != 0;
        }
    }
    w->has_recent = kept;
    tw_inst_compare_flush(p);
}

void tw_inst_carry_end(struct tw_instrumented *p)
{
    p->flight_count = 0;
    p->flights_all = p->settled = false;
}
