/* What agents still have to be told: VMs to start or remove, outcomes of migrations that a host
 * did not hear. A job that goes over them again and again, gently with hosts that are silent. */
#ifndef TOWLINE_CONTROLLER_SETTLE_H
#define TOWLINE_CONTROLLER_SETTLE_H

#include "controller/vms.h"

#define TW_SETTLE_AT_ONCE 256u /* of each kind in one turn */

struct tw_settle {
    struct tw_store *store;
    struct tw_reach reach;
    struct tw_vms *vms;
    uint64_t prune_ns; /* when old names are forgotten next; 0 at first */
};

/* A job's function (jobs.h); `settle` is a struct tw_settle. */
uint64_t tw_settle_step(void *settle);

#endif
