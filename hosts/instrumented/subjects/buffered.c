/* A processor whose store buffer does not empty by itself. x86 lets a load pass an earlier store:
 * the runtime's look at the state of a line may be over while its announcement is not visible yet.
 * That takes some nanoseconds on a real processor; here it takes until the test says so, which
 * plays the barrier that empties the buffer. */
#include "subject.h"

#include "hosts/instrumented/runtime/runtime.h"

#include <stdlib.h>

#define FIRST 64 /* lines of the first page are for signs between us and the test */

/* A macro: a function would be instrumented, and its end would end what was announced. */
#define word(line) ((volatile uint64_t *)(region + (size_t)(line)*64))

/* Makes the line writable for this thread, and leaves nothing announced behind. */
__attribute__((noinline)) static void own(size_t line)
{
    *word(line) = 4713;
}

/* Line 2 says where we are, line 1 how far the test wants us to go. */
__attribute__((no_sanitize_thread, noinline)) static void store_behind_the_look(size_t line)
{
    const uintptr_t address = (uintptr_t)word(line);
    *word(1) = 0;
    if (__atomic_load_n(&tw_rt.lines[tw_line_of(address)], __ATOMIC_RELAXED) != TW_INST_WRITABLE)
        abort();  /* nothing to show: the store would ask first */
    *word(2) = 1; /* it has looked: it may store */
    while (*word(1) != 1)
        ;
    /* As late as a barrier lets it become visible. */
    __atomic_store_n(&tw_rt_self.record->in_flight, address, __ATOMIC_RELEASE);
    *word(2) = 2;
    while (*word(1) != 2)
        ;
    *word(line) = 4714;
    *word(2) = 3;
}

static void buffered(void)
{
    own(FIRST + 7);
    store_behind_the_look(FIRST + 7);
}

int main(void)
{
    static void (*const scenarios[])(void) = {buffered};
    return subject_main(scenarios, sizeof scenarios / sizeof scenarios[0]);
}
