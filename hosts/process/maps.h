/* /proc/PID/maps: what a program has mapped. The text is the kernel's, but the names in it are the
 * program's own choice (file names, names it gave to anonymous memory), so it is parsed as foreign.
 */
#ifndef TOWLINE_HOSTS_PROCESS_MAPS_H
#define TOWLINE_HOSTS_PROCESS_MAPS_H

#include "base/error.h"
#include "hosts/process/process.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_MAPS_AREAS_MAX 262144u              /* beyond it the program is refused */
#define TW_MAPS_TEXT_MAX  ((size_t)256u << 20) /* bytes */

/* One mapping, as a line says it. */
struct tw_map_area {
    uint64_t start, end; /* page-aligned, start < end */
    bool readable, writable, executable, shared;
    bool anonymous;  /* private and of no file: absent pages are zeros */
    bool registered; /* with our userfaultfd; false as parsed */
    enum tw_area_reason reason;
    char name[96]; /* cut */
};

/* Areas by address, ascending, disjoint. */
struct tw_maps {
    struct tw_map_area *areas;
    size_t count, capacity;
};

/* Parses one line without its newline. False when it is not of the expected shape. */
bool tw_map_line_parse(const char *line, size_t length, struct tw_map_area *area);

/* Parses a whole text, replacing what `maps` holds. DATA_LOSS names the first line that is not of
 * the expected shape or not in order; RESOURCE_EXHAUSTED: too many. */
enum tw_code tw_maps_parse(const char *text, size_t length, struct tw_maps *maps,
                           struct tw_error *err);

/* Reads the maps of a process. A program that maps and unmaps meanwhile can show an area twice; the
 * later part of such an area is taken then. ABORTED when the program has no memory any more. */
enum tw_code tw_maps_read(int maps_fd, struct tw_maps *maps, struct tw_error *err);

void tw_maps_free(struct tw_maps *maps);

/* Index of the first area that ends beyond `address`; maps->count when there is none. */
size_t tw_maps_find(const struct tw_maps *maps, uint64_t address);

#endif
