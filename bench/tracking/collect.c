/* What it costs to arm 1 GiB, and to collect it with so many dirty pages, one line of each. The
 * peer `kernel_scan` does what no tracker of this kind can do without: PAGEMAP_SCAN of the same
 * memory, protecting, and a compare of as many pages at the speed of memory, of pages that are here
 * already and without noting what was found. */
#include "bench/tracking/bench.h"
#include "hosts/process/compare.h"
#include "hosts/process/kernel.h"
#include "hosts/process/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES (UINT64_C(1) << 30)
#define RUNS  512u

struct setting {
    struct program program;
    struct tw_process *process;
    struct tw_process_watch *watch;
    struct tw_tracker *tracker;
    int pagemap;
};

static struct tw_range memory_of(const struct setting *s)
{
    return (struct tw_range){(uint64_t)(uintptr_t)s->program.memory, s->program.bytes};
}

static void attach(struct setting *s)
{
    struct tw_error err;
    char path[64];
    const struct tw_range range = memory_of(s);
    if (tw_process_attach(NULL, s->program.pid, &s->process, &err) ||
        tw_process_watch(s->process, &range, 1, &s->watch, &err))
        bench_die(tw_error_text(&err, (char[600]){0}, 600));
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)s->program.pid);
    s->pagemap = open(path, O_RDONLY | O_CLOEXEC);
}

static uint64_t pass(struct setting *s)
{
    struct tw_error err;
    const uint64_t start = tw_now(&tw_monotonic);
    if (tw_process_pass(s->process, TW_NEVER, &err))
        bench_die(tw_error_text(&err, (char[600]){0}, 600));
    return tw_now(&tw_monotonic) - start;
}

static void track(struct setting *s)
{
    struct tw_tracker_config config = {.name = "bench"};
    config.ranges = tw_process_watch_ranges(s->watch, &config.range_count);
    if (tw_tracker_start(tw_process_device(s->process), &config, &s->tracker, NULL))
        bench_die("no tracker");
}

static void detach(struct setting *s)
{
    close(s->pagemap);
    tw_process_detach(s->process);
}

/* The kernel's part alone, asking for the least that can be asked for, which it does fastest. */
static uint64_t scan(const struct setting *s)
{
    struct tw_page_run runs[RUNS];
    const struct tw_range all = memory_of(s);
    struct tw_scan ask = {
        .size = sizeof ask,
        .flags = TW_SCAN_PROTECT,
        .start = all.start,
        .end = all.start + all.length,
        .runs = (uint64_t)(uintptr_t)runs,
        .runs_max = RUNS,
        .all_of = TW_PAGE_WRITTEN,
        .tell = TW_PAGE_WRITTEN,
    };
    const uint64_t start = tw_now(&tw_monotonic);
    for (; ask.start < ask.end; ask.start = ask.walk_end) {
        if (ioctl(s->pagemap, TW_SCAN_IOCTL, &ask) < 0)
            bench_die("PAGEMAP_SCAN");
    }
    return tw_now(&tw_monotonic) - start;
}

unsigned bench_arm(const struct bench_case *self, unsigned runs, struct bench_row *rows)
{
    double arm[BENCH_RUNS_MAX], stop[BENCH_RUNS_MAX], peer[BENCH_RUNS_MAX];
    struct tw_process_stats stats;
    (void)self;
    for (unsigned i = 0; i < runs; i++) {
        struct setting s;
        program_start(&s.program, BYTES, false);
        attach(&s);
        arm[i] = bench_ms(pass(&s));
        tw_process_stats_get(s.process, &stats);
        stop[i] = bench_ms(stats.stop_ns);
        /* The same for the kernel: once more everything is written, and protected by it alone. */
        program_dirty(&s.program, BYTES / TW_PAGE_SIZE, 1);
        peer[i] = bench_ms(scan(&s));
        detach(&s);
        program_end(&s.program);
    }
    rows[0] =
        (struct bench_row){.metric = "stop_ms", .unit = "ms", .ours = bench_median(stop, runs)};
    rows[1] = (struct bench_row){.metric = "arm_ms",
                                 .unit = "ms",
                                 .ours = bench_median(arm, runs),
                                 .peers = {{"kernel_scan", bench_median(peer, runs), 0}},
                                 .peer_count = 1};
    rows[1].peers[0].ratio = rows[1].peers[0].value / rows[1].ours;
    return 2;
}

static uint64_t collect(struct setting *s, uint64_t *lines)
{
    struct tw_dirty_page pages[512];
    uint64_t ns = pass(s);
    const uint64_t start = tw_now(&tw_monotonic);
    *lines = 0;
    tw_tracker_collect(s->tracker);
    for (size_t n; (n = tw_tracker_read(s->tracker, pages, 512)) > 0;) {
        for (size_t i = 0; i < n; i++)
            *lines += tw_popcount(pages[i].lines);
    }
    return ns + tw_now(&tw_monotonic) - start;
}

/* Pages of which one line differs, at places of their own, so that they come from memory. */
static uint64_t compare(uint8_t *now, uint8_t *copy, uint64_t pages)
{
    const struct tw_compare *best = tw_compare_best();
    uint64_t found = 0, bytes = 0;
    for (uint64_t i = 0; i < pages; i++)
        now[i * TW_PAGE_SIZE] ^= 1;
    const uint64_t start = tw_now(&tw_monotonic);
    for (uint64_t i = 0; i < pages; i++)
        found += best->update(now + i * TW_PAGE_SIZE, copy + i * TW_PAGE_SIZE, &bytes);
    if (found == 0)
        bench_die("a compare found nothing");
    return tw_now(&tw_monotonic) - start;
}

unsigned bench_collect(const struct bench_case *self, unsigned runs, struct bench_row *rows)
{
    double ours[BENCH_RUNS_MAX], peer[BENCH_RUNS_MAX];
    const uint64_t pages = (uint64_t)((double)(BYTES / TW_PAGE_SIZE) * self->dirty);
    const size_t bytes = pages * TW_PAGE_SIZE;
    uint8_t *now =
        mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct setting s;
    uint64_t lines;
    if (now == MAP_FAILED)
        bench_die("no memory");
    memset(now, 1, 2 * bytes);
    program_start(&s.program, BYTES, false);
    attach(&s);
    pass(&s);
    track(&s);
    program_dirty(&s.program, pages, 0); /* the copies are there then */
    collect(&s, &lines);
    for (unsigned i = 0; i < runs; i++) {
        program_dirty(&s.program, pages, 0);
        ours[i] = bench_ms(collect(&s, &lines));
        if (lines != pages)
            bench_die("not every line was collected");
        program_dirty(&s.program, pages, 0);
        peer[i] = bench_ms(scan(&s) + compare(now, now + bytes, pages));
        program_dirty(&s.program, pages, 0); /* what the peer took is compared again, untimed */
        collect(&s, &lines);
    }
    detach(&s);
    program_end(&s.program);
    munmap(now, 2 * bytes);
    rows[0] = (struct bench_row){.metric = "collect_ms",
                                 .unit = "ms",
                                 .ours = bench_median(ours, runs),
                                 .peers = {{"kernel_scan", bench_median(peer, runs), 0}},
                                 .peer_count = 1};
    rows[0].peers[0].ratio = rows[0].peers[0].value / rows[0].ours;
    return 1;
}
