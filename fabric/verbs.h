/* The fabric over RDMA: InfiniBand, RoCE and iWARP, by librdmacm and libibverbs. How it works is in
 * docs/fabric.md. An endpoint uses one device: the named one, else that of its first address.
 *
 * Whether this host could use it at all: fabric/verbs_probe.h. */
#ifndef TOWLINE_FABRIC_VERBS_H
#define TOWLINE_FABRIC_VERBS_H

#include "fabric/fabric.h"

#define TW_VERBS_BULK_QUEUES_MAX 8u

/* backend_arg of tw_fabric_open(); NULL = all defaults. Texts must live as long as the fabric. */
struct tw_verbs_config {
    const char *device;   /* "mlx5_0"; NULL or "" = that of the first address used */
    const char *source;   /* numeric IP address without port to connect from; NULL or "" = the
                           * address that the fabric listens on, or what the routes say */
    uint32_t bulk_queues; /* queue pairs for bulk a connection, at most 8; 0 = 1 */
    uint64_t slice_bytes; /* registered memory goes to the device in pieces; a multiple of 4096;
                           * 0 = 64 MiB */
};

extern const struct tw_fabric_backend tw_fabric_verbs;

/* Totals of an endpoint since it was opened, connections that are gone included. */
struct tw_verbs_stats {
    uint64_t doorbells;         /* posts of chained work requests to send */
    uint64_t requests;          /* work requests in them */
    uint64_t inline_requests;   /* of them, with the bytes inside */
    uint64_t signalled;         /* of them, that asked for a completion */
    uint64_t credit_writes;     /* of them, that returned credit */
    uint64_t chunk_bytes;       /* payload of chunks sent: fill = chunk_bytes / chunks / 128 KiB */
    uint64_t chunks;            /* sent, without those sent again */
    uint64_t resent;            /* messages sent again on new queue pairs */
    uint64_t flush_empty;       /* posts that ended because there was nothing more to send */
    uint64_t flush_full;        /* because a chain was full: another followed */
    uint64_t flush_window;      /* because the peer's ring was full */
    uint64_t flush_queue;       /* because the send queue was full */
    uint64_t breaks;            /* connections whose queue pairs were lost while up */
    uint64_t reconnects;        /* of them, brought back */
    uint64_t nudges;            /* empty writes to a peer that does not answer a greeting (iWARP) */
    uint64_t refused;           /* connections closed because of what the peer sent */
    uint64_t reads;             /* RDMA READs posted */
    uint64_t lookups;           /* questions for the place of a slice */
    uint64_t registrations;     /* memory registrations done */
    uint64_t registered_bytes;  /* present */
    uint64_t registered_slices; /* present */
    uint64_t register_ns;       /* time spent in registering, in all */
    uint64_t deregister_ns;
};

/* `fabric` must have been opened with tw_fabric_verbs. */
void tw_fabric_verbs_stats(const struct tw_fabric *fabric, struct tw_verbs_stats *out);

/* The device in use; "" until an address, a name or a region has decided. */
const char *tw_fabric_verbs_device(const struct tw_fabric *fabric);

#endif
