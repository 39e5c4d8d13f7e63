/* A program that writes into the shared file whatever costs us most: what a pass does for it is
 * bounded by what it marked, and is done in pieces, between which others have their turn. */
#include "hosts/instrumented/private.h"

#include "hosts/instrumented/server.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WINDOWS UINT64_C(300)
#define BASE    UINT64_C(0x100000000000)

struct world {
    struct tw_instrumented *program;
    struct tw_attachment at;
    void *watch;
    struct tw_tracker *tracker;
    int other; /* end of the connection */
};

/* This process plays the program: the test has its file. */
static void world_open(struct world *w, enum tw_inst_mode mode)
{
    const struct tw_instrumented_config config = {.mode = mode};
    const struct tw_inst_ready ready = {TW_INST_MAGIC};
    struct tw_inst_peer peer = {.pid = getpid()};
    struct tw_tracker_config tracker = {.name = "all"};
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    peer.pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    cr_assert(peer.pidfd >= 0 && write(ends[1], &ready, sizeof ready) == sizeof ready);
    cr_assert_eq(tw_inst_engage(ends[0], &peer, true, false, &config, TW_NEVER, &w->program, NULL),
                 TW_OK);
    close(ends[0]);
    close(peer.pidfd);
    w->other = ends[1];
    w->at = tw_instrumented_attachment(w->program);
    cr_assert_eq(w->at.ops->watch(w->at.ctx, NULL, 0, &w->watch, NULL), TW_OK);
    tracker.ranges = w->at.ops->watch_ranges(w->watch, &tracker.range_count);
    cr_assert_eq(tw_tracker_start(w->at.device, &tracker, &w->tracker, NULL), TW_OK);
}

static void world_close(struct world *w)
{
    w->at.ops->unwatch(w->at.ctx, w->watch);
    w->at.ops->close(w->at.ctx);
    close(w->other);
}

static void put(const struct world *w, uint64_t offset, const void *bytes, size_t size)
{
    cr_assert_eq(pwrite(w->program->file, bytes, size, (off_t)offset), (ssize_t)size);
}

static void mark(const struct world *w, uint64_t address)
{
    const uint8_t one = 1;
    put(w, TW_INST_MARKS_AT + tw_line_of(address), &one, 1);
    put(w, TW_INST_SUMMARY_AT + tw_page_of(address), &one, 1);
}

/* Every record says this. */
static void announce(const struct world *w, uint64_t address, uint64_t more)
{
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++) {
        const struct tw_inst_thread record = {.in_flight =
                                                  (address + i * 64) | more << TW_INST_MORE_SHIFT,
                                              .tid = (uint32_t)getpid(),
                                              .used = 1};
        put(w, TW_INST_THREADS_AT + i * sizeof record, &record, sizeof record);
    }
}

/* A pass in the smallest pieces; returns how many. */
static unsigned pass(struct world *w)
{
    unsigned steps = 0;
    cr_assert_eq(w->at.ops->pass_begin(w->at.ctx, NULL), TW_OK);
    for (bool done = false; !done; steps++) {
        const size_t windows = w->program->window_count;
        cr_assert_lt(steps, 100000);
        cr_assert_eq(w->at.ops->step(w->at.ctx, 0, &done, NULL), TW_OK);
        cr_expect_leq(w->program->window_count, windows + 1, "a step adds one window");
    }
    return steps;
}

static uint64_t lines_told(const struct world *w)
{
    struct tw_device_counters counters;
    tw_device_counters_get(w->at.device, &counters);
    return counters.messages[TW_MEM_WR];
}

static uint64_t lines_of(struct world *w, uint64_t address)
{
    struct tw_dirty_page pages[64];
    uint64_t lines = 0;
    tw_tracker_collect(w->tracker);
    w->at.ops->settle(w->at.ctx);
    for (size_t n; (n = tw_tracker_read(w->tracker, pages, 64)) > 0;)
        for (size_t i = 0; i < n; i++)
            if (w->at.ops->address(w->at.ctx, pages[i].page) == address)
                lines |= pages[i].lines;
    return lines;
}

Test(hostile, a_pass_over_much_is_made_of_many_pieces)
{
    struct world w;
    world_open(&w, TW_INST_MARK);
    for (uint64_t i = 0; i < WINDOWS; i++)
        mark(&w, BASE + i * TW_INSTRUMENTED_WINDOW + 4096);
    /* Each window is found in a step of its own, and scanned in one. */
    cr_expect_geq(pass(&w), 2 * WINDOWS);
    cr_expect_eq(w.program->window_count, WINDOWS);
    cr_expect_eq(lines_told(&w), WINDOWS);
    cr_expect_eq(lines_of(&w, BASE + 4096), 1);
    world_close(&w);
}

/* "Anything may be in flight" of everybody, over much that is watched: of what was marked lately a
 * page counts, and nothing else. */
Test(hostile, what_is_announced_costs_no_more_than_what_was_marked)
{
    static const uint64_t more[] = {TW_INST_MORE_MAX, TW_INST_MORE_MAX - 1};
    for (unsigned i = 0; i < 2; i++) {
        struct world w;
        world_open(&w, TW_INST_MARK);
        w.program->same_pids = false; /* nobody can tell that its threads are in a system call */
        for (uint64_t k = 0; k < WINDOWS; k++)
            mark(&w, BASE + k * TW_INSTRUMENTED_WINDOW);
        pass(&w);
        lines_of(&w, BASE);
        pass(&w); /* nothing is recent now, since nothing was in flight */
        announce(&w, BASE, more[i]);
        mark(&w, BASE + 64);
        pass(&w);
        const uint64_t before = lines_told(&w);
        cr_expect_eq(lines_of(&w, BASE), 2);
        cr_expect_eq(lines_told(&w), before, "settling tells nothing");
        /* In flight still: it is told of each epoch, in that page. */
        for (unsigned epoch = 1; epoch < 4; epoch++) {
            pass(&w);
            cr_expect_eq(lines_told(&w), before + epoch * TW_LINES_PER_PAGE);
            cr_expect_eq(lines_of(&w, BASE), UINT64_MAX);
        }
        for (uint32_t k = 0; k < TW_INST_THREADS_MAX; k++)
            put(&w, TW_INST_THREADS_AT + k * sizeof(struct tw_inst_thread), &(uint64_t){0}, 8);
        pass(&w); /* what was in flight when the last epoch began */
        cr_expect_eq(lines_of(&w, BASE), UINT64_MAX);
        pass(&w);
        cr_expect_eq(lines_of(&w, BASE), 0);
        world_close(&w);
    }
}

/* A settling looks at so many threads' system calls only; the rest may be carried in vain. */
Test(hostile, settling_looks_at_few_system_calls)
{
    struct world w;
    world_open(&w, TW_INST_MARK);
    mark(&w, BASE);
    announce(&w, BASE, 0);
    pass(&w);
    /* Nothing like it runs: each look finds that the thread has ended. */
    for (uint32_t i = 0; i < TW_INST_THREADS_MAX; i++)
        put(&w,
            TW_INST_THREADS_AT + i * sizeof(struct tw_inst_thread) +
                offsetof(struct tw_inst_thread, tid),
            &(uint32_t){0x7ffffff0}, 4);
    tw_tracker_collect(w.tracker);
    cr_expect_eq(w.at.ops->settle(w.at.ctx), TW_INST_THREADS_MAX - TW_INST_PROC_MAX);
    world_close(&w);
}

/* Every line is one of several threads, by what the program says: few are looked up. */
Test(hostile, few_records_of_threads_are_looked_at)
{
    struct world w;
    static struct tw_shared_line shared[TW_INST_SHARED_MAX];
    uint8_t several[64];
    memset(several, TW_INST_SEVERAL, sizeof several);
    world_open(&w, TW_INST_SHARING);
    announce(&w, 0, 0); /* all records are in use */
    for (uint64_t k = 0; k < 16; k++) {
        mark(&w, BASE + k * 4096);
        put(&w, TW_INST_LINES_AT + tw_line_of(BASE + k * 4096), several, sizeof several);
    }
    pass(&w);
    cr_expect_eq(w.program->shared_looks, 0, "all that there are for a pass");
    cr_expect_eq(w.at.ops->sharing(w.at.ctx, shared, TW_INST_SHARED_MAX), 16 * 64);
    cr_expect_eq(w.at.ops->sharing(w.at.ctx, shared, TW_INST_SHARED_MAX), 0);
    world_close(&w);
}
