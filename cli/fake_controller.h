/* A controller for tests, in this process: real services over real RPC with canned answers.
 *
 *   hosts        node-a (alive), node-b (dead)
 *   VMs          web-1 (running), db-1 (failed, with a reason)
 *   vm create    refused for the name "taken"; host "ghost" is not found; "bad" starts and fails
 *   migrations   m-1, which runs through `looks` answers of Get and then has `end_state` */
#ifndef TOWLINE_CLI_FAKE_CONTROLLER_H
#define TOWLINE_CLI_FAKE_CONTROLLER_H

#include "rpc/rpc.h"

#include "towline/v1/migration.pb-c.h"
#include "towline/v1/probe.pb-c.h"

#include <pthread.h>

struct fake_controller {
    struct tw_rpc_server *server;
    char url[64];

    pthread_mutex_t lock;
    bool not_ready;
    unsigned looks;     /* Get answers before the migration ends */
    unsigned looked;    /* Get answers given */
    unsigned eta_up_at; /* from this look on the estimate is greater */
    Towline__V1__MigrationState end_state;
    Towline__V1__ProbeVerdict memlock_verdict; /* of node-a; node-b does not answer */
    uint64_t host_clock_ahead_us;              /* of node-a, against the controller's */
    unsigned events_oldest; /* revision of the oldest event kept; the newest is 5 */

    /* What the last requests said. */
    char created_name[64], created_kernel[256], created_host[64];
    uint64_t created_memory;
    char migrated_vm[64], migrated_to[64];
    Towline__V1__MigrationLimits limits;
    char mirror[64];  /* its text */
    bool from_mirror; /* of the last reconnect */
    Towline__V1__MirrorState mirror_state;
    const char *mirror_reason, *risk; /* NULL = none, and that of a lost VM */
    char cancelled[64], switched[64], recovered[64], removed[64], lost[64];
    Towline__V1__RecoverTo recovered_to;
    unsigned starts, adjusts, plan_looks;
    bool plan_refused;
    uint32_t planned_for_ms;
    char migrated_plan[64];
    Towline__V1__AdjustMigrationRequest adjusted; /* its texts are not to be read */
};

void fake_controller_open(struct fake_controller *fake);
void fake_controller_close(struct fake_controller *fake);
/* Gone; and back at the same address. */
void fake_controller_stop(struct fake_controller *fake);
void fake_controller_restart(struct fake_controller *fake);

#endif
