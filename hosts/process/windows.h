/* Where a program's addresses lie in the device: windows of 64 MiB, given out as they are needed.
 *
 * The user address space has 2^47 bytes, of which a program fills a few spots; the device's address
 * space is dense and much smaller. A window keeps its place for good. */
#ifndef TOWLINE_HOSTS_PROCESS_WINDOWS_H
#define TOWLINE_HOSTS_PROCESS_WINDOWS_H

#include "hosts/process/process.h"

struct tw_windows {
    uint32_t *place_of;  /* by window of the program: place + 1; 0 = has none */
    uint32_t *window_of; /* by place */
    uint32_t used, max;  /* places */
};

/* False when there is no memory; can then still be closed. `device_bytes` is a multiple of
 * TW_PROCESS_WINDOW. */
bool tw_windows_open(struct tw_windows *w, uint64_t device_bytes);
void tw_windows_close(struct tw_windows *w);

/* The device address of a program's address; TW_NEVER when its window has no place, or, from
 * `place`, when no place is left. */
uint64_t tw_windows_find(const struct tw_windows *w, uint64_t address);
uint64_t tw_windows_place(struct tw_windows *w, uint64_t address);

/* The way back; TW_NEVER for a place that was not given out. */
uint64_t tw_windows_back(const struct tw_windows *w, uint64_t device_address);

#endif
