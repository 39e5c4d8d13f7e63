/* A mirror's stream out of arbitrary bytes: operations that a source could carry out, right or
 * nearly so, and raw chunks between them. Whatever comes, no more is held than was named, and all
 * is held only when all was named and compared. */
#include "services/migration/mirror.h"

#include "services/migration/control.h"
#include "services/migration/side.h"

#include <stdlib.h>
#include <string.h>

#define PAGES 40u
#define EPOCH 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct tw_mirror *mirror;
    struct tw_migration_end *end;
    const uint8_t *data;
    size_t left;
    bool refused;
};

static uint64_t clock_now(void *ctx)
{
    (void)ctx;
    return 1;
}

static uint8_t next(struct fuzz *f)
{
    if (!f->left)
        return 0;
    f->left--;
    return *f->data++;
}

static void check(const struct fuzz *f)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(f->mirror, &p);
    if (p.lines_held > p.lines_named || p.lines_named > PAGES * TW_LINES_PER_PAGE ||
        p.bytes_held > PAGES * TW_PAGE_SIZE || (p.complete && p.lines_held != p.lines_named))
        abort();
}

/* In a copy of its size: a read beyond it is noticed. */
static void chunk(struct fuzz *f, enum tw_lane lane, uint16_t kind, uint32_t tag, uint32_t count,
                  const void *bytes, uint32_t length)
{
    struct tw_error err;
    if (length == 0) /* the fabric lets none of these through */
        return;
    struct tw_chunk_header header = {.kind = kind, .tag = tag, .count = count, .length = length};
    uint8_t *copy = aligned_alloc(64, (length + 64u) & ~63u);
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    f->refused |= f->end->chunk(f->end->side, lane, &header, copy, &err) != TW_OK;
    free(copy);
    check(f);
}

static void control(struct fuzz *f, enum tw_control_kind kind, const union tw_control *c)
{
    chunk(f, kind == TW_CONTROL_RELEASE ? TW_LANE_URGENT : TW_LANE_BULK, TW_CHUNK_CONTROL, kind, 0,
          c, tw_control_size(kind));
}

/* Records as the bytes say; `data` behind those that carry lines. */
static void records(struct fuzz *f, bool map)
{
    static const uint64_t kinds[] = {TW_RECORD_LINES, TW_RECORD_ZERO_LINES, TW_RECORD_ZERO_PAGES,
                                     TW_RECORD_ZERO_LINES};
    static uint8_t payload[TW_CHUNK_PAYLOAD];
    uint32_t length = 0, count = next(f) & 3;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t kind = kinds[next(f) & 3], page = next(f) % (PAGES + 1);
        uint64_t what =
            kind == TW_RECORD_ZERO_PAGES ? next(f) & 7u : (uint64_t)next(f) << (page & 7);
        const uint64_t words[2] = {page * TW_PAGE_SIZE | kind, what};
        memcpy(payload + length, words, sizeof words);
        length += (uint32_t)sizeof words;
        if (kind != TW_RECORD_LINES || map)
            continue;
        uint32_t lines = tw_popcount(what) * TW_LINE_SIZE;
        memset(payload + length, next(f), lines);
        length += lines;
    }
    if (map)
        chunk(f, TW_LANE_BULK, TW_CHUNK_BLOB, TW_BLOB_MAP, 0, payload, length);
    else
        chunk(f, TW_LANE_BULK, TW_CHUNK_LINES, 0, count, payload, length);
}

static void map_end(struct fuzz *f)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(f->mirror, &p);
    const union tw_control c = {.map_end = {.lines = p.lines_named + (next(f) == 7), .final = 1}};
    control(f, TW_CONTROL_MAP_END, &c);
}

static void keep_end(struct fuzz *f)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(f->mirror, &p);
    /* Zero lines add nothing to a digest. */
    const union tw_control c = {
        .keep_end = {.epoch = EPOCH, .lines = p.lines_named, .digest = next(f) & 1u}};
    control(f, TW_CONTROL_KEEP_END, &c);
    tw_mirror_progress(f->mirror, &p);
    if (!f->refused && !p.complete)
        abort(); /* it took the word of its source */
}

static void raw(struct fuzz *f)
{
    uint16_t kind = (uint16_t)(1 + next(f) % 3);
    uint32_t tag = next(f) & 31, count = next(f) & 7, length = next(f);
    enum tw_lane lane = next(f) & 1 ? TW_LANE_BULK : TW_LANE_URGENT;
    if (length > f->left)
        length = (uint32_t)f->left;
    chunk(f, lane, kind, tag, count, f->data, length);
    f->data += length;
    f->left -= length;
}

static void operation(struct fuzz *f)
{
    const union tw_control begin = {.begin = {PAGES * TW_PAGE_SIZE, EPOCH, 1, 1 + (next(f) & 1u)}};
    switch (next(f) & 7) {
    case 0:
        control(f, TW_CONTROL_BEGIN, &begin);
        break;
    case 1:
        records(f, true);
        break;
    case 2:
        map_end(f);
        break;
    case 3:
    case 4:
        records(f, false);
        break;
    case 5:
        keep_end(f);
        break;
    default:
        raw(f);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tw_clock clock = {.now_ns = clock_now};
    const struct tw_migration_env env = {.clock = &clock};
    const struct tw_migration_params params = {.id = "m-1", .vm = "web", .epoch = EPOCH};
    const struct tw_hello hello = {.epoch = EPOCH};
    struct fuzz f = {.data = data, .left = size < 4096 ? size : 4096};
    if (tw_mirror_start(&env, &params, PAGES * TW_PAGE_SIZE, TW_SEC, &f.mirror, NULL) != TW_OK ||
        tw_mirror_accept(f.mirror, NULL, &hello, &f.end, NULL) != TW_OK)
        abort();
    while (f.left && !f.refused)
        operation(&f);
    tw_mirror_free(f.mirror);
    return 0;
}
