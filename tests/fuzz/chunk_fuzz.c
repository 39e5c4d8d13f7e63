/* Arbitrary bytes as a chunk: whatever is in them, the checks and the apply stay inside the bytes
 * and inside the memory, and what is refused changes nothing.
 *
 * Input: a byte of switches, then a chunk header (as much of it as there is), then the payload.
 * Switch 1: length and count are made right. Switch 2: records mostly, so that noise gets deep;
 * switch 4: cut off anywhere. Switch 8: no space. */
#include "fabric/record.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES  5u
#define CANARY 4096u
#define FILL   0xa5

struct owner {
    uint64_t prepared; /* bit a page */
    bool full;         /* the last page cannot be had */
};

static enum tw_code prepare(void *ctx, uint64_t page_address, bool zero, bool *skip,
                            struct tw_error *err)
{
    struct owner *o = ctx;
    if (page_address % TW_PAGE_SIZE || page_address / TW_PAGE_SIZE >= PAGES)
        abort();
    *skip = zero && page_address == 0;
    o->prepared |= UINT64_C(1) << (page_address / TW_PAGE_SIZE);
    if (o->full && page_address == 4 * TW_PAGE_SIZE)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "m", "", "", "full");
    return TW_OK;
}

static void expect_fill(const uint8_t *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (from[i] != FILL)
            abort();
}

/* A page that prepare() was not asked about is as it was; so is everything around the memory. */
static void check(const uint8_t *around, enum tw_code code, const struct owner *owner)
{
    const uint8_t *memory = around + CANARY;
    expect_fill(around, CANARY);
    expect_fill(memory + PAGES * TW_PAGE_SIZE, CANARY);
    for (unsigned i = 0; i < PAGES; i++)
        if (!(owner->prepared >> i & 1))
            expect_fill(memory + i * TW_PAGE_SIZE, TW_PAGE_SIZE);
    if (code != TW_OK && code != TW_RESOURCE_EXHAUSTED && owner->prepared)
        abort();
}

/* Bends noise into a record that is right, or now and then wrong in one thing: its page, its kind,
 * its bitmap or its count. */
static struct tw_record_header bend_record(struct tw_record_header h)
{
    const unsigned dice = h.place >> 56 & 0x3f;
    uint64_t page = h.place >> 12 & 7, kind = h.place & 3;
    page = page >= PAGES && dice != 1 ? page - PAGES : page;
    kind = kind == 3 && dice != 2 ? TW_RECORD_LINES : kind;
    if (kind != TW_RECORD_ZERO_PAGES)
        h.what = (h.what & h.what >> 16 & h.what << 8 & h.what >> 32) | (dice != 3);
    else if (dice != 4)
        h.what = 1 + h.what % (dice < 9 ? PAGES : 2);
    h.place = page << TW_PAGE_SHIFT | kind;
    return h;
}

/* Returns the length of the whole records. */
static size_t bend(uint8_t *payload, size_t length)
{
    struct tw_record_header h;
    size_t whole = 0;
    for (size_t at = 0; at <= length && length - at >= sizeof h;) {
        whole = at;
        memcpy(&h, payload + at, sizeof h);
        h = bend_record(h);
        memcpy(payload + at, &h, sizeof h);
        at += sizeof h;
        if ((h.place & 3) == TW_RECORD_LINES)
            at += (size_t)tw_popcount(h.what) * TW_LINE_SIZE;
    }
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const uint8_t switches = *data++;
    size--;
    struct tw_chunk_header header = {0};
    const size_t head = size < sizeof header ? size : sizeof header;
    memcpy(&header, data, head);
    size_t length = size - head;
    uint8_t *payload = malloc(length + !length);
    if (!payload)
        abort();
    memcpy(payload, data + head, length);
    const size_t whole = switches & 2 ? bend(payload, length) : length;
    length = switches & 4 ? length : whole;

    struct tw_error err;
    if (tw_chunk_check_header(&header, &err) == TW_OK && header.length <= length)
        tw_chunk_check_payload(&header, payload, &err);

    static _Alignas(4096) uint8_t around[PAGES * TW_PAGE_SIZE + 2 * CANARY];
    memset(around, FILL, sizeof around);
    struct owner owner = {.full = switches & 8};
    const struct tw_apply_target target = {around + CANARY, PAGES * TW_PAGE_SIZE, prepare, &owner};
    if (switches & 1) { /* mostly let it reach the records */
        struct tw_record_reader reader;
        struct tw_record record;
        tw_record_reader_init(&reader, payload, (uint32_t)length, target.memory_bytes);
        while (tw_record_next(&reader, &record, &err) == TW_OK)
            continue;
        header.kind = TW_CHUNK_LINES;
        header.length = (uint32_t)length;
        header.count = reader.index;
    }
    if (header.length <= length)
        check(around, tw_chunk_apply(&header, payload, &target, &err), &owner);
    free(payload);
    return 0;
}
