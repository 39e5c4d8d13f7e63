#include "hosts/process/windows.h"

#include "fpga-model/lazy.h"

#include <string.h>

#define WINDOWS (TW_PROCESS_ADDRESS_LIMIT / TW_PROCESS_WINDOW)

bool tw_windows_open(struct tw_windows *w, uint64_t device_bytes)
{
    w->used = 0;
    w->max = (uint32_t)(device_bytes / TW_PROCESS_WINDOW);
    w->place_of = tw_lazy_alloc(WINDOWS * sizeof *w->place_of);
    w->window_of = tw_lazy_alloc(w->max * sizeof *w->window_of);
    return w->place_of && w->window_of;
}

void tw_windows_close(struct tw_windows *w)
{
    tw_lazy_free(w->place_of, WINDOWS * sizeof *w->place_of);
    tw_lazy_free(w->window_of, w->max * sizeof *w->window_of);
    memset(w, 0, sizeof *w);
}

uint64_t tw_windows_find(const struct tw_windows *w, uint64_t address)
{
    if (address >= TW_PROCESS_ADDRESS_LIMIT)
        return TW_NEVER;
    const uint32_t place = w->place_of[address / TW_PROCESS_WINDOW];
    if (place == 0)
        return TW_NEVER;
    return (place - 1) * TW_PROCESS_WINDOW + address % TW_PROCESS_WINDOW;
}

uint64_t tw_windows_place(struct tw_windows *w, uint64_t address)
{
    const uint64_t window = address / TW_PROCESS_WINDOW;
    if (address >= TW_PROCESS_ADDRESS_LIMIT)
        return TW_NEVER;
    if (w->place_of[window] == 0) {
        if (w->used == w->max)
            return TW_NEVER;
        w->window_of[w->used] = (uint32_t)window;
        w->place_of[window] = ++w->used;
    }
    return tw_windows_find(w, address);
}

uint64_t tw_windows_back(const struct tw_windows *w, uint64_t device_address)
{
    const uint64_t place = device_address / TW_PROCESS_WINDOW;
    if (place >= w->used)
        return TW_NEVER;
    return w->window_of[place] * TW_PROCESS_WINDOW + device_address % TW_PROCESS_WINDOW;
}
