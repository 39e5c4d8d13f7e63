#include "hosts/process/compare.h"

#include "base/line.h"

#include <string.h>

/* How many of a word's bytes are not zero. */
static inline uint64_t nonzero_bytes(uint64_t word)
{
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    const uint64_t high = (((word & low) + low) | word) & ~low; /* of each byte that is not */
    return tw_popcount(high);
}

static inline uint64_t portable_bytes(const uint8_t *now, const uint8_t *copy)
{
    uint64_t a[8], b[8], bytes = 0;
    memcpy(a, now, sizeof a);
    memcpy(b, copy, sizeof b);
    for (unsigned i = 0; i < 8; i++)
        bytes += nonzero_bytes(a[i] ^ b[i]);
    return bytes;
}

/* `differs` is known for all lines before any is copied: the loop over the page has no branch. */
#define COPY_LINES(now, copy, lines, bytes, count)                                                 \
    for (uint64_t rest = lines; rest; rest &= rest - 1) {                                          \
        const unsigned at = (unsigned)__builtin_ctzll(rest) * TW_LINE_SIZE;                        \
        *(bytes) += count((now) + at, (copy) + at);                                                \
        memcpy((copy) + at, (now) + at, TW_LINE_SIZE);                                             \
    }

static bool always(void)
{
    return true;
}

static uint64_t portable_update(const uint8_t *now, uint8_t *copy, uint64_t *bytes)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        uint64_t a[8], b[8], any = 0;
        memcpy(a, now + line * TW_LINE_SIZE, sizeof a);
        memcpy(b, copy + line * TW_LINE_SIZE, sizeof b);
        for (unsigned i = 0; i < 8; i++)
            any |= a[i] ^ b[i];
        differs |= (uint64_t)(any != 0) << line;
    }
    COPY_LINES(now, copy, differs, bytes, portable_bytes)
    return differs;
}

static uint64_t portable_nonzero(const uint8_t *now)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        uint64_t a[8], any = 0;
        memcpy(a, now + line * TW_LINE_SIZE, sizeof a);
        for (unsigned i = 0; i < 8; i++)
            any |= a[i];
        differs |= (uint64_t)(any != 0) << line;
    }
    return differs;
}

#ifdef __x86_64__
#include <immintrin.h>

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && has_avx2();
}

__attribute__((target("avx2"))) static inline uint64_t avx2_bytes(const uint8_t *now,
                                                                  const uint8_t *copy)
{
    const __m256i *a = (const __m256i *)(const void *)now;
    const __m256i *b = (const __m256i *)(const void *)copy;
    uint64_t equal = 0;
    for (unsigned i = 0; i < 2; i++)
        equal += tw_popcount((uint32_t)_mm256_movemask_epi8(
            _mm256_cmpeq_epi8(_mm256_load_si256(a + i), _mm256_load_si256(b + i))));
    return TW_LINE_SIZE - equal;
}

__attribute__((target("avx2"))) static uint64_t avx2_update(const uint8_t *now, uint8_t *copy,
                                                            uint64_t *bytes)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const __m256i *a = (const __m256i *)(const void *)(now + line * TW_LINE_SIZE);
        const __m256i *b = (const __m256i *)(const void *)(copy + line * TW_LINE_SIZE);
        const __m256i any =
            _mm256_or_si256(_mm256_xor_si256(_mm256_load_si256(a), _mm256_load_si256(b)),
                            _mm256_xor_si256(_mm256_load_si256(a + 1), _mm256_load_si256(b + 1)));
        differs |= (uint64_t)!_mm256_testz_si256(any, any) << line;
    }
    COPY_LINES(now, copy, differs, bytes, avx2_bytes)
    return differs;
}

__attribute__((target("avx2"))) static uint64_t avx2_nonzero(const uint8_t *now)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const __m256i *a = (const __m256i *)(const void *)(now + line * TW_LINE_SIZE);
        const __m256i any = _mm256_or_si256(_mm256_load_si256(a), _mm256_load_si256(a + 1));
        differs |= (uint64_t)!_mm256_testz_si256(any, any) << line;
    }
    return differs;
}

__attribute__((target("avx512f,avx2"))) static uint64_t avx512_update(const uint8_t *now,
                                                                      uint8_t *copy,
                                                                      uint64_t *bytes)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const __m512i a = _mm512_load_si512(now + line * TW_LINE_SIZE);
        const __m512i b = _mm512_load_si512(copy + line * TW_LINE_SIZE);
        differs |= (uint64_t)(_mm512_cmpneq_epi64_mask(a, b) != 0) << line;
    }
    COPY_LINES(now, copy, differs, bytes, avx2_bytes)
    return differs;
}

__attribute__((target("avx512f,avx2"))) static uint64_t avx512_nonzero(const uint8_t *now)
{
    uint64_t differs = 0;
    for (unsigned line = 0; line < TW_LINES_PER_PAGE; line++) {
        const __m512i a = _mm512_load_si512(now + line * TW_LINE_SIZE);
        differs |= (uint64_t)(_mm512_test_epi64_mask(a, a) != 0) << line;
    }
    return differs;
}
#else
static bool never(void)
{
    return false;
}
#define has_avx2       never
#define has_avx512     never
#define avx2_update    portable_update
#define avx2_nonzero   portable_nonzero
#define avx512_update  portable_update
#define avx512_nonzero portable_nonzero
#endif

const struct tw_compare tw_compare_ways[TW_COMPARE_WAYS] = {
    {"portable", portable_update, portable_nonzero, always},
    {"avx2", avx2_update, avx2_nonzero, has_avx2},
    {"avx512", avx512_update, avx512_nonzero, has_avx512},
};

const struct tw_compare *tw_compare_best(void)
{
    unsigned best = TW_COMPARE_WAYS - 1;
    while (!tw_compare_ways[best].supported())
        best--;
    return &tw_compare_ways[best];
}
