/* The moment between a store's announcement and the store itself, made to last; and who shares
 * lines. */
#include "hosts/instrumented/test_subject.h"

#include "base/clock.h"
#include "base/random.h"
#include "base/symbol.h"
#include "hosts/instrumented/private.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct tw_instrumented_config configs[] = {
    {.mode = TW_INST_MARK},
    {.mode = TW_INST_SHARING},
    {.mode = TW_INST_OWNED, .cache = {.cores = 2, .last = {65536, 8}}},
};
#define MODES (sizeof configs / sizeof configs[0])

#define FIRST 64u /* as in subjects/storm.c */

static uint8_t dirty[SUBJECT_LINES];

/* Collects while the program hesitates before its store; returns what is said of the line then, and
 * what after the store. */
struct twice {
    bool first, second;
    uint64_t carried;
};

static struct twice collect_around_the_store(struct subject *s)
{
    struct twice result;
    struct tw_instrumented_stats stats;
    tw_instrumented_stats_get(s->program, &stats);
    const uint64_t carried_before = stats.carried_lines;
    subject_tell(s, 'b');
    subject_await(s, 2, 1); /* announced */
    subject_collect(s, dirty);
    result.first = dirty[FIRST + 7];
    cr_expect_neq(subject_peek(s, FIRST + 7), 4711);
    tw_instrumented_stats_get(s->program, &stats);
    result.carried = stats.carried_lines - carried_before;
    subject_poke(s, 1, 1);
    subject_await(s, 2, 2); /* stored */
    subject_wait(s);
    cr_expect_eq(subject_peek(s, FIRST + 7), 4711);
    subject_collect(s, dirty);
    result.second = dirty[FIRST + 7];
    return result;
}

Test(flight, a_store_that_comes_after_its_epoch_is_in_the_next)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[mode]);
        const struct twice r = collect_around_the_store(&s);
        cr_expect(r.first, "mode %zu", mode);
        cr_expect(r.second, "mode %zu", mode);
        cr_expect_eq(r.carried, 1, "mode %zu: %lu carried", mode, (unsigned long)r.carried);
        cr_expect_eq(subject_collect(&s, dirty), 0);
        subject_close(&s);
    }
}

/* The mutation: without carrying the store is lost, so the test above can fail. */
Test(flight, without_carrying_it_is_lost)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[mode]);
        tw_instrumented_mutate(s.program,
                               (struct tw_instrumented_mutations){.forget_in_flight = true});
        const struct twice r = collect_around_the_store(&s);
        cr_expect(r.first && !r.second, "mode %zu", mode);
        subject_close(&s);
    }
}

/* The handler's stores take the place of the announcement; it is made again afterwards. */
Test(flight, a_signal_handler_does_not_hide_an_announcement)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[mode]);
        subject_tell(&s, 'c');
        subject_await(&s, 2, 3); /* in the handler */
        subject_collect(&s, dirty);
        cr_expect(dirty[FIRST + 8] && dirty[FIRST + 9], "mode %zu", mode);
        subject_poke(&s, 1, 2);
        subject_await(&s, 2, 4); /* behind the handler, before the store */
        subject_collect(&s, dirty);
        cr_expect(dirty[FIRST + 8], "mode %zu", mode);
        subject_poke(&s, 1, 3);
        subject_await(&s, 2, 5);
        subject_wait(&s);
        subject_collect(&s, dirty);
        cr_expect(dirty[FIRST + 8], "mode %zu: lost", mode);
        cr_expect_eq(subject_peek(&s, FIRST + 8), 4712);
        subject_close(&s);
    }
}

/* With line states both sides store, then load: no epoch may end without a barrier in the program's
 * threads, and the other modes need none. */
Test(flight, each_epoch_of_line_states_has_its_barrier)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        struct tw_instrumented_stats before, after;
        subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[mode]);
        tw_instrumented_stats_get(s.program, &before);
        for (unsigned i = 0; i < 5; i++)
            subject_collect(&s, dirty);
        tw_instrumented_stats_get(s.program, &after);
        cr_expect_eq(after.barriers + after.slow_barriers - before.barriers - before.slow_barriers,
                     configs[mode].mode == TW_INST_OWNED ? 5 : 0, "mode %zu", mode);
        subject_close(&s);
    }
}

/* ---- False sharing --------------------------------------------------------------------------- */

static const struct tw_shared_line *find(const struct tw_shared_line *lines, size_t count,
                                         uint64_t address)
{
    for (size_t i = 0; i < count; i++) {
        if (lines[i].address == address)
            return &lines[i];
    }
    return NULL;
}

static void expect_shared(const struct subject *s)
{
    static struct tw_shared_line lines[64];
    char left[256], right[256];
    const size_t count = tw_instrumented_sharing_take(s->program, lines, 64);
    cr_assert(count <= 64);
    const struct tw_shared_line *l = find(lines, count, s->region + 4096 * 100);
    cr_assert(l, "two counters in a line");
    cr_expect_eq(l->thread_count, 2);
    cr_expect(l->disjoint);
    cr_expect_eq(l->threads[0].bytes | l->threads[1].bytes, 0xf0000000f);
    char *maps = tw_symbol_maps(s->pid);
    tw_symbol(maps, l->threads[0].pc, left, sizeof left);
    tw_symbol(maps, l->threads[1].pc, right, sizeof right);
    free(maps);
    cr_expect((strstr(left, "bump_left") && strstr(right, "bump_right")) ||
                  (strstr(left, "bump_right") && strstr(right, "bump_left")),
              "%s, %s", left, right);
    cr_expect(strstr(left, "storm.c:"), "%s", left);

    l = find(lines, count, s->region + 4096 * 101);
    cr_assert(l, "one counter of both");
    cr_expect(!l->disjoint);
    cr_expect_null(find(lines, count, s->region + 4096 * 102), "a line of one's own");
    cr_expect_null(find(lines, count, s->region + 4096 * 102 + 64), "a line of one's own");
    cr_expect_eq(tw_instrumented_sharing_take(s->program, lines, 64), 0, "a new epoch");
}

Test(sharing, tells_lines_that_threads_share_and_where)
{
    struct subject s;
    subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[1]);
    struct tw_shared_line first;
    tw_instrumented_sharing_take(s.program, &first, 1); /* what the main thread laid out */
    subject_tell(&s, 'd');
    subject_await(&s, 2, 6);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* the other's sign, too */
    expect_shared(&s);
    subject_poke(&s, 1, 4);
    subject_wait(&s);
    subject_close(&s);
}

Test(sharing, an_address_without_an_object_is_a_number)
{
    char text[64], *maps = tw_symbol_maps(getpid());
    cr_assert(maps);
    cr_expect_str_eq(tw_symbol(maps, 0x1234, text, sizeof text), "0x1234");
    cr_expect_str_eq(tw_symbol(NULL, (uintptr_t)tw_symbol_maps, text, 3), "0x");
    free(maps);
}

/* ---- A program that writes nonsense into the file -------------------------------------------- */

static void scribble(const struct tw_instrumented *p, struct tw_random *r)
{
    for (unsigned i = 0; i < 200; i++) {
        struct tw_inst_thread *t = &p->threads[tw_random_below(r, TW_INST_THREADS_MAX)];
        t->tid = (uint32_t)tw_random_next(r) | 1;
        t->in_flight = tw_random_next(r) >> tw_random_below(r, 20);
    }
    for (uint32_t i = 0; i < TW_INST_RINGS_MAX; i++) {
        struct tw_link_ring *ring =
            tw_link_ring_at(p->head + TW_INST_RINGS_AT, TW_INST_RING_STRIDE, i);
        ring->head = tw_random_next(r) >> tw_random_below(r, 60);
        ring->tail = ring->head - tw_random_below(r, 2 * TW_INST_RING_EVENTS);
        for (unsigned k = 0; k < 100; k++)
            ring->events[tw_random_below(r, TW_INST_RING_EVENTS)] = tw_random_next(r);
    }
    p->header->object_count = (uint32_t)tw_random_next(r);
    memset(p->header->objects, 'x', sizeof p->header->objects);
    p->header->mode = (uint32_t)tw_random_next(r);
    p->header->epoch = tw_random_next(r);
    memset(p->windows[0]->map.marks, 0xff, 4096);
    memset(p->windows[0]->map.summary, 0xff, 4096);
    if (p->windows[0]->lines)
        memset(p->windows[0]->lines, 0xff, 4096);
}

Test(hostile, nonsense_in_the_file_harms_only_the_program)
{
    for (size_t mode = 0; mode < MODES; mode++) {
        struct subject s;
        struct tw_random r = {mode};
        static struct tw_shared_line lines[16];
        static struct tw_inst_object objects[TW_INST_OBJECTS_MAX];
        struct tw_dirty_page pages[64];
        subject_open(&s, TEST_SUBJECTS "storm-gcc", &configs[mode]);
        for (int i = 0; i < 20; i++) {
            scribble(s.program, &r);
            tw_instrumented_sync(s.program);
            tw_tracker_collect(s.tracker);
            tw_instrumented_settle(s.program);
            while (tw_tracker_read(s.tracker, pages, 64) > 0)
                ;
            tw_instrumented_sharing_take(s.program, lines, 16);
            tw_instrumented_objects(s.program, objects, TW_INST_OBJECTS_MAX);
            cr_expect_eq(strlen(objects[0].name), sizeof objects[0].name - 1);
        }
        subject_close(&s);
    }
}
