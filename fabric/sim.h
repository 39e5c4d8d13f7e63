/* The simulated network: endpoints in one process on a virtual clock, driven by a seed. Loses,
 * delays, reorders (between connections), corrupts, cuts. Everything is deterministic. */
#ifndef TOWLINE_FABRIC_SIM_H
#define TOWLINE_FABRIC_SIM_H

#include "fabric/fabric.h"

struct tw_sim;

struct tw_sim_config {
    uint64_t seed;
    uint64_t latency_min_ns;        /* one way; 0 = 10 us */
    uint64_t latency_max_ns;        /* 0 = 50 us */
    uint64_t bandwidth_bytes_per_s; /* a connection; 0 = 1 GiB/s */
    uint32_t corrupt_ppm;           /* chunks with one flipped bit, parts in a million */
};

struct tw_sim *tw_sim_open(const struct tw_sim_config *config);
void tw_sim_close(struct tw_sim *sim);

/* Pass as `backend` and `backend_arg` (the sim) to tw_fabric_open. Addresses are any text. */
extern const struct tw_fabric_backend tw_fabric_sim;

/* The virtual clock; pass to everything that runs in the simulation. */
const struct tw_clock *tw_sim_clock(struct tw_sim *sim);

/* Advances to the next thing that happens in the network, or by `max_ns`, whichever is sooner.
 * Endpoints then see it in tw_fabric_poll(). */
void tw_sim_advance(struct tw_sim *sim, uint64_t max_ns);

/* When an endpoint has something to do in tw_fabric_poll(): what its outer loop would learn from a
 * descriptor. TW_NEVER = nothing is on its way. */
uint64_t tw_sim_due(const struct tw_fabric *fabric);

/* Faults. Names are the endpoints' config names. */
void tw_sim_cut(struct tw_sim *sim, const char *a, const char *b); /* both ways, until mended */
void tw_sim_mend(struct tw_sim *sim, const char *a, const char *b);
void tw_sim_drop_chunks(struct tw_sim *sim, uint32_t count); /* the next n chunks vanish */

#endif
