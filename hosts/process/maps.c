#include "hosts/process/maps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_STEP ((size_t)64 << 10) /* bytes */

/* What is left of a line. */
struct cursor {
    const char *at, *end;
};

static bool take_hex(struct cursor *c, uint64_t *value)
{
    unsigned digits = 0;
    *value = 0;
    for (; c->at < c->end; c->at++, digits++) {
        const char ch = *c->at;
        unsigned digit;
        if (ch >= '0' && ch <= '9')
            digit = (unsigned)(ch - '0');
        else if (ch >= 'a' && ch <= 'f')
            digit = (unsigned)(ch - 'a') + 10;
        else
            break;
        if (digits == 16)
            return false;
        *value = *value << 4 | digit;
    }
    return digits > 0;
}

static bool take(struct cursor *c, char expected)
{
    if (c->at == c->end || *c->at != expected)
        return false;
    c->at++;
    return true;
}

/* One letter of the permissions: `yes` or `no`. */
static bool take_flag(struct cursor *c, char yes, char no, bool *flag)
{
    *flag = take(c, yes);
    return *flag || take(c, no);
}

static bool take_decimal(struct cursor *c, uint64_t *value)
{
    unsigned digits = 0;
    *value = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (++digits > 19)
            return false;
        *value = *value * 10 + (unsigned)(*c->at - '0');
    }
    return digits > 0;
}

static bool is_name(const struct cursor *c, const char *name)
{
    const size_t length = strlen(name);
    return (size_t)(c->end - c->at) == length && memcmp(c->at, name, length) == 0;
}

static bool begins(const struct cursor *c, const char *prefix)
{
    const size_t length = strlen(prefix);
    return (size_t)(c->end - c->at) >= length && memcmp(c->at, prefix, length) == 0;
}

/* Decided from the line alone; what the kernel then refuses becomes TW_AREA_REFUSED later. */
static enum tw_area_reason reason_of(const struct tw_map_area *area, const struct cursor *name)
{
    if (area->end > TW_PROCESS_ADDRESS_LIMIT)
        return TW_AREA_BEYOND;
    if (is_name(name, "[vdso]") || begins(name, "[vvar") || is_name(name, "[vsyscall]"))
        return TW_AREA_KERNEL;
    if (begins(name, "/dev/") && !begins(name, "/dev/shm/") && !begins(name, "/dev/zero") &&
        !begins(name, "/dev/hugepages/"))
        return TW_AREA_DEVICE;
    if (!area->writable && !area->anonymous && (area->shared || begins(name, "/")))
        return TW_AREA_READ_ONLY;
    return TW_AREA_FOLLOWED;
}

bool tw_map_line_parse(const char *line, size_t length, struct tw_map_area *area)
{
    struct cursor c = {line, line + length};
    uint64_t skipped, inode;
    bool private_memory;
    memset(area, 0, sizeof *area);
    if (!take_hex(&c, &area->start) || !take(&c, '-') || !take_hex(&c, &area->end) ||
        !take(&c, ' ') || !take_flag(&c, 'r', '-', &area->readable) ||
        !take_flag(&c, 'w', '-', &area->writable) || !take_flag(&c, 'x', '-', &area->executable) ||
        !take_flag(&c, 'p', 's', &private_memory) || !take(&c, ' ') || !take_hex(&c, &skipped) ||
        !take(&c, ' ') || !take_hex(&c, &skipped) || !take(&c, ':') || !take_hex(&c, &skipped) ||
        !take(&c, ' ') || !take_decimal(&c, &inode))
        return false;
    if (area->start >= area->end || (area->start | area->end) % TW_PAGE_SIZE)
        return false;
    while (take(&c, ' '))
        ;
    area->shared = !private_memory;
    area->anonymous = private_memory && inode == 0;
    area->reason = reason_of(area, &c);
    size_t kept = (size_t)(c.end - c.at);
    if (kept > sizeof area->name - 1)
        kept = sizeof area->name - 1;
    memcpy(area->name, c.at, kept); /* a zero byte in it only makes the name shorter */
    return true;
}

static enum tw_code append(struct tw_maps *maps, const struct tw_map_area *area,
                           struct tw_error *err)
{
    if (maps->count == maps->capacity) {
        const size_t capacity = maps->capacity ? maps->capacity * 2 : 64;
        struct tw_map_area *grown = NULL;
        if (maps->count < TW_MAPS_AREAS_MAX)
            grown = realloc(maps->areas, capacity * sizeof *grown);
        if (!grown)
            return tw_fail(err, TW_RESOURCE_EXHAUSTED, "maps", NULL, NULL,
                           "no room for more than %zu mappings", maps->count);
        maps->areas = grown;
        maps->capacity = capacity;
    }
    maps->areas[maps->count++] = *area;
    return TW_OK;
}

enum tw_code tw_maps_parse(const char *text, size_t length, struct tw_maps *maps,
                           struct tw_error *err)
{
    enum tw_code code = TW_OK;
    uint64_t last_end = 0;
    maps->count = 0;
    for (size_t at = 0, number = 1; at < length && !code; number++) {
        const char *newline = memchr(text + at, '\n', length - at);
        const size_t end = newline ? (size_t)(newline - text) : length;
        struct tw_map_area area;
        char given[100];
        snprintf(given, sizeof given, "%.*s", (int)(end - at < 99 ? end - at : 99), text + at);
        if (!tw_map_line_parse(text + at, end - at, &area))
            return tw_fail(err, TW_DATA_LOSS, "maps", "START-END rwxp OFFSET DEVICE INODE NAME",
                           given, "line %zu is not a mapping", number);
        if (area.start < last_end) /* it grew or moved between two reads of the kernel's */
            area.start = last_end;
        last_end = area.end > last_end ? area.end : last_end;
        if (area.start < area.end)
            code = append(maps, &area, err);
        at = end + 1;
    }
    return code;
}

enum tw_code tw_maps_read(int maps_fd, struct tw_maps *maps, struct tw_error *err)
{
    char *text = NULL;
    size_t length = 0, capacity = 0;
    enum tw_code code = TW_OK;
    for (ssize_t got = 1; got > 0; length += (size_t)got) {
        if (capacity - length < READ_STEP) {
            capacity += capacity / 2 + 2 * READ_STEP;
            char *grown = capacity <= TW_MAPS_TEXT_MAX ? realloc(text, capacity) : NULL;
            if (!grown) {
                code = tw_fail(err, TW_RESOURCE_EXHAUSTED, "maps", NULL, NULL,
                               "no room for a text of %zu bytes", capacity);
                break;
            }
            text = grown;
        }
        got = pread(maps_fd, text + length, READ_STEP, (off_t)length);
        if (got < 0) {
            code = errno == ESRCH ? tw_fail(err, TW_ABORTED, "maps", NULL, NULL, "program is gone")
                                  : tw_fail_errno(err, errno, "maps", "cannot be read");
            break;
        }
    }
    if (!code && length == 0)
        code = tw_fail(err, TW_ABORTED, "maps", NULL, NULL, "program has no memory any more");
    if (!code)
        code = tw_maps_parse(text, length, maps, err);
    free(text);
    return code;
}

void tw_maps_free(struct tw_maps *maps)
{
    free(maps->areas);
    memset(maps, 0, sizeof *maps);
}

size_t tw_maps_find(const struct tw_maps *maps, uint64_t address)
{
    size_t low = 0, high = maps->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (maps->areas[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
