#include "bench/migration/cluster.h"

#include "base/clock.h"
#include "towline/v1/host.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define READY_MS      20000u
#define POLL_MS       20u
#define END_MS        (BENCH_TIMEOUT_MS + 15000u)
#define CALL_MS       5000u
#define CREATE_MS     30000u
#define STOP_MS       3000u
#define DELETE_MS     15000u
#define PLAN_MS       2000u
#define PLAN_LIMIT_MS 20000u

static const char *const node_names[2] = {"node-a", "node-b"};

/* ---- Processes ------------------------------------------------------------------------------- */

static enum tw_code start_one(struct bench_cluster *c, struct bench_process *process,
                              const char *program, const char *name, const char *config,
                              struct tw_error *err)
{
    char path[BENCH_PATH + 64], log[BENCH_PATH + 64];
    snprintf(path, sizeof path, "%s/%s.yaml", c->dir, name);
    snprintf(log, sizeof log, "%s/%s.log", c->dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(config, f) < 0 || fclose(f) != 0)
        return tw_fail_errno(err, errno, path, "cannot write the configuration");
    const char *argv[] = {program, "--config", path, NULL};
    return bench_process_start(process, (char **)(uintptr_t)argv, log, err);
}

static enum tw_code start_all(struct bench_cluster *c, const struct bench_setting *s,
                              struct tw_error *err)
{
    char text[4096];
    snprintf(text, sizeof text, "listen: \"ipc://%s/controller.sock\"\nstore: %s/store.db\n",
             c->dir, s->state);
    enum tw_code code = start_one(c, &c->controller, s->controller, "controller", text, err);
    for (unsigned i = 0; i < 2 && !code; i++) {
        const char *n = node_names[i];
        snprintf(text, sizeof text,
                 "name: %s\nlisten: \"ipc://%s/%s.sock\"\nfabric_listen: \"127.0.0.1:0\"\n"
                 "controller: \"ipc://%s/controller.sock\"\nstate_dir: %s/%s-state\n"
                 "run_dir: %s/%s-run\nmemory: 1GiB\nplugin: %s\nqemu: %s\nmiss_streams: \"%s\"\n",
                 n, c->dir, n, c->dir, s->state, n, c->dir, n, s->plugin, s->qemu,
                 s->miss_streams ? s->miss_streams : "");
        code = start_one(c, &c->agents[i], s->agent, n, text, err);
    }
    return code;
}

static unsigned agents_alive(struct bench_cluster *c)
{
    Towline__V1__ListHostsRequest r = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    ProtobufCMessage *m;
    unsigned alive = 0;
    if (tw_rpc_call(c->client, &towline__v1__host_service__descriptor, "List", &r.base, 500,
                    TW_RPC_IDEMPOTENT, &m, NULL))
        return 0;
    const Towline__V1__ListHostsResponse *hosts = (const Towline__V1__ListHostsResponse *)m;
    for (size_t i = 0; i < hosts->n_hosts; i++)
        alive += hosts->hosts[i]->state == TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE;
    protobuf_c_message_free_unpacked(m, NULL);
    return alive;
}

static void show_end(const struct bench_cluster *c, const char *name)
{
    char path[BENCH_PATH + 64], text[2048];
    snprintf(path, sizeof path, "%s/%s.log", c->dir, name);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    if (fseek(f, -(long)sizeof text, SEEK_END) != 0)
        rewind(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    fprintf(stderr, "-- end of the log of %s --\n%.*s", name, (int)n, text);
}

static enum tw_code await_agents(struct bench_cluster *c, struct tw_error *err)
{
    uint64_t end = bench_now_ns() + READY_MS * TW_MS;
    while (bench_now_ns() < end && bench_process_alive(&c->controller)) {
        if (agents_alive(c) == 2)
            return TW_OK;
        if (!bench_sleep_ms(20))
            return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    }
    show_end(c, "controller");
    show_end(c, node_names[0]);
    show_end(c, node_names[1]);
    return tw_fail(err, TW_DEADLINE_EXCEEDED, "cluster", "2 agents", NULL,
                   "agents not alive after %u ms", READY_MS);
}

enum tw_code bench_cluster_start(const struct bench_setting *setting,
                                 struct bench_cluster **cluster, struct tw_error *err)
{
    struct bench_cluster *c = calloc(1, sizeof *c);
    char url[BENCH_PATH + 64];
    if (!c)
        return tw_fail_errno(err, ENOMEM, "cluster", "no memory");
    snprintf(c->dir, sizeof c->dir, "%.200s/cluster", setting->dir);
    c->files = setting->files;
    enum tw_code code = TW_OK;
    if (mkdir(c->dir, 0700) != 0)
        code = tw_fail_errno(err, errno, c->dir, "cannot make the cluster's folder");
    if (!code)
        code = start_all(c, setting, err);
    snprintf(url, sizeof url, "ipc://%s/controller.sock", c->dir);
    if (!code)
        code = tw_rpc_client_open(&(struct tw_rpc_client_config){.url = url}, &c->client, err);
    if (!code)
        code = await_agents(c, err);
    if (code)
        bench_cluster_stop(c);
    else
        *cluster = c;
    return code;
}

void bench_cluster_stop(struct bench_cluster *cluster)
{
    if (!cluster)
        return;
    for (unsigned i = 0; i < 2; i++)
        bench_process_stop(&cluster->agents[i], STOP_MS);
    bench_process_stop(&cluster->controller, STOP_MS);
    tw_rpc_client_close(cluster->client);
    bench_process_kill_all(cluster->dir);
    bench_folder_remove(cluster->dir);
    free(cluster);
}

void bench_cluster_vm_dir(const struct bench_cluster *cluster, const struct bench_guest *guest,
                          unsigned agent, char out[BENCH_PATH + 32])
{
    snprintf(out, BENCH_PATH + 32, "%s/%s-run/%s", cluster->dir, node_names[agent], guest->name);
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static char *text(const char *constant)
{
    return (char *)(uintptr_t)constant;
}

enum tw_code bench_cluster_create_vm(struct bench_cluster *cluster, const struct bench_guest *guest,
                                     struct tw_error *err)
{
    Towline__V1__VmSpec spec = TOWLINE__V1__VM_SPEC__INIT;
    Towline__V1__CreateVmRequest r = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    cluster->vm = guest->name;
    spec.name = text(cluster->vm);
    spec.memory_bytes = BENCH_MEMORY_BYTES;
    spec.kernel = text(bench_guest_kernel(guest, &cluster->files));
    spec.initrd = text(bench_guest_initrd(guest, &cluster->files));
    spec.command_line = text(guest->command_line);
    r.spec = &spec;
    r.host = text(node_names[0]);
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__vm_service__descriptor, "Create",
                                    &r.base, CREATE_MS, TW_RPC_ONCE, &m, err);
    if (!code)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

void bench_cluster_delete_vm(struct bench_cluster *cluster)
{
    Towline__V1__DeleteVmRequest r = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    char said[512];
    if (!cluster->vm)
        return;
    r.name = text(cluster->vm);
    if (tw_rpc_call(cluster->client, &towline__v1__vm_service__descriptor, "Delete", &r.base,
                    DELETE_MS, TW_RPC_ONCE, &m, &err))
        fprintf(stderr, "  %s\n", tw_error_text(&err, said, sizeof said));
    else
        protobuf_c_message_free_unpacked(m, NULL);
}

static void limits_of(const struct bench_wish *wish, Towline__V1__MigrationLimits *limits)
{
    towline__v1__migration_limits__init(limits);
    limits->bandwidth_bytes_per_s = wish->bandwidth;
    limits->downtime_ms = BENCH_DOWNTIME_MS;
    limits->timeout_ms = BENCH_TIMEOUT_MS;
    limits->method = (Towline__V1__MigrationMethod)wish->method;
    limits->predictor = (Towline__V1__Predictor)wish->predictor;
}

enum tw_code bench_cluster_migrate(struct bench_cluster *cluster, const struct bench_wish *wish,
                                   char id[64], struct tw_error *err)
{
    Towline__V1__MigrationLimits limits;
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    limits_of(wish, &limits);
    r.plan = text(wish->plan);
    if (!wish->plan[0]) { /* a plan has all of these */
        r.vm = text(cluster->vm);
        r.destination = text(node_names[1]);
        r.limits = &limits;
    }
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__migration_service__descriptor,
                                    "Start", &r.base, CALL_MS, TW_RPC_ONCE, &m, err);
    if (code)
        return code;
    snprintf(id, 64, "%s", ((const Towline__V1__StartMigrationResponse *)m)->migration->id);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

/* ---- Plans ------------------------------------------------------------------------------------
 */

static enum tw_code plan_begin(struct bench_cluster *cluster, struct bench_wish *wish,
                               struct tw_error *err)
{
    Towline__V1__MigrationLimits limits;
    Towline__V1__PlanMigrationRequest r = TOWLINE__V1__PLAN_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    limits_of(wish, &limits);
    r.vm = text(cluster->vm);
    r.destination = text(node_names[1]);
    r.limits = &limits;
    r.for_ms = PLAN_MS;
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__migration_service__descriptor,
                                    "Plan", &r.base, CALL_MS, TW_RPC_ONCE, &m, err);
    if (code)
        return code;
    const Towline__V1__Plan *p = ((const Towline__V1__PlanMigrationResponse *)m)->plan;
    snprintf(wish->plan, sizeof wish->plan, "%s", p ? p->token : "");
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

static enum tw_code plan_state(struct bench_cluster *cluster, const struct bench_wish *wish,
                               Towline__V1__PlanState *state, struct tw_error *err)
{
    Towline__V1__GetPlanRequest r = TOWLINE__V1__GET_PLAN_REQUEST__INIT;
    ProtobufCMessage *m;
    r.token = text(wish->plan);
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__migration_service__descriptor,
                                    "GetPlan", &r.base, CALL_MS, TW_RPC_IDEMPOTENT, &m, err);
    if (code)
        return code;
    const Towline__V1__Plan *p = ((const Towline__V1__GetPlanResponse *)m)->plan;
    *state = p ? p->state : TOWLINE__V1__PLAN_STATE__PLAN_STATE_FAILED;
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

enum tw_code bench_cluster_plan(struct bench_cluster *cluster, struct bench_wish *wish,
                                struct tw_error *err)
{
    uint64_t end = bench_now_ns() + PLAN_LIMIT_MS * TW_MS;
    Towline__V1__PlanState state = TOWLINE__V1__PLAN_STATE__PLAN_STATE_MEASURING;
    enum tw_code code = plan_begin(cluster, wish, err);
    while (!code && bench_now_ns() < end) {
        code = plan_state(cluster, wish, &state, err);
        if (code || state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_READY)
            return code;
        if (state == TOWLINE__V1__PLAN_STATE__PLAN_STATE_FAILED)
            return tw_fail(err, TW_ABORTED, wish->plan, "a plan", NULL, "the plan has failed");
        if (!bench_sleep_ms(POLL_MS))
            return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    }
    return code ? code
                : tw_fail(err, TW_DEADLINE_EXCEEDED, wish->plan, NULL, NULL,
                          "the plan is not ready after %u ms", PLAN_LIMIT_MS);
}

enum tw_code bench_cluster_cancel(struct bench_cluster *cluster, const char *id,
                                  struct tw_error *err)
{
    Towline__V1__CancelMigrationRequest r = TOWLINE__V1__CANCEL_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = text(id);
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__migration_service__descriptor,
                                    "Cancel", &r.base, CALL_MS, TW_RPC_IDEMPOTENT, &m, err);
    if (!code)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

enum tw_code bench_cluster_migration(struct bench_cluster *cluster, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err)
{
    Towline__V1__GetMigrationRequest r = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = text(id);
    enum tw_code code = tw_rpc_call(cluster->client, &towline__v1__migration_service__descriptor,
                                    "Get", &r.base, CALL_MS, TW_RPC_IDEMPOTENT, &m, err);
    if (code)
        return code;
    Towline__V1__GetMigrationResponse *answer = (Towline__V1__GetMigrationResponse *)m;
    *migration = answer->migration;
    answer->migration = NULL;
    protobuf_c_message_free_unpacked(m, NULL);
    if (!*migration)
        return tw_fail(err, TW_DATA_LOSS, "controller", "a migration", NULL, "empty answer");
    return TW_OK;
}

static bool has_ended(const Towline__V1__Migration *migration)
{
    return migration->state >= TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
}

enum tw_code bench_cluster_await_end(struct bench_cluster *cluster, const char *id,
                                     Towline__V1__Migration **migration, struct tw_error *err)
{
    uint64_t end = bench_now_ns() + END_MS * TW_MS;
    while (bench_now_ns() < end) {
        enum tw_code code = bench_cluster_migration(cluster, id, migration, err);
        if (code || has_ended(*migration))
            return code;
        towline__v1__migration__free_unpacked(*migration, NULL);
        *migration = NULL;
        if (!bench_sleep_ms(POLL_MS))
            return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    }
    return tw_fail(err, TW_DEADLINE_EXCEEDED, id, NULL, NULL, "has not ended after %u ms", END_MS);
}
