#include "controller/spec.h"

#include "base/line.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define MEMORY_MIN      (UINT64_C(4) << 20)
#define MEMORY_MAX      (UINT64_C(16) << 40)
#define PATH_LENGTH     1023u
#define COMMAND_LENGTH  4095u
#define VCPUS_MAX       64u
#define WAYS_MAX        32u
#define CACHE_BYTES_MAX (UINT64_C(1) << 30)
#define DOWNTIME_MS_MAX 3600000u
#define TIMEOUT_MS_MAX  (24u * 3600000u)
#define TIMEOUT_MS_MIN  100u
#define ROUNDS_MAX      63u
#define BANDWIDTH_MIN   1024u
#define SLOW_DOWN_MAX   90u

bool tw_name_ok(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < TW_NAME_SIZE && name[0] != '-' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0;
}

enum tw_code tw_name_check(const char *what, const char *name, struct tw_error *err)
{
    char given[100];
    if (tw_name_ok(name))
        return TW_OK;
    snprintf(given, sizeof given, "\"%.80s\"", name);
    return tw_fail(err, TW_INVALID_ARGUMENT, what,
                   "1 to 63 of a-z, 0-9 and -, not beginning with -", given, "not a usable name");
}

static enum tw_code refuse(const char *vm, const char *expected, uint64_t given, const char *what,
                           struct tw_error *err)
{
    char where[80], text[32];
    snprintf(where, sizeof where, "vm %.63s", vm);
    snprintf(text, sizeof text, "%llu", (unsigned long long)given);
    return tw_fail(err, TW_INVALID_ARGUMENT, where, expected, text, "%s", what);
}

static enum tw_code path_check(const char *vm, const char *what, const char *path, bool required,
                               struct tw_error *err)
{
    char where[80], given[100];
    snprintf(where, sizeof where, "vm %.63s", vm);
    snprintf(given, sizeof given, "\"%.80s\"", path);
    if (!path[0])
        return required ? tw_fail(err, TW_INVALID_ARGUMENT, where, "a path", "none",
                                  "%s is missing", what)
                        : TW_OK;
    if (path[0] != '/')
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "an absolute path", given, "bad %s", what);
    if (strlen(path) > PATH_LENGTH)
        return tw_fail(err, TW_INVALID_ARGUMENT, where, "at most 1023 bytes", given,
                       "the path of %s is too long", what);
    return TW_OK;
}

static enum tw_code level_check(const char *vm, const char *what, const Towline__V1__CacheLevel *l,
                                struct tw_error *err)
{
    char text[96];
    if (!l || l->size_bytes == 0)
        return TW_OK;
    snprintf(text, sizeof text, "bad number of ways of cache level %s", what);
    if (l->ways < 1 || l->ways > WAYS_MAX)
        return refuse(vm, "1 to 32", l->ways, text, err);
    uint64_t sets = l->size_bytes / (l->ways * TW_LINE_SIZE);
    snprintf(text, sizeof text, "bad size of cache level %s", what);
    if (l->size_bytes > CACHE_BYTES_MAX || l->size_bytes % (l->ways * TW_LINE_SIZE) != 0 ||
        tw_popcount(sets) != 1)
        return refuse(vm, "ways * 64 bytes * a power of two, at most 1 GiB", l->size_bytes, text,
                      err);
    return TW_OK;
}

static enum tw_code cache_check(const char *vm, const Towline__V1__CacheModel *c,
                                struct tw_error *err)
{
    if (!c)
        return TW_OK;
    if ((unsigned)c->kind > TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI)
        return refuse(vm, "none (1) or mesi (2)", (uint64_t)c->kind, "unknown kind of cache", err);
    enum tw_code code = level_check(vm, "l1", c->l1, err);
    if (code == TW_OK)
        code = level_check(vm, "l2", c->l2, err);
    return code == TW_OK ? level_check(vm, "last_level", c->last_level, err) : code;
}

enum tw_code tw_spec_validate(const Towline__V1__VmSpec *s, struct tw_error *err)
{
    if (!s)
        return tw_fail(err, TW_INVALID_ARGUMENT, "vm", "a specification", "none",
                       "the specification is missing");
    enum tw_code code = tw_name_check("VM name", s->name, err);
    if (code != TW_OK)
        return code;
    if (s->memory_bytes < MEMORY_MIN || s->memory_bytes > MEMORY_MAX)
        return refuse(s->name, "4 MiB to 16 TiB", s->memory_bytes, "bad memory size", err);
    if (s->memory_bytes % TW_PAGE_SIZE != 0)
        return refuse(s->name, "a multiple of 4096", s->memory_bytes, "bad memory size", err);
    if (s->vcpus > VCPUS_MAX)
        return refuse(s->name, "at most 64", s->vcpus, "too many vCPUs", err);
    if (strlen(s->command_line) > COMMAND_LENGTH)
        return refuse(s->name, "at most 4095 bytes", strlen(s->command_line),
                      "the command line is too long", err);
    code = path_check(s->name, "the kernel", s->kernel, true, err);
    if (code == TW_OK)
        code = path_check(s->name, "the initrd", s->initrd, false, err);
    if (code == TW_OK)
        code = cache_check(s->name, s->cache, err);
    return code == TW_OK ? tw_limits_validate(s->migration, err) : code;
}

static enum tw_code limit_refuse(const char *what, const char *expected, uint64_t given,
                                 struct tw_error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)given);
    return tw_fail(err, TW_INVALID_ARGUMENT, "migration limits", expected, text, "bad %s", what);
}

enum tw_code tw_limits_validate(const Towline__V1__MigrationLimits *l, struct tw_error *err)
{
    if (!l)
        return TW_OK;
    if (l->bandwidth_bytes_per_s && l->bandwidth_bytes_per_s < BANDWIDTH_MIN)
        return limit_refuse("bandwidth", "at least 1024 bytes/s, or 0", l->bandwidth_bytes_per_s,
                            err);
    if (l->downtime_ms > DOWNTIME_MS_MAX)
        return limit_refuse("downtime", "at most 3600000 ms", l->downtime_ms, err);
    if (l->max_rounds > ROUNDS_MAX)
        return limit_refuse("number of rounds", "at most 63", l->max_rounds, err);
    if (l->timeout_ms && (l->timeout_ms < TIMEOUT_MS_MIN || l->timeout_ms > TIMEOUT_MS_MAX))
        return limit_refuse("timeout", "100 ms to 24 h, or 0", l->timeout_ms, err);
    if ((unsigned)l->on_no_convergence > TOWLINE__V1__CONVERGENCE_POLICY__CONVERGENCE_POLICY_STOP)
        return limit_refuse("policy", "abort (1) or stop (2)", (uint64_t)l->on_no_convergence, err);
    if ((unsigned)l->method > TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_AUTO)
        return limit_refuse("method", "precopy (1), postcopy (2), hybrid (3) or auto (4)",
                            (uint64_t)l->method, err);
    if (l->total_ms > TIMEOUT_MS_MAX)
        return limit_refuse("budget of total time", "at most 24 h", l->total_ms, err);
    if (l->slow_down_percent > SLOW_DOWN_MAX)
        return limit_refuse("budget of slow-down", "at most 90 per cent", l->slow_down_percent,
                            err);
    if ((unsigned)l->predictor > TOWLINE__V1__PREDICTOR__PREDICTOR_AUTO)
        return limit_refuse("predictor", "0 to 5", (uint64_t)l->predictor, err);
    return l->mirror[0] ? tw_name_check("mirror", l->mirror, err) : TW_OK;
}

void tw_limits_fill(Towline__V1__MigrationLimits *l, const Towline__V1__MigrationLimits *from)
{
    if (!l->bandwidth_bytes_per_s)
        l->bandwidth_bytes_per_s = from->bandwidth_bytes_per_s;
    if (!l->downtime_ms)
        l->downtime_ms = from->downtime_ms;
    if (!l->max_rounds)
        l->max_rounds = from->max_rounds;
    if (!l->timeout_ms)
        l->timeout_ms = from->timeout_ms;
    if (!l->on_no_convergence)
        l->on_no_convergence = from->on_no_convergence;
    if (!l->method)
        l->method = from->method;
    if (!l->predictor)
        l->predictor = from->predictor;
    if (!l->total_ms)
        l->total_ms = from->total_ms;
    if (!l->slow_down_percent)
        l->slow_down_percent = from->slow_down_percent;
    l->skip_verify = l->skip_verify || from->skip_verify;
}

enum tw_code tw_message_keep(const ProtobufCMessage *message, const char *where, uint8_t *bytes,
                             size_t capacity, size_t *size, struct tw_error *err)
{
    size_t needed = protobuf_c_message_get_packed_size(message);
    char expected[48], given[32];
    if (needed > capacity) {
        snprintf(expected, sizeof expected, "at most %zu bytes", capacity);
        snprintf(given, sizeof given, "%zu", needed);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, where, expected, given, "too large to keep");
    }
    *size = protobuf_c_message_pack(message, bytes);
    return TW_OK;
}
