/* A controller and two agents on loopback, as an operator runs them, and calls to the controller.
 */
#ifndef TOWLINE_BENCH_MIGRATION_CLUSTER_H
#define TOWLINE_BENCH_MIGRATION_CLUSTER_H

#include "bench/migration/run.h"
#include "rpc/rpc.h"
#include "towline/v1/migration.pb-c.h"

struct bench_cluster {
    char dir[BENCH_PATH];
    struct bench_files files;
    struct bench_process controller, agents[2];
    struct tw_rpc_client *client;
    const char *vm; /* the one that is there, or was last: called like its case */
};

/* Folder of a guest's VM on an agent (0 = node-a, 1 = node-b): `ram`, `serial.log`. */
void bench_cluster_vm_dir(const struct bench_cluster *cluster, const struct bench_guest *guest,
                          unsigned agent, char out[BENCH_PATH + 32]);

enum tw_code bench_cluster_create_vm(struct bench_cluster *cluster, const struct bench_guest *guest,
                                     struct tw_error *err);
void bench_cluster_delete_vm(struct bench_cluster *cluster);

/* From node-a to node-b. */
struct bench_wish {
    uint64_t bandwidth;
    int method, predictor; /* of the contract; 0 = default */
    char plan[64];         /* token of a plan that is run; "" = none */
};
/* Has the VM measured as long as an operator would at least; sets wish->plan. Bounded. */
enum tw_code bench_cluster_plan(struct bench_cluster *cluster, struct bench_wish *wish,
                                struct tw_error *err);
/* Returns when it is recorded; `id` gets its name. */
enum tw_code bench_cluster_migrate(struct bench_cluster *cluster, const struct bench_wish *wish,
                                   char id[64], struct tw_error *err);
enum tw_code bench_cluster_cancel(struct bench_cluster *cluster, const char *id,
                                  struct tw_error *err);
/* Free with towline__v1__migration__free_unpacked. */
enum tw_code bench_cluster_migration(struct bench_cluster *cluster, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err);
/* The same, once it has ended, well or badly; bounded. */
enum tw_code bench_cluster_await_end(struct bench_cluster *cluster, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err);

#endif
