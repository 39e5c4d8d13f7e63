/* Recording loads. Most find what an earlier one left, and then write nothing: the line of the mark
 * stays shared among the processors. See hosts/instrumented/shared.h. */
#include "hosts/instrumented/runtime/access.h"

static void mark(uint64_t line)
{
    uint8_t *at = &tw_rt.marks[line], none = 0;
    uint8_t *summary = &tw_rt.summary[line / TW_LINES_PER_PAGE];
    if (__atomic_load_n(at, __ATOMIC_ACQUIRE) == 0)
        __atomic_compare_exchange_n(at, &none, TW_INST_LOADED, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
    /* Looked at after the mark: if it is clear, the reader has taken it since, or is to be told. */
    if (__atomic_load_n(summary, __ATOMIC_ACQUIRE) == 0)
        __atomic_store_n(summary, 1, __ATOMIC_RELEASE);
}

static void fetch(uint64_t line)
{
    if (__atomic_load_n(&tw_rt.lines[line], __ATOMIC_RELAXED) == TW_INST_INVALID &&
        !tw_rt_fetch_line(line))
        mark(line); /* R4 */
}

void tw_rt_load(uintptr_t address, size_t size)
{
    const uint32_t loads = tw_rt_loads();
    tw_rt_await(address, size);
    if (loads == TW_RT_LOADS_IGNORED || loads == TW_RT_LOADS_AWAITED ||
        !tw_rt_is_program_range(address, size))
        return;
    const uint64_t last = tw_line_of(address + size - 1);
    for (uint64_t line = tw_line_of(address); line <= last; line++) {
        if (loads == TW_RT_LOADS_MARKED)
            mark(line);
        else
            fetch(line);
    }
}
