/* VMs and migrations of a test cluster, through the controller's RPC; the guest's state through its
 * memory file (read with pread, which never makes a page where there is a hole). */
#include "tests/cluster/cluster.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool tw_cluster_guest_control(const struct tw_cluster *c, enum tw_role agent,
                              struct tw_sparse_control *out)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s-run/guest/ram", c->dir, c->processes[agent].name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, out, sizeof *out, TW_SPARSE_CONTROL);
    close(fd);
    return n == (ssize_t)sizeof *out && out->magic == TW_SPARSE_MAGIC;
}

bool tw_cluster_guest_runs(const struct tw_cluster *c, enum tw_role agent, unsigned within_ms)
{
    struct tw_sparse_control first, now;
    if (!tw_cluster_guest_control(c, agent, &first))
        return false;
    for (unsigned ms = 0; ms < within_ms; ms += 5) {
        tw_sleep_ms(5);
        if (tw_cluster_guest_control(c, agent, &now) && now.now_tsc != first.now_tsc)
            return true;
    }
    return false;
}

static bool folder_empty(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return true;
    bool empty = true;
    for (struct dirent *e; (e = readdir(d));)
        empty = empty && e->d_name[0] == '.';
    closedir(d);
    return empty;
}

bool tw_cluster_agent_clean(const struct tw_cluster *c, enum tw_role agent)
{
    char run[160], vms[160];
    const char *name = c->processes[agent].name;
    snprintf(run, sizeof run, "%s/%s-run", c->dir, name);
    snprintf(vms, sizeof vms, "%s/%s-state/vms", c->dir, name);
    return folder_empty(run) && folder_empty(vms) && tw_cluster_guest_pid(c, agent) == 0;
}

bool tw_cluster_await_clean(const struct tw_cluster *c, enum tw_role agent, unsigned within_ms)
{
    for (unsigned ms = 0; ms < within_ms; ms += 20) {
        if (tw_cluster_agent_clean(c, agent))
            return true;
        tw_sleep_ms(20);
    }
    return false;
}

void tw_cluster_create_guest(struct tw_cluster *c, unsigned memory_mib, const char *command_line)
{
    Towline__V1__VmSpec spec = TOWLINE__V1__VM_SPEC__INIT;
    Towline__V1__CreateVmRequest r = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    ProtobufCMessage *m;
    struct tw_error err = {0};
    spec.name = (char *)(uintptr_t) "guest";
    spec.memory_bytes = (uint64_t)memory_mib << 20;
    spec.kernel = (char *)(uintptr_t)TOWLINE_GUEST;
    spec.command_line = (char *)(uintptr_t)command_line;
    r.spec = &spec;
    r.host = (char *)(uintptr_t) "node-a";
    enum tw_code code = tw_rpc_call(c->client, &towline__v1__vm_service__descriptor, "Create",
                                    &r.base, 30000, TW_RPC_ONCE, &m, &err);
    cr_assert_eq(code, TW_OK, "%s: %s", err.where, err.what);
    protobuf_c_message_free_unpacked(m, NULL);
    struct tw_sparse_control control;
    for (unsigned i = 0; i < 2000; i++) {
        if (tw_cluster_guest_control(c, TW_AGENT_A, &control) && control.iteration > 2)
            return;
        tw_sleep_ms(5);
    }
    cr_assert_fail("the guest did not come up; logs in %s", c->dir);
}

enum tw_code tw_cluster_migrate(struct tw_cluster *c, const char *vm, const char *destination,
                                const Towline__V1__MigrationLimits *limits, char id[64],
                                struct tw_error *err)
{
    Towline__V1__StartMigrationRequest r = TOWLINE__V1__START_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.vm = (char *)(uintptr_t)vm;
    r.destination = (char *)(uintptr_t)destination;
    r.limits = (Towline__V1__MigrationLimits *)(uintptr_t)limits;
    enum tw_code code = tw_rpc_call(c->client, &towline__v1__migration_service__descriptor, "Start",
                                    &r.base, 5000, TW_RPC_ONCE, &m, err);
    if (code)
        return code;
    snprintf(id, 64, "%s", ((const Towline__V1__StartMigrationResponse *)m)->migration->id);
    protobuf_c_message_free_unpacked(m, NULL);
    return TW_OK;
}

Towline__V1__Migration *tw_cluster_migration(struct tw_cluster *c, const char *id)
{
    Towline__V1__GetMigrationRequest r = TOWLINE__V1__GET_MIGRATION_REQUEST__INIT;
    ProtobufCMessage *m;
    r.id = (char *)(uintptr_t)id;
    if (tw_rpc_call(c->client, &towline__v1__migration_service__descriptor, "Get", &r.base, 1000,
                    TW_RPC_IDEMPOTENT, &m, NULL))
        return NULL;
    Towline__V1__GetMigrationResponse *g = (Towline__V1__GetMigrationResponse *)m;
    Towline__V1__Migration *migration = g->migration;
    g->migration = NULL;
    protobuf_c_message_free_unpacked(m, NULL);
    return migration;
}

Towline__V1__Migration *tw_cluster_await_end(struct tw_cluster *c, const char *id,
                                             unsigned timeout_ms)
{
    uint64_t end = tw_now(&tw_monotonic) + timeout_ms * TW_MS;
    while (tw_now(&tw_monotonic) < end) {
        Towline__V1__Migration *m = tw_cluster_migration(c, id);
        if (m && m->state >= TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED)
            return m;
        if (m)
            towline__v1__migration__free_unpacked(m, NULL);
        tw_sleep_ms(20);
    }
    return NULL;
}
