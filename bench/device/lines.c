/* Scattered lines into chunks, and out of chunks into memory: four lines of each page, pages in no
 * order. The ceiling copies the same lines, from a list of their places, to or from a flat log of
 * the same size, one memcpy of constant size each. */
#include "base/line.h"
#include "base/random.h"
#include "bench/device/bench.h"
#include "fabric/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES          16384u
#define LINES_PER_PAGE 4u
#define LINES          (PAGES * LINES_PER_PAGE)
#define CHUNKS_MAX     64u

struct scatter {
    uint64_t memory_bytes;
    uint8_t *memory;
    uint64_t *pages;   /* page addresses */
    uint64_t *bitmaps; /* of each page */
    uint64_t *lines;   /* line addresses, in the order of pages and bitmaps */
    uint8_t *log;      /* the ceiling's; TW_CHUNK_PAYLOAD bytes, used over and over */
    uint8_t *payloads;
    struct tw_chunk_header *chunks;
    size_t chunk_count;
};

static void pick_places(struct scatter *s)
{
    struct tw_random r = {3};
    const uint64_t pages = tw_page_of(s->memory_bytes);
    uint64_t *at = s->lines;
    for (size_t i = 0; i < PAGES; i++) {
        /* Each page once: a permutation of all pages, of which the first are taken. */
        s->pages[i] = i * UINT64_C(0x9e3779b97f4a7c15) % pages * TW_PAGE_SIZE;
        while (tw_popcount(s->bitmaps[i]) < LINES_PER_PAGE)
            s->bitmaps[i] |= UINT64_C(1) << tw_random_below(&r, TW_LINES_PER_PAGE);
        for (uint64_t bits = s->bitmaps[i]; bits; bits &= bits - 1)
            *at++ = s->pages[i] + (unsigned)__builtin_ctzll(bits) * TW_LINE_SIZE;
    }
}

static void scatter_open(struct scatter *s, uint64_t memory_bytes)
{
    struct tw_random r = {4};
    s->memory_bytes = memory_bytes;
    s->memory = bench_alloc(memory_bytes);
    for (uint64_t i = 0; i < memory_bytes; i += sizeof(uint64_t)) {
        uint64_t word = tw_random_next(&r);
        memcpy(s->memory + i, &word, sizeof word);
    }
    s->pages = bench_alloc(PAGES * sizeof *s->pages);
    s->bitmaps = bench_alloc(PAGES * sizeof *s->bitmaps);
    s->lines = bench_alloc(LINES * sizeof *s->lines);
    s->log = bench_alloc(LINES * TW_LINE_SIZE);
    s->payloads = bench_alloc(CHUNKS_MAX * TW_CHUNK_PAYLOAD);
    s->chunks = bench_alloc(CHUNKS_MAX * sizeof *s->chunks);
    pick_places(s);
}

static void scatter_close(struct scatter *s)
{
    free(s->memory);
    free(s->pages);
    free(s->bitmaps);
    free(s->lines);
    free(s->log);
    free(s->payloads);
    free(s->chunks);
}

/* Both write into one chunk's worth of memory over and over, as a sender with few chunks does. */
static uint64_t gather_ours(void *ctx)
{
    struct scatter *s = ctx;
    struct tw_chunk_writer writer;
    tw_chunk_writer_init(&writer, s->payloads);
    for (size_t i = 0; i < PAGES; i++) {
        const uint8_t *page = s->memory + s->pages[i];
        uint64_t rest = tw_chunk_writer_add(&writer, s->pages[i], page, s->bitmaps[i]);
        while (rest) {
            tw_chunk_writer_init(&writer, s->payloads);
            rest = tw_chunk_writer_add(&writer, s->pages[i], page, rest);
        }
    }
    return LINES;
}

static uint64_t gather_ceiling(void *ctx)
{
    struct scatter *s = ctx;
    for (size_t i = 0; i < LINES; i++)
        memcpy(s->log + i * TW_LINE_SIZE % TW_CHUNK_PAYLOAD, s->memory + s->lines[i], TW_LINE_SIZE);
    __asm__ volatile("" : : "r"(s->log) : "memory"); /* as if the log were read */
    return LINES;
}

/* All the lines as sealed chunks. */
static void make_chunks(struct scatter *s)
{
    struct tw_chunk_writer writer;
    tw_chunk_writer_init(&writer, s->payloads);
    for (size_t i = 0; i <= PAGES; i++) {
        uint64_t rest = 1;
        if (i < PAGES)
            rest =
                tw_chunk_writer_add(&writer, s->pages[i], s->memory + s->pages[i], s->bitmaps[i]);
        if (!rest)
            continue;
        if (s->chunk_count == CHUNKS_MAX - 1)
            abort();
        struct tw_chunk_header *header = &s->chunks[s->chunk_count++];
        header->kind = TW_CHUNK_LINES;
        header->length = writer.length;
        header->count = writer.count;
        tw_chunk_seal(header, writer.payload);
        tw_chunk_writer_init(&writer, writer.payload + TW_CHUNK_PAYLOAD);
        if (i < PAGES)
            tw_chunk_writer_add(&writer, s->pages[i], s->memory + s->pages[i], rest);
    }
}

static uint64_t apply_ours(void *ctx)
{
    struct scatter *s = ctx;
    const struct tw_apply_target target = {.memory = s->memory, .memory_bytes = s->memory_bytes};
    for (size_t i = 0; i < s->chunk_count; i++) {
        if (tw_chunk_apply(&s->chunks[i], s->payloads + i * TW_CHUNK_PAYLOAD, &target, NULL))
            abort();
    }
    return LINES;
}

static uint64_t apply_ceiling(void *ctx)
{
    struct scatter *s = ctx;
    for (size_t i = 0; i < LINES; i++)
        memcpy(s->memory + s->lines[i], s->log + i * TW_LINE_SIZE, TW_LINE_SIZE);
    __asm__ volatile("" : : "r"(s->memory) : "memory");
    return LINES;
}

struct bench_row bench_gather(const struct bench_case *self, unsigned runs)
{
    struct scatter s = {0};
    scatter_open(&s, self->memory_bytes);
    struct bench_pair pair = {gather_ours, gather_ceiling, NULL, &s};
    struct bench_result result = bench_measure(&pair, runs);
    scatter_close(&s);
    return bench_rate("lines_per_s", "1/s", result);
}

struct bench_row bench_apply(const struct bench_case *self, unsigned runs)
{
    struct scatter s = {0};
    scatter_open(&s, self->memory_bytes);
    make_chunks(&s);
    struct bench_pair pair = {apply_ours, apply_ceiling, NULL, &s};
    struct bench_result result = bench_measure(&pair, runs);
    scatter_close(&s);
    return bench_rate("lines_per_s", "1/s", result);
}
