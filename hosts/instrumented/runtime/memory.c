/* memcpy and its kin, which the compilers call for copies that they do not instrument. They work
 * before anything is set up: relocation itself may need them. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <string.h>
#include <strings.h>

#undef memcpy
#undef memmove
#undef memset
#undef mempcpy

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

static void *copy_forward(void *to, const void *from, size_t size)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

static void *copy_either(void *to, const void *from, size_t size)
{
    if ((uintptr_t)to - (uintptr_t)from >= size)
        return copy_forward(to, from, size);
    uint8_t *d = to;
    const uint8_t *s = from;
    while (size--)
        ((volatile uint8_t *)d)[size] = s[size];
    return to;
}

static void *fill(void *to, int value, size_t size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

/* libc's own once they are known. */
static void *(*real_memcpy)(void *, const void *, size_t) = copy_forward;
static void *(*real_memmove)(void *, const void *, size_t) = copy_either;
static void *(*real_memset)(void *, int, size_t) = fill;

void tw_rt_memory_init(void)
{
    void *found;
    if ((found = dlsym(RTLD_NEXT, "memcpy")))
        real_memcpy = (void *(*)(void *, const void *, size_t))found;
    if ((found = dlsym(RTLD_NEXT, "memmove")))
        real_memmove = (void *(*)(void *, const void *, size_t))found;
    if ((found = dlsym(RTLD_NEXT, "memset")))
        real_memset = (void *(*)(void *, int, size_t))found;
}

#define WRITE_AROUND(to, size, operation)                                                          \
    do {                                                                                           \
        tw_rt_store_begin((uintptr_t)(to), size);                                                  \
        operation;                                                                                 \
        tw_rt_store_end((uintptr_t)(to), size, TW_RT_PC);                                          \
    } while (0)

TW_RT_EXPORT void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memcpy(to, from, size));
    return to;
}

TW_RT_EXPORT void *memmove(void *to, const void *from, size_t size)
{
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memmove(to, from, size));
    return to;
}

TW_RT_EXPORT void *memset(void *to, int value, size_t size)
{
    WRITE_AROUND(to, size, real_memset(to, value, size));
    return to;
}

TW_RT_EXPORT void *mempcpy(void *restrict to, const void *restrict from, size_t size)
{
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memcpy(to, from, size));
    return (uint8_t *)to + size;
}

TW_RT_EXPORT void *memccpy(void *restrict to, const void *restrict from, int stop, size_t size)
{
    const uint8_t *found = memchr(from, stop, size);
    const size_t count = found ? (size_t)(found - (const uint8_t *)from) + 1 : size;
    tw_rt_load((uintptr_t)from, count);
    WRITE_AROUND(to, count, real_memcpy(to, from, count));
    return found ? (uint8_t *)to + count : NULL;
}

TW_RT_EXPORT void bcopy(const void *from, void *to, size_t size)
{
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memmove(to, from, size));
}

TW_RT_EXPORT void bzero(void *to, size_t size)
{
    WRITE_AROUND(to, size, real_memset(to, 0, size));
}

TW_RT_EXPORT void explicit_bzero(void *to, size_t size)
{
    WRITE_AROUND(to, size, real_memset(to, 0, size));
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* What _FORTIFY_SOURCE makes of them: the check is libc's own. */
void __chk_fail(void) __attribute__((noreturn));

TW_RT_EXPORT void *__memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memcpy(to, from, size));
    return to;
}

TW_RT_EXPORT void *__memmove_chk(void *to, const void *from, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    tw_rt_load((uintptr_t)from, size);
    WRITE_AROUND(to, size, real_memmove(to, from, size));
    return to;
}

TW_RT_EXPORT void *__memset_chk(void *to, int value, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    WRITE_AROUND(to, size, real_memset(to, value, size));
    return to;
}

TW_RT_EXPORT void *__mempcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    return (uint8_t *)__memcpy_chk(to, from, size, room) + size;
}

/* The names that later compilers use. */
TW_RT_EXPORT void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    return memcpy(to, from, size);
}

TW_RT_EXPORT void *__tsan_memmove(void *to, const void *from, size_t size)
{
    return memmove(to, from, size);
}

TW_RT_EXPORT void *__tsan_memset(void *to, int value, size_t size)
{
    return memset(to, value, size);
}
