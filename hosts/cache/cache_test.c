#include "hosts/cache/cache.h"

#include "base/random.h"
#include "hosts/cache/check.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define LINE TW_LINE_SIZE

/* The messages of the link as a text: "i4" is MemInv about line 4. */
struct tape {
    char text[512];
    size_t length;
    uint64_t hash; /* of all messages, also those that the text has no room for */
};

static void record(void *ctx, enum tw_link_message message, uint64_t address)
{
    static const char *const names = "rxiwkc"; /* in the order of enum tw_link_message */
    struct tape *tape = ctx;
    size_t room = sizeof tape->text - tape->length;
    int n = snprintf(tape->text + tape->length, room, "%c%llu ", names[message],
                     (unsigned long long)tw_line_of(address));
    if (n > 0 && (size_t)n < room)
        tape->length += (size_t)n;
    tape->hash = (tape->hash + address * 8 + (uint64_t)message) * UINT64_C(0x9e3779b97f4a7c15);
}

static struct tw_cache *open_cache(const struct tw_cache_config *config, struct tape *tape)
{
    struct tw_link_sink sink = {record, tape};
    struct tw_cache *cache;
    memset(tape, 0, sizeof *tape);
    cr_assert_eq(tw_cache_open(config, &sink, &cache, NULL), TW_OK);
    return cache;
}

/* What was said since the last call must be `expected`. */
static void expect(struct tape *tape, const char *expected)
{
    cr_expect_str_eq(tape->text, expected);
    memset(tape, 0, sizeof *tape);
}

#define TWO_CORES_SHARED                                                                           \
    {                                                                                              \
        .cores = 2, .l1 = {256, 2}, .l2 = {512, 2}, .last = { 2048, 4 }                            \
    }
#define TWO_CORES_APART                                                                            \
    {                                                                                              \
        .cores = 2, .l1 = {256, 2}, .l2 = { 512, 2 }                                               \
    }

Test(cache, config_errors_name_the_level)
{
    static const struct {
        struct tw_cache_config config;
        const char *where;
    } bad[] = {
        {{.cores = 0}, "cache"},
        {{.cores = 65}, "cache"},
        {{.cores = 1, .l1 = {32768, 0}}, "cache l1"},
        {{.cores = 1, .l1 = {64 * 33, 33}}, "cache l1"},
        {{.cores = 1, .l2 = {100, 1}}, "cache l2"},
        {{.cores = 1, .l2 = {64 * 8 * 3, 8}}, "cache l2"},
        {{.cores = 1, .last = {UINT64_C(8) << 30, 16}}, "cache last level"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tw_error err;
        struct tw_cache *cache;
        struct tw_link_sink sink = {record, NULL};
        cr_expect_eq(tw_cache_open(&bad[i].config, &sink, &cache, &err), TW_INVALID_ARGUMENT);
        cr_expect_str_eq(err.where, bad[i].where);
        cr_expect_neq(err.expected[0], 0);
    }
    struct tw_cache_config good = {.cores = 64, .l1 = {48 << 10, 12}, .last = {64 * 32, 32}};
    cr_expect_eq(tw_cache_config_check(&good, NULL), TW_OK);
    tw_cache_close(NULL);
}

Test(cache, without_levels_every_store_is_written_back_at_once)
{
    struct tw_cache_config config = {.cores = 2};
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 5 * LINE);
    tw_cache_store(cache, 1, 5 * LINE + 8);
    tw_cache_load(cache, 1, 5 * LINE);
    tw_cache_flush(cache, 5 * LINE);
    expect(&tape, "w5 w5 ");
    cr_expect_eq(tw_cache_snoop(cache, 0, TW_ALL_LINES, TW_BI_SNP_INV), 0);
    tw_cache_close(cache);
}

Test(cache, a_load_miss_never_gives_the_right_to_write)
{
    struct tw_cache_config config = TWO_CORES_SHARED;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_load(cache, 0, 3 * LINE);
    tw_cache_load(cache, 0, 3 * LINE + 63);
    expect(&tape, "r3 ");
    tw_cache_store(cache, 0, 3 * LINE);
    expect(&tape, "i3 ");
    tw_cache_store(cache, 0, 3 * LINE);
    tw_cache_load(cache, 0, 3 * LINE);
    expect(&tape, "");
    tw_cache_store(cache, 0, 7 * LINE);
    expect(&tape, "x7 ");
    tw_cache_close(cache);
}

Test(cache, evictions_tell_dirty_from_clean)
{
    struct tw_cache_config config = {.cores = 1, .l1 = {128, 2}}; /* one set of two */
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 0 * LINE);
    tw_cache_load(cache, 0, 1 * LINE);
    tw_cache_load(cache, 0, 2 * LINE);
    tw_cache_load(cache, 0, 3 * LINE);
    expect(&tape, "x0 r1 r2 w0 r3 c1 ");
    tw_cache_close(cache);
}

Test(cache, cores_share_ownership_inside_the_host)
{
    struct tw_cache_config config = TWO_CORES_SHARED;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 1 * LINE);
    tw_cache_load(cache, 1, 1 * LINE);
    tw_cache_store(cache, 1, 1 * LINE);
    tw_cache_store(cache, 0, 1 * LINE);
    expect(&tape, "x1 ");
    cr_expect_null(tw_cache_check(cache));
    cr_expect_eq(tw_cache_snoop(cache, 0, 2, TW_BI_SNP_DATA), 2);
    cr_expect_eq(tw_cache_snoop(cache, 0, 2, TW_BI_SNP_DATA), 0, "it was written back");
    tw_cache_store(cache, 0, 1 * LINE);
    expect(&tape, "i1 ");
    tw_cache_close(cache);
}

Test(cache, without_a_last_level_a_dirty_line_is_shared_through_the_device)
{
    struct tw_cache_config config = TWO_CORES_APART;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 1 * LINE);
    tw_cache_load(cache, 1, 1 * LINE);
    expect(&tape, "x1 k1 ");
    tw_cache_store(cache, 1, 1 * LINE);
    expect(&tape, "i1 ");
    tw_cache_store(cache, 0, 1 * LINE);
    expect(&tape, "");
    tw_cache_close(cache);
}

Test(cache, only_the_last_holder_tells_of_a_clean_eviction)
{
    struct tw_cache_config config = {.cores = 2, .l1 = {64, 1}};
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_load(cache, 0, 1 * LINE);
    tw_cache_load(cache, 1, 1 * LINE);
    tw_cache_load(cache, 0, 2 * LINE);
    expect(&tape, "r1 r2 ");
    tw_cache_load(cache, 1, 3 * LINE);
    expect(&tape, "r3 c1 ");
    tw_cache_close(cache);
}

Test(cache, last_level_takes_back_what_it_evicts)
{
    struct tw_cache_config config = {.cores = 1, .l1 = {256, 4}, .last = {128, 2}};
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 0 * LINE);
    tw_cache_load(cache, 0, 1 * LINE);
    tw_cache_load(cache, 0, 2 * LINE);
    expect(&tape, "x0 r1 w0 r2 ");
    tw_cache_store(cache, 0, 0 * LINE); /* L1 had room for it, and must not have kept it */
    expect(&tape, "c1 x0 ");
    cr_expect_null(tw_cache_check(cache));
    tw_cache_close(cache);
}

Test(cache, writes_around_the_caches_leave_no_copy)
{
    struct tw_cache_config config = TWO_CORES_SHARED;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 1 * LINE);
    tw_cache_load(cache, 0, 2 * LINE);
    expect(&tape, "x1 r2 ");
    tw_cache_store_nontemporal(cache, 1, 1 * LINE);
    tw_cache_dma_write(cache, 2 * LINE);
    tw_cache_dma_write(cache, 3 * LINE);
    expect(&tape, "w1 w2 w3 ");
    cr_expect_eq(tw_cache_snoop(cache, 0, TW_ALL_LINES, TW_BI_SNP_INV), 0);
    tw_cache_store(cache, 0, 1 * LINE);
    tw_cache_store(cache, 0, 2 * LINE);
    expect(&tape, "x1 x2 ");
    tw_cache_close(cache);
}

Test(cache, flush_writes_back_or_drops)
{
    struct tw_cache_config config = TWO_CORES_SHARED;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    tw_cache_store(cache, 0, 1 * LINE);
    tw_cache_load(cache, 1, 2 * LINE);
    tw_cache_flush(cache, 1 * LINE);
    tw_cache_flush(cache, 2 * LINE);
    tw_cache_flush(cache, 2 * LINE);
    expect(&tape, "x1 r2 w1 c2 ");
    tw_cache_close(cache);
}

Test(cache, a_freed_way_is_taken_before_a_line_is_evicted)
{
    struct tw_cache_config config = {.cores = 1, .l1 = {256, 4}}; /* one set of four */
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    for (uint64_t line = 0; line < 3; line++)
        tw_cache_load(cache, 0, line * LINE);
    tw_cache_flush(cache, 1 * LINE);
    tw_cache_load(cache, 0, 3 * LINE);
    tw_cache_load(cache, 0, 4 * LINE);
    expect(&tape, "r0 r1 r2 c1 r3 r4 ");
    tw_cache_close(cache);
}

Test(cache, snoop_answers_for_the_lines_asked)
{
    struct tw_cache_config config = {.cores = 1, .l1 = {4096, 4}, .last = {16384, 4}};
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    const uint64_t page = 7 * TW_PAGE_SIZE;
    tw_cache_store(cache, 0, page);
    tw_cache_store(cache, 0, page + 63 * LINE);
    tw_cache_load(cache, 0, page + 5 * LINE);
    memset(&tape, 0, sizeof tape);
    cr_expect_eq(tw_cache_snoop(cache, 7, 1 | UINT64_C(1) << 5, TW_BI_SNP_INV), 1);
    cr_expect_eq(tw_cache_snoop(cache, 7, TW_ALL_LINES, TW_BI_SNP_INV), UINT64_C(1) << 63);
    cr_expect_eq(tw_cache_snoop(cache, 6, TW_ALL_LINES, TW_BI_SNP_INV), 0);
    expect(&tape, ""); /* a snoop is answered, not messaged */
    tw_cache_load(cache, 0, page + 5 * LINE);
    expect(&tape, "r453 ");
    tw_cache_close(cache);
}

Test(cache, lines_that_no_level_can_name_pass_by)
{
    struct tw_cache_config config = {.cores = 1, .l1 = {64, 1}}; /* one set: 30 bits of key */
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    const uint64_t last = ((UINT64_C(1) << 30) - 2) * LINE;
    tw_cache_store(cache, 0, last);
    tw_cache_store(cache, 0, last + LINE);
    tw_cache_store(cache, 0, last + LINE);
    tw_cache_load(cache, 0, last + 2 * LINE);
    expect(&tape, "x1073741822 w1073741823 w1073741823 ");
    cr_expect_eq(tw_cache_snoop(cache, tw_page_of(last), TW_ALL_LINES, TW_BI_SNP_INV),
                 tw_line_bit(last));
    tw_cache_close(cache);
}

Test(cache, counters_add_up)
{
    struct tw_cache_config config = TWO_CORES_SHARED;
    struct tape tape;
    struct tw_cache *cache = open_cache(&config, &tape);
    struct tw_cache_counters c;
    tw_cache_store(cache, 0, 1 * LINE);             /* miss */
    tw_cache_store(cache, 0, 1 * LINE);             /* L1 */
    tw_cache_load(cache, 1, 1 * LINE);              /* last level */
    tw_cache_load(cache, 1, 2 * LINE);              /* miss */
    tw_cache_load(cache, 1, 1 * LINE);              /* L1 */
    tw_cache_store(cache, 1, 2 * LINE);             /* L1, upgrade */
    tw_cache_store_nontemporal(cache, 0, 9 * LINE); /* past the caches */
    tw_cache_flush(cache, 2 * LINE);                /* written back */
    tw_cache_counters_get(cache, &c);
    cr_expect_eq(c.loads, 3);
    cr_expect_eq(c.stores, 4);
    cr_expect_eq(c.hits_l1, 3);
    cr_expect_eq(c.hits_l2, 0);
    cr_expect_eq(c.hits_last, 1);
    cr_expect_eq(c.upgrades, 1);
    cr_expect_eq(c.write_backs, 2);
    cr_expect_eq(c.clean_evictions, 0);
    tw_cache_close(cache);
}

static struct tw_cache_config random_config(struct tw_random *r)
{
    struct tw_cache_config config = {.cores = 1 + (uint32_t)tw_random_below(r, 4)};
    struct tw_cache_level_config *levels[] = {&config.l1, &config.l2, &config.last};
    for (unsigned i = 0; i < 3; i++) {
        levels[i]->ways = 1 + (uint32_t)tw_random_below(r, i == 2 ? 32 : 9);
        if (tw_random_below(r, 4))
            levels[i]->size_bytes = (uint64_t)levels[i]->ways * LINE << tw_random_below(r, 3 + i);
    }
    return config;
}

/* One access, one by one in `single`, in runs in `batched`; now and then a snoop to both. */
Test(cache, runs_say_the_same_as_single_accesses_and_the_invariants_hold)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct tw_random r = {seed};
        struct tape tapes[2];
        struct tw_cache_config config = random_config(&r);
        struct tw_cache *single = open_cache(&config, &tapes[0]);
        struct tw_cache *batched = open_cache(&config, &tapes[1]);
        for (unsigned round = 0; round < 30; round++) {
            uint64_t events[24];
            unsigned core = (unsigned)tw_random_below(&r, config.cores);
            for (unsigned i = 0; i < 24; i++) {
                events[i] = tw_random_below(&r, 200) << 1 | tw_random_below(&r, 2);
                if (events[i] & 1)
                    tw_cache_store(single, core, (events[i] >> 1) * LINE);
                else
                    tw_cache_load(single, core, (events[i] >> 1) * LINE);
            }
            tw_cache_run(batched, core, events, 24);
            enum tw_snoop kind = tw_random_below(&r, 2) ? TW_BI_SNP_DATA : TW_BI_SNP_INV;
            uint64_t lines = tw_random_next(&r) & tw_random_next(&r) & tw_random_next(&r);
            cr_assert_eq(tw_cache_snoop(single, round % 4, lines, kind),
                         tw_cache_snoop(batched, round % 4, lines, kind));
            const char *wrong = tw_cache_check(batched);
            cr_assert_null(wrong, "seed %llu: %s", (unsigned long long)seed, wrong);
            cr_assert_eq(tapes[0].hash, tapes[1].hash, "seed %llu", (unsigned long long)seed);
        }
        struct tw_cache_counters a, b;
        tw_cache_counters_get(single, &a);
        tw_cache_counters_get(batched, &b);
        cr_assert_arr_eq(&a, &b, sizeof a);
        cr_assert_eq(a.loads + a.stores, 30 * 24);
        tw_cache_close(single);
        tw_cache_close(batched);
    }
}
