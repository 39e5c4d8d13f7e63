#include "hosts/instrumented/runtime/runtime.h"

#include <pthread.h>
#include <unistd.h>

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
