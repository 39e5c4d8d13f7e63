/* The access itself, inline in every entry point that the compilers call. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_ACCESS_H
#define TOWLINE_HOSTS_INSTRUMENTED_ACCESS_H

#include "hosts/instrumented/runtime/runtime.h"

#define TW_RT_INLINE static inline __attribute__((always_inline))

/* access.c: a store or a load of a line in the wrong state. */
void tw_rt_own_line(struct tw_inst_thread *record, uint64_t line);
void tw_rt_fetch_line(uint64_t line);

TW_RT_INLINE bool tw_rt_straddles(uintptr_t address, unsigned size)
{
    return size > 1 && TW_RT_UNLIKELY((address & (TW_LINE_SIZE - 1)) > TW_LINE_SIZE - size);
}

/* With line states, where the line may be stored to at once. */
TW_RT_INLINE bool tw_rt_store_owned(uintptr_t address, unsigned size)
{
    struct tw_inst_thread *record = tw_rt_self.record;
    if (record == NULL || tw_rt_self.generation != tw_rt.generation ||
        tw_rt_straddles(address, size))
        return false;
    tw_rt_announce(record, address);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&tw_rt.lines[tw_line_of(address)], __ATOMIC_RELAXED) != TW_INST_WRITABLE)
        tw_rt_own_line(record, tw_line_of(address));
    return true;
}

/* Before a store of `size` bytes, 1 to 16. Marking comes first, behind one comparison: how many
 * stores a processor has under way depends on how few instructions lie between them. What is not
 * usual leaves by a tail call, so that the usual way saves no registers. An address that no program
 * has would fault at the store anyway. */
TW_RT_INLINE void tw_rt_store(uintptr_t address, unsigned size, uintptr_t pc)
{
    if (TW_RT_LIKELY(tw_rt_self.marking == tw_rt_marking() && !tw_rt_straddles(address, size))) {
        tw_rt_announce(tw_rt_self.record, address);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        __atomic_store_n(&tw_rt.marks[tw_line_of(address)], 1, __ATOMIC_RELEASE);
        __atomic_store_n(&tw_rt.summary[tw_page_of(address)], 1, __ATOMIC_RELEASE);
        return;
    }
    const uint32_t mode = tw_rt_mode();
    if (TW_RT_LIKELY(mode == TW_INST_DETACHED))
        return;
    if (mode != TW_INST_OWNED || !tw_rt_store_owned(address, size))
        tw_rt_store_coming(address, size, pc);
}

TW_RT_INLINE void tw_rt_read(uintptr_t address, unsigned size)
{
    if (TW_RT_UNLIKELY(tw_rt_mode() >= TW_INST_OWNED))
        tw_rt_load(address, size);
}

#endif
