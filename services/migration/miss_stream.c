#include "services/migration/miss_stream.h"

#include "base/line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_time(const void *a, const void *b)
{
    const struct tw_miss *x = a, *y = b;
    return (x->at_ns > y->at_ns) - (x->at_ns < y->at_ns);
}

static enum tw_code check_header(const struct tw_miss_header *h, size_t size, const char *where,
                                 struct tw_error *err)
{
    char expected[48], given[48];
    if (h->magic != TW_MISS_STREAM_MAGIC)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL, "not a recording of misses");
    snprintf(expected, sizeof expected, "%u", TW_MISS_STREAM_VERSION);
    snprintf(given, sizeof given, "%u", h->version);
    if (h->version != TW_MISS_STREAM_VERSION || h->reserved)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, expected, given, "unknown version");
    snprintf(expected, sizeof expected, "at most %zu", (size - sizeof *h) / sizeof(struct tw_miss));
    snprintf(given, sizeof given, "%llu", (unsigned long long)h->count);
    if (h->count > (size - sizeof *h) / sizeof(struct tw_miss) || h->count > TW_MISSES_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, expected, given, "number of entries");
    if (h->pages == 0 || h->pages > UINT64_MAX / TW_PAGE_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL, "impossible size of memory");
    return TW_OK;
}

enum tw_code tw_miss_stream_read(const uint8_t *bytes, size_t size, const char *where,
                                 struct tw_miss_header *header, struct tw_miss *misses, size_t room,
                                 struct tw_error *err)
{
    if (size < sizeof *header)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "a header of 32 bytes", NULL, "too short");
    memcpy(header, bytes, sizeof *header);
    enum tw_code code = check_header(header, size, where, err);
    if (code != TW_OK)
        return code;
    if (header->count > room)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, NULL, NULL, "more entries than room");
    if (header->count)
        memcpy(misses, bytes + sizeof *header, header->count * sizeof *misses);
    for (uint64_t i = 0; i < header->count; i++) {
        const struct tw_miss *m = &misses[i];
        if (m->line / TW_LINES_PER_PAGE >= header->pages || m->at_ns > TW_MISS_TIME_MAX ||
            m->waited_ns > TW_MISS_TIME_MAX)
            return tw_fail(err, TW_INVALID_ARGUMENT, where, NULL, NULL,
                           "entry %llu is out of range", (unsigned long long)i);
    }
    if (header->count)
        qsort(misses, header->count, sizeof *misses, by_time);
    return TW_OK;
}
