/* The controller's configuration: defaults, the YAML file, command line options, in this order. */
#ifndef TOWLINE_CONTROLLER_CONFIG_H
#define TOWLINE_CONTROLLER_CONFIG_H

#include "base/error.h"
#include "base/log.h"
#include "config/config.h"
#include "pki/tls.h"

/* Of migrations for which neither operator nor VM say any; 0 = none. */
struct tw_migration_defaults {
    unsigned method, on_no_convergence; /* as in the contract */
    unsigned mirror;                    /* 0 = not said, 1 = true, 2 = false */
    uint64_t bandwidth, downtime_ns, total_ns, give_up_after_ns, slow_down, max_rounds;
};

struct tw_controller_config {
    char listen[256]; /* URL of the RPC server */
    char http[256];   /* URL of /metrics, /healthz, /readyz; empty = none */
    char store[1024]; /* path of the SQLite file */
    uint64_t store_limit_bytes;
    uint64_t lease_ns;     /* a host that is silent that long is dead */
    uint64_t heartbeat_ns; /* how often agents report */
    uint64_t workers;      /* RPC calls handled at once */
    struct tw_migration_defaults migration;
    struct tw_tls_files tls; /* all empty = none: then only plain text on loopback */
    bool insecure;           /* plain text is meant */
    unsigned log_level;      /* enum tw_log_level */
};

/* The keys of the file, for tw_config_set. */
extern const struct tw_config_key tw_controller_keys[];
extern const size_t tw_controller_key_count;

void tw_controller_config_defaults(struct tw_controller_config *config);
/* What no single key shows. */
enum tw_code tw_controller_config_check(const struct tw_controller_config *config,
                                        struct tw_error *err);

#endif
