/* Windows: which part of the program is which part of the device, and where its marks are. */
#include "hosts/instrumented/private.h"

#include "hosts/process/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SUMMARY_BYTES TW_WINDOW_PAGES
#define DISCOVER_MAX  (2 * TW_INSTRUMENTED_WINDOWS_MAX)
#define LINES_BYTES   (TW_WINDOW_PAGES * TW_LINES_PER_PAGE)

/* The first window at or beyond `address`, as an index of by_address. */
static size_t find(const struct tw_instrumented *p, uint64_t address)
{
    size_t low = 0, high = p->window_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (p->by_address[middle]->address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tw_inst_window *tw_inst_window_at(const struct tw_instrumented *p, uint64_t address)
{
    const uint64_t start = address & ~(TW_INSTRUMENTED_WINDOW - 1);
    const size_t at = find(p, start);
    return at < p->window_count && p->by_address[at]->address == start ? p->by_address[at] : NULL;
}

static uint8_t *map_part(const struct tw_instrumented *p, uint64_t offset, uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, p->file,
                    (off_t)offset);
    return at == MAP_FAILED ? NULL : at;
}

static void unmap(struct tw_inst_window *w)
{
    if (w->map.summary)
        munmap(w->map.summary, SUMMARY_BYTES);
    if (w->map.marks)
        munmap(w->map.marks, LINES_BYTES);
    if (w->lines)
        munmap(w->lines, LINES_BYTES);
    free(w);
}

/* States from before the window was known say what the cache model never heard of (R1). */
static void forget_states(struct tw_inst_window *w)
{
    uint64_t *words = (uint64_t *)(void *)w->lines;
    for (size_t i = 0; i < LINES_BYTES / sizeof *words; i++) {
        if (__atomic_load_n(&words[i], __ATOMIC_RELAXED))
            __atomic_exchange_n(&words[i], 0, __ATOMIC_SEQ_CST);
    }
}

static struct tw_inst_window *map_window(const struct tw_instrumented *p, uint64_t start)
{
    struct tw_inst_window *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->address = start;
    w->device_address = p->window_count * TW_INSTRUMENTED_WINDOW;
    w->map.page_count = TW_WINDOW_PAGES;
    w->map.summary = map_part(p, TW_INST_SUMMARY_AT + tw_page_of(start), SUMMARY_BYTES);
    w->map.marks = map_part(p, TW_INST_MARKS_AT + tw_line_of(start), LINES_BYTES);
    const bool has_lines = p->mode != TW_INST_MARK;
    if (has_lines)
        w->lines = map_part(p, TW_INST_LINES_AT + tw_line_of(start), LINES_BYTES);
    if (w->map.summary && w->map.marks && (w->lines || !has_lines))
        return w;
    const int number = errno;
    unmap(w);
    errno = number;
    return NULL;
}

enum tw_code tw_inst_window_add(struct tw_instrumented *p, uint64_t address,
                                struct tw_inst_window **out, struct tw_error *err)
{
    const uint64_t start = address & ~(TW_INSTRUMENTED_WINDOW - 1);
    *out = tw_inst_window_at(p, start);
    if (*out)
        return TW_OK;
    if (p->window_count == p->windows_max)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->name, NULL, NULL,
                       "no room in its device for another 64 MiB: %zu windows are watched",
                       p->window_count);
    struct tw_inst_window *w = map_window(p, start);
    if (w == NULL)
        return tw_fail_errno(err, errno, p->name, "cannot map the marks of %#llx",
                             (unsigned long long)start);
    const size_t at = find(p, start);
    memmove(&p->by_address[at + 1], &p->by_address[at],
            (p->window_count - at) * sizeof *p->by_address);
    p->by_address[at] = w;
    p->windows[p->window_count++] = w;
    if (p->mode == TW_INST_OWNED)
        forget_states(w);
    *out = w;
    return TW_OK;
}

/* ---- Everything ------------------------------------------------------------------------------ */

static bool has_marks(const struct tw_instrumented *p, uint64_t window)
{
    uint64_t words[SUMMARY_BYTES / sizeof(uint64_t)];
    const off_t at = (off_t)(TW_INST_SUMMARY_AT + window * SUMMARY_BYTES);
    if (pread(p->file, words, sizeof words, at) != (ssize_t)sizeof words)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (words[i])
            return true;
    }
    return false;
}

/* The file has memory where the program marked something: the summary's holes are skipped. Windows
 * that a program touches and leaves empty cost it memory, and us a bounded time. */
void tw_inst_discover_begin(struct tw_instrumented *p)
{
    p->discover_at = TW_INST_SUMMARY_AT;
    p->discover_left = DISCOVER_MAX;
}

enum tw_code tw_inst_discover_next(struct tw_instrumented *p, bool *done, struct tw_error *err)
{
    const off_t at = p->everything ? lseek(p->file, (off_t)p->discover_at, SEEK_DATA) : -1;
    *done = at < 0 || at >= (off_t)TW_INST_MARKS_AT;
    if (*done)
        return TW_OK;
    if (p->discover_left-- == 0)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->name, NULL, NULL,
                       "it touches more than %u windows of 64 MiB", DISCOVER_MAX);
    const uint64_t window = ((uint64_t)at - TW_INST_SUMMARY_AT) / SUMMARY_BYTES;
    const uint64_t address = window * TW_INSTRUMENTED_WINDOW;
    struct tw_inst_window *w = tw_inst_window_at(p, address);
    p->discover_at = TW_INST_SUMMARY_AT + (window + 1) * SUMMARY_BYTES;
    return w == NULL && has_marks(p, window) ? tw_inst_window_add(p, address, &w, err) : TW_OK;
}

enum tw_code tw_instrumented_discover(struct tw_instrumented *p, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    tw_inst_discover_begin(p);
    for (bool done = false; !done && code == TW_OK;)
        code = tw_inst_discover_next(p, &done, err);
    return code;
}

void tw_inst_windows_close(struct tw_instrumented *p)
{
    for (size_t i = 0; i < p->window_count; i++)
        unmap(p->windows[i]);
    p->window_count = 0;
}

uint64_t tw_instrumented_address(const struct tw_instrumented *p, uint64_t device_page)
{
    const uint64_t address = device_page << TW_PAGE_SHIFT;
    const struct tw_inst_window *w = tw_inst_window_of_device(p, address);
    return w ? w->address + (address - w->device_address) : UINT64_MAX;
}

uint64_t tw_instrumented_device_address(const struct tw_instrumented *p, uint64_t address)
{
    const struct tw_inst_window *w = tw_inst_window_at(p, address);
    return w ? w->device_address + (address - w->address) : UINT64_MAX;
}

/* ---- Watches --------------------------------------------------------------------------------- */

struct tw_instrumented_watch {
    struct tw_instrumented *program;
    bool everything;
    size_t count;
    struct tw_range ranges[]; /* of the device */
};

static enum tw_code check_ranges(const struct tw_instrumented *p, const struct tw_range *ranges,
                                 size_t count, size_t *pieces, struct tw_error *err)
{
    const uint64_t limit = UINT64_C(1) << TW_INST_ADDRESS_BITS;
    *pieces = 0;
    if (count > TW_INSTRUMENTED_RANGES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, p->name, "0..4096 ranges", NULL, "%zu ranges",
                       count);
    for (size_t i = 0; i < count; i++) {
        const struct tw_range *r = &ranges[i];
        if (r->length == 0 || (r->start | r->length) % TW_PAGE_SIZE || !tw_range_fits(*r, limit))
            return tw_fail(err, TW_INVALID_ARGUMENT, p->name, "whole pages of addresses below 2^47",
                           NULL, "range of %llu bytes at %#llx", (unsigned long long)r->length,
                           (unsigned long long)r->start);
        *pieces += (r->start + r->length - 1) / TW_INSTRUMENTED_WINDOW -
                   r->start / TW_INSTRUMENTED_WINDOW + 1;
    }
    if (*pieces > TW_INSTRUMENTED_WINDOWS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, p->name, "up to 1 TiB", NULL,
                       "the ranges lie in %zu windows of 64 MiB", *pieces);
    return TW_OK;
}

static enum tw_code add_range(struct tw_instrumented *p, struct tw_range r,
                              struct tw_instrumented_watch *watch, struct tw_error *err)
{
    while (r.length) {
        struct tw_inst_window *w;
        const enum tw_code code = tw_inst_window_add(p, r.start, &w, err);
        if (code)
            return code;
        const uint64_t rest = w->address + TW_INSTRUMENTED_WINDOW - r.start;
        const uint64_t here = r.length < rest ? r.length : rest;
        watch->ranges[watch->count++] =
            (struct tw_range){.start = w->device_address + (r.start - w->address), .length = here};
        r.start += here;
        r.length -= here;
    }
    return TW_OK;
}

/* All of it is mapped at this time. */
static enum tw_code check_mapped(const struct tw_instrumented *p, const struct tw_range *ranges,
                                 size_t count, struct tw_error *err)
{
    struct tw_maps maps = {0};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)p->pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tw_fail_errno(err, errno, path, "cannot be opened");
    enum tw_code code = tw_maps_read(fd, &maps, err);
    close(fd);
    for (size_t i = 0; i < count && code == TW_OK; i++) {
        uint64_t at = ranges[i].start;
        size_t area = tw_maps_find(&maps, at);
        while (at < ranges[i].start + ranges[i].length && area < maps.count &&
               maps.areas[area].start <= at)
            at = maps.areas[area++].end;
        if (at < ranges[i].start + ranges[i].length)
            code = tw_fail(err, TW_NOT_FOUND, p->name, "mapped addresses", NULL,
                           "nothing is mapped at %#llx", (unsigned long long)at);
    }
    tw_maps_free(&maps);
    return code;
}

static enum tw_code fill(struct tw_instrumented_watch *w, const struct tw_range *ranges,
                         size_t count, struct tw_error *err)
{
    struct tw_instrumented *p = w->program;
    enum tw_code code = TW_OK;
    for (size_t i = 0; i < count && code == TW_OK; i++)
        code = add_range(p, ranges[i], w, err);
    if (count == 0) {
        w->everything = true;
        w->ranges[w->count++] = (struct tw_range){0, p->windows_max * TW_INSTRUMENTED_WINDOW};
        p->everything++;
    }
    return code;
}

enum tw_code tw_instrumented_watch(struct tw_instrumented *p, const struct tw_range *ranges,
                                   size_t count, struct tw_instrumented_watch **watch,
                                   struct tw_error *err)
{
    size_t pieces;
    *watch = NULL;
    enum tw_code code = check_ranges(p, ranges, count, &pieces, err);
    if (code == TW_OK && count)
        code = check_mapped(p, ranges, count, err);
    else if (code == TW_OK && p->mode == TW_INST_OWNED)
        code = tw_fail(err, TW_INVALID_ARGUMENT, p->name, "ranges", NULL,
                       "with line states, what is watched has to be known before");
    if (code)
        return code;
    struct tw_instrumented_watch *w = calloc(1, sizeof *w + (pieces + 1) * sizeof w->ranges[0]);
    if (w == NULL)
        return tw_fail_errno(err, ENOMEM, p->name, "cannot watch %zu ranges", count);
    w->program = p;
    code = fill(w, ranges, count, err);
    if (code) {
        free(w);
        return code;
    }
    *watch = w;
    return TW_OK;
}

void tw_instrumented_unwatch(struct tw_instrumented_watch *watch)
{
    if (watch && watch->everything)
        watch->program->everything--;
    free(watch);
}

const struct tw_range *tw_instrumented_watch_ranges(const struct tw_instrumented_watch *watch,
                                                    size_t *count)
{
    *count = watch->count;
    return watch->ranges;
}
