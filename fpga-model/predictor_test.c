/* Predictors on streams whose next page is known, in a small model of memory that is not there:
 * a miss brings its page at once, guesses arrive behind it. */
#include "fpga-model/predictor.h"

#include "base/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define PAGES 65536u

struct outcome {
    unsigned misses, brought,
        used; /* brought = guesses that were not there; used = touched later */
};

struct model {
    struct tw_predictor *predictor;
    bool there[PAGES], guessed[PAGES];
    bool touches; /* they are told */
    struct outcome o;
};

static struct model *model_new(enum tw_predictor_kind kind, bool touches)
{
    struct model *m = calloc(1, sizeof *m);
    cr_assert(m);
    m->touches = touches;
    cr_assert_eq(tw_predictor_open(kind, PAGES, &m->predictor, NULL), TW_OK);
    return m;
}

static void check_guesses(const uint64_t *guesses, unsigned count, uint64_t page)
{
    cr_assert_leq(count, TW_GUESSES_MAX);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_lt(guesses[i], PAGES);
        cr_assert_neq(guesses[i], page);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(guesses[i], guesses[j]);
    }
}

static void touch(struct model *m, uint64_t page)
{
    uint64_t guesses[TW_GUESSES_MAX];
    if (m->there[page]) {
        m->o.used += m->guessed[page];
        if (m->guessed[page] && m->touches)
            tw_predictor_touch(m->predictor, page);
        m->guessed[page] = false;
        return;
    }
    m->o.misses++;
    m->there[page] = true;
    unsigned count = tw_predictor_miss(m->predictor, page, guesses);
    check_guesses(guesses, count, page);
    for (unsigned i = 0; i < count; i++)
        if (!m->there[guesses[i]]) {
            m->there[guesses[i]] = m->guessed[guesses[i]] = true;
            m->o.brought++;
        }
}

static void forget(struct model *m)
{
    for (unsigned i = 0; i < PAGES; i++)
        m->there[i] = m->guessed[i] = false;
    m->o = (struct outcome){0};
}

static struct outcome model_end(struct model *m)
{
    struct outcome o = m->o;
    tw_predictor_close(m->predictor);
    free(m);
    return o;
}

static struct outcome run(enum tw_predictor_kind kind, void (*stream)(struct model *m))
{
    struct model *m = model_new(kind, false);
    stream(m);
    return model_end(m);
}

/* ---- Streams -------------------------------------------------------------------------------- */

static void ascending(struct model *m)
{
    for (unsigned i = 0; i < 4096; i++)
        touch(m, 1000 + i);
}

static void two_interleaved(struct model *m)
{
    for (unsigned i = 0; i < 2048; i++) {
        touch(m, 1000 + i);
        touch(m, 40000 + i);
    }
}

static void every_seventh_down(struct model *m)
{
    for (unsigned i = 0; i < 4096; i++)
        touch(m, 60000 - 7 * i);
}

/* One in four is a stray. */
static void every_seventh_with_strays(struct model *m)
{
    struct tw_random r = {3};
    for (unsigned i = 0; i < 4096; i++) {
        touch(m, 7 * i);
        if (i % 4 == 0)
            touch(m, tw_random_below(&r, PAGES));
    }
}

static void at_random(struct model *m)
{
    struct tw_random r = {5};
    for (unsigned i = 0; i < 4096; i++)
        touch(m, tw_random_below(&r, PAGES));
}

static void pattern(struct model *m)
{
    static const unsigned steps[] = {3, 17, 5, 90, 2, 41};
    uint64_t page = 10;
    for (unsigned i = 0; page < PAGES; i++) {
        touch(m, page);
        page += steps[i % 6];
    }
}

/* ---- What each is good at, and what it costs when it is not ---------------------------------- */

Test(predictor, none_guesses_nothing)
{
    struct outcome o = run(TW_PREDICTOR_NONE, ascending);
    cr_assert_eq(o.misses, 4096);
    cr_assert_eq(o.brought, 0);
}

Test(predictor, spatial_runs_ahead_of_a_scan)
{
    struct outcome o = run(TW_PREDICTOR_SPATIAL, ascending);
    cr_assert_leq(o.misses, 4096 / 64 + 8, "%u", o.misses);
    cr_assert_geq(o.used, o.brought - TW_GUESSES_MAX - 8);
    o = run(TW_PREDICTOR_SPATIAL, two_interleaved);
    cr_assert_leq(o.misses, 4096 / 64 + 16, "%u", o.misses);
}

Test(predictor, stride_finds_any_distance_and_direction)
{
    struct outcome o = run(TW_PREDICTOR_STRIDE, every_seventh_down);
    cr_assert_leq(o.misses, 4096 / 64 + 12, "%u", o.misses);
    cr_assert_geq(o.used + TW_GUESSES_MAX, o.brought);
    o = run(TW_PREDICTOR_SPATIAL, every_seventh_down);
    cr_assert_geq(o.misses, 3000, "neighbours are of little use: %u", o.misses);
}

Test(predictor, stride_outvotes_strays)
{
    struct outcome o = run(TW_PREDICTOR_STRIDE, every_seventh_with_strays);
    cr_assert_leq(o.misses, 4096 / 2 + 1024, "%u", o.misses);
    cr_assert_geq(o.used, 2048);
}

Test(predictor, stride_and_sequence_hold_back_when_nothing_repeats)
{
    cr_assert_leq(run(TW_PREDICTOR_STRIDE, at_random).brought, 64);
    cr_assert_leq(run(TW_PREDICTOR_SEQUENCE, at_random).brought, 64);
    struct outcome o = run(TW_PREDICTOR_SPATIAL, at_random);
    cr_assert_leq(o.brought, 4096 * 7, "no more than a block a miss");
}

Test(predictor, sequence_learns_a_pattern_of_distances)
{
    struct outcome seen = run(TW_PREDICTOR_STRIDE, pattern);
    struct outcome o = run(TW_PREDICTOR_SEQUENCE, pattern);
    cr_assert_leq(o.misses * 4, seen.misses, "%u, %u", o.misses, seen.misses);
    cr_assert_geq(o.used + 16, o.brought);
}

/* The same pages in the same order again, after they were lost. */
Test(predictor, sequence_remembers_an_order_without_distances)
{
    static uint64_t order[3000];
    struct tw_random r = {11};
    for (unsigned i = 0; i < 3000; i++)
        order[i] = (i * UINT64_C(25013) + tw_random_below(&r, 7)) % PAGES;
    struct model *m = model_new(TW_PREDICTOR_SEQUENCE, true);
    for (unsigned i = 0; i < 3000; i++)
        touch(m, order[i]);
    unsigned first = m->o.misses;
    for (unsigned round = 0; round < 3; round++) {
        forget(m);
        for (unsigned i = 0; i < 3000; i++)
            touch(m, order[i]);
        cr_assert_leq(m->o.misses * 6, first, "round %u: %u of %u", round, m->o.misses, first);
    }
    model_end(m);
}

Test(predictor, a_wrong_memory_is_corrected)
{
    struct model *m = model_new(TW_PREDICTOR_SEQUENCE, true);
    for (unsigned round = 0; round < 6; round++) {
        forget(m);
        for (unsigned i = 0; i < 500; i++) /* the order is another one from the third round on */
            touch(m, round < 2 ? i * 97 % PAGES : (500 - i) * 97 * 31 % PAGES);
    }
    cr_assert_leq(m->o.misses, 100, "%u", m->o.misses);
    model_end(m);
}

Test(predictor, the_ends_of_memory_are_respected)
{
    static const uint64_t pages[] = {0, PAGES - 1, 1, PAGES - 2, 2, PAGES - 3, 7, 0, PAGES - 8};
    for (unsigned kind = 0; kind < TW_PREDICTOR_KINDS; kind++) {
        struct model *m = model_new((enum tw_predictor_kind)kind, kind % 2);
        uint64_t guesses[TW_GUESSES_MAX];
        cr_assert_eq(tw_predictor_miss(m->predictor, PAGES, guesses), 0);
        cr_assert_eq(tw_predictor_miss(m->predictor, UINT64_MAX, guesses), 0);
        for (unsigned i = 0; i < 4 * sizeof pages / sizeof *pages; i++)
            touch(m, pages[i % (sizeof pages / sizeof *pages)]);
        for (uint64_t page = 40; page < 48; page += 2)
            touch(m, page - 40);
        for (uint64_t page = 0; page < 40; page += 5)
            touch(m, 40 - page - 5);
        model_end(m);
    }
}

/* Anything may come: guesses stay in bounds and are each given once (checked in the model). */
Test(predictor, nothing_that_comes_breaks_it)
{
    for (unsigned seed = 0; seed < 200; seed++) {
        struct tw_random r = {seed};
        struct model *m =
            model_new((enum tw_predictor_kind)(seed % TW_PREDICTOR_KINDS), seed / 4 % 2);
        uint64_t at = 0;
        for (unsigned i = 0; i < 500; i++) {
            at = tw_random_below(&r, 3) ? at + tw_random_below(&r, 9) : tw_random_next(&r);
            at %= PAGES;
            touch(m, at);
            if (tw_random_below(&r, 100) == 0)
                forget(m);
        }
        model_end(m);
    }
}
