/* Any bytes as requests: nothing is read beyond them, and what passes is within the limits. */
#include "agentd/local_request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tw_local_header header;
    struct tw_local_request request;
    struct tw_error err;
    uint64_t sum = 0;
    if (size < sizeof header)
        return 0;
    memcpy(&header, data, sizeof header);
    size -= sizeof header;
    tw_local_header_check(&header, &err);
    header.magic = TW_LOCAL_MAGIC;
    header.version = TW_LOCAL_VERSION;
    header.kind %= TW_LOCAL_KIND_END + 1;
    header.length = (uint32_t)size;
    if (tw_local_header_check(&header, &err))
        return 0;
    void *body = malloc(size ? size : 1); /* of its own, so that a step beyond it is seen */
    if (!body)
        return 0;
    memcpy(body, data + sizeof header, size);
    if (tw_local_request_parse(&header, body, &request, &err) == TW_OK) {
        if (request.kind == TW_LOCAL_OPEN) {
            for (uint32_t i = 0; i < request.open.range_count; i++)
                sum += request.ranges[i].start + request.ranges[i].length;
            if (request.open.range_count > TW_LOCAL_RANGES_MAX)
                abort();
        }
        if (request.kind == TW_LOCAL_EPOCH && strlen(request.epoch.name) >= TW_LOCAL_NAME_SIZE)
            abort();
    }
    free(body);
    __asm__ volatile("" : : "r"(sum)); /* so that the ranges are read */
    return 0;
}
