/* A whole cluster of real processes for tests: one controller, agents, VMs with the small guest.
 *
 * RPC and lines run over TCP on loopback, files live in a folder of the test's own. Every
 * process is a child of the test, logs to that folder, and is gone when tw_cluster_close() returns;
 * so are its guests, found by their run folders' records. A monitor thread watches the guests'
 * processes all the while: two that run at the same time are remembered for ever. */
#ifndef TOWLINE_TESTS_CLUSTER_H
#define TOWLINE_TESTS_CLUSTER_H

#include "guests/sparse.h"
#include "rpc/rpc.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/migration.pb-c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TW_CLUSTER_AGENTS 2u

/* The third agent is there only where a test wants it. */
enum tw_role {
    TW_CONTROLLER,
    TW_AGENT_A,
    TW_AGENT_B,
    TW_ROLES,
    TW_AGENT_C = TW_ROLES,
    TW_PROCESSES
};

struct tw_process {
    const char *name; /* "controller", "node-a", "node-b" */
    pid_t pid;        /* 0: not running */
    char fault[512];  /* TOWLINE_FAULT at the next start */
};

struct tw_cluster {
    char dir[64];
    char controller_url[48];
    struct tw_tls *tls; /* of the client; NULL: the cluster speaks plain text */
    struct tw_process processes[TW_PROCESSES];
    bool third;                        /* node-c is started, too */
    bool own_network;                  /* see tw_cluster_open_apart */
    char lines_host[TW_PROCESSES][20]; /* there */
    char settings[TW_PROCESSES][512];  /* further lines of the configuration files */
    struct tw_rpc_client *client;      /* of the controller */
    pthread_t monitor;
    _Atomic bool monitor_stop;
    _Atomic unsigned two_running; /* samples in which both copies of the VM ran */
    pid_t monitored[TW_CLUSTER_AGENTS];
    pid_t left_behind; /* a guest process that nobody ended */
};

/* Makes the folder and starts nothing. */
void tw_cluster_open(struct tw_cluster *c);
/* The same with an authority in DIR/pki and, beside it, DIR/tls/NAME for each process; the client
 * is operator "test". RPC is under TLS then. */
void tw_cluster_open_tls(struct tw_cluster *c);
/* In a network that the test may cut (tests/cluster/apart makes one), in which the lines of each
 * agent have an address of their own. */
void tw_cluster_open_apart(struct tw_cluster *c);
void tw_cluster_cut(struct tw_cluster *c);   /* no packet of lines arrives any more */
void tw_cluster_break(struct tw_cluster *c); /* connections of lines end at once, at both sides */
void tw_cluster_mend(struct tw_cluster *c);
/* Starts controller and agents and waits until the controller sees both agents alive. */
void tw_cluster_start(struct tw_cluster *c);
void tw_cluster_close(struct tw_cluster *c);

void tw_cluster_spawn(struct tw_cluster *c, enum tw_role role);
void tw_cluster_kill(struct tw_cluster *c, enum tw_role role);          /* SIGKILL and reap */
bool tw_cluster_process_ended(struct tw_cluster *c, enum tw_role role); /* reaps */
void tw_cluster_await_agents(struct tw_cluster *c);

/* Creates the small guest as VM "guest" on node-a and waits until it has written for a while. */
void tw_cluster_create_guest(struct tw_cluster *c, unsigned memory_mib, const char *command_line);

/* Calls with the test's assertions: NULL response = the call must fail with *err. */
enum tw_code tw_cluster_migrate(struct tw_cluster *c, const char *vm, const char *destination,
                                const Towline__V1__MigrationLimits *limits, char id[64],
                                struct tw_error *err);
/* NULL when the controller does not answer now. */
Towline__V1__Migration *tw_cluster_migration(struct tw_cluster *c, const char *id);
/* Waits for an end (completed, cancelled, failed, lost); NULL = none in time. */
Towline__V1__Migration *tw_cluster_await_end(struct tw_cluster *c, const char *id,
                                             unsigned timeout_ms);

/* The guest's process on an agent, from its run folder's socket owner; 0 = none. */
pid_t tw_cluster_guest_pid(const struct tw_cluster *c, enum tw_role agent);
bool tw_cluster_guest_control(const struct tw_cluster *c, enum tw_role agent,
                              struct tw_sparse_control *out);
/* True when the copy on that agent makes progress inside the time. */
bool tw_cluster_guest_runs(const struct tw_cluster *c, enum tw_role agent, unsigned within_ms);
/* Nothing of the VM on that agent: no process, no run folder, no durable record. */
bool tw_cluster_agent_clean(const struct tw_cluster *c, enum tw_role agent);
bool tw_cluster_await_clean(const struct tw_cluster *c, enum tw_role agent, unsigned within_ms);

void tw_sleep_ms(unsigned ms);
bool tw_await_file(const char *path, unsigned within_ms);
void tw_touch(const char *path);

#endif
