/* The meter on stores whose amplification is known, and each program of the table, small: it ends
 * with a right result, and its figures are such as that kind of program must have. */
#include "bench/tracking/amplification/work.h"

#include <criterion/criterion.h>

#define BIG_PAGES 4u
#define PAGES     (BIG_PAGES * 512u)
#define STEPS     4u
#define STEPS_MAX 10u

static void must(const struct work *work, struct meter_count *counts)
{
    struct tw_error err;
    char text[600];
    const enum tw_code code = work_measure(work, counts, &err);
    cr_assert(code == TW_OK, "%s: %s", work->name,
              code ? tw_error_text(&err, text, sizeof text) : "");
}

static void expect_count(const struct meter_count *c, uint64_t bytes, uint64_t lines,
                         uint64_t pages, uint64_t big_pages, uint64_t same_pages)
{
    cr_expect_eq(c->intervals, 1);
    cr_expect_eq(c->bytes, bytes);
    cr_expect_eq(c->lines, lines);
    cr_expect_eq(c->pages, pages);
    cr_expect_eq(c->big_pages, big_pages);
    cr_expect_eq(c->same_pages, same_pages);
    cr_expect_eq(c->unknown_pages, 0);
}

Test(meter, known_pattern)
{
    const struct work work = {"pattern", BIG_PAGES, STEPS};
    struct meter_count c[STEPS] = {0};
    must(&work, c);
    expect_count(&c[0], 8 * PAGES, PAGES, PAGES, BIG_PAGES, 0);
    expect_count(&c[1], 0, 0, 0, 0, PAGES); /* R7: stored, and nothing changed */
    expect_count(&c[2], 8 * PAGES, 2 * PAGES, PAGES, BIG_PAGES, 0);
    expect_count(&c[3], METER_BIG_PAGE, METER_BIG_PAGE / TW_LINE_SIZE, 512, 1, 0);
    cr_expect_eq(meter_amplification(&c[0], c[0].lines, TW_LINE_SIZE), 8);
    cr_expect_eq(meter_amplification(&c[0], c[0].pages, TW_PAGE_SIZE), 512);
    cr_expect_eq(meter_amplification(&c[0], c[0].big_pages, METER_BIG_PAGE), 512);
    cr_expect_eq(meter_amplification(&c[3], c[3].big_pages, METER_BIG_PAGE), 1);
}

Test(meter, no_such_program)
{
    const struct work work = {"no-such-program", 1, 1};
    struct meter_count c[1] = {0};
    struct tw_error err;
    cr_expect_eq((int)work_measure(&work, c, &err), TW_UNAVAILABLE);
}

/* The sum over all steps, which hold together in each of them. */
static struct meter_count sum_of(const char *name, uint64_t size, unsigned steps)
{
    const struct work work = {name, size, steps};
    struct meter_count c[STEPS_MAX] = {0}, sum = {0};
    must(&work, c);
    for (unsigned i = 0; i < steps; i++) {
        cr_expect_eq(c[i].intervals, 1, "%s, step %u", name, i);
        cr_expect(c[i].bytes >= c[i].lines && c[i].bytes <= 64 * c[i].lines, "%s", name);
        cr_expect(c[i].lines >= c[i].pages && c[i].lines <= 64 * c[i].pages, "%s", name);
        cr_expect(c[i].pages >= c[i].big_pages && c[i].pages <= 512 * c[i].big_pages, "%s", name);
        sum.bytes += c[i].bytes;
        sum.lines += c[i].lines;
        sum.pages += c[i].pages;
        sum.big_pages += c[i].big_pages;
    }
    cr_assert(sum.bytes > 0, "%s", name);
    return sum;
}

/* A value of 100 bytes and its headers at random: few lines of a page, where the next keys in a row
 * fill it. */
Test(programs, redis)
{
    const uint32_t keys = 100000, sets = STEPS * (keys / 100);
    const struct meter_count random = sum_of("redis_random", keys, STEPS);
    const struct meter_count in_a_row = sum_of("redis_sequential", keys, STEPS);
    cr_expect(random.bytes > sets * 80u, "bytes %llu", (unsigned long long)random.bytes);
    cr_expect(in_a_row.bytes > sets * 80u, "bytes %llu", (unsigned long long)in_a_row.bytes);
    cr_expect(meter_amplification(&random, random.pages, TW_PAGE_SIZE) >
              2 * meter_amplification(&in_a_row, in_a_row.pages, TW_PAGE_SIZE));
    cr_expect(meter_amplification(&random, random.lines, TW_LINE_SIZE) < 4);
}

/* An update changes nearly all of a note of 80 bytes, and the index twice. */
Test(programs, sqlite)
{
    const uint32_t rows = 20000, updates = STEPS * (rows / 50 + 1);
    const struct meter_count c = sum_of("sqlite", rows, STEPS);
    cr_expect(c.bytes > updates * 60u, "bytes %llu", (unsigned long long)c.bytes);
    cr_expect(meter_amplification(&c, c.pages, TW_PAGE_SIZE) >
              4 * meter_amplification(&c, c.lines, TW_LINE_SIZE));
}

/* Most of the numbers move in one step or another, side by side. */
Test(programs, sort)
{
    const uint32_t numbers = 200000;
    const struct meter_count c = sum_of("sort", numbers, STEPS);
    cr_expect(c.bytes > numbers * 6u, "bytes %llu", (unsigned long long)c.bytes);
    cr_expect(meter_amplification(&c, c.pages, TW_PAGE_SIZE) < 3);
}

Test(programs, pagerank)
{
    const uint32_t vertices = 8192;
    const struct meter_count c = sum_of("pagerank", vertices, STEPS_MAX);
    cr_expect(c.bytes > vertices * 8u, "bytes %llu", (unsigned long long)c.bytes);
}

Test(programs, labels)
{
    const struct meter_count c = sum_of("labels", 8192, STEPS);
    cr_expect(c.bytes > 4000, "bytes %llu", (unsigned long long)c.bytes);
}

/* Nothing that one update changes is near to what the next one does. */
Test(programs, btree)
{
    const uint32_t keys = 100000, sets = STEPS * (keys / 50 + 1);
    const struct meter_count c = sum_of("btree", keys, STEPS);
    cr_expect(c.bytes > sets * 7u, "bytes %llu", (unsigned long long)c.bytes);
    cr_expect(meter_amplification(&c, c.pages, TW_PAGE_SIZE) >
              4 * meter_amplification(&c, c.lines, TW_LINE_SIZE));
}
