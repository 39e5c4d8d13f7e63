/* Where a VM goes, and why a host cannot take it: pure. */
#ifndef TOWLINE_CONTROLLER_PLACEMENT_H
#define TOWLINE_CONTROLLER_PLACEMENT_H

#include "controller/catalogue.h"
#include "controller/why.h"

/* The one that was asked for, or the living host with the most free memory (by name among
 * equals). NOT_FOUND: no such host, UNAVAILABLE: it is dead or there is none alive,
 * RESOURCE_EXHAUSTED: no room; the error names the hosts and what is missing. */
enum tw_code tw_place(const struct tw_host_view *hosts, size_t count, const char *wanted,
                      uint64_t memory_bytes, const struct tw_host_view **chosen,
                      struct tw_error *err);

/* Where a running VM may move to. */
struct tw_move {
    const char *source; /* host that it is on */
    const char *wanted; /* host; "" = any */
    uint64_t memory_bytes;
    uint64_t now_unix_ms;
};
#define TW_CLOCK_AHEAD_MS 1000u /* clocks that differ by more are a warning */

/* Judges every host by every rule into `why` (may be NULL), then as tw_place(): the wanted one, or
 * of those that no rule refuses the one with the fewest warnings and the most free memory. */
enum tw_code tw_place_move(const struct tw_host_view *hosts, size_t count,
                           const struct tw_move *move, tw_why *why,
                           const struct tw_host_view **chosen, struct tw_error *err);

#endif
