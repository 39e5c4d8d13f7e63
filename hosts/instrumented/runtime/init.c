#include "hosts/instrumented/runtime/runtime.h"

#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_up(void)
{
    tw_rt_memory_init();
    tw_rt_threads_init();
    tw_rt_connect_init();
}

/* Every instrumented object calls this from a constructor of its own. */
void tw_rt_init(void)
{
    pthread_once(&once, set_up);
}
