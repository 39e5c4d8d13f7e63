#include "agentd/config.h"

#include "agentd/record.h"
#include "config/config.h"
#include "fabric/verbs.h"
#include "hosts/qemu/fault_crew.h"
#include "rpc/rpc.h"
#include "services/migration/migration.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool name_ok(const void *value)
{
    return tw_record_name_ok(value);
}

static bool absolute(const void *value)
{
    const char *path = value;
    return path[0] == '/';
}

static bool absolute_or_empty(const void *value)
{
    const char *path = value;
    return !*path || path[0] == '/';
}

static bool executable_or_empty(const void *value)
{
    const char *path = value;
    return !*path || (path[0] == '/' && access(path, X_OK) == 0);
}

static const char *const fabrics[] = {"auto", "tcp", "verbs", NULL};
static const char *const predictors[] = {"none", "spatial", "stride", "sequence", "auto", NULL};
static const char *const consents[] = {"refuse", "allow", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", "off", NULL};

#define TEXT(member)                                                                               \
    .type = TW_CONFIG_STRING, .offset = offsetof(struct tw_agent_config, member),                  \
    .size = sizeof(((struct tw_agent_config *)0)->member)

static const struct tw_config_key keys[] = {
    {.name = "name",
     TEXT(name),
     .required = true,
     .valid = name_ok,
     .expected = "lower-case letters, digits and '-', at most 63"},
    {.name = "listen", TEXT(listen)},
    {.name = "advertise", TEXT(advertise)},
    {.name = "fabric",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct tw_agent_config, fabric),
     .names = fabrics},
    {.name = "fabric_listen", TEXT(fabric_listen)},
    {.name = "fabric_timeout",
     .type = TW_CONFIG_DURATION,
     .offset = offsetof(struct tw_agent_config, fabric_timeout_ns),
     .min = TW_SEC,
     .max = 60 * TW_SEC},
    {.name = "verbs_listen", TEXT(verbs_listen), .may_be_empty = true},
    {.name = "verbs_device", TEXT(verbs_device), .may_be_empty = true},
    {.name = "verbs_queues",
     .type = TW_CONFIG_UINT,
     .offset = offsetof(struct tw_agent_config, verbs_queues),
     .min = 1,
     .max = TW_VERBS_BULK_QUEUES_MAX},
    {.name = "verbs_unencrypted",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct tw_agent_config, verbs_unencrypted),
     .names = consents},
    {.name = "http", TEXT(http), .may_be_empty = true},
    {.name = "controller", TEXT(controller), .may_be_empty = true},
    {.name = "state_dir",
     TEXT(state_dir),
     .required = true,
     .valid = absolute,
     .expected = "an absolute path"},
    {.name = "run_dir",
     TEXT(run_dir),
     .required = true,
     .valid = absolute,
     .expected = "an absolute path"},
    {.name = "memory",
     .type = TW_CONFIG_SIZE,
     .offset = offsetof(struct tw_agent_config, memory_bytes),
     .min = 4u << 20},
    {.name = "qemu", TEXT(qemu)},
    {.name = "plugin", TEXT(plugin)},
    {.name = "switchover_hook",
     TEXT(switchover_hook),
     .may_be_empty = true,
     .valid = executable_or_empty,
     .expected = "an absolute path of a program, or \"\""},
    {.name = "postcopy_recover",
     .type = TW_CONFIG_DURATION,
     .offset = offsetof(struct tw_agent_config, postcopy_recover_ns),
     .min = TW_SEC,
     .max = 7 * 86400 * TW_SEC},
    {.name = "mirror_after",
     .type = TW_CONFIG_DURATION,
     .offset = offsetof(struct tw_agent_config, mirror_after_ns),
     .min = TW_SEC,
     .max = 86400 * TW_SEC},
    {.name = "predictor",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct tw_agent_config, predictor),
     .names = predictors},
    {.name = "fault_workers",
     .type = TW_CONFIG_UINT,
     .offset = offsetof(struct tw_agent_config, fault_workers),
     .min = 1,
     .max = TW_FAULT_WORKERS_MAX},
    {.name = "miss_streams",
     TEXT(miss_streams),
     .may_be_empty = true,
     .valid = absolute_or_empty,
     .expected = "an absolute path of a folder, or \"\""},
    {.name = "tracking_socket",
     TEXT(tracking_socket),
     .may_be_empty = true,
     .valid = absolute_or_empty,
     .expected = "an absolute path, or \"\""},
    {.name = "instrumented_socket",
     TEXT(instrumented_socket),
     .may_be_empty = true,
     .valid = absolute_or_empty,
     .expected = "an absolute path, or \"\""},
    {.name = "tracking_copies",
     .type = TW_CONFIG_SIZE,
     .offset = offsetof(struct tw_agent_config, tracking_copies_bytes),
     .min = 1u << 20},
    {.name = "meter_vms",
     .type = TW_CONFIG_BOOL,
     .offset = offsetof(struct tw_agent_config, meter_vms)},
    {.name = "tls",
     .type = TW_CONFIG_MAPPING,
     .offset = offsetof(struct tw_agent_config, tls),
     .keys = tw_tls_keys,
     .key_count = TW_TLS_KEYS},
    {.name = "insecure",
     .type = TW_CONFIG_BOOL,
     .offset = offsetof(struct tw_agent_config, insecure)},
    {.name = "log_level",
     .type = TW_CONFIG_CHOICE,
     .offset = offsetof(struct tw_agent_config, log_level),
     .names = log_levels},
};

/* The plugin is installed in ../lib beside bin/, in the build folder as on a machine. */
static void find_plugin(char *out, size_t size)
{
    char self[192];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return;
    self[n] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
    }
    snprintf(out, size, "%s/lib/towline-plugin.so", self);
}

static enum tw_code urls_check(const struct tw_agent_config *config, struct tw_error *err)
{
    const char *const urls[] = {config->listen, config->advertise, config->controller};
    enum tw_code code = TW_OK;
    for (size_t i = 0; !code && i < sizeof urls / sizeof *urls; i++)
        if (urls[i][0])
            code =
                tw_rpc_url_check(urls[i], tw_tls_files_given(&config->tls), config->insecure, err);
    return code;
}

/* The port behind the one for TCP: on iWARP both share the space of port numbers. */
static void next_port(const char *address, char *out, size_t size)
{
    const char *colon = strrchr(address, ':');
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    if (port == 0 || port >= 65535)
        snprintf(out, size, "%s", address);
    else
        snprintf(out, size, "%.*s:%lu", (int)(colon - address), address, port + 1);
}

/* Unless it is given: beside the socket for local programs. */
#define BESIDE "beside tracking_socket"

static void find_instrumented(struct tw_agent_config *config)
{
    const char *slash = strrchr(config->tracking_socket, '/');
    if (strcmp(config->instrumented_socket, BESIDE) != 0)
        return;
    if (!slash || (size_t)snprintf(config->instrumented_socket, sizeof config->instrumented_socket,
                                   "%.*s/instrumented.sock", (int)(slash - config->tracking_socket),
                                   config->tracking_socket) >= sizeof config->instrumented_socket)
        config->instrumented_socket[0] = 0;
}

enum tw_code tw_agent_config_load(const char *path, struct tw_agent_config *config,
                                  struct tw_error *err)
{
    *config = (struct tw_agent_config){
        .listen = "tls+tcp://127.0.0.1:7102",
        .fabric_listen = "127.0.0.1:7202",
        .fabric_timeout_ns = 5 * TW_SEC,
        .verbs_queues = 1,
        .predictor = TW_FORESIGHT_AUTO,
        .fault_workers = TW_FAULT_WORKERS_DEFAULT,
        .qemu = "qemu-system-x86_64",
        .postcopy_recover_ns = 600 * TW_SEC,
        .mirror_after_ns = 30 * TW_SEC,
        .log_level = 1,
        .instrumented_socket = BESIDE,
    };
    enum tw_code code = tw_config_read(path, keys, sizeof keys / sizeof *keys, config, err);
    if (!code)
        code = urls_check(config, err);
    if (code)
        return code;
    find_instrumented(config);
    if (!config->memory_bytes)
        config->memory_bytes =
            (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    if (!config->verbs_listen[0])
        next_port(config->fabric_listen, config->verbs_listen, sizeof config->verbs_listen);
    if (!config->plugin[0])
        find_plugin(config->plugin, sizeof config->plugin);
    if (access(config->plugin, R_OK) != 0)
        return tw_fail_errno(err, errno, path, "plugin: cannot read %s", config->plugin);
    return TW_OK;
}
