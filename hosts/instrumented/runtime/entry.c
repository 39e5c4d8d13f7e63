/* What gcc 12 and clang 14 call before loads and stores (-fsanitize=thread). */
#include "hosts/instrumented/runtime/access.h"

/* The compilers know these names; there is no header to declare them. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define LOAD(name, size)                                                                           \
    TW_RT_EXPORT void __tsan_##name(void *address)                                                 \
    {                                                                                              \
        tw_rt_read((uintptr_t)address, size);                                                      \
    }
#define STORE(name, size)                                                                          \
    TW_RT_EXPORT void __tsan_##name(void *address)                                                 \
    {                                                                                              \
        tw_rt_store((uintptr_t)address, size, TW_RT_PC);                                           \
    }
#define LOAD_PC(name, size)                                                                        \
    TW_RT_EXPORT void __tsan_##name(void *address, void *pc)                                       \
    {                                                                                              \
        (void)pc;                                                                                  \
        tw_rt_read((uintptr_t)address, size);                                                      \
    }
#define STORE_PC(name, size)                                                                       \
    TW_RT_EXPORT void __tsan_##name(void *address, void *pc)                                       \
    {                                                                                              \
        tw_rt_store((uintptr_t)address, size, (uintptr_t)pc);                                      \
    }

/* A compound access loads and then stores to the same place: the store asks for more. */
#define ALL_FORMS(size)                                                                            \
    LOAD(read##size, size)                                                                         \
    STORE(write##size, size)                                                                       \
    STORE(read_write##size, size)                                                                  \
    LOAD(volatile_read##size, size)                                                                \
    STORE(volatile_write##size, size)                                                              \
    LOAD_PC(read##size##_pc, size)                                                                 \
    STORE_PC(write##size##_pc, size)                                                               \
    LOAD(unaligned_read##size, size)                                                               \
    STORE(unaligned_write##size, size)                                                             \
    STORE(unaligned_read_write##size, size)                                                        \
    LOAD(unaligned_volatile_read##size, size)                                                      \
    STORE(unaligned_volatile_write##size, size)

ALL_FORMS(1)
ALL_FORMS(2)
ALL_FORMS(4)
ALL_FORMS(8)
ALL_FORMS(16)

LOAD(vptr_read, 8)

TW_RT_EXPORT void __tsan_vptr_update(void **address, void *value)
{
    (void)value;
    tw_rt_store((uintptr_t)address, sizeof *address, TW_RT_PC);
}

TW_RT_EXPORT void __tsan_read_range(void *address, size_t size)
{
    tw_rt_load((uintptr_t)address, size);
}

TW_RT_EXPORT void __tsan_write_range(void *address, size_t size)
{
    tw_rt_store_coming((uintptr_t)address, size, TW_RT_PC);
}

TW_RT_EXPORT void __tsan_read_range_pc(void *address, size_t size, void *pc)
{
    (void)pc;
    tw_rt_load((uintptr_t)address, size);
}

TW_RT_EXPORT void __tsan_write_range_pc(void *address, size_t size, void *pc)
{
    tw_rt_store_coming((uintptr_t)address, size, (uintptr_t)pc);
}

/* Leaving a function ends whatever it announced: a thread that then waits holds nothing up. */
static void nothing_in_flight(void)
{
    if (TW_RT_LIKELY(tw_rt_mode() == TW_INST_DETACHED))
        return;
    if (tw_rt_self.record && tw_rt_self.generation == tw_rt.generation)
        tw_rt_announce(tw_rt_self.record, 0);
}

TW_RT_EXPORT void __tsan_func_entry(void *caller)
{
    (void)caller;
    nothing_in_flight();
}

TW_RT_EXPORT void __tsan_func_exit(void)
{
    nothing_in_flight();
}

TW_RT_EXPORT void __tsan_init(void)
{
    tw_rt_init();
}

/* Annotations of the sanitizer's own interface, which programs may call: nothing to do. */
TW_RT_EXPORT void __tsan_ignore_thread_begin(void)
{
}

TW_RT_EXPORT void __tsan_ignore_thread_end(void)
{
}

TW_RT_EXPORT void __tsan_acquire(void *address)
{
    (void)address;
}

TW_RT_EXPORT void __tsan_release(void *address)
{
    (void)address;
}

TW_RT_EXPORT void __tsan_flush_memory(void)
{
}
