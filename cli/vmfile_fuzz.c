/* Files of VMs. What is accepted keeps the limits that the contract states. */
#include "cli/vmfile.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A sound file with the bytes in place of one value: noise alone seldom gets past the first key. */
static size_t dress(const uint8_t *data, size_t size, char *out, size_t room)
{
    static const char *const frames[][2] = {
        {"name: web-1\nmemory: 256MiB\nkernel: k\n", ""},
        {"name: ", "\nmemory: 8MiB\nkernel: k\n"},
        {"name: a\nmemory: ", "\nkernel: k\n"},
        {"name: a\nmemory: 8MiB\nkernel: ", "\nvcpus: 3\n"},
        {"name: a\nmemory: 8MiB\nkernel: k\ncache: {kind: mesi, l1: {size: ", ", ways: 8}}\n"},
        {"name: a\nmemory: 8MiB\nkernel: k\ncache:\n  kind: mesi\n  ", "\n"},
    };
    const char *const *frame = frames[data[0] % (sizeof frames / sizeof *frames)];
    size_t head = strlen(frame[0]), tail = strlen(frame[1]);
    size_t middle = size - 1 < room - head - tail ? size - 1 : room - head - tail;
    memcpy(out, frame[0], head);
    memcpy(out + head, data + 1, middle);
    memcpy(out + head + middle, frame[1], tail);
    return head + middle + tail;
}

static void level_check(const Towline__V1__CacheLevel *level)
{
    if (!level)
        return;
    assert(level->ways >= 1 && level->ways <= 32);
    assert(level->size_bytes > 0 && level->size_bytes % (64u * level->ways) == 0);
}

static void spec_check(const Towline__V1__VmSpec *spec)
{
    assert(strlen(spec->name) >= 1 && strlen(spec->name) <= 63);
    assert(strspn(spec->name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(spec->name));
    assert(spec->memory_bytes >= UINT64_C(4) << 20 && spec->memory_bytes % 4096 == 0);
    assert(spec->vcpus >= 1 && spec->vcpus <= 64);
    assert(spec->kernel[0] == '/' && (spec->initrd[0] == '/' || spec->initrd[0] == 0));
    level_check(spec->cache->l1);
    level_check(spec->cache->l2);
    level_check(spec->cache->last_level);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[8192];
    Towline__V1__VmSpec *spec;
    struct tw_error err = {0};
    if (size < 2)
        return 0;
    bool whole = data[0] & 0x80;
    size_t length = whole ? 0 : dress(data, size, text, sizeof text);
    enum tw_code code = tow_vmfile_parse("f", "/srv", whole ? (const char *)data + 1 : text,
                                         whole ? size - 1 : length, &spec, &err);
    assert((code == TW_OK) == (spec != NULL) && err.code == code);
    if (!spec)
        return 0;
    spec_check(spec);
    towline__v1__vm_spec__free_unpacked(spec, NULL);
    return 0;
}
