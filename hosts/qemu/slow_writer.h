/* A vCPU that the link asks to slow down where it writes paced lines. Part of the plugin: used by
 * the vCPU's own thread, in QEMU's process. */
#ifndef TOWLINE_HOSTS_QEMU_SLOW_WRITER_H
#define TOWLINE_HOSTS_QEMU_SLOW_WRITER_H

#include "hosts/link/link.h"

struct tw_slow_writer {
    struct tw_pace_bucket bucket;
    uint32_t seen; /* generation of what is paced */
    bool over;     /* what was said then holds no longer, and was not said again */
};

/* True when what is paced has changed since the last look. */
static inline bool tw_slow_writer_look(struct tw_slow_writer *w, const struct tw_link_pace *pace)
{
    const uint32_t generation = __atomic_load_n(&pace->generation, __ATOMIC_ACQUIRE);
    if (__builtin_expect(generation == w->seen, 1))
        return false;
    w->seen = generation;
    w->over = false;
    return true;
}

/* Of a page with these paced lines, those whose writer is to be slowed now. */
static inline uint64_t tw_slow_writer_lines(const struct tw_slow_writer *w,
                                            const struct tw_link_pace *pace, const uint64_t *paced)
{
    if (__atomic_load_n(&pace->delay_ns, __ATOMIC_RELAXED) == 0 || w->over)
        return 0;
    return __atomic_load_n(paced, __ATOMIC_RELAXED);
}

/* The vCPU has made a paced line dirty: waits off what it owes, if that is worth it. A change of
 * what is paced ends the wait at once, and so does a signal. */
void tw_slow_writer_wait(struct tw_slow_writer *w, const struct tw_link_pace *pace,
                         struct tw_link_vcpu *counters);

#endif
