#include "hosts/instrumented/runtime/runtime.h"

#include <pthread.h>
#include <unistd.h>

__attribute__((section(TW_INST_NOTE_SECTION), used,
               aligned(4))) static const struct tw_inst_note note = {
    .name_bytes = sizeof TW_INST_NOTE_NAME,
    .description_bytes = sizeof(uint32_t),
    .type = TW_INST_NOTE_TYPE,
    .name = TW_INST_NOTE_NAME,
    .version = TW_INST_VERSION};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_up(void)
{
    tw_rt_memory_init();
    tw_rt_threads_init();
    tw_rt_connect_init();
}

/* Every instrumented object calls this from a constructor of its own; gcc's driver has it called
 * even earlier, before libc knows its environment: that call has to wait for the next. */
void tw_rt_init(void)
{
    if (environ)
        pthread_once(&once, set_up);
}

__attribute__((constructor(101))) static void set_up_early(void)
{
    tw_rt_init();
}
