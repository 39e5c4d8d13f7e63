/* Maps of lines to come out of arbitrary bytes: what is taken counts what it holds, is inside the
 * memory, and comes out of a packed copy as it went in. */
#include "services/migration/line_set.h"

#include <stdlib.h>
#include <string.h>

#define PAGES 200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t lines_of(const struct tw_line_set *s)
{
    uint64_t count = 0;
    for (uint64_t p = tw_line_set_next(s, 0); p < s->pages; p = tw_line_set_next(s, p + 1))
        count += tw_popcount(s->of_page[p]);
    return count;
}

static void check_packed(const struct tw_line_set *s)
{
    static uint8_t payload[TW_CHUNK_PAYLOAD];
    struct tw_line_set again;
    struct tw_chunk_writer writer;
    uint64_t page = 0;
    if (tw_line_set_open(&again, PAGES, NULL) != TW_OK)
        abort();
    while (page < PAGES) {
        tw_chunk_writer_init(&writer, payload);
        tw_line_set_pack(s, &page, &writer);
        if (tw_line_set_unpack(&again, payload, writer.length, NULL) != TW_OK)
            abort();
    }
    if (again.count != s->count || memcmp(again.of_page, s->of_page, PAGES * sizeof(uint64_t)) != 0)
        abort();
    tw_line_set_close(&again);
}

/* Raw bytes mostly end at the first record: half of the inputs are made of small numbers. */
static uint32_t shape(const uint8_t *data, size_t size, uint8_t *out)
{
    uint32_t length = 0;
    for (size_t at = 0; at + 4 <= size && length + 16 <= TW_CHUNK_PAYLOAD; at += 4) {
        uint64_t kinds[] = {TW_RECORD_ZERO_LINES, TW_RECORD_ZERO_PAGES, TW_RECORD_LINES, 0};
        uint64_t address = (uint64_t)data[at] * TW_PAGE_SIZE | kinds[data[at + 1] & 3];
        uint64_t word = (uint64_t)data[at + 2] << (data[at + 3] & 63);
        memcpy(out + length, &address, sizeof address);
        memcpy(out + length + 8, &word, sizeof word);
        length += 16;
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tw_line_set set;
    if (size == 0 || size > TW_CHUNK_PAYLOAD)
        return 0;
    uint8_t *payload = malloc(data[0] & 1 ? TW_CHUNK_PAYLOAD : size);
    uint32_t length = (uint32_t)(size - 1);
    if (data[0] & 1)
        length = shape(data + 1, size - 1, payload);
    else
        memcpy(payload, data + 1, length);
    payload = realloc(payload, length ? length : 1); /* a read beyond it is noticed */
    if (tw_line_set_open(&set, PAGES, NULL) != TW_OK)
        abort();
    if (tw_line_set_unpack(&set, payload, length, NULL) == TW_OK) {
        if (set.count != lines_of(&set))
            abort();
        check_packed(&set);
    }
    tw_line_set_close(&set);
    free(payload);
    return 0;
}
