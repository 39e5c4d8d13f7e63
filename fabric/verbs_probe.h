/* Which RDMA devices this host has and whether the verbs fabric could use them, with the reason
 * where it could not. For `fabric: auto` and for doctor. Opens devices briefly; changes nothing. */
#ifndef TOWLINE_FABRIC_VERBS_PROBE_H
#define TOWLINE_FABRIC_VERBS_PROBE_H

#include "fabric/memlock.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_VERBS_PORTS_MAX 32u

/* What one connection of the verbs fabric pins with default limits, about; regions come on top. */
#define TW_VERBS_CONN_PINNED (UINT64_C(8) << 20)

enum tw_verbs_transport { TW_VERBS_IB, TW_VERBS_ROCE, TW_VERBS_IWARP, TW_VERBS_OTHER };

struct tw_verbs_port {
    char device[64]; /* "rxe0", "mlx5_0" */
    uint8_t port;    /* from 1 */
    enum tw_verbs_transport transport;
    const char *state;    /* "active", "down", "init", "armed", "unknown"; static */
    char gid[46];         /* of the entry that would be used, as an IPv6 address; "" if none */
    uint32_t gid_index;   /* of it */
    char netdev[16];      /* network device of it; "" if unknown */
    uint32_t mtu_bytes;   /* active path MTU */
    uint64_t max_mr_size; /* bytes, of one registration */
    uint32_t max_mr;      /* registrations */
    uint32_t max_qp;
    uint32_t max_read_depth; /* RDMA READs under way a queue pair */
    bool strict_memlock;     /* looks at the memlock limit even of root (Soft-iWARP) */
    bool usable;
    char why[160]; /* why not; "" if usable */
};

struct tw_verbs_probe {
    bool usable;   /* at least one port is */
    char why[160]; /* why not; "" if usable */
    struct tw_memlock memlock;
    uint32_t port_count;
    uint32_t ports_left_out; /* beyond TW_VERBS_PORTS_MAX */
    struct tw_verbs_port ports[TW_VERBS_PORTS_MAX];
};

/* Never fails: a host without devices is an answer too. Returns out->usable. */
bool tw_fabric_verbs_probe(struct tw_verbs_probe *out);

const char *tw_verbs_transport_name(enum tw_verbs_transport transport); /* "RoCE" */

#endif
