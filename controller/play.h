/* A controller and played agents for tests, driven through the controller's RPC. */
#ifndef TOWLINE_CONTROLLER_PLAY_H
#define TOWLINE_CONTROLLER_PLAY_H

#include "controller/controller.h"
#include "controller/fake_agent.h"
#include "towline/v1/event.pb-c.h"
#include "towline/v1/health.pb-c.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/migration.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

/* Ends the process of a test that has failed, and the controller that it started. */
_Noreturn void play_failed(void);

/* A test is a process of its own: the line that failed ends it. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                        \
            fprintf(stderr, "" __VA_ARGS__);                                                       \
            fputc('\n', stderr);                                                                   \
            play_failed();                                                                         \
        }                                                                                          \
    } while (0)

struct play {
    struct fake_world world;
    struct tw_controller *controller; /* in this process, or */
    pid_t pid;                        /* in one of its own */
    struct tw_rpc_client *client;
    uint64_t lease_ms;
};

void play_open(struct play *p);
/* Takes everything down, in order. */
void play_close(struct play *p);
/* The end of a test that has passed: leaves the process, with nothing left behind. */
_Noreturn void play_passed(struct play *p);

/* The controller in this process, on the world's store. */
void play_start(struct play *p);

/* The controller as a process of its own, as often as one likes; `fault` as TOWLINE_FAULT. */
void play_spawn(struct play *p, const char *fault);
bool play_ended(struct play *p); /* reaps */
void play_kill(struct play *p);

enum tw_code play_call(struct play *p, const ProtobufCServiceDescriptor *service,
                       const char *method, const ProtobufCMessage *request,
                       ProtobufCMessage **answer, struct tw_error *err);

/* Waits until that many hosts are alive. */
void play_await_hosts(struct play *p, unsigned count);
enum tw_code play_create(struct play *p, const char *vm, const char *host, struct tw_error *err);
enum tw_code play_migrate(struct play *p, const char *vm, const char *host, char id[64],
                          struct tw_error *err);
enum tw_code play_cancel(struct play *p, const char *id, struct tw_error *err);
enum tw_code play_recover(struct play *p, const char *id, bool to_source, bool fenced,
                          struct tw_error *err);
enum tw_code play_lost(struct play *p, const char *id, const char *host, bool confirmed,
                       Towline__V1__LostOutcome *outcome, struct tw_error *err);
/* Freed by the caller; NULL when there is no answer. */
Towline__V1__Migration *play_migration(struct play *p, const char *id);
Towline__V1__Vm *play_vm(struct play *p, const char *name);

Towline__V1__MigrationState play_state(struct play *p, const char *id);
/* Fails the test when the migration is not in that state in time, which is ten times what is given
 * here and below: a bound on waiting, not a measure. */
void play_await_state(struct play *p, const char *id, Towline__V1__MigrationState state,
                      unsigned within_ms);
/* Any end; returns it. */
Towline__V1__MigrationState play_await_end(struct play *p, const char *id, unsigned within_ms);
/* The VM's record: on that host, in that state. */
void play_await_vm(struct play *p, const char *vm, const char *host, Towline__V1__VmState state,
                   unsigned within_ms);
/* True when an event of that kind and subject has been written. */
bool play_event_seen(struct play *p, const char *kind, const char *subject);

/* The VM runs on that agent and nothing of it is anywhere else, in time; never did two run. */
void play_await_only_copy(struct play *p, const char *vm, unsigned agent, unsigned within_ms);

/* Runs every test in a process of its own, two at a time; with a name as argument, that test in
 * this process. `count` variants each, numbered from 0. Returns the exit status. */
struct play_test {
    const char *name;
    void (*run)(unsigned variant);
    unsigned count;
};
int play_main(int argc, char **argv, const struct play_test *tests, size_t count);

#define PLAY_STATE(name) TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_##name
#define PLAY_VM(name)    TOWLINE__V1__VM_STATE__VM_STATE_##name

#endif
