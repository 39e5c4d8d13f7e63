/* How the kernel schedules the calling thread. */
#ifndef TOWLINE_BASE_THREAD_H
#define TOWLINE_BASE_THREAD_H

#include <stdint.h>

/* For threads that somebody waits for: woken, they come before threads that ask for longer slices.
 * The least that the kernel takes. */
#define TW_THREAD_SHORT_SLICE UINT64_C(100000) /* ns */

/* Asks for slices of processor time of this length; its share stays the same. Kernels before 6.12
 * know no such wish, and nothing changes. */
void tw_thread_slice_ask(uint64_t slice_ns);

#endif
