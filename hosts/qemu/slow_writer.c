#include "hosts/qemu/slow_writer.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void tw_slow_writer_wait(struct tw_slow_writer *w, const struct tw_link_pace *pace,
                         struct tw_link_vcpu *counters)
{
    if (!tw_pace_owe(&w->bucket, __atomic_load_n(&pace->delay_ns, __ATOMIC_RELAXED)))
        return;
    const uint64_t now_ns = monotonic_ns();
    if (now_ns >= __atomic_load_n(&pace->until_ns, __ATOMIC_RELAXED)) {
        w->over = true;
        return;
    }
    const uint32_t share = __atomic_load_n(&pace->share_permille, __ATOMIC_RELAXED);
    const uint64_t wait_ns = tw_pace_wait(&w->bucket, share, now_ns);
    if (wait_ns == 0)
        return;
    /* On the word that changes when there is nothing to wait for any more. */
    const struct timespec time = {.tv_nsec = (long)wait_ns};
    syscall(SYS_futex, &pace->generation, FUTEX_WAIT, w->seen, &time, NULL, 0);
    const uint64_t waited_ns = monotonic_ns() - now_ns;
    tw_pace_waited(&w->bucket, waited_ns);
    __atomic_store_n(&counters->pace_waits, counters->pace_waits + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&counters->pace_ns, counters->pace_ns + waited_ns, __ATOMIC_RELAXED);
}
