/* An agent as a node: the whole of agentd but its programs' tracking, which has nothing to do with
 * the cluster. And the rule about its records: at most one of all agents owns a VM, at every
 * moment that a process could die in. */
#include "agentd/agent.h"

#include "fabric/sim.h"
#include "rpc/rpc.h"
#include "tests/cluster/virtual/world.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_BYTES (UINT64_C(256) << 20) /* that an agent may give to VMs */
#define HEADER_BYTES 16                    /* before the message, in a record's file */

static struct tw_agent *agents[VT_AGENTS];

/* Of the linker. */
enum tw_code __wrap_tw_fabric_open(const struct tw_fabric_backend *backend, void *arg,
                                   const struct tw_fabric_config *config, struct tw_fabric **fabric,
                                   struct tw_error *err);
enum tw_code __real_tw_fabric_open(const struct tw_fabric_backend *backend, void *arg,
                                   const struct tw_fabric_config *config, struct tw_fabric **fabric,
                                   struct tw_error *err);
void __wrap_tw_fabric_close(struct tw_fabric *fabric);
void __real_tw_fabric_close(struct tw_fabric *fabric);
uint8_t *__wrap_tw_conn_chunk_begin(struct tw_conn *conn, enum tw_lane lane);
uint8_t *__real_tw_conn_chunk_begin(struct tw_conn *conn, enum tw_lane lane);
enum tw_code __wrap_tw_conn_chunk_send(struct tw_conn *conn, enum tw_lane lane,
                                       const struct tw_chunk_header *header, struct tw_error *err);
enum tw_code __real_tw_conn_chunk_send(struct tw_conn *conn, enum tw_lane lane,
                                       const struct tw_chunk_header *header, struct tw_error *err);
enum tw_code __wrap_tw_conn_send(struct tw_conn *conn, enum tw_lane lane, enum tw_chunk_kind kind,
                                 uint32_t tag, uint32_t count, const void *payload, uint32_t length,
                                 struct tw_error *err);
enum tw_code __real_tw_conn_send(struct tw_conn *conn, enum tw_lane lane, enum tw_chunk_kind kind,
                                 uint32_t tag, uint32_t count, const void *payload, uint32_t length,
                                 struct tw_error *err);
enum tw_code __wrap_tw_agent_tracking_open(const struct tw_agent_tracking_config *config,
                                           struct tw_agent_tracking **tracking,
                                           struct tw_error *err);
void __wrap_tw_agent_tracking_close(struct tw_agent_tracking *tracking);
enum tw_code __wrap_tw_agent_tracking_serve(struct tw_agent_tracking *tracking,
                                            struct tw_rpc_server *server, struct tw_error *err);

enum tw_code __wrap_tw_mirrors_hold(struct tw_agent *agent,
                                    const Towline__V1__HoldMirrorRequest *request,
                                    Towline__V1__MirrorTarget *target, struct tw_error *err);
enum tw_code __real_tw_mirrors_hold(struct tw_agent *agent,
                                    const Towline__V1__HoldMirrorRequest *request,
                                    Towline__V1__MirrorTarget *target, struct tw_error *err);

enum tw_code __wrap_tw_hook_start(const char *path, const char *const *environment,
                                  uint64_t timeout_ns, struct tw_hook **hook, struct tw_error *err);
bool __wrap_tw_hook_poll(struct tw_hook *hook, enum tw_code *code, struct tw_error *err);
void __wrap_tw_hook_free(struct tw_hook *hook);

/* ---- What is left out ------------------------------------------------------------------------ */

/* A switch-over hook that takes its time and succeeds. */
struct tw_hook {
    uint64_t ends_ns;
};

enum tw_code __wrap_tw_hook_start(const char *path, const char *const *environment,
                                  uint64_t timeout_ns, struct tw_hook **hook, struct tw_error *err)
{
    (void)path, (void)environment, (void)timeout_ns, (void)err;
    *hook = calloc(1, sizeof **hook);
    (*hook)->ends_ns = vt_now() + vt_below(5 * TW_MS);
    return TW_OK;
}

bool __wrap_tw_hook_poll(struct tw_hook *hook, enum tw_code *code, struct tw_error *err)
{
    (void)err;
    *code = TW_OK;
    return vt_now() >= hook->ends_ns;
}

void __wrap_tw_hook_free(struct tw_hook *hook)
{
    free(hook);
}

enum tw_code __wrap_tw_agent_tracking_open(const struct tw_agent_tracking_config *config,
                                           struct tw_agent_tracking **tracking,
                                           struct tw_error *err)
{
    (void)config, (void)err;
    *tracking = NULL;
    return TW_OK;
}

void __wrap_tw_agent_tracking_close(struct tw_agent_tracking *tracking)
{
    (void)tracking;
}

enum tw_code __wrap_tw_agent_tracking_serve(struct tw_agent_tracking *tracking,
                                            struct tw_rpc_server *server, struct tw_error *err)
{
    (void)tracking, (void)server, (void)err;
    return TW_OK;
}

/* ---- The fabric of a node -------------------------------------------------------------------- */

enum tw_code __wrap_tw_fabric_open(const struct tw_fabric_backend *backend, void *arg,
                                   const struct tw_fabric_config *config, struct tw_fabric **fabric,
                                   struct tw_error *err)
{
    (void)backend, (void)arg;
    struct tw_fabric_config simulated = *config;
    simulated.bulk_credits = 3;
    enum tw_code code = __real_tw_fabric_open(&tw_fabric_sim, vt_time.sim, &simulated, fabric, err);
    if (!code)
        vt_here()->fabric = *fabric;
    return code;
}

void __wrap_tw_fabric_close(struct tw_fabric *fabric)
{
    if (fabric && vt_here()->fabric == fabric)
        vt_here()->fabric = NULL;
    __real_tw_fabric_close(fabric);
}

static enum tw_code silenced(struct tw_error *err)
{
    return tw_fail(err, TW_UNAVAILABLE, "fabric", NULL, NULL, "the process is dead");
}

uint8_t *__wrap_tw_conn_chunk_begin(struct tw_conn *conn, enum tw_lane lane)
{
    return vt_dead() ? NULL : __real_tw_conn_chunk_begin(conn, lane);
}

enum tw_code __wrap_tw_conn_chunk_send(struct tw_conn *conn, enum tw_lane lane,
                                       const struct tw_chunk_header *header, struct tw_error *err)
{
    if (!vt_dead())
        return __real_tw_conn_chunk_send(conn, lane, header, err);
    tw_conn_chunk_release(conn, lane);
    return silenced(err);
}

enum tw_code __wrap_tw_conn_send(struct tw_conn *conn, enum tw_lane lane, enum tw_chunk_kind kind,
                                 uint32_t tag, uint32_t count, const void *payload, uint32_t length,
                                 struct tw_error *err)
{
    return vt_dead() ? silenced(err)
                     : __real_tw_conn_send(conn, lane, kind, tag, count, payload, length, err);
}

enum tw_code __wrap_tw_mirrors_hold(struct tw_agent *agent,
                                    const Towline__V1__HoldMirrorRequest *request,
                                    Towline__V1__MirrorTarget *target, struct tw_error *err)
{
    enum tw_code code = __real_tw_mirrors_hold(agent, request, target, err);
    if (!code)
        vt_guest_mirrored(request->vm, request->migration, vt_here());
    return code;
}

/* ---- Its life -------------------------------------------------------------------------------- */

static void *data_thread(void *agent)
{
    tw_agent_run(agent);
    return NULL;
}

static void configure(struct tw_agent_config *c, const struct vt_node *node)
{
    *c = (struct tw_agent_config){.fabric = TW_AGENT_FABRIC_TCP,
                                  .controller = "sim://controller",
                                  .memory_bytes = MEMORY_BYTES,
                                  .qemu = "qemu",
                                  .plugin = "plugin",
                                  .insecure = true,
                                  .postcopy_recover_ns = vt_world.scenario->recover_ns,
                                  .mirror_after_ns = vt_world.scenario->mirror_after_ns};
    snprintf(c->name, sizeof c->name, "%s", node->name);
    snprintf(c->listen, sizeof c->listen, "sim://%s", node->name);
    snprintf(c->fabric_listen, sizeof c->fabric_listen, "%s:lines", node->name);
    snprintf(c->state_dir, sizeof c->state_dir, "%s/%s", vt_world.dir, node->name);
    if (vt_world.scenario->hook)
        snprintf(c->switchover_hook, sizeof c->switchover_hook, "/hook");
    snprintf(c->run_dir, sizeof c->run_dir, "%s/%s-run", vt_world.dir, node->name);
}

/* As main.c puts an agent together, and takes it apart when it is told to end. When it is killed
 * the same is done, and nothing of that reaches anybody. */
void *vt_agent_main(void *arg)
{
    struct vt_node *node = arg;
    struct tw_agent_config config;
    struct tw_agent *agent = NULL;
    struct tw_rpc_server *server = NULL;
    struct tw_heartbeat *heartbeat = NULL;
    struct tw_error err = {0};
    configure(&config, node);
    if (tw_agent_open(&config, &agent, &err) != TW_OK) {
        vt_say("%s cannot start: %s", node->name, err.what);
        return NULL;
    }
    agents[vt_index(node)] = agent;
    node->poller = vt_spawn(node, data_thread, agent);
    if (tw_agent_serve(agent, &server, &err) != TW_OK ||
        tw_heartbeat_start(agent, &heartbeat, &err) != TW_OK)
        vt_problem("%s cannot serve: %s", node->name, err.what);
    node->up = true;
    while (!node->dead && !node->stopping)
        vt_wait(node, TW_NEVER);
    node->up = false;
    atomic_store(&agent->stopping, true);
    vt_poke(node);
    vt_join(node->poller);
    node->poller = NULL;
    tw_mailbox_shut(agent->mailbox);
    tw_heartbeat_stop(heartbeat);
    tw_rpc_server_close(server);
    agents[vt_index(node)] = NULL;
    tw_agent_close(agent);
    return NULL;
}

/* ---- Rules ----------------------------------------------------------------------------------- */

/* The record of a VM on an agent's disk; NULL: there is none. */
static Towline__V1__VmRecord *on_disk(unsigned index, const char *vm)
{
    char path[256];
    uint8_t bytes[4096];
    snprintf(path, sizeof path, "%s/%s/vms/%s", vt_world.dir, vt_world.nodes[index].name, vm);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    ssize_t n = read(fd, bytes, sizeof bytes);
    close(fd);
    Towline__V1__VmRecord *r =
        n > HEADER_BYTES
            ? towline__v1__vm_record__unpack(NULL, (size_t)n - HEADER_BYTES, bytes + HEADER_BYTES)
            : NULL;
    if (!r)
        vt_problem("the record of %s on %s cannot be read", vm, vt_world.nodes[index].name);
    return r;
}

static bool owns(Towline__V1__Ownership ownership)
{
    return ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_OWNED ||
           ownership == TOWLINE__V1__OWNERSHIP__OWNERSHIP_OUTGOING;
}

bool vt_owns_on_disk(unsigned index, const char *vm)
{
    Towline__V1__VmRecord *r = on_disk(index, vm);
    bool yes = r && owns(r->ownership);
    if (r)
        towline__v1__vm_record__free_unpacked(r, NULL);
    return yes;
}

static uint64_t epoch_on_disk(unsigned index, const char *vm)
{
    Towline__V1__VmRecord *r = on_disk(index, vm);
    uint64_t epoch = r ? r->epoch : 0;
    if (r)
        towline__v1__vm_record__free_unpacked(r, NULL);
    return epoch;
}

/* A copy of a host that was declared lost waits to be removed: its epoch is below the owner's. */
static bool is_fenced_off(unsigned index, unsigned other, const char *vm)
{
    return vt_world.nodes[index].declared && epoch_on_disk(index, vm) < epoch_on_disk(other, vm);
}

static void check_owners(const char *vm, bool fenced_may_be)
{
    int owner = -1;
    for (unsigned i = 0; i < VT_AGENTS; i++) {
        if (!vt_owns_on_disk(i, vm))
            continue;
        bool fenced =
            owner >= 0 && fenced_may_be &&
            (is_fenced_off((unsigned)owner, i, vm) || is_fenced_off(i, (unsigned)owner, vm));
        if (owner >= 0 && !fenced)
            vt_problem("%s and %s both own %s on disk", vt_world.nodes[owner].name,
                       vt_world.nodes[i].name, vm);
        owner = (int)i;
    }
}

void vt_check_owners(const char *vm)
{
    check_owners(vm, true);
}

void vt_check_owners_end(const char *vm)
{
    check_owners(vm, false);
}

bool vt_mirror_complete(unsigned index, const char *migration)
{
    Towline__V1__GetMirrorResponse *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    towline__v1__get_mirror_response__init(r);
    if (agents[index])
        tw_mirrors_get(agents[index], migration, r);
    bool complete = r->complete;
    towline__v1__get_mirror_response__free_unpacked(r, NULL);
    return complete;
}

bool vt_agents_idle(void)
{
    for (unsigned i = 0; i < VT_AGENTS; i++) {
        const struct tw_agent *a = agents[i];
        if (vt_world.nodes[i].for_good)
            continue;
        if (!a || !vt_world.nodes[i].up || a->jobs || tw_mirrors_reserved(a))
            return false;
        for (const struct tw_vm *vm = a->vms; vm; vm = vm->next)
            if (vm->remove || vm->continuing || vm->job)
                return false;
    }
    return true;
}

void vt_agent_check_end(unsigned index)
{
    const struct tw_agent *a = agents[index];
    const char *name = vt_world.nodes[index].name;
    char tracker[80];
    if (!a)
        return;
    if (a->jobs)
        vt_problem("%s still has a job for migration %s", name, a->jobs->params.id);
    if (tw_mirrors_reserved(a))
        vt_problem("%s still keeps memory for others", name);
    if (vt_connections(&vt_world.nodes[index]))
        vt_problem("%s still has %u connections", name, vt_connections(&vt_world.nodes[index]));
    for (const struct tw_vm *vm = a->vms; vm; vm = vm->next) {
        if (!owns(vm->record->ownership))
            vt_problem("%s still holds a copy of %s (ownership %d)", name, vm->record->spec->name,
                       (int)vm->record->ownership);
        snprintf(tracker, sizeof tracker, "migration-%.60s", vm->record->migration);
        if (vm->qemu && tw_tracker_find(tw_qemu_host(vm->qemu)->device, tracker))
            vt_problem("%s still tracks %s", name, vm->record->spec->name);
    }
}
