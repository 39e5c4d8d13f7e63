/* Atomic operations: with -fsanitize=thread the compilers call these INSTEAD of the operation.
 *
 * Always sequentially consistent, which is at least what was asked for and costs nothing more on
 * x86 except for plain stores. A compare-exchange that fails is a load. */
#include "hosts/instrumented/runtime/access.h"

#include <stdbool.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wpedantic" /* __int128 */

typedef uint8_t value8;
typedef uint16_t value16;
typedef uint32_t value32;
typedef uint64_t value64;
typedef unsigned __int128 value128;

#define BEGIN(p) tw_rt_store_begin((uintptr_t)(p), sizeof *(p))
#define END(p)   tw_rt_store_end((uintptr_t)(p), sizeof *(p), TW_RT_PC)

#define FETCH(bits, name, builtin)                                                                 \
    TW_RT_EXPORT value##bits __tsan_atomic##bits##_##name(volatile value##bits *p, value##bits v,  \
                                                          int order)                               \
    {                                                                                              \
        (void)order;                                                                               \
        BEGIN(p);                                                                                  \
        const value##bits old = builtin(p, v);                                                     \
        END(p);                                                                                    \
        return old;                                                                                \
    }

#define FETCHES(bits)                                                                              \
    FETCH(bits, fetch_add, __sync_fetch_and_add)                                                   \
    FETCH(bits, fetch_sub, __sync_fetch_and_sub)                                                   \
    FETCH(bits, fetch_and, __sync_fetch_and_and)                                                   \
    FETCH(bits, fetch_or, __sync_fetch_and_or)                                                     \
    FETCH(bits, fetch_xor, __sync_fetch_and_xor)                                                   \
    FETCH(bits, fetch_nand, __sync_fetch_and_nand)

#define COMPARE_EXCHANGE(bits)                                                                     \
    static value##bits swap##bits(volatile value##bits *p, value##bits expected, value##bits v,    \
                                  uintptr_t pc)                                                    \
    {                                                                                              \
        tw_rt_store_begin((uintptr_t)p, sizeof *p);                                                \
        const value##bits old = __sync_val_compare_and_swap(p, expected, v);                       \
        if (old == expected)                                                                       \
            tw_rt_store_end((uintptr_t)p, sizeof *p, pc);                                          \
        else                                                                                       \
            tw_rt_read((uintptr_t)p, sizeof *p);                                                   \
        return old;                                                                                \
    }                                                                                              \
    TW_RT_EXPORT int __tsan_atomic##bits##_compare_exchange_strong(                                \
        volatile value##bits *p, value##bits *expected, value##bits v, int order, int failed)      \
    {                                                                                              \
        (void)order;                                                                               \
        (void)failed;                                                                              \
        const value##bits old = swap##bits(p, *expected, v, TW_RT_PC);                             \
        if (old == *expected)                                                                      \
            return 1;                                                                              \
        BEGIN(expected);                                                                           \
        *expected = old;                                                                           \
        END(expected);                                                                             \
        return 0;                                                                                  \
    }                                                                                              \
    TW_RT_EXPORT int __tsan_atomic##bits##_compare_exchange_weak(                                  \
        volatile value##bits *p, value##bits *expected, value##bits v, int order, int failed)      \
        __attribute__((alias("__tsan_atomic" #bits "_compare_exchange_strong")));                  \
    TW_RT_EXPORT value##bits __tsan_atomic##bits##_compare_exchange_val(                           \
        volatile value##bits *p, value##bits expected, value##bits v, int order, int failed)       \
    {                                                                                              \
        (void)order;                                                                               \
        (void)failed;                                                                              \
        return swap##bits(p, expected, v, TW_RT_PC);                                               \
    }

#define LOAD_STORE(bits)                                                                           \
    TW_RT_EXPORT value##bits __tsan_atomic##bits##_load(const volatile value##bits *p, int order)  \
    {                                                                                              \
        (void)order;                                                                               \
        tw_rt_read((uintptr_t)p, sizeof *p);                                                       \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                               \
    }                                                                                              \
    TW_RT_EXPORT void __tsan_atomic##bits##_store(volatile value##bits *p, value##bits v,          \
                                                  int order)                                       \
    {                                                                                              \
        BEGIN(p);                                                                                  \
        if (order == __ATOMIC_SEQ_CST)                                                             \
            __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                              \
        else                                                                                       \
            __atomic_store_n(p, v, __ATOMIC_RELEASE);                                              \
        END(p);                                                                                    \
    }                                                                                              \
    TW_RT_EXPORT value##bits __tsan_atomic##bits##_exchange(volatile value##bits *p,               \
                                                            value##bits v, int order)              \
    {                                                                                              \
        (void)order;                                                                               \
        BEGIN(p);                                                                                  \
        const value##bits old = __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                       \
        END(p);                                                                                    \
        return old;                                                                                \
    }

#define ALL(bits)                                                                                  \
    FETCHES(bits)                                                                                  \
    COMPARE_EXCHANGE(bits)                                                                         \
    LOAD_STORE(bits)

ALL(8)
ALL(16)
ALL(32)
ALL(64)

/* 16 bytes: one instruction can, and for loads it is the only one. */
FETCHES(128)
COMPARE_EXCHANGE(128)

TW_RT_EXPORT value128 __tsan_atomic128_load(const volatile value128 *p, int order)
{
    (void)order;
    tw_rt_read((uintptr_t)p, sizeof *p);
    return __sync_val_compare_and_swap((volatile value128 *)(uintptr_t)p, 0, 0);
}

static value128 exchange128(volatile value128 *p, value128 v, uintptr_t pc)
{
    value128 seen = 0;
    tw_rt_store_begin((uintptr_t)p, sizeof *p);
    for (value128 old; (old = __sync_val_compare_and_swap(p, seen, v)) != seen;)
        seen = old;
    tw_rt_store_end((uintptr_t)p, sizeof *p, pc);
    return seen;
}

TW_RT_EXPORT value128 __tsan_atomic128_exchange(volatile value128 *p, value128 v, int order)
{
    (void)order;
    return exchange128(p, v, TW_RT_PC);
}

TW_RT_EXPORT void __tsan_atomic128_store(volatile value128 *p, value128 v, int order)
{
    (void)order;
    exchange128(p, v, TW_RT_PC);
}

TW_RT_EXPORT void __tsan_atomic_thread_fence(int order)
{
    (void)order;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

TW_RT_EXPORT void __tsan_atomic_signal_fence(int order)
{
    (void)order;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
