#include "cli/vmfile.h"

#include "base/clock.h"
#include "base/line.h"
#include "config/config.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE    64u /* 63 characters */
#define PATH_SIZE    1024u
#define COMMAND_SIZE 2048u /* what Linux takes */

/* The file as it is written; a level's size of 0 = not in the file. */
struct level {
    uint64_t size, ways;
};

struct cache {
    unsigned kind;
    struct level l1, l2, last_level;
};

/* Of the VM's migrations; 0 = not in the file. */
struct migration {
    unsigned method, on_no_convergence, mirror;
    uint64_t bandwidth, downtime, total, slow_down, give_up_after, max_rounds;
};

struct vm_file {
    char name[NAME_SIZE];
    uint64_t memory, vcpus;
    char kernel[PATH_SIZE], initrd[PATH_SIZE], command_line[COMMAND_SIZE];
    struct cache cache;
    struct migration migration;
};

/* ---- Keys ----------------------------------------------------------------------------------- */

static bool name_valid(const void *value)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    const char *name = value;
    return name[0] != '-' && name[strspn(name, allowed)] == 0;
}

static bool memory_valid(const void *value)
{
    return *(const uint64_t *)value % TW_PAGE_SIZE == 0;
}

static bool lines_valid(const void *value)
{
    return *(const uint64_t *)value % TW_LINE_SIZE == 0;
}

#define MEMBER(s, m) .name = #m, .offset = offsetof(struct s, m)
#define TEXT(s, m)   MEMBER(s, m), .type = TW_CONFIG_STRING, .size = sizeof(((struct s *)0)->m)

static const char *const kinds[] = {"none", "mesi", NULL};

static const struct tw_config_key level_keys[] = {
    {MEMBER(level, size), .type = TW_CONFIG_SIZE, .required = true, .min = TW_LINE_SIZE,
     .max = UINT64_C(1) << 40, .valid = lines_valid, .expected = "a size in whole lines of 64 B"},
    {MEMBER(level, ways), .type = TW_CONFIG_UINT, .required = true, .min = 1, .max = 32},
};

#define LEVEL(m) MEMBER(cache, m), .type = TW_CONFIG_MAPPING, .keys = level_keys, .key_count = 2

static const struct tw_config_key cache_keys[] = {
    {MEMBER(cache, kind), .type = TW_CONFIG_CHOICE, .required = true, .names = kinds},
    {LEVEL(l1)},
    {LEVEL(l2)},
    {LEVEL(last_level)},
};

/* In the order of the contract's numbers, so that 0 is "not in the file". */
static const char *const methods[] = {"default", "precopy", "postcopy", "hybrid", "auto", NULL};
static const char *const mirrors[] = {"default", "true", "false", NULL};
static const char *const policies[] = {"default", "abort", "stop", NULL};

#define TIME(m)                                                                                    \
    MEMBER(migration, m), .type = TW_CONFIG_DURATION, .min = TW_MS, .max = 86400 * TW_SEC

static const struct tw_config_key migration_keys[] = {
    {MEMBER(migration, method), .type = TW_CONFIG_CHOICE, .names = methods},
    {MEMBER(migration, on_no_convergence), .type = TW_CONFIG_CHOICE, .names = policies},
    {MEMBER(migration, bandwidth), .type = TW_CONFIG_SIZE, .min = 1024, .max = UINT64_C(1) << 50},
    {MEMBER(migration, mirror), .type = TW_CONFIG_CHOICE, .names = mirrors},
    {TIME(downtime)},
    {TIME(total)},
    {TIME(give_up_after)},
    {MEMBER(migration, slow_down), .type = TW_CONFIG_UINT, .min = 1, .max = 90},
    {MEMBER(migration, max_rounds), .type = TW_CONFIG_UINT, .min = 1, .max = 63},
};

static const struct tw_config_key keys[] = {
    {TEXT(vm_file, name), .required = true, .valid = name_valid,
     .expected = "a-z, 0-9 and -, not - first"},
    {MEMBER(vm_file, memory), .type = TW_CONFIG_SIZE, .required = true, .min = UINT64_C(4) << 20,
     .valid = memory_valid, .expected = "a size in whole pages of 4096 B"},
    {MEMBER(vm_file, vcpus), .type = TW_CONFIG_UINT, .min = 1, .max = 64},
    {TEXT(vm_file, kernel), .required = true},
    {TEXT(vm_file, initrd), .may_be_empty = true},
    {TEXT(vm_file, command_line), .may_be_empty = true},
    {MEMBER(vm_file, cache), .type = TW_CONFIG_MAPPING, .keys = cache_keys, .key_count = 4},
    {MEMBER(vm_file, migration), .type = TW_CONFIG_MAPPING, .keys = migration_keys,
     .key_count = sizeof migration_keys / sizeof *migration_keys},
};

/* ---- To the contract's message -------------------------------------------------------------- */

static enum tw_code level_check(const char *file, const char *name, const struct level *level,
                                struct tw_error *err)
{
    char where[64], given[64];
    uint64_t set = level->ways * TW_LINE_SIZE, sets = set ? level->size / set : 0;
    if (level->size == 0 || (level->size % set == 0 && (sets & (sets - 1)) == 0))
        return TW_OK;
    snprintf(where, sizeof where, "%.40s: cache %s", file, name);
    snprintf(given, sizeof given, "%llu bytes in %llu ways", (unsigned long long)level->size,
             (unsigned long long)level->ways);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, "size = ways x 64 bytes x a power of two",
                   given, "size and ways do not fit together");
}

static enum tw_code levels_check(const char *file, const struct cache *cache, struct tw_error *err)
{
    enum tw_code code = level_check(file, "l1", &cache->l1, err);
    if (code == TW_OK)
        code = level_check(file, "l2", &cache->l2, err);
    if (code == TW_OK)
        code = level_check(file, "last_level", &cache->last_level, err);
    return code;
}

static bool level_fill(const struct level *level, Towline__V1__CacheLevel **field)
{
    if (level->size == 0)
        return true;
    *field = malloc(sizeof **field);
    if (!*field)
        return false;
    towline__v1__cache_level__init(*field);
    (*field)->size_bytes = level->size;
    (*field)->ways = (uint32_t)level->ways;
    return true;
}

static bool cache_fill(const struct cache *cache, Towline__V1__CacheModel **field)
{
    *field = malloc(sizeof **field);
    if (!*field)
        return false;
    towline__v1__cache_model__init(*field);
    (*field)->kind = cache->kind ? TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI
                                 : TOWLINE__V1__CACHE_KIND__CACHE_KIND_NONE;
    return level_fill(&cache->l1, &(*field)->l1) && level_fill(&cache->l2, &(*field)->l2) &&
           level_fill(&cache->last_level, &(*field)->last_level);
}

static bool text_fill(const char *text, char **field);

static bool migration_fill(const struct migration *m, Towline__V1__MigrationLimits **field)
{
    static const struct migration none;
    if (memcmp(m, &none, sizeof none) == 0)
        return true;
    *field = malloc(sizeof **field);
    if (!*field)
        return false;
    towline__v1__migration_limits__init(*field);
    (*field)->method = (Towline__V1__MigrationMethod)m->method;
    (*field)->on_no_convergence = (Towline__V1__ConvergencePolicy)m->on_no_convergence;
    (*field)->bandwidth_bytes_per_s = m->bandwidth;
    (*field)->downtime_ms = (uint32_t)(m->downtime / TW_MS);
    (*field)->total_ms = (uint32_t)(m->total / TW_MS);
    (*field)->timeout_ms = (uint32_t)(m->give_up_after / TW_MS);
    (*field)->slow_down_percent = (uint32_t)m->slow_down;
    (*field)->max_rounds = (uint32_t)m->max_rounds;
    return !m->mirror || text_fill(m->mirror == 1 ? "auto" : "none", &(*field)->mirror);
}

static bool text_fill(const char *text, char **field)
{
    char *copy = text[0] ? strdup(text) : NULL;
    if (copy)
        *field = copy;
    return copy || !text[0];
}

static bool path_fill(const char *folder, const char *path, char **field)
{
    char *full;
    if (path[0] == '/' || path[0] == 0)
        return text_fill(path, field);
    if (asprintf(&full, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, path) < 0)
        return false;
    *field = full;
    return true;
}

static Towline__V1__VmSpec *spec_new(const struct vm_file *file, const char *folder)
{
    Towline__V1__VmSpec *spec = malloc(sizeof *spec);
    if (!spec)
        return NULL;
    towline__v1__vm_spec__init(spec);
    spec->memory_bytes = file->memory;
    spec->vcpus = (uint32_t)file->vcpus;
    if (text_fill(file->name, &spec->name) && path_fill(folder, file->kernel, &spec->kernel) &&
        path_fill(folder, file->initrd, &spec->initrd) &&
        text_fill(file->command_line, &spec->command_line) &&
        cache_fill(&file->cache, &spec->cache) &&
        migration_fill(&file->migration, &spec->migration))
        return spec;
    towline__v1__vm_spec__free_unpacked(spec, NULL);
    return NULL;
}

/* ---- File ----------------------------------------------------------------------------------- */

enum tw_code tow_vmfile_parse(const char *name, const char *folder, const char *text, size_t length,
                              Towline__V1__VmSpec **spec, struct tw_error *err)
{
    struct vm_file file = {.vcpus = 1};
    *spec = NULL;
    enum tw_code code =
        tw_config_parse(name, text, length, keys, sizeof keys / sizeof *keys, &file, err);
    if (code == TW_OK)
        code = levels_check(name, &file.cache, err);
    if (code == TW_OK && !(*spec = spec_new(&file, folder)))
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "out of memory");
    return code;
}

static enum tw_code stream_parse(FILE *stream, const char *name, const char *folder,
                                 Towline__V1__VmSpec **spec, struct tw_error *err)
{
    /* One byte more than allowed shows that the file is too long. */
    size_t room = TW_CONFIG_BYTES_MAX + 1;
    char *text = malloc(room);
    if (!text)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "out of memory");
    errno = 0;
    size_t length = fread(text, 1, room, stream);
    enum tw_code code = ferror(stream) ? tw_fail_errno(err, errno, name, "cannot read")
                                       : tow_vmfile_parse(name, folder, text, length, spec, err);
    free(text);
    return code;
}

enum tw_code tow_vmfile_read(const char *path, Towline__V1__VmSpec **spec, struct tw_error *err)
{
    char copy[PATH_MAX], folder[PATH_MAX];
    bool input = strcmp(path, "-") == 0;
    *spec = NULL;
    snprintf(copy, sizeof copy, "%s", path); /* dirname() writes; "-" gives "." */
    FILE *stream = input ? stdin : fopen(path, "re");
    if (!stream)
        return tw_fail_errno(err, errno, path, "cannot open");
    enum tw_code code =
        realpath(dirname(copy), folder)
            ? stream_parse(stream, input ? "standard input" : path, folder, spec, err)
            : tw_fail_errno(err, errno, path, "cannot find its folder");
    if (!input)
        fclose(stream);
    return code;
}
