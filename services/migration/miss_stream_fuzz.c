/* Recordings of misses out of arbitrary bytes: what is read is in range and in order. */
#include "services/migration/miss_stream.h"

#include "base/line.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tw_miss misses[256];
    struct tw_miss_header h = {TW_MISS_STREAM_MAGIC, TW_MISS_STREAM_VERSION, 0, 0, 0};
    uint8_t *copy = malloc(size + 1); /* of this size and no more */
    memcpy(copy, data, size);
    /* Half of the inputs begin well, or none would get past the first number. */
    if (size >= sizeof h && data[0] & 1)
        memcpy(copy, &h, offsetof(struct tw_miss_header, pages));
    if (tw_miss_stream_read(copy, size, "fuzz", &h, misses, 256, NULL) == TW_OK) {
        if (h.count > 256)
            abort();
        for (uint64_t i = 0; i < h.count; i++) {
            if (misses[i].line / TW_LINES_PER_PAGE >= h.pages)
                abort();
            if (i && misses[i].at_ns < misses[i - 1].at_ns)
                abort();
        }
    }
    free(copy);
    return 0;
}
