#include "bench/tracking/amplification/meter.h"

#include "base/clock.h"
#include "bench/tracking/amplification/copies.h"
#include "hosts/process/kernel.h"
#include "hosts/process/process.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATIENCE (60 * TW_SEC)
#define RUNS     256u
#define SOME     64u /* pages read by one call */

struct meter {
    pid_t pid;
    int pagemap_fd;
    struct tw_process *process;
    struct tw_process_watch *watch;
    struct tw_tracker *tracker;
    struct page_copies copies;
    uint64_t same_pages; /* as of the interval before */
    uint64_t *big_pages; /* their numbers, of this interval, some several times */
    size_t big_count, big_max;
    uint8_t now[SOME][TW_PAGE_SIZE];
};

double meter_amplification(const struct meter_count *count, uint64_t units, uint64_t unit_bytes)
{
    return count->bytes ? (double)units * (double)unit_bytes / (double)count->bytes : NAN;
}

/* ---- Beginning ------------------------------------------------------------------------------- */

static enum tw_code read_pages(struct meter *m, uint64_t address, size_t pages,
                               struct tw_error *err)
{
    const size_t bytes = pages * TW_PAGE_SIZE;
    struct iovec local = {m->now, bytes}, remote = {(void *)(uintptr_t)address, bytes};
    const ssize_t got = process_vm_readv(m->pid, &local, 1, &remote, 1, 0);
    if (got == (ssize_t)bytes)
        return TW_OK;
    return tw_fail_errno(err, got < 0 ? errno : EFAULT, "meter", "%zu pages at %#llx", pages,
                         (unsigned long long)address);
}

/* Copies the pages of a run. What cannot be read cannot be stored to either. */
static enum tw_code copy_run(struct meter *m, uint64_t start, uint64_t end, struct tw_error *err)
{
    for (uint64_t at = start; at < end;) {
        const uint64_t left = (end - at) / TW_PAGE_SIZE;
        const size_t pages = left < SOME ? (size_t)left : SOME;
        const enum tw_code code = read_pages(m, at, pages, err);
        for (size_t i = 0; i < pages && code == TW_OK; i++) {
            bool fresh;
            uint8_t *copy = page_copies_get(&m->copies, at + i * TW_PAGE_SIZE, &fresh);
            if (copy == NULL)
                return tw_fail_errno(err, ENOMEM, "meter", "copies");
            memcpy(copy, m->now[i], TW_PAGE_SIZE);
        }
        if (code)
            return code;
        at += pages * TW_PAGE_SIZE;
    }
    return TW_OK;
}

/* Pages of a file that were never touched hold the file's content, so they are read, too; others
 * that are absent hold zeros. */
static enum tw_code copy_area(struct meter *m, const struct tw_process_area *area,
                              struct tw_error *err)
{
    struct tw_page_run runs[RUNS];
    const uint64_t end = area->range.start + area->range.length;
    if (area->name[0] == '/')
        return copy_run(m, area->range.start, end, err);
    for (uint64_t at = area->range.start; at < end;) {
        const struct tw_range range = {at, end - at};
        const int count =
            tw_kernel_scan(m->pagemap_fd, 0, range, 0, TW_PAGE_PRESENT | TW_PAGE_SWAPPED,
                           TW_PAGE_PRESENT, runs, RUNS, &at);
        if (count < 0)
            return tw_fail_errno(err, errno, "meter", "PAGEMAP_SCAN");
        for (int i = 0; i < count; i++) {
            const enum tw_code code = copy_run(m, runs[i].start, runs[i].end, err);
            if (code)
                return code;
        }
    }
    return TW_OK;
}

static enum tw_code copy_all(struct meter *m, struct tw_error *err)
{
    struct tw_process_area area;
    for (uint64_t at = 0; tw_process_next_area(m->process, at, &area);
         at = area.range.start + area.range.length) {
        const enum tw_code code = area.reason == TW_AREA_FOLLOWED && area.writable && area.readable
                                      ? copy_area(m, &area, err)
                                      : TW_OK;
        if (code)
            return code;
    }
    return TW_OK;
}

static enum tw_code begin(struct meter *m, const struct tw_range *ranges, size_t count,
                          struct tw_error *err)
{
    const struct tw_process_config config = {.exact = true};
    struct tw_tracker_config tracker = {.name = "meter"};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)m->pid);
    m->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (m->pagemap_fd < 0)
        return tw_fail_errno(err, errno, "meter", "%s", path);
    enum tw_code code = tw_process_attach(&config, m->pid, &m->process, err);
    if (code == TW_OK)
        code = tw_process_watch(m->process, ranges, count, &m->watch, err);
    if (code == TW_OK)
        code = tw_process_pass(m->process, tw_after(tw_now(&tw_monotonic), PATIENCE), err);
    if (code)
        return code;
    tracker.ranges = tw_process_watch_ranges(m->watch, &tracker.range_count);
    code = tw_tracker_start(tw_process_device(m->process), &tracker, &m->tracker, err);
    return code ? code : copy_all(m, err);
}

enum tw_code meter_open(pid_t pid, const struct tw_range *ranges, size_t count, struct meter **out,
                        struct tw_error *err)
{
    struct tw_process_stats stats;
    struct meter *m = calloc(1, sizeof *m);
    if (m == NULL)
        return tw_fail_errno(err, ENOMEM, "meter", "no memory");
    m->pid = pid;
    m->pagemap_fd = -1;
    const enum tw_code code = begin(m, ranges, count, err);
    if (code) {
        meter_close(m);
        return code;
    }
    tw_process_stats_get(m->process, &stats);
    m->same_pages = stats.same_pages;
    *out = m;
    return TW_OK;
}

void meter_close(struct meter *m)
{
    if (m == NULL)
        return;
    tw_process_detach(m->process); /* its tracker and watch with it */
    if (m->pagemap_fd >= 0)
        close(m->pagemap_fd);
    page_copies_free(&m->copies);
    free(m->big_pages);
    free(m);
}

/* ---- Intervals ------------------------------------------------------------------------------- */

/* Counts the bytes of a page that differ; the copy becomes equal. Returns their lines. */
static uint64_t compare(const uint8_t *now, uint8_t *copy, uint64_t *bytes)
{
    uint64_t lines = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const uint8_t *a = now + line * TW_LINE_SIZE, *b = copy + line * TW_LINE_SIZE;
        unsigned differ = 0;
        for (unsigned i = 0; i < TW_LINE_SIZE; i++)
            differ += a[i] != b[i];
        *bytes += differ;
        lines |= (uint64_t)(differ != 0) << line;
    }
    memcpy(copy, now, TW_PAGE_SIZE);
    return lines;
}

/* Was the page's content before the interval known? Memory of no file was zeros before it came. */
static bool known(const struct meter *m, uint64_t address)
{
    struct tw_process_area area;
    return tw_process_next_area(m->process, address, &area) && area.range.start <= address &&
           area.name[0] != '/';
}

static enum tw_code note_big_page(struct meter *m, uint64_t number, struct tw_error *err)
{
    if (m->big_count > 0 && m->big_pages[m->big_count - 1] == number)
        return TW_OK;
    if (m->big_count == m->big_max) {
        const size_t max = m->big_max ? 2 * m->big_max : 1024;
        uint64_t *larger = realloc(m->big_pages, max * sizeof *larger);
        if (larger == NULL)
            return tw_fail_errno(err, ENOMEM, "meter", "big pages");
        m->big_pages = larger;
        m->big_max = max;
    }
    m->big_pages[m->big_count++] = number;
    return TW_OK;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t count_big_pages(struct meter *m)
{
    uint64_t count = 0;
    if (m->big_count > 0)
        qsort(m->big_pages, m->big_count, sizeof m->big_pages[0], by_number);
    for (size_t i = 0; i < m->big_count; i++)
        count += i == 0 || m->big_pages[i] != m->big_pages[i - 1];
    m->big_count = 0;
    return count;
}

static enum tw_code count_page(struct meter *m, const struct tw_dirty_page *page,
                               struct meter_count *sum, struct tw_error *err)
{
    const uint64_t address = tw_process_address(m->process, page->page);
    bool fresh;
    uint64_t bytes = 0;
    if (read_pages(m, address, 1, NULL))
        return TW_OK; /* gone: nobody will send it */
    uint8_t *copy = page_copies_get(&m->copies, address, &fresh);
    if (copy == NULL)
        return tw_fail_errno(err, ENOMEM, "meter", "copies");
    const uint64_t lines = compare(m->now[0], copy, &bytes);
    if (lines & ~page->lines)
        return tw_fail(err, TW_INTERNAL, "meter", NULL, NULL,
                       "lines %#llx of the page at %#llx changed and were not told, which is %s",
                       (unsigned long long)(lines & ~page->lines), (unsigned long long)address,
                       fresh ? "new" : "known");
    if (fresh && !known(m, address)) {
        sum->unknown_pages++;
        return TW_OK;
    }
    if (lines == 0)
        return TW_OK;
    sum->bytes += bytes;
    sum->lines += tw_popcount(lines);
    sum->pages++;
    return note_big_page(m, address / METER_BIG_PAGE, err);
}

enum tw_code meter_interval(struct meter *m, struct meter_count *sum, struct tw_error *err)
{
    struct tw_process_stats stats;
    struct tw_dirty_page pages[SOME];
    enum tw_code code = tw_process_pass(m->process, tw_after(tw_now(&tw_monotonic), PATIENCE), err);
    if (code)
        return code;
    tw_tracker_collect(m->tracker);
    for (size_t n; (n = tw_tracker_read(m->tracker, pages, SOME)) > 0;) {
        for (size_t i = 0; i < n && code == TW_OK; i++)
            code = count_page(m, &pages[i], sum, err);
    }
    sum->big_pages += count_big_pages(m);
    tw_process_stats_get(m->process, &stats);
    sum->same_pages += stats.same_pages - m->same_pages;
    m->same_pages = stats.same_pages;
    sum->intervals++;
    return code;
}
