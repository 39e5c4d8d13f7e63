/* What goes wrong, and when: at a time, or when a process passes a named point (base/fault.h),
 * which every state of every machine is. */
#include "tests/cluster/virtual/world.h"

#include "fabric/sim.h"
#include "services/migration/migration.h"

#include <stdlib.h>
#include <string.h>

const char *const vt_fault_names[VT_FAULT_KINDS] = {
    "kill",        "kill-at-write", "cut",       "isolate",    "loss",     "delay", "twins",
    "drop-chunks", "disk-full",     "disk-slow", "kill-guest", "host-off", "stop",  "cancel",
    "switch",      "pause",         "set",       "reconnect",  "slow",
};

/* Of the linker. */
void __wrap_tw_fault_point(const char *name);
bool __wrap_tw_fault_fails(const char *name);

void vt_fault_print(const struct vt_fault *f, FILE *out)
{
    char when[96];
    if (f->point[0])
        snprintf(when, sizeof when, "%.3f ms after %s (%u.)", (double)f->at_ns / 1e6, f->point,
                 f->nth);
    else
        snprintf(when, sizeof when, "at %.3f ms", (double)f->at_ns / 1e6);
    fprintf(out, "%s: %s", when, vt_fault_names[f->kind]);
    if (f->node < VT_NODES)
        fprintf(out, " %s", vt_world.nodes[f->node].name);
    if (f->kind == VT_CUT)
        fprintf(out, " from %s", vt_world.nodes[f->other].name);
    if (f->amount)
        fprintf(out, " x %u", f->amount);
    if (f->lasts_ns)
        fprintf(out, " for %.3f ms", (double)f->lasts_ns / 1e6);
    fputc('\n', out);
}

/* ---- Begin and end of a fault ---------------------------------------------------------------- */

static void isolate(unsigned node, void (*what)(unsigned a, unsigned b))
{
    for (unsigned i = 0; i < VT_NODES; i++)
        what(node, i);
}

static void over(void *ctx)
{
    const struct vt_fault *f = ctx;
    if (vt_world.healing)
        return; /* everything was mended at once */
    switch (f->kind) {
    case VT_CUT:
        do
            vt_mend(f->node, f->other);
        while (f->amount && vt_is_cut(&vt_world.nodes[f->node], &vt_world.nodes[f->other]));
        break;
    case VT_ISOLATE:
        isolate(f->node, vt_mend);
        break;
    case VT_LOSS:
        vt_world.network.loss_percent = 0;
        break;
    case VT_DELAY:
        vt_world.network.delay_ns = 0;
        break;
    case VT_TWINS:
        vt_world.network.twin_percent = 0;
        break;
    case VT_DISK_FULL:
        vt_world.nodes[f->node].disk.full = false;
        break;
    case VT_DISK_SLOW:
        vt_world.nodes[f->node].disk.slow_ns = 0;
        break;
    case VT_PAUSE:
        vt_operator_resume();
        break;
    default:
        break;
    }
    vt_say("fault over: %s", vt_fault_names[f->kind]);
}

static void begin(const struct vt_fault *f, struct vt_node *node)
{
    struct vt_network *network = &vt_world.network;
    switch (f->kind) {
    case VT_KILL:
        vt_kill_for(node, f->lasts_ns);
        break;
    case VT_KILL_AT_WRITE:
        node->disk.kill_at = node->disk.writes + 1 + f->amount / 2;
        node->disk.kill_after = f->amount & 1;
        break;
    case VT_CUT:
        vt_cut(f->node, f->other);
        break;
    case VT_ISOLATE:
        isolate(f->node, vt_cut);
        break;
    case VT_LOSS:
        network->loss_percent = f->amount;
        break;
    case VT_DELAY:
        network->delay_ns = f->amount * TW_MS;
        break;
    case VT_TWINS:
        network->twin_percent = f->amount;
        break;
    case VT_DROP:
        tw_sim_drop_chunks(vt_time.sim, f->amount);
        break;
    case VT_DISK_FULL:
        node->disk.full = true;
        break;
    case VT_DISK_SLOW:
        node->disk.slow_ns = f->amount * TW_MS;
        break;
    case VT_KILL_GUEST:
        vt_guests_kill(node ? (int)vt_index(node) : -1);
        break;
    case VT_HOST_OFF:
        vt_host_off(node, f->lasts_ns);
        break;
    case VT_STOP:
        vt_stop_for(node, f->lasts_ns);
        break;
    case VT_CANCEL:
    case VT_SWITCH:
    case VT_PAUSE:
    case VT_SET:
    case VT_RECONNECT:
    case VT_SLOW:
        vt_operator_order(f->kind, f->amount);
        break;
    default:
        break;
    }
}

static void strike(const struct vt_fault *f, struct vt_node *node)
{
    unsigned i = (unsigned)(f - vt_world.scenario->faults);
    if (vt_world.healing || vt_world.struck[i])
        return;
    vt_world.struck[i] = true;
    if (f->kind == VT_KILL_GUEST)
        vt_world.guest_killed = true;
    vt_say("fault: %s %s", vt_fault_names[f->kind], node ? node->name : "");
    begin(f, node);
    if (f->lasts_ns && f->kind != VT_KILL && f->kind != VT_STOP && f->kind != VT_HOST_OFF)
        vt_at(vt_now() + f->lasts_ns, over, (void *)(uintptr_t)f);
}

static void strike_later(void *ctx)
{
    const struct vt_fault *f = ctx;
    strike(f, f->node < VT_NODES ? &vt_world.nodes[f->node] : NULL);
}

/* ---- When ------------------------------------------------------------------------------------ */

static bool kept(unsigned i)
{
    return vt_world.scenario->keep >> i & 1;
}

void vt_faults_begin(void)
{
    const struct vt_scenario *s = vt_world.scenario;
    for (unsigned i = 0; i < s->fault_count; i++)
        if (kept(i) && !s->faults[i].point[0])
            vt_at(vt_world.began_ns + s->faults[i].at_ns, strike_later,
                  (void *)(uintptr_t)&s->faults[i]);
}

static void note_state(const char *name)
{
    vt_world.mirrored += strcmp(name, "mirror.holding") == 0;
    vt_world.served += strcmp(name, "mirror.serving") == 0;
    static const struct tw_machine_table *const tables[] = {&tw_source_table,
                                                            &tw_destination_table};
    for (unsigned t = 0; t < 2; t++) {
        size_t n = strlen(tables[t]->name);
        if (strncmp(name, tables[t]->name, n) != 0 || name[n] != '.')
            continue;
        for (unsigned i = 0; i < tables[t]->count; i++)
            vt_world.reached[t][i] += strcmp(tables[t]->states[i].name, name + n + 1) == 0;
    }
}

void __wrap_tw_fault_point(const char *name)
{
    const struct vt_scenario *s = vt_world.scenario;
    struct vt_node *here = vt_here();
    if (!here || here->dead)
        return;
    note_state(name);
    vt_say("%s: %s", here->name, name);
    for (unsigned i = 0; i < s->fault_count; i++) {
        const struct vt_fault *f = &s->faults[i];
        if (!kept(i) || strcmp(f->point, name) != 0 || ++vt_world.point_seen[i] != f->nth)
            continue;
        if (f->at_ns == 0 && (f->node == VT_WHOEVER || &vt_world.nodes[f->node] == here))
            strike(f, here);
        else if (f->node != VT_WHOEVER)
            vt_at(vt_now() + f->at_ns, strike_later, (void *)(uintptr_t)f);
    }
}

/* Rules of the hand-over that are broken on purpose. */
bool __wrap_tw_fault_fails(const char *name)
{
    return strncmp(name, "break.", 6) == 0 && vt_mutated(name + 6);
}

/* Everything works again, for good. */
void vt_heal(void)
{
    vt_say("everything works again");
    vt_world.healing = true;
    for (unsigned a = 0; a < VT_NODES; a++)
        for (unsigned b = 0; b < VT_NODES; b++)
            while (vt_world.network.cuts[a][b])
                vt_mend(a, b);
    vt_operator_resume();
    vt_world.network = (struct vt_network){0};
    tw_sim_drop_chunks(vt_time.sim, 0);
    for (unsigned i = 0; i < VT_NODES; i++) {
        vt_world.nodes[i].disk = (struct vt_disk){.writes = vt_world.nodes[i].disk.writes};
        if (vt_world.nodes[i].restart_ns > vt_now() + 100 * TW_MS) {
            vt_world.nodes[i].restart_ns = vt_now();
            vt_wake(&vt_world.nodes[i], ~0u);
        }
    }
}
