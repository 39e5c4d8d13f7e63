#include "controller/config.h"

#include "base/clock.h"
#include "base/units.h"
#include "rpc/rpc.h"

#include <stdio.h>
#include <string.h>

static bool is_rpc_url(const void *value)
{
    const char *url = value;
    return strncmp(url, "tls+tcp://", 10) == 0 || strncmp(url, "tcp://", 6) == 0 ||
           strncmp(url, "ipc://", 6) == 0 || strncmp(url, "inproc://", 9) == 0;
}

static bool is_http_url(const void *value)
{
    return *(const char *)value == 0 || strncmp(value, "http://", 7) == 0;
}

static const char *const levels[] = {"debug", "info", "warn", "error", "off", NULL};

#define MEMBER(member)                                                                             \
    .offset = offsetof(struct tw_controller_config, member),                                       \
    .size = sizeof(((struct tw_controller_config *)0)->member)

/* In the order of the contract's numbers. */
static const char *const methods[] = {"default", "precopy", "postcopy", "hybrid", "auto", NULL};
static const char *const mirrors[] = {"default", "true", "false", NULL};
static const char *const policies[] = {"default", "abort", "stop", NULL};

#define DEFAULT(key, member)                                                                       \
    .name = key, .offset = offsetof(struct tw_migration_defaults, member),                         \
    .size = sizeof(((struct tw_migration_defaults *)0)->member)
#define TIME(key, member)                                                                          \
    DEFAULT(key, member), .type = TW_CONFIG_DURATION, .min = TW_MS, .max = 86400 * TW_SEC

static const struct tw_config_key migration_keys[] = {
    {DEFAULT("method", method), .type = TW_CONFIG_CHOICE, .names = methods},
    {DEFAULT("on_no_convergence", on_no_convergence), .type = TW_CONFIG_CHOICE, .names = policies},
    {DEFAULT("bandwidth", bandwidth), .type = TW_CONFIG_SIZE, .min = 1024,
     .max = UINT64_C(1) << 50},
    {DEFAULT("mirror", mirror), .type = TW_CONFIG_CHOICE, .names = mirrors},
    {TIME("downtime", downtime_ns)},
    {TIME("total", total_ns)},
    {TIME("give_up_after", give_up_after_ns)},
    {DEFAULT("slow_down", slow_down), .type = TW_CONFIG_UINT, .min = 1, .max = 90},
    {DEFAULT("max_rounds", max_rounds), .type = TW_CONFIG_UINT, .min = 1, .max = 63},
};

const struct tw_config_key tw_controller_keys[] = {
    {.name = "listen",
     .type = TW_CONFIG_STRING,
     MEMBER(listen),
     .valid = is_rpc_url,
     .expected = "tls+tcp://ADDRESS:PORT, tcp://.. or ipc://PATH"},
    {.name = "http",
     .type = TW_CONFIG_STRING,
     MEMBER(http),
     .may_be_empty = true,
     .valid = is_http_url,
     .expected = "http://ADDRESS:PORT"},
    {.name = "store", .type = TW_CONFIG_STRING, MEMBER(store)},
    {.name = "store_limit",
     .type = TW_CONFIG_SIZE,
     MEMBER(store_limit_bytes),
     .min = 256u << 10,
     .max = UINT64_C(1) << 40},
    {.name = "lease",
     .type = TW_CONFIG_DURATION,
     MEMBER(lease_ns),
     .min = 50 * TW_MS,
     .max = 600 * TW_SEC},
    {.name = "heartbeat",
     .type = TW_CONFIG_DURATION,
     MEMBER(heartbeat_ns),
     .min = 10 * TW_MS,
     .max = 60 * TW_SEC},
    {.name = "workers", .type = TW_CONFIG_UINT, MEMBER(workers), .min = 4, .max = 64},
    {.name = "tls",
     .type = TW_CONFIG_MAPPING,
     MEMBER(tls),
     .keys = tw_tls_keys,
     .key_count = TW_TLS_KEYS},
    {.name = "migration",
     .type = TW_CONFIG_MAPPING,
     MEMBER(migration),
     .keys = migration_keys,
     .key_count = sizeof migration_keys / sizeof *migration_keys},
    {.name = "insecure", .type = TW_CONFIG_BOOL, MEMBER(insecure)},
    {.name = "log_level", .type = TW_CONFIG_CHOICE, MEMBER(log_level), .names = levels},
};
const size_t tw_controller_key_count = sizeof tw_controller_keys / sizeof *tw_controller_keys;

void tw_controller_config_defaults(struct tw_controller_config *config)
{
    *config = (struct tw_controller_config){
        .listen = "tls+tcp://127.0.0.1:7100",
        .store = "towline.db",
        .store_limit_bytes = UINT64_C(4) << 30,
        .lease_ns = 3 * TW_SEC,
        .heartbeat_ns = TW_SEC,
        .workers = 16,
        .log_level = TW_LOG_INFO,
    };
}

enum tw_code tw_controller_config_check(const struct tw_controller_config *config,
                                        struct tw_error *err)
{
    char expected[64], given[TW_SIZE_TEXT], twice[TW_SIZE_TEXT];
    enum tw_code code =
        tw_rpc_url_check(config->listen, tw_tls_files_given(&config->tls), config->insecure, err);
    if (code != TW_OK)
        return code;
    if (config->lease_ns >= 2 * config->heartbeat_ns)
        return TW_OK;
    tw_duration_format(2 * config->heartbeat_ns, twice);
    tw_duration_format(config->lease_ns, given);
    snprintf(expected, sizeof expected, "at least %s", twice);
    return tw_fail(err, TW_INVALID_ARGUMENT, "lease", expected, given,
                   "the lease must outlast one missed heartbeat");
}
