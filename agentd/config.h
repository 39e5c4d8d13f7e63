/* The agent's configuration file; every key is described in docs/operations.md. */
#ifndef TOWLINE_AGENTD_CONFIG_H
#define TOWLINE_AGENTD_CONFIG_H

#include "base/error.h"
#include "pki/tls.h"

#include <stdbool.h>
#include <stdint.h>

enum tw_agent_fabric { TW_AGENT_FABRIC_AUTO, TW_AGENT_FABRIC_TCP, TW_AGENT_FABRIC_VERBS };
enum tw_agent_consent { TW_AGENT_REFUSE, TW_AGENT_ALLOW };

struct tw_agent_config {
    char name[64];              /* of this host in the cluster; required */
    char listen[256];           /* AgentService: "tls+tcp://127.0.0.1:7102" */
    char advertise[256];        /* what peers and controller are told; empty = the bound address */
    unsigned fabric;            /* enum tw_agent_fabric: how lines travel where both sides agree */
    char fabric_listen[256];    /* lines by TCP: "127.0.0.1:7202" */
    uint64_t fabric_timeout_ns; /* a peer that is silent for so long is lost; to connect, too */
    char verbs_listen[256];     /* lines by RDMA; default: fabric_listen's address, the next port */
    char verbs_device[64];      /* RDMA device; empty = that of verbs_listen */
    uint64_t verbs_queues;      /* queue pairs for bulk a connection, 1 to 8 */
    unsigned verbs_unencrypted; /* enum tw_agent_consent: lines in plain text, which RDMA's are */
    char http[256];             /* "http://127.0.0.1:7302"; empty = none */
    char controller[256];       /* "tls+tcp://127.0.0.1:7100"; empty = none: answers, never calls */
    char state_dir[256];        /* durable records; required */
    char run_dir[256];          /* guest RAM and sockets, on tmpfs; required */
    uint64_t memory_bytes;      /* what VMs may have; 0 = half of the machine's */
    char qemu[256];             /* QEMU binary */
    char plugin[256];           /* our TCG plugin; empty = beside the agent's own program */
    char switchover_hook[256];  /* empty = none */
    uint64_t mirror_after_ns;   /* ... and only the source is tried for so long, given a mirror */
    uint64_t postcopy_recover_ns; /* a path lost in post-copy is tried again for so long */
    unsigned predictor;           /* enum tw_foresight_choice: where a migration names none */
    uint64_t fault_workers;       /* for each VM whose memory follows it, 1 to 8 */
    char miss_streams[256];       /* folder that recordings of misses go to; empty = none */
    char tracking_socket[108];    /* unix socket for local programs; empty = none */
    bool meter_vms;               /* measure what VMs write always, not only while somebody looks */
    char instrumented_socket[108];  /* the same for programs of towline-cc to come to */
    uint64_t tracking_copies_bytes; /* of copies, for each tracked program; 0 = 1 GiB */
    struct tw_tls_files tls;        /* all empty = none: then only plain text on loopback */
    bool insecure;                  /* plain text is meant */
    unsigned log_level;             /* enum tw_log_level */
};

/* Defaults, then the file. The struct is complete afterwards (memory, plugin path). */
enum tw_code tw_agent_config_load(const char *path, struct tw_agent_config *config,
                                  struct tw_error *err);

#endif
