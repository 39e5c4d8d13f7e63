#include "base/thread.h"

#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

void tw_thread_slice_ask(uint64_t slice_ns)
{
    struct sched_attr a = {.size = sizeof a};
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) < 0 || a.sched_policy != 0 /* SCHED_OTHER */)
        return;
    a.sched_runtime = slice_ns;
    syscall(SYS_sched_setattr, 0, &a, 0);
}
