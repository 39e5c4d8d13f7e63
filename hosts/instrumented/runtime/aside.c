/* Code without instrumentation at regions: libc's functions that only look, and memory beside a
 * region for what the kernel and libc write. They do not wait for lines, and a store of theirs is
 * announced by nobody: it might come when the memory has been handed over. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <string.h>
#include <strings.h>

#undef memcmp
#undef strcmp
#undef strncmp

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

void *tw_rt_aside(void *buffer, size_t size)
{
    return tw_rt_moves((uintptr_t)buffer, size) ? malloc(size) : buffer;
}

void tw_rt_aside_end(void *aside, void *buffer, size_t written, uintptr_t pc)
{
    if (aside == buffer) {
        tw_rt_stored((uintptr_t)buffer, written, pc);
        return;
    }
    tw_rt_store_begin((uintptr_t)buffer, written);
    tw_real(memcpy)(buffer, aside, written);
    tw_rt_store_end((uintptr_t)buffer, written, pc);
    free(aside);
}

size_t tw_rt_length(const char *string, size_t max)
{
    size_t length = 0;
    if (tw_rt_mode() != TW_INST_MOVING)
        return tw_real(strnlen)(string, max);
    while (length < max) {
        const uintptr_t at = (uintptr_t)string + length;
        const size_t rest = TW_LINE_SIZE - at % TW_LINE_SIZE;
        const size_t here = rest < max - length ? rest : max - length;
        tw_rt_await(at, here);
        const size_t found = tw_real(strnlen)(string + length, here);
        length += found;
        if (found < here)
            break;
    }
    return length;
}

static bool may_wait(void)
{
    return TW_RT_UNLIKELY(tw_rt_mode() == TW_INST_MOVING);
}

TW_RT_EXPORT int memcmp(const void *a, const void *b, size_t size)
{
    if (may_wait()) {
        tw_rt_await((uintptr_t)a, size);
        tw_rt_await((uintptr_t)b, size);
    }
    return tw_real(memcmp)(a, b, size);
}

TW_RT_EXPORT int bcmp(const void *a, const void *b, size_t size)
{
    return memcmp(a, b, size);
}

TW_RT_EXPORT void *memchr(const void *bytes, int wanted, size_t size)
{
    if (may_wait())
        tw_rt_await((uintptr_t)bytes, size);
    return tw_real(memchr)(bytes, wanted, size);
}

TW_RT_EXPORT size_t strlen(const char *string)
{
    return may_wait() ? tw_rt_length(string, SIZE_MAX) : tw_real(strlen)(string);
}

TW_RT_EXPORT size_t strnlen(const char *string, size_t max)
{
    return tw_rt_length(string, max);
}

TW_RT_EXPORT int strcmp(const char *a, const char *b)
{
    if (may_wait())
        tw_rt_length(b, tw_rt_length(a, SIZE_MAX) + 1);
    return tw_real(strcmp)(a, b);
}

TW_RT_EXPORT int strncmp(const char *a, const char *b, size_t size)
{
    if (may_wait())
        tw_rt_length(b, tw_rt_length(a, size) + 1);
    return tw_real(strncmp)(a, b, size);
}

TW_RT_EXPORT char *strchr(const char *string, int wanted)
{
    if (may_wait())
        tw_rt_length(string, SIZE_MAX);
    return tw_real(strchr)(string, wanted);
}
