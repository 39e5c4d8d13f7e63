/* What an operator does to a migration under way, and plans. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_ORDERS_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_ORDERS_H

#include "tests/cluster/virtual/world.h"

#include "rpc/rpc.h"
#include "towline/v1/migration.pb-c.h"

struct vt_task {
    unsigned vm;
    char name[16];
    char host[64];
    char migration[64]; /* the last that was accepted; "" = none */
    bool created, deleted, done;
    Towline__V1__MigrationState state;
    uint64_t bandwidth;  /* that an order was acknowledged for; 0 = none */
    int slow;            /* percent that an order was acknowledged for; -1 = none */
    bool paused;         /* by an order, and not resumed since */
    uint64_t resumed_ns; /* when its end was acknowledged; 0 = not */
    uint64_t paused_seen_ns, paused_seen_by; /* since when it is said to be paused all the same, by
                                                this life of the controller */
    uint64_t path_gone_ns; /* since then it is said that an operator has to reconnect; 0 = not */
};

/* ---- operator.c ------------------------------------------------------------------------------ */

/* Frees the answer with protobuf_c_message_free_unpacked. */
enum tw_code vt_call(const ProtobufCServiceDescriptor *service, const char *method,
                     const ProtobufCMessage *request, bool repeat, ProtobufCMessage **answer,
                     struct tw_error *err);
void vt_limits(const struct vt_task *task, unsigned move, Towline__V1__MigrationLimits *limits);

/* ---- orders.c -------------------------------------------------------------------------------- */

void vt_orders_begin(void);
/* Gives what was ordered to this task's migration. */
void vt_orders_give(struct vt_task *task);
/* What was acknowledged is kept; a host that is off for good is declared lost. */
void vt_orders_look(struct vt_task *task, const Towline__V1__Migration *migration);

/* A token; false: there was none in time, or the plan is refused. */
bool vt_plan_make(const struct vt_task *task, unsigned move, const char *destination,
                  char token[64]);
/* A plan that has had its day must be refused. */
void vt_plan_must_fail(const char *token, const char *why);

#endif
