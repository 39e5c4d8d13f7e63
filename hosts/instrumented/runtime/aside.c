/* Memory beside a region for what the kernel and libc write: they do not wait for lines, and a
 * store of theirs is announced by nobody: it might come when the memory has been handed over. */
#include "hosts/instrumented/runtime/real.h"
#include "hosts/instrumented/runtime/runtime.h"

#include <string.h>

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
