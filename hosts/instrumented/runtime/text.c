/* Functions of libc that write strings. What they wrote is known when they return. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static void copy(char *to, const char *from, size_t size, uintptr_t pc)
{
    tw_rt_load((uintptr_t)from, size);
    tw_rt_store_begin((uintptr_t)to, size);
    tw_real(memcpy)(to, from, size);
    tw_rt_store_end((uintptr_t)to, size, pc);
}

/* As strncpy: the rest of `size` is zeros. */
static void copy_padded(char *to, const char *from, size_t size, uintptr_t pc)
{
    const size_t length = tw_rt_length(from, size);
    tw_rt_load((uintptr_t)from, length);
    tw_rt_store_begin((uintptr_t)to, size);
    tw_real(memcpy)(to, from, length);
    tw_real(memset)(to + length, 0, size - length);
    tw_rt_store_end((uintptr_t)to, size, pc);
}

TW_RT_EXPORT char *strcpy(char *restrict to, const char *restrict from)
{
    copy(to, from, tw_rt_length(from, SIZE_MAX) + 1, TW_RT_PC);
    return to;
}

TW_RT_EXPORT char *stpcpy(char *restrict to, const char *restrict from)
{
    const size_t length = tw_rt_length(from, SIZE_MAX);
    copy(to, from, length + 1, TW_RT_PC);
    return to + length;
}

TW_RT_EXPORT char *strncpy(char *restrict to, const char *restrict from, size_t size)
{
    copy_padded(to, from, size, TW_RT_PC);
    return to;
}

TW_RT_EXPORT char *stpncpy(char *restrict to, const char *restrict from, size_t size)
{
    copy_padded(to, from, size, TW_RT_PC);
    return to + tw_rt_length(from, size);
}

TW_RT_EXPORT char *strcat(char *restrict to, const char *restrict from)
{
    copy(to + tw_rt_length(to, SIZE_MAX), from, tw_rt_length(from, SIZE_MAX) + 1, TW_RT_PC);
    return to;
}

static void append(char *to, const char *from, size_t size, uintptr_t pc)
{
    const size_t length = tw_rt_length(from, size);
    char *end = to + tw_rt_length(to, SIZE_MAX);
    copy(end, from, length, pc);
    tw_rt_store_begin((uintptr_t)(end + length), 1);
    end[length] = 0;
    tw_rt_store_end((uintptr_t)(end + length), 1, pc);
}

TW_RT_EXPORT char *strncat(char *restrict to, const char *restrict from, size_t size)
{
    append(to, from, size, TW_RT_PC);
    return to;
}

static char *duplicate(const char *from, size_t length, uintptr_t pc)
{
    char *to = malloc(length + 1);
    if (to == NULL)
        return NULL;
    tw_rt_load((uintptr_t)from, length);
    tw_rt_store_begin((uintptr_t)to, length + 1);
    tw_real(memcpy)(to, from, length);
    to[length] = 0;
    tw_rt_store_end((uintptr_t)to, length + 1, pc);
    return to;
}

TW_RT_EXPORT char *strdup(const char *from)
{
    return duplicate(from, tw_rt_length(from, SIZE_MAX), TW_RT_PC);
}

TW_RT_EXPORT char *strndup(const char *from, size_t size)
{
    return duplicate(from, tw_rt_length(from, size), TW_RT_PC);
}

/* ---- With _FORTIFY_SOURCE -------------------------------------------------------------------- */

void __chk_fail(void) __attribute__((noreturn));

static void check(size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
}

TW_RT_EXPORT char *__strcpy_chk(char *to, const char *from, size_t room)
{
    check(tw_rt_length(from, SIZE_MAX) + 1, room);
    copy(to, from, tw_rt_length(from, SIZE_MAX) + 1, TW_RT_PC);
    return to;
}

TW_RT_EXPORT char *__stpcpy_chk(char *to, const char *from, size_t room)
{
    const size_t length = tw_rt_length(from, SIZE_MAX);
    check(length + 1, room);
    copy(to, from, length + 1, TW_RT_PC);
    return to + length;
}

TW_RT_EXPORT char *__strncpy_chk(char *to, const char *from, size_t size, size_t room)
{
    check(size, room);
    copy_padded(to, from, size, TW_RT_PC);
    return to;
}

TW_RT_EXPORT char *__strcat_chk(char *to, const char *from, size_t room)
{
    const size_t length = tw_rt_length(to, SIZE_MAX);
    check(length + tw_rt_length(from, SIZE_MAX) + 1, room);
    copy(to + length, from, tw_rt_length(from, SIZE_MAX) + 1, TW_RT_PC);
    return to;
}

TW_RT_EXPORT char *__strncat_chk(char *to, const char *from, size_t size, size_t room)
{
    check(tw_rt_length(to, SIZE_MAX) + tw_rt_length(from, size) + 1, room);
    append(to, from, size, TW_RT_PC);
    return to;
}

/* ---- Formatted ------------------------------------------------------------------------------- */

static size_t written(int result, size_t room)
{
    const size_t length = result < 0 ? 0 : (size_t)result + 1;
    return length < room ? length : room;
}

/* Into a region: beside it first, so that what is not there is waited for. */
static int format_aside(char *to, size_t room, const char *format, va_list arguments, uintptr_t pc)
{
    va_list again;
    va_copy(again, arguments);
    const int length = tw_real(vsnprintf)(NULL, 0, format, again);
    va_end(again);
    const size_t size = written(length, room);
    char *aside = size ? tw_rt_aside(to, size) : NULL;
    if (aside == NULL)
        return size ? -1 : length;
    const int result = tw_real(vsnprintf)(aside, size, format, arguments);
    tw_rt_aside_end(aside, to, size, pc);
    return result;
}

TW_RT_EXPORT int vsnprintf(char *restrict to, size_t room, const char *restrict format,
                           va_list arguments)
{
    if (tw_rt_moves((uintptr_t)to, 1))
        return format_aside(to, room, format, arguments, TW_RT_PC);
    const int result = tw_real(vsnprintf)(to, room, format, arguments);
    tw_rt_stored((uintptr_t)to, written(result, room), TW_RT_PC);
    return result;
}

TW_RT_EXPORT int vsprintf(char *restrict to, const char *restrict format, va_list arguments)
{
    if (tw_rt_moves((uintptr_t)to, 1))
        return format_aside(to, SIZE_MAX, format, arguments, TW_RT_PC);
    const int result = tw_real(vsprintf)(to, format, arguments);
    tw_rt_stored((uintptr_t)to, written(result, SIZE_MAX), TW_RT_PC);
    return result;
}

TW_RT_EXPORT int snprintf(char *restrict to, size_t room, const char *restrict format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = tw_rt_moves((uintptr_t)to, 1)
                           ? format_aside(to, room, format, arguments, TW_RT_PC)
                           : tw_real(vsnprintf)(to, room, format, arguments);
    va_end(arguments);
    tw_rt_stored((uintptr_t)to, written(result, room), TW_RT_PC);
    return result;
}

TW_RT_EXPORT int sprintf(char *restrict to, const char *restrict format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = tw_rt_moves((uintptr_t)to, 1)
                           ? format_aside(to, SIZE_MAX, format, arguments, TW_RT_PC)
                           : tw_real(vsprintf)(to, format, arguments);
    va_end(arguments);
    tw_rt_stored((uintptr_t)to, written(result, SIZE_MAX), TW_RT_PC);
    return result;
}

int __vsnprintf_chk(char *to, size_t room, int flag, size_t object, const char *format,
                    va_list arguments);

TW_RT_EXPORT int __vsnprintf_chk(char *to, size_t room, int flag, size_t object, const char *format,
                                 va_list arguments)
{
    const int result = tw_rt_moves((uintptr_t)to, 1)
                           ? format_aside(to, room, format, arguments, TW_RT_PC)
                           : tw_real(__vsnprintf_chk)(to, room, flag, object, format, arguments);
    tw_rt_stored((uintptr_t)to, written(result, room), TW_RT_PC);
    return result;
}

TW_RT_EXPORT int __snprintf_chk(char *to, size_t room, int flag, size_t object, const char *format,
                                ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = tw_rt_moves((uintptr_t)to, 1)
                           ? format_aside(to, room, format, arguments, TW_RT_PC)
                           : tw_real(__vsnprintf_chk)(to, room, flag, object, format, arguments);
    va_end(arguments);
    tw_rt_stored((uintptr_t)to, written(result, room), TW_RT_PC);
    return result;
}

TW_RT_EXPORT int __sprintf_chk(char *to, int flag, size_t object, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int result = tw_rt_moves((uintptr_t)to, 1)
                           ? format_aside(to, object, format, arguments, TW_RT_PC)
                           : tw_real(__vsnprintf_chk)(to, object, flag, object, format, arguments);
    va_end(arguments);
    if (result >= 0)
        check((size_t)result + 1, object);
    tw_rt_stored((uintptr_t)to, written(result, object), TW_RT_PC);
    return result;
}
