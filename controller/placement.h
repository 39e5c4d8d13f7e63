/* Where a new VM goes, and why a host cannot take it: pure. */
#ifndef TOWLINE_CONTROLLER_PLACEMENT_H
#define TOWLINE_CONTROLLER_PLACEMENT_H

#include "controller/catalogue.h"

/* The one that was asked for, or the living host with the most free memory (by name among
 * equals). NOT_FOUND: no such host, UNAVAILABLE: it is dead or there is none alive,
 * RESOURCE_EXHAUSTED: no room; the error names the hosts and what is missing. */
enum tw_code tw_place(const struct tw_host_view *hosts, size_t count, const char *wanted,
                      uint64_t memory_bytes, const struct tw_host_view **chosen,
                      struct tw_error *err);

#endif
