#include "agentd/miss_recording.h"

#include "base/line.h"
#include "base/log.h"
#include "services/migration/miss_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_BYTES (sizeof(struct tw_miss_header) + TW_MISSES_MAX * sizeof(struct tw_miss))

struct tw_miss_recording {
    char path[384];
    int fd;
    struct tw_miss_header *header; /* mapped */
    struct tw_miss *misses;        /* behind it */
    uint64_t base_ns;              /* of the first entry's time; 0 = none yet */
};

static enum tw_code map_file(struct tw_miss_recording *r, struct tw_error *err)
{
    r->fd = open(r->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->fd < 0 || ftruncate(r->fd, (off_t)FILE_BYTES) != 0)
        return tw_fail_errno(err, errno, r->path, "cannot record misses");
    void *at = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    if (at == MAP_FAILED)
        return tw_fail_errno(err, errno, r->path, "cannot map the recording");
    r->header = at;
    r->misses = (struct tw_miss *)(void *)((char *)at + sizeof *r->header);
    return TW_OK;
}

enum tw_code tw_miss_recording_open(const char *folder, const char *id, uint64_t memory_bytes,
                                    struct tw_miss_recording **recording, struct tw_error *err)
{
    struct tw_miss_recording *r = calloc(1, sizeof *r);
    *recording = NULL;
    if (!r)
        return tw_fail_errno(err, ENOMEM, id, "cannot record misses");
    snprintf(r->path, sizeof r->path, "%s/%s.misses", folder, id);
    enum tw_code code = map_file(r, err);
    if (code != TW_OK) {
        tw_miss_recording_close(r);
        return code;
    }
    *r->header = (struct tw_miss_header){.magic = TW_MISS_STREAM_MAGIC,
                                         .version = TW_MISS_STREAM_VERSION,
                                         .pages = memory_bytes / TW_PAGE_SIZE};
    *recording = r;
    return TW_OK;
}

void tw_miss_recording_add(struct tw_miss_recording *r, uint64_t page, uint32_t line,
                           uint64_t since_ns, uint64_t waited_ns)
{
    uint64_t n = r->header->count;
    if (n == TW_MISSES_MAX)
        return;
    if (r->base_ns == 0)
        r->base_ns = since_ns;
    /* The first wait that ends need not have been the first to begin. */
    uint64_t at_ns = since_ns > r->base_ns ? since_ns - r->base_ns : 0;
    r->misses[n] = (struct tw_miss){at_ns, waited_ns, page * TW_LINES_PER_PAGE + line};
    r->header->count = n + 1;
}

void tw_miss_recording_close(struct tw_miss_recording *r)
{
    if (!r)
        return;
    uint64_t count = r->header ? r->header->count : 0;
    if (r->header)
        munmap(r->header, FILE_BYTES);
    off_t used = (off_t)(sizeof *r->header + count * sizeof *r->misses);
    if (r->fd >= 0 && ftruncate(r->fd, used) != 0)
        tw_log(TW_LOG_WARN, "misses", "recording not cut to its size", "path=%s", r->path);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
}
