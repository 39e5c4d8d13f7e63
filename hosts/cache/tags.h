/* A set-associative array of tags and states: one level of the hierarchy.
 *
 * An entry is one word: the line's key in the upper 30 bits, its state in the lower 2. Key 0 is
 * never a line, so a zeroed array is empty. The ways of a set are compared all at once. The
 * replacement is bit-PLRU: a way is marked when used, and when all are marked, only the last one
 * stays so; the first unmarked way is the victim. */
#ifndef TOWLINE_HOSTS_CACHE_TAGS_H
#define TOWLINE_HOSTS_CACHE_TAGS_H

#include "hosts/cache/cache.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* States. The private levels hold SHARED and WRITABLE only; the last level also DIRTY: modified
 * against memory, while every copy above it is SHARED. There is no clean-exclusive state: a store
 * to such a line would be silent, and the device would never hear of it (R1). */
enum tw_tag_state {
    TW_TAG_INVALID = 0,
    TW_TAG_SHARED = 1,
    TW_TAG_DIRTY = 2,
    TW_TAG_WRITABLE = 3,
};
#define TW_TAG_STATE_MASK UINT32_C(3)

/* For what must know its constants: strides, above all. */
#define TW_INLINE static inline __attribute__((always_inline))

struct tw_tags {
    uint32_t *entries; /* rows of `stride` entries, one row a set */
    uint32_t *recent;  /* a word a set: ways used lately */
    uint32_t set_mask;
    unsigned set_shift; /* log2 of the number of sets */
    unsigned stride;    /* ways rounded up to 4, 8, 16 or 32 */
    unsigned row_shift; /* log2 of the stride */
    uint32_t all_ways;  /* a bit for each way that exists */
};

/* Where a line is, or would be. */
struct tw_tag_place {
    uint32_t set;
    uint32_t key;
    int way; /* -1: not here */
};

/* tw_tags_match for 4 and 32 ways. */
uint32_t tw_tags_match_unusual(const uint32_t *row, unsigned stride, uint32_t key);

/* False when there is no memory; the array can then still be closed. */
bool tw_tags_open(struct tw_tags *tags, const struct tw_cache_level_config *config);
void tw_tags_close(struct tw_tags *tags);

/* Lines from this one on have no key. */
static inline uint64_t tw_tags_line_limit(const struct tw_tags *tags)
{
    return ((UINT64_C(1) << 30) - 1) << tags->set_shift;
}

static inline uint32_t *tw_tags_row(const struct tw_tags *tags, uint32_t set)
{
    return tags->entries + ((size_t)set << tags->row_shift);
}

/* The ways of a row, `stride` of them, that hold the key: a bit each. */
#ifdef __SSE2__
TW_INLINE __m128i tw_tags_equal4(const uint32_t *four, __m128i wanted)
{
    const __m128i key_mask = _mm_set1_epi32((int)~TW_TAG_STATE_MASK);
    return _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128((const __m128i *)four), key_mask), wanted);
}

/* `stride` is 4, 8 or 16. */
TW_INLINE uint32_t tw_tags_compare(const uint32_t *row, unsigned stride, uint32_t key)
{
    const __m128i wanted = _mm_set1_epi32((int)key);
    const __m128i none = _mm_setzero_si128();
    __m128i low = _mm_packs_epi32(tw_tags_equal4(row, wanted),
                                  stride > 4 ? tw_tags_equal4(row + 4, wanted) : none);
    __m128i high = none;
    if (stride > 8)
        high = _mm_packs_epi32(tw_tags_equal4(row + 8, wanted), tw_tags_equal4(row + 12, wanted));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
}
#else
TW_INLINE uint32_t tw_tags_compare(const uint32_t *row, unsigned stride, uint32_t key)
{
    uint32_t found = 0;
    for (unsigned i = 0; i < stride; i++)
        found |= (uint32_t)((row[i] & ~TW_TAG_STATE_MASK) == key) << i;
    return found;
}
#endif

/* The strides that are usual, in place; the others would only be in the way. */
TW_INLINE uint32_t tw_tags_match(const uint32_t *row, unsigned stride, uint32_t key)
{
    if (stride == 8)
        return tw_tags_compare(row, 8, key);
    if (stride == 16)
        return tw_tags_compare(row, 16, key);
    return tw_tags_match_unusual(row, stride, key);
}

/* Finds a line; `stride` is the array's own, known to the compiler where it can be. */
TW_INLINE struct tw_tag_place tw_tags_find_stride(const struct tw_tags *tags, uint64_t line,
                                                  unsigned stride)
{
    struct tw_tag_place place;
    place.set = (uint32_t)line & tags->set_mask;
    place.key = ((uint32_t)(line >> tags->set_shift) + 1) << 2;
    const uint32_t *row = __builtin_constant_p(stride) ? tags->entries + (size_t)place.set * stride
                                                       : tw_tags_row(tags, place.set);
    uint32_t found = tw_tags_match(row, stride, place.key);
    place.way = found ? __builtin_ctz(found) : -1;
    return place;
}

static inline struct tw_tag_place tw_tags_find(const struct tw_tags *tags, uint64_t line)
{
    return tw_tags_find_stride(tags, line, tags->stride);
}

/* Fetches the words that a find of this line will look at. */
static inline void tw_tags_prefetch(const struct tw_tags *tags, uint64_t line)
{
    const uint32_t set = (uint32_t)line & tags->set_mask;
    __builtin_prefetch(tw_tags_row(tags, set));
    __builtin_prefetch(&tags->recent[set]);
}

static inline void tw_tags_touch(struct tw_tags *tags, struct tw_tag_place place)
{
    uint32_t bit = UINT32_C(1) << place.way;
    uint32_t marked = tags->recent[place.set] | bit;
    tags->recent[place.set] = marked == tags->all_ways ? bit : marked;
}

static inline enum tw_tag_state tw_tags_state(const struct tw_tags *tags, struct tw_tag_place place)
{
    return (enum tw_tag_state)(tw_tags_row(tags, place.set)[place.way] & TW_TAG_STATE_MASK);
}

static inline void tw_tags_set_state(struct tw_tags *tags, struct tw_tag_place place,
                                     enum tw_tag_state state)
{
    tw_tags_row(tags, place.set)[place.way] = place.key | (uint32_t)state;
}

/* The way becomes free and is taken before those in use. */
static inline void tw_tags_remove(struct tw_tags *tags, struct tw_tag_place place)
{
    tw_tags_row(tags, place.set)[place.way] = 0;
    tags->recent[place.set] &= ~(UINT32_C(1) << place.way);
}

/* Chooses a way for a line that is not here, and says who is in it (0: nobody). */
static inline uint32_t tw_tags_victim(const struct tw_tags *tags, struct tw_tag_place *place)
{
    uint32_t unmarked = ~tags->recent[place->set] & tags->all_ways;
    place->way = unmarked ? __builtin_ctz(unmarked) : 0;
    return tw_tags_row(tags, place->set)[place->way];
}

/* The line of an entry of a set. */
static inline uint64_t tw_tags_line(const struct tw_tags *tags, uint32_t set, uint32_t entry)
{
    return ((uint64_t)((entry >> 2) - 1) << tags->set_shift) | set;
}

static inline void tw_tags_put(struct tw_tags *tags, struct tw_tag_place place,
                               enum tw_tag_state state)
{
    tw_tags_set_state(tags, place, state);
    tw_tags_touch(tags, place);
}

#endif
