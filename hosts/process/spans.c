/* What is to be scanned: the program's mappings as they are now, as far as they are watched.
 *
 * A mapping that is not registered yet is new, or another one at an old place. Its pages count as
 * written until they are protected, so what was stored there since the last pass is found like any
 * other store. Shared memory is different: that a page of it is present says little, and one that
 * is absent may be written by touching it for reading first. So there all pages are protected at
 * once, absent ones too, and those present after that are taken for written. */
#include "hosts/process/process_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Shared mappings up to this size have their absent pages protected, at 8 bytes of page table each.
 * In a greater one, a page that is only read counts as written once. */
#define MARKED_MAX (UINT64_C(64) << 30) /* bytes */

enum tw_code tw_found_add(struct tw_process *p, const struct tw_page_run *runs, size_t count,
                          bool anonymous, bool shared, struct tw_error *err)
{
    struct tw_pass *pass = &p->pass;
    if (pass->found_count + count > pass->found_capacity) {
        const size_t capacity = pass->found_capacity * 2 + count + TW_SCAN_RUNS;
        struct tw_found *grown = realloc(pass->found, capacity * sizeof *grown);
        if (!grown)
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
        pass->found = grown;
        pass->found_capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) {
        pass->found[pass->found_count++] = (struct tw_found){runs[i], anonymous, shared};
        pass->found_pages += (runs[i].end - runs[i].start) / TW_PAGE_SIZE;
    }
    return TW_OK;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- What is gone ---------------------------------------------------------------------------- */

/* Whatever comes to stand at these addresses later is not what the copies say. */
static void drop(struct tw_process *p, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end;) {
        const uint64_t device = tw_windows_find(&p->windows, at);
        const uint64_t next = smaller((at / TW_PROCESS_WINDOW + 1) * TW_PROCESS_WINDOW, end);
        for (uint64_t i = 0; device != TW_NEVER && i < (next - at) / TW_PAGE_SIZE; i++)
            tw_copies_drop(&p->copies, tw_page_of(device) + i);
        at = next;
    }
}

static void drop_gone(struct tw_process *p, const struct tw_span *old, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t at = old[i].start;
        for (size_t k = tw_maps_find(&p->maps, at); at < old[i].end; k++) {
            const bool some = k < p->maps.count && p->maps.areas[k].start < old[i].end;
            if (!some || p->maps.areas[k].start > at)
                drop(p, at, some ? p->maps.areas[k].start : old[i].end);
            at = some ? p->maps.areas[k].end : old[i].end;
        }
    }
}

/* ---- Registration ---------------------------------------------------------------------------- */

static enum tw_code find_present(struct tw_process *p, const struct tw_map_area *area,
                                 struct tw_error *err)
{
    struct tw_page_run runs[TW_SCAN_RUNS];
    enum tw_code code = TW_OK;
    for (uint64_t at = area->start, reached; at < area->end && !code; at = reached) {
        const int count =
            tw_kernel_scan(p->pagemap, 0, (struct tw_range){at, area->end - at}, TW_PAGE_PRESENT, 0,
                           TW_PAGE_HUGE, runs, TW_SCAN_RUNS, &reached);
        if (count < 0)
            return tw_fail_errno(err, errno, p->where, "shared memory cannot be scanned");
        code = tw_found_add(p, runs, (size_t)count, false, true, err);
    }
    return code;
}

static bool was_registered(const struct tw_maps *old, const struct tw_map_area *area)
{
    const size_t at = tw_maps_find(old, area->start);
    return at < old->count && old->areas[at].start == area->start &&
           old->areas[at].end == area->end && old->areas[at].registered;
}

/* Sets the area's reason when the kernel does not want it: that is no error of the pass. An area
 * that somebody registered, but that we do not know, has grown; or it is another tracker's, whom
 * we would rob of his written pages: only registering tells. */
static enum tw_code register_area(struct tw_process *p, const struct tw_maps *old,
                                  struct tw_map_area *area, struct tw_error *err)
{
    const struct tw_range range = {area->start, area->end - area->start};
    const int found = tw_kernel_unregistered(p->pagemap, range);
    area->registered = found == 0 && was_registered(old, area);
    if (area->registered)
        return TW_OK;
    if (found < 0 || tw_kernel_register(p->userfaultfd, range)) {
        area->reason = TW_AREA_REFUSED;
        return tw_process_check(p, err);
    }
    area->registered = true;
    if (found == 0)
        return TW_OK;
    drop(p, area->start, area->end);
    if (!area->shared)
        return TW_OK;
    if (range.length <= MARKED_MAX && tw_kernel_protect(p->userfaultfd, range)) {
        area->reason = TW_AREA_REFUSED;
        return tw_process_check(p, err);
    }
    return find_present(p, area, err);
}

/* ---- Spans ----------------------------------------------------------------------------------- */

static enum tw_code span_add(struct tw_process *p, const struct tw_map_area *area, uint64_t start,
                             uint64_t end, struct tw_error *err)
{
    struct tw_span *last = p->span_count ? &p->spans[p->span_count - 1] : NULL;
    if (last && last->end >= start && last->start >= area->start) { /* of the same area */
        last->end = last->end > end ? last->end : end;
        return TW_OK;
    }
    if (p->span_count == p->span_capacity) {
        const size_t capacity = p->span_capacity * 2 + 64;
        struct tw_span *grown = realloc(p->spans, capacity * sizeof *grown);
        if (!grown)
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->where, NULL, NULL, "no memory");
        p->spans = grown;
        p->span_capacity = capacity;
    }
    p->spans[p->span_count++] = (struct tw_span){start, end, area->anonymous, area->shared};
    return TW_OK;
}

static enum tw_code add_area(struct tw_process *p, const struct tw_maps *old_maps,
                             struct tw_map_area *area, struct tw_error *err)
{
    size_t at = tw_piece_find(p, area->start);
    enum tw_code code = TW_OK;
    if (at == p->piece_count || p->pieces[at].start >= area->end)
        return TW_OK; /* not watched */
    if (area->reason == TW_AREA_FOLLOWED)
        code = register_area(p, old_maps, area, err);
    p->stats.registered_areas += area->reason == TW_AREA_FOLLOWED;
    p->stats.skipped_areas += area->reason != TW_AREA_FOLLOWED;
    for (; !code && at < p->piece_count && p->pieces[at].start < area->end; at++) {
        const struct tw_piece *piece = &p->pieces[at];
        const uint64_t start = greater(piece->start, area->start);
        const uint64_t end = smaller(piece->end, area->end);
        if (area->reason != TW_AREA_FOLLOWED)
            continue;
        p->stats.watched_bytes += end - start;
        code =
            span_add(p, area, greater(start / TW_BIG_PAGE * TW_BIG_PAGE, area->start),
                     smaller((end + TW_BIG_PAGE - 1) / TW_BIG_PAGE * TW_BIG_PAGE, area->end), err);
    }
    return code;
}

enum tw_code tw_spans_update(struct tw_process *p, struct tw_error *err)
{
    struct tw_span *old = p->spans;
    const size_t old_count = p->span_count;
    struct tw_maps maps = {0}, old_maps = p->maps;
    enum tw_code code = tw_maps_read(p->maps_fd, &maps, err);
    if (code) {
        tw_maps_free(&maps);
        return code;
    }
    p->maps = maps;
    p->spans = NULL;
    p->span_count = p->span_capacity = 0;
    p->stats.watched_bytes = p->stats.registered_areas = p->stats.skipped_areas = 0;
    drop_gone(p, old, old_count);
    free(old);
    for (size_t i = 0; i < p->maps.count && !code; i++)
        code = add_area(p, &old_maps, &p->maps.areas[i], err);
    tw_maps_free(&old_maps);
    return code;
}
