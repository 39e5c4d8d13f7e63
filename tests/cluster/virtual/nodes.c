/* Processes that start, die and start again, and the network between them. */
#include "tests/cluster/virtual/world.h"

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

/* What starts a process and, when it has ended, starts it again. It is no process itself. */
static void *keep(void *arg)
{
    struct vt_node *node = arg;
    while (!vt_world.ending) {
        node->dead = false;
        node->starts++;
        node->restart_ns = tw_after(vt_now(), RETRY_NS);
        vt_say("%s starts", node->name);
        vt_join(vt_spawn(node, vt_index(node) == VT_CONTROLLER ? vt_controller_main : vt_agent_main,
                         node));
        node->dead = true;
        while (!vt_world.ending && vt_now() < node->restart_ns)
            vt_wait(node, node->restart_ns);
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
