/* Processes that start, die and start again, and the network between them. */
#include "tests/cluster/virtual/power.h"
#include "tests/cluster/virtual/world.h"

#include "fabric/backend.h"
#include "fabric/sim.h"

#include <stdlib.h>
#include <string.h>

#define DOWN_LEAST (30 * TW_MS)
#define DOWN_MOST  (1500 * TW_MS)
#define RETRY_NS   (200 * TW_MS) /* a process that could not start */

unsigned vt_index(const struct vt_node *node)
{
    return (unsigned)(node - vt_world.nodes);
}

struct vt_node *vt_node_of(const char *url)
{
    for (unsigned i = 0; i < VT_NODES; i++)
        if (strstr(url, vt_world.nodes[i].name))
            return &vt_world.nodes[i];
    abort(); /* nobody knows another */
}

unsigned vt_connections(const struct vt_node *node)
{
    return node->fabric ? node->fabric->conn_count : 0;
}

/* What starts a process and, when it has ended, starts it again. It is no process itself. */
static void *keep(void *arg)
{
    struct vt_node *node = arg;
    while (!vt_world.ending) {
        node->dead = node->stopping = node->off = false;
        node->starts++;
        node->restart_ns = tw_after(vt_now(), RETRY_NS);
        vt_say("%s starts", node->name);
        vt_join(vt_spawn(node, vt_index(node) == VT_CONTROLLER ? vt_controller_main : vt_agent_main,
                         node));
        node->dead = true;
        if (node->off)
            vt_power_fails(node);
        while (!vt_world.ending && (node->for_good || vt_now() < node->restart_ns))
            vt_wait(node, node->for_good ? TW_NEVER : node->restart_ns);
    }
    return NULL;
}

void vt_node_start(struct vt_node *node)
{
    vt_spawn_free(NULL, keep, node);
}

void vt_kill_for(struct vt_node *node, uint64_t down_ns)
{
    if (node->dead)
        return;
    vt_say("%s is killed", node->name);
    node->dead = true;
    node->up = false;
    node->restart_ns = tw_after(vt_now(), down_ns);
    vt_rouse(node);
}

void vt_kill(struct vt_node *node)
{
    vt_kill_for(node, DOWN_LEAST + vt_below(DOWN_MOST - DOWN_LEAST));
}

void vt_stop_for(struct vt_node *node, uint64_t down_ns)
{
    if (node->dead || node->stopping)
        return;
    vt_say("%s is told to end", node->name);
    node->stopping = true;
    node->restart_ns = tw_after(vt_now(), down_ns);
    vt_wake(node, ~0u);
    vt_poke(node);
}

void vt_host_off(struct vt_node *node, uint64_t down_ns)
{
    uint64_t until = tw_after(vt_now(), down_ns);
    vt_say("the host of %s is off", node->name);
    node->off = true;
    node->for_good |= down_ns == 0;
    if (vt_index(node) < VT_AGENTS)
        vt_guests_end_with_host(vt_index(node));
    vt_kill_for(node, down_ns);
    if (node->restart_ns < until)
        node->restart_ns = until;
}

void vt_hosts_on(void)
{
    for (unsigned i = 0; i < VT_NODES; i++) {
        if (!vt_world.nodes[i].for_good)
            continue;
        vt_say("%s is switched on again", vt_world.nodes[i].name);
        vt_world.nodes[i].for_good = false;
        vt_world.nodes[i].restart_ns = vt_now();
        vt_wake(&vt_world.nodes[i], ~0u);
    }
}

bool vt_is_cut(const struct vt_node *a, const struct vt_node *b)
{
    return a != b && vt_world.network.cuts[vt_index(a)][vt_index(b)] > 0;
}

void vt_cut(unsigned a, unsigned b)
{
    unsigned(*cuts)[VT_NODES] = vt_world.network.cuts;
    if (a == b)
        return;
    cuts[b][a]++;
    if (cuts[a][b]++ == 0)
        tw_sim_cut(vt_time.sim, vt_world.nodes[a].name, vt_world.nodes[b].name);
}

void vt_mend(unsigned a, unsigned b)
{
    unsigned(*cuts)[VT_NODES] = vt_world.network.cuts;
    if (a == b || cuts[a][b] == 0)
        return;
    cuts[b][a]--;
    if (--cuts[a][b] == 0)
        tw_sim_mend(vt_time.sim, vt_world.nodes[a].name, vt_world.nodes[b].name);
}
