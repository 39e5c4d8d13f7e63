#include "base/random.h"
#include "fabric/record.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGES  32u
#define MEMORY (PAGES * TW_PAGE_SIZE)

static uint8_t *source;  /* memory that is gathered from */
static uint8_t *other;   /* memory that is applied to */
static uint8_t *payload; /* exactly TW_CHUNK_PAYLOAD, so that the sanitizer sees one byte more */
static struct tw_chunk_writer writer;

static void setup(void)
{
    source = aligned_alloc(TW_PAGE_SIZE, MEMORY);
    other = aligned_alloc(TW_PAGE_SIZE, MEMORY);
    payload = malloc(TW_CHUNK_PAYLOAD);
    struct tw_random random = {7};
    for (unsigned i = 0; i < MEMORY; i++)
        source[i] = (uint8_t)(tw_random_next(&random) | 1);
    memset(other, 0xee, MEMORY);
    tw_chunk_writer_init(&writer, payload);
}

static void teardown(void)
{
    free(source);
    free(other);
    free(payload);
}

TestSuite(record, .init = setup, .fini = teardown);

static uint8_t *page(uint8_t *memory, unsigned n)
{
    return memory + (size_t)n * TW_PAGE_SIZE;
}

static uint64_t add(unsigned n, uint64_t bitmap)
{
    return tw_chunk_writer_add(&writer, (uint64_t)n * TW_PAGE_SIZE, page(source, n), bitmap);
}

static struct tw_chunk_header sealed(void)
{
    struct tw_chunk_header h = {
        .kind = TW_CHUNK_LINES, .sequence = 4711, .length = writer.length, .count = writer.count};
    tw_chunk_seal(&h, payload);
    return h;
}

static enum tw_code apply(struct tw_error *err)
{
    const struct tw_chunk_header h = sealed();
    const struct tw_apply_target target = {.memory = other, .memory_bytes = MEMORY};
    return tw_chunk_apply(&h, payload, &target, err);
}

Test(record, costs_16_bytes_and_64_a_line)
{
    cr_assert_eq(add(3, 0x8000000000000401), 0);
    cr_assert_eq(writer.length, 16 + 3 * 64);
    cr_assert_eq(writer.count, 1);
    cr_assert_eq(tw_chunk_writer_lines(&writer), 3);
    cr_assert_eq(apply(NULL), TW_OK);
    for (unsigned i = 0; i < 64; i++) {
        const bool sent = i == 0 || i == 10 || i == 63;
        const int differs = memcmp(page(other, 3) + i * 64, page(source, 3) + i * 64, 64);
        cr_assert_eq(differs == 0, sent, "line %u", i);
    }
    cr_assert_eq(page(other, 2)[4095], 0xee);
    cr_assert_eq(page(other, 4)[0], 0xee);
}

Test(record, whole_page_costs_16_bytes_more_than_a_page)
{
    cr_assert_eq(add(1, TW_ALL_LINES), 0);
    cr_assert_eq(writer.length, 16 + 4096);
    cr_assert_eq(apply(NULL), TW_OK);
    cr_assert_arr_eq(page(other, 1), page(source, 1), 4096);
}

Test(record, zero_lines_carry_no_data)
{
    memset(page(source, 5) + 64, 0, 128);
    page(source, 5)[64 * 2 + 63] = 1; /* the last byte of a line counts too */
    cr_assert_eq(add(5, 0xf), 0);
    cr_assert_eq(writer.length, 16 + 3 * 64 + 16);
    cr_assert_eq(tw_chunk_writer_lines(&writer), 3);
    cr_assert_eq(writer.zero_lines, 1);
    cr_assert_eq(apply(NULL), TW_OK);
    cr_assert_arr_eq(page(other, 5), page(source, 5), 256);
    cr_assert_eq(page(other, 5)[256], 0xee);
}

Test(record, runs_of_zero_pages_are_one_record)
{
    memset(page(source, 8), 0, 4 * TW_PAGE_SIZE);
    for (unsigned n = 8; n < 12; n++)
        cr_assert_eq(add(n, TW_ALL_LINES), 0);
    cr_assert(tw_chunk_writer_add_zero_pages(&writer, 12 * TW_PAGE_SIZE, 3));
    cr_assert_eq(writer.length, 16);
    cr_assert_eq(writer.zero_lines, 7 * 64);
    cr_assert(tw_chunk_writer_add_zero_pages(&writer, 16 * TW_PAGE_SIZE, 1), "a gap");
    cr_assert_eq(writer.count, 2);
    cr_assert_eq(add(17, 1), 0);
    cr_assert(tw_chunk_writer_add_zero_pages(&writer, 17 * TW_PAGE_SIZE, 1),
              "lines in between end a run");
    cr_assert_eq(writer.count, 4);
    cr_assert_eq(apply(NULL), TW_OK);
    for (unsigned n = 8; n < 18; n++)
        cr_assert_eq(page(other, n)[100], n == 15 ? 0xee : 0, "page %u", n);
    cr_assert_eq(page(other, 18)[0], 0xee);
}

Test(record, what_does_not_fit_comes_back)
{
    unsigned pages = 0;
    uint64_t rest = 0;
    while (rest == 0 && pages < PAGES)
        rest = add(pages++, TW_ALL_LINES);
    cr_assert_eq(pages, 32);
    cr_assert_neq(rest, 0);
    cr_assert_neq(rest, TW_ALL_LINES, "the page is split");
    cr_assert_leq(writer.length, TW_CHUNK_PAYLOAD);
    cr_assert_gt(writer.length, TW_CHUNK_PAYLOAD - 96);
    cr_assert_eq(add(0, 1), 1, "full");
    cr_assert_eq(apply(NULL), TW_OK);
    const unsigned sent = 64 - tw_popcount(rest);
    cr_assert_arr_eq(other, source, 31 * TW_PAGE_SIZE + sent * 64);
    cr_assert_eq(page(other, 31)[sent * 64], 0xee);
    cr_assert_eq(rest, UINT64_MAX << sent);
}

Test(record, zero_pages_fill_up_to_the_last_byte)
{
    uint64_t n = 0;
    while (tw_chunk_writer_add_zero_pages(&writer, n * 2 * TW_PAGE_SIZE, 1))
        n++;
    cr_assert_eq(n, TW_CHUNK_PAYLOAD / 16);
    cr_assert_eq(writer.length, TW_CHUNK_PAYLOAD);
    cr_assert_eq(add(0, 1), 1);
}

Test(record, random_bitmaps_arrive)
{
    struct tw_random random = {99};
    for (unsigned turn = 0; turn < 300; turn++) {
        uint64_t bitmaps[PAGES] = {0};
        memset(other, 0xee, MEMORY);
        tw_chunk_writer_init(&writer, payload);
        for (unsigned n = 0; n < PAGES; n++) {
            const uint64_t bits = tw_random_next(&random) & tw_random_next(&random);
            memset(page(source, n), (int)tw_random_below(&random, 2),
                   tw_random_below(&random, 4097));
            bitmaps[n] = bits & ~add(n, bits);
        }
        cr_assert_eq(apply(NULL), TW_OK);
        for (unsigned l = 0; l < PAGES * 64; l++) {
            const bool sent = (bitmaps[l / 64] >> (l % 64)) & 1;
            const uint8_t *line = other + l * 64;
            cr_assert_eq(memcmp(line, source + l * 64, 64) == 0, sent, "turn %u line %u", turn, l);
        }
    }
}

/* ---- Memory that changes while it is read ---------------------------------------------------- */

static atomic_bool flicker_ends;

/* A line of one word that comes and goes. */
static void *flicker(void *line)
{
    _Atomic uint64_t *word = line;
    while (!atomic_load(&flicker_ends))
        atomic_fetch_xor(word, 1);
    return NULL;
}

/* What was tested for zero is what was sent: a line that is sent with data is never zero. */
Test(record, a_line_is_read_once)
{
    pthread_t thread;
    struct tw_record record;
    struct tw_record_reader reader;
    unsigned seen[2] = {0};
    memset(page(source, 4), 0, TW_PAGE_SIZE);
    cr_assert_eq(pthread_create(&thread, NULL, flicker, page(source, 4)), 0);
    for (unsigned i = 0; i < 1000000 && (i < 100000 || !seen[0] || !seen[1]); i++) {
        tw_chunk_writer_init(&writer, payload);
        add(4, 1);
        tw_record_reader_init(&reader, payload, writer.length, MEMORY);
        cr_assert_eq(tw_record_next(&reader, &record, NULL), TW_OK);
        seen[record.kind]++;
        if (record.kind == TW_RECORD_LINES)
            cr_assert_not(tw_is_zero_line(record.lines));
    }
    atomic_store(&flicker_ends, true);
    pthread_join(thread, NULL);
    cr_expect(seen[TW_RECORD_LINES] && seen[TW_RECORD_ZERO_LINES]);
}

/* The example in docs/record-format.md. */
Test(record, bytes_are_those_of_the_document)
{
    static const uint8_t header[] = {
        0x54, 0x57, 0x4c, 0x4b, 1,  0,  1,  0,
        3,    0,    0,    0,    0,  0,  0,  0, /* magic .. epoch */
        7,    0,    0,    0,    0,  0,  0,  0,
        0xb0, 0,    0,    0,    3,  0,  0,  0, /* sequence, length, count */
        0xf6, 0xf9, 0xf9, 0x23, 2,  0,  0,  0,
        0,    1,    2,    3,    4,  5,  6,  7, /* crc32c, tag, owner */
        8,    9,    10,   11,   12, 13, 14, 15,
        0,    0,    0,    0,    0,  0,  0,  0};
    static const uint8_t lines[] = {0, 0x50, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t zeros[] = {1, 0x50, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                    2, 0x80, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0};
    struct tw_chunk_header h = {
        .kind = TW_CHUNK_LINES, .epoch = 3, .sequence = 7, .length = 176, .count = 3, .tag = 2};
    for (unsigned i = 0; i < TW_OWNER_SIZE; i++)
        h.owner[i] = (uint8_t)i;
    memset(page(source, 5), 0, 64);
    memset(page(source, 5) + 64, 0xaa, 64);
    memset(page(source, 5) + 192, 0xbb, 64);
    cr_assert_eq(add(5, 0xb), 0);
    cr_assert(tw_chunk_writer_add_zero_pages(&writer, 0x8000, 4));
    cr_assert_eq(writer.length, 176);
    cr_assert_eq(writer.count, 3);
    tw_chunk_seal(&h, payload);
    cr_assert_arr_eq(&h, header, sizeof h);
    cr_assert_arr_eq(payload, lines, sizeof lines);
    cr_assert_arr_eq(payload + 16, page(source, 5) + 64, 64);
    cr_assert_arr_eq(payload + 80, page(source, 5) + 192, 64);
    cr_assert_arr_eq(payload + 144, zeros, sizeof zeros);
}

/* ---- What the owner of the memory is asked --------------------------------------------------- */

struct owner {
    uint8_t *memory;
    uint64_t holes;     /* bit a page */
    uint64_t prepared;  /* bit a page */
    uint64_t full_from; /* no space from this page on */
};

static enum tw_code prepare(void *ctx, uint64_t page_address, bool zero, bool *skip,
                            struct tw_error *err)
{
    struct owner *o = ctx;
    const uint64_t bit = UINT64_C(1) << tw_page_of(page_address);
    if (tw_page_of(page_address) >= o->full_from)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "memory", NULL, NULL, "no space");
    *skip = zero && (o->holes & bit);
    if (!*skip)
        o->holes &= ~bit;
    o->prepared |= bit;
    return TW_OK;
}

Test(record, holes_stay_holes_and_nothing_touches_them)
{
    struct owner owner = {.holes = ~(UINT64_C(1) << 9), .full_from = PAGES};
    const struct tw_apply_target target = {other, MEMORY, prepare, &owner};
    memset(page(source, 20), 0, 128);
    cr_assert(tw_chunk_writer_add_zero_pages(&writer, 8 * TW_PAGE_SIZE, 3));
    cr_assert_eq(add(20, 3), 0);
    cr_assert_eq(add(21, 1), 0);
    const struct tw_chunk_header h = sealed();
    cr_assert_eq(tw_chunk_apply(&h, payload, &target, NULL), TW_OK);
    cr_assert_eq(page(other, 8)[0], 0xee, "skipped");
    cr_assert_eq(page(other, 9)[0], 0, "no hole");
    cr_assert_eq(page(other, 10)[0], 0xee, "skipped");
    cr_assert_eq(page(other, 20)[0], 0xee, "skipped");
    cr_assert_arr_eq(page(other, 21), page(source, 21), 64);
    cr_assert_eq(owner.prepared, UINT64_C(7) << 8 | UINT64_C(3) << 20);
    cr_assert_eq(owner.holes >> 21 & 1, 0);
}

Test(record, a_full_disk_is_an_error)
{
    struct owner owner = {.full_from = 4};
    const struct tw_apply_target target = {other, MEMORY, prepare, &owner};
    cr_assert_eq(add(3, 1), 0);
    cr_assert_eq(add(4, 1), 0);
    const struct tw_chunk_header h = sealed();
    struct tw_error err;
    cr_assert_eq(tw_chunk_apply(&h, payload, &target, &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(err.what, "no space");
    cr_assert_arr_eq(page(other, 3), page(source, 3), 64);
    cr_assert_eq(page(other, 4)[0], 0xee);
}

/* ---- Hostile bytes --------------------------------------------------------------------------- */

static void put(uint64_t place, uint64_t what)
{
    const struct tw_record_header h = {place, what};
    memcpy(payload + writer.length, &h, sizeof h);
    writer.length += (uint32_t)sizeof h;
    writer.count++;
}

/* Refused with `code`, and not a byte of the memory has changed, though a good record came first.
 */
static void refused(enum tw_code code, const char *where)
{
    struct tw_error err = {0};
    cr_expect_eq(apply(&err), code, "%s: %s", err.where, err.what);
    cr_expect_str_eq(err.where, where);
    cr_expect(err.expected[0] && err.given[0]);
    for (unsigned i = 0; i < MEMORY; i++)
        cr_assert_eq(other[i], 0xee);
}

Test(record, malformed_records_change_nothing)
{
    const struct {
        uint64_t place, what;
        enum tw_code code;
    } cases[] = {
        {MEMORY | TW_RECORD_ZERO_LINES, 1, TW_OUT_OF_RANGE},
        {UINT64_MAX << 12 | TW_RECORD_ZERO_LINES, 1, TW_OUT_OF_RANGE},
        {UINT64_MAX << 12 | TW_RECORD_ZERO_PAGES, 2, TW_OUT_OF_RANGE},
        {TW_PAGE_SIZE | TW_RECORD_ZERO_PAGES, PAGES, TW_OUT_OF_RANGE},
        {TW_PAGE_SIZE | TW_RECORD_ZERO_PAGES, UINT64_MAX, TW_OUT_OF_RANGE},
        {TW_PAGE_SIZE | TW_RECORD_ZERO_PAGES, 0, TW_OUT_OF_RANGE},
        {3, 1, TW_INVALID_ARGUMENT},
        {0xfff, 1, TW_INVALID_ARGUMENT},
        {TW_RECORD_LINES, 0, TW_INVALID_ARGUMENT},
        {TW_RECORD_ZERO_LINES, 0, TW_INVALID_ARGUMENT},
        {TW_RECORD_LINES, 1, TW_DATA_LOSS},
        {TW_RECORD_LINES, UINT64_MAX, TW_DATA_LOSS},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        tw_chunk_writer_init(&writer, payload);
        put(TW_RECORD_ZERO_PAGES, 1);
        put(cases[i].place, cases[i].what);
        refused(cases[i].code, "chunk 4711, record 1");
    }
}

Test(record, cut_off_header)
{
    put(TW_RECORD_ZERO_PAGES, 1);
    writer.length += 15;
    refused(TW_DATA_LOSS, "chunk 4711, record 1");
}

Test(record, count_must_be_right)
{
    put(TW_RECORD_ZERO_PAGES, 1);
    writer.count = 2;
    refused(TW_DATA_LOSS, "chunk 4711");
}

Test(record, a_chunk_cannot_name_more_zero_pages_than_there_are)
{
    put(TW_RECORD_ZERO_PAGES, PAGES);
    put(TW_RECORD_ZERO_PAGES, 1);
    refused(TW_INVALID_ARGUMENT, "chunk 4711, record 1");
}

Test(record, blobs_are_not_applied)
{
    struct tw_chunk_header h = {.kind = TW_CHUNK_BLOB};
    const struct tw_apply_target target = {.memory = other, .memory_bytes = MEMORY};
    tw_chunk_seal(&h, payload);
    cr_assert_eq(tw_chunk_apply(&h, payload, &target, NULL), TW_INVALID_ARGUMENT);
}

Test(record, header_is_checked)
{
    cr_assert_eq(add(1, 3), 0);
    const struct tw_chunk_header good = sealed();
    struct tw_error err;
    cr_assert_eq(tw_chunk_check_header(&good, &err), TW_OK);
    cr_assert_eq(tw_chunk_check_payload(&good, payload, &err), TW_OK);

    struct tw_chunk_header h = good;
    h.magic ^= 1;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_DATA_LOSS);
    h = good;
    h.version = 2;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_FAILED_PRECONDITION);
    cr_assert_str_eq(err.where, "chunk 4711");
    cr_assert_str_eq(err.expected, "0x1");
    cr_assert_str_eq(err.given, "0x2");
    h = good;
    h.kind = 0;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_INVALID_ARGUMENT);
    h.kind = TW_CHUNK_CONTROL + 1;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_INVALID_ARGUMENT);
    h = good;
    h.length = TW_CHUNK_PAYLOAD + 1;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_OUT_OF_RANGE);
    h = good;
    h.reserved = 1;
    cr_assert_eq(tw_chunk_check_header(&h, &err), TW_INVALID_ARGUMENT);
}

Test(record, every_flipped_bit_is_seen)
{
    cr_assert_eq(add(1, 1), 0);
    const struct tw_chunk_header good = sealed();
    for (unsigned bit = 0; bit < 8 * writer.length; bit++) {
        payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(tw_chunk_check_payload(&good, payload, NULL), TW_DATA_LOSS, "bit %u", bit);
        payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (unsigned bit = 0; bit < 8 * sizeof good; bit++) {
        struct tw_chunk_header h = good;
        ((uint8_t *)&h)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        const bool seen = tw_chunk_check_header(&h, NULL) || h.length > writer.length ||
                          tw_chunk_check_payload(&h, payload, NULL);
        cr_assert(seen, "header bit %u", bit);
    }
}
