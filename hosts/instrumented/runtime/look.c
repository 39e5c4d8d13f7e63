/* Functions of libc that only look. Libc's own code has no instrumentation: what it is about to
 * load is waited for where memory moves, and what it looked at is recorded where loads are. That is
 * as much as the answer depends on, not what a vector reads beyond it. Nobody asks for loads
 * usually: then there is one test before the call. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <string.h>
#include <strings.h>

#undef memcmp
#undef strcmp
#undef strncmp

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static bool is_told(void)
{
    return TW_RT_UNLIKELY(tw_rt_loads() != TW_RT_LOADS_IGNORED);
}

static void looked(const void *bytes, size_t size)
{
    tw_rt_load((uintptr_t)bytes, size);
}

/* Of a string, its end included, at most `max`. Waits for it. */
static size_t text(const char *string, size_t max)
{
    const size_t length = tw_rt_length(string, max);
    return length < max ? length + 1 : max;
}

static void looked_text(const char *string, size_t max)
{
    looked(string, text(string, max));
}

/* Both, as far as they are equal and a byte more; where they are texts, not beyond their ends. */
static size_t common(const uint8_t *a, const uint8_t *b, size_t max, bool texts, bool fold)
{
    size_t at = 0;
    while (at < max) {
        const uint8_t x = a[at], y = b[at];
        const uint8_t bit = fold && (x ^ y) == 32 && (x | 32) >= 'a' && (x | 32) <= 'z' ? 32 : 0;
        at++;
        if ((x ^ y ^ bit) != 0 || (texts && x == 0))
            break;
    }
    return at;
}

static void looked_both(const void *a, const void *b, size_t max, bool texts, bool fold)
{
    const size_t size = common(a, b, max, texts, fold);
    looked(a, size);
    looked(b, size);
}

static void looked_texts(const char *a, const char *b, size_t max, bool fold)
{
    text(b, text(a, max));
    looked_both(a, b, max, true, fold);
}

/* As far as the byte that was found, else all of it. */
static void looked_until(const void *bytes, const void *found, size_t size)
{
    looked(bytes, found ? (size_t)((const uint8_t *)found - (const uint8_t *)bytes) + 1 : size);
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

TW_RT_EXPORT int memcmp(const void *a, const void *b, size_t size)
{
    if (is_told()) {
        tw_rt_await((uintptr_t)a, size);
        tw_rt_await((uintptr_t)b, size);
        looked_both(a, b, size, false, false);
    }
    return tw_real(memcmp)(a, b, size);
}

TW_RT_EXPORT int bcmp(const void *a, const void *b, size_t size)
{
    return memcmp(a, b, size);
}

TW_RT_EXPORT void *memchr(const void *bytes, int wanted, size_t size)
{
    const bool told = is_told();
    if (told)
        tw_rt_await((uintptr_t)bytes, size);
    void *found = tw_real(memchr)(bytes, wanted, size);
    if (told)
        looked_until(bytes, found, size);
    return found;
}

TW_RT_EXPORT void *memrchr(const void *bytes, int wanted, size_t size)
{
    const bool told = is_told();
    if (told)
        tw_rt_await((uintptr_t)bytes, size);
    void *found = tw_real(memrchr)(bytes, wanted, size);
    const uint8_t *from = found ? found : bytes;
    if (told)
        looked(from, size - (size_t)(from - (const uint8_t *)bytes));
    return found;
}

TW_RT_EXPORT void *memmem(const void *bytes, size_t size, const void *wanted, size_t wanted_size)
{
    const bool told = is_told();
    if (told) {
        tw_rt_await((uintptr_t)bytes, size);
        looked(wanted, wanted_size);
    }
    const uint8_t *found = tw_real(memmem)(bytes, size, wanted, wanted_size);
    if (told)
        looked(bytes, found ? (size_t)(found - (const uint8_t *)bytes) + wanted_size : size);
    return (void *)(uintptr_t)found;
}

/* ---- Texts ----------------------------------------------------------------------------------- */

TW_RT_EXPORT size_t strlen(const char *string)
{
    if (is_told())
        looked_text(string, SIZE_MAX);
    return tw_real(strlen)(string);
}

TW_RT_EXPORT size_t strnlen(const char *string, size_t max)
{
    if (is_told())
        looked_text(string, max);
    return tw_real(strnlen)(string, max);
}

TW_RT_EXPORT int strcmp(const char *a, const char *b)
{
    if (is_told())
        looked_texts(a, b, SIZE_MAX, false);
    return tw_real(strcmp)(a, b);
}

TW_RT_EXPORT int strncmp(const char *a, const char *b, size_t size)
{
    if (is_told())
        looked_texts(a, b, size, false);
    return tw_real(strncmp)(a, b, size);
}

TW_RT_EXPORT int strcasecmp(const char *a, const char *b)
{
    if (is_told())
        looked_texts(a, b, SIZE_MAX, true);
    return tw_real(strcasecmp)(a, b);
}

TW_RT_EXPORT int strncasecmp(const char *a, const char *b, size_t size)
{
    if (is_told())
        looked_texts(a, b, size, true);
    return tw_real(strncasecmp)(a, b, size);
}

TW_RT_EXPORT char *strchr(const char *string, int wanted)
{
    const size_t size = is_told() ? text(string, SIZE_MAX) : 0;
    char *found = tw_real(strchr)(string, wanted);
    if (size)
        looked_until(string, found, size);
    return found;
}

TW_RT_EXPORT char *strchrnul(const char *string, int wanted)
{
    const size_t size = is_told() ? text(string, SIZE_MAX) : 0;
    char *found = tw_real(strchrnul)(string, wanted);
    if (size)
        looked_until(string, found, size);
    return found;
}

TW_RT_EXPORT char *strrchr(const char *string, int wanted)
{
    if (is_told())
        looked_text(string, SIZE_MAX);
    return tw_real(strrchr)(string, wanted);
}

TW_RT_EXPORT char *strstr(const char *string, const char *wanted)
{
    const size_t size = is_told() ? text(string, SIZE_MAX) : 0;
    const size_t wanted_size = size ? text(wanted, SIZE_MAX) : 0;
    char *found = tw_real(strstr)(string, wanted);
    if (size) {
        looked(wanted, wanted_size);
        looked(string, found ? (size_t)(found - string) + wanted_size - 1 : size);
    }
    return found;
}

/* Each of a set: the text as far as it was looked at, and all of the set. */
static void looked_set(const char *string, size_t matched, const char *set)
{
    looked(string, matched + 1);
    looked_text(set, SIZE_MAX);
}

static bool awaited_set(const char *string, const char *set)
{
    const bool told = is_told();
    if (told) {
        text(string, SIZE_MAX);
        text(set, SIZE_MAX);
    }
    return told;
}

TW_RT_EXPORT size_t strspn(const char *string, const char *accepted)
{
    const bool told = awaited_set(string, accepted);
    const size_t matched = tw_real(strspn)(string, accepted);
    if (told)
        looked_set(string, matched, accepted);
    return matched;
}

TW_RT_EXPORT size_t strcspn(const char *string, const char *refused)
{
    const bool told = awaited_set(string, refused);
    const size_t matched = tw_real(strcspn)(string, refused);
    if (told)
        looked_set(string, matched, refused);
    return matched;
}

TW_RT_EXPORT char *strpbrk(const char *string, const char *wanted)
{
    const bool told = awaited_set(string, wanted);
    char *found = tw_real(strpbrk)(string, wanted);
    if (told)
        looked_set(string, found ? (size_t)(found - string) : tw_real(strlen)(string), wanted);
    return found;
}
