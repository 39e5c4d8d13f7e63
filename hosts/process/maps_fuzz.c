/* The parser of /proc/PID/maps: whatever it accepts is in order and whole. */
#include "hosts/process/maps.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A line of good shape around the bytes, so that names of all kinds are met, too. */
static void feed_name(const char *bytes, size_t size)
{
    char line[256] = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0    ";
    const size_t head = strlen(line);
    struct tw_map_area area;
    if (size > sizeof line - head)
        size = sizeof line - head;
    memcpy(line + head, bytes, size);
    if (!tw_map_line_parse(line, head + size, &area))
        abort();
    if (memchr(area.name, 0, sizeof area.name) == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tw_maps maps = {0};
    char *copy = malloc(size + 1); /* of its own, so that a read beyond it is noticed */
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (!tw_maps_parse(copy, size, &maps, NULL)) {
        for (size_t i = 0; i < maps.count; i++) {
            const struct tw_map_area *area = &maps.areas[i];
            if (area->start >= area->end || (area->start | area->end) % TW_PAGE_SIZE)
                abort();
            if (i > 0 && area->start < maps.areas[i - 1].end)
                abort();
            if (tw_maps_find(&maps, area->start) != i || tw_maps_find(&maps, area->end - 1) != i)
                abort();
        }
    }
    feed_name(copy, size);
    tw_maps_free(&maps);
    free(copy);
    return 0;
}
