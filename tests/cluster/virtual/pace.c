/* Slowing a guest's writers, as the plugin inside a machine does it; and what must hold of it: only
 * as much as an operator allowed, and ended by whoever began it as long as he is there. */
#include "tests/cluster/virtual/guest.h"

#include <stdlib.h>
#include <string.h>

static void forget(struct vt_machine *m)
{
    m->pace.rule = (struct tw_pace_rule){0};
    memset(m->pace.lines, 0, m->life->pages * sizeof *m->pace.lines);
}

void vt_pace_begin(struct vt_machine *m)
{
    m->pace.lines = calloc(m->life->pages, sizeof *m->pace.lines);
    if (!m->pace.lines)
        abort();
}

void vt_pace_end(struct vt_machine *m)
{
    free(m->pace.lines);
    m->pace.lines = NULL;
}

void vt_pace_adopted(struct vt_machine *m)
{
    forget(m);
}

/* It runs out by itself, for those whose agent is gone. */
static void look_at_time(struct vt_machine *m)
{
    const struct vt_pace *p = &m->pace;
    const struct vt_node *node = &vt_world.nodes[m->host];
    if (!p->rule.delay_ns || vt_now() < p->until_ns)
        return;
    bool there = node->starts == p->starts && !node->dead && !node->stopping;
    if (there && !node->disk.slow_ns)
        vt_problem("%s is slowed on %s and forgotten there", m->life->vm, node->name);
    forget(m);
}

bool vt_pace_on(struct vt_machine *m)
{
    look_at_time(m);
    return m->alive && m->pace.rule.delay_ns != 0;
}

bool vt_pace_sleeps(struct vt_machine *m, unsigned vcpu)
{
    look_at_time(m);
    return vt_now() < m->pace.sleeps_ns[vcpu];
}

void vt_pace_store(struct vt_machine *m, unsigned vcpu, uint64_t address)
{
    struct vt_pace *p = &m->pace;
    struct tw_pace_bucket *b = &p->buckets[vcpu];
    const bool chosen = p->lines[tw_page_of(address)] & tw_line_bit(address);
    if (!p->rule.delay_ns || !chosen || !tw_pace_owe(b, p->rule.delay_ns))
        return;
    const uint64_t wait_ns = tw_pace_wait(b, p->rule.share_permille, vt_now());
    if (wait_ns == 0)
        return;
    tw_pace_waited(b, wait_ns);
    p->sleeps_ns[vcpu] = vt_now() + wait_ns;
    p->wait_ns[vcpu] += wait_ns;
    p->waits++;
    vt_world.paced++;
}

/* ---- What the host interface offers ---------------------------------------------------------- */

static void pace_lines(void *host, uint64_t page, uint64_t lines)
{
    struct vt_machine *m = vt_machine_of(host);
    if (!vt_dead())
        m->pace.lines[page] = lines;
}

static void pace_rule(void *host, const struct tw_pace_rule *rule)
{
    struct vt_machine *m = vt_machine_of(host);
    if (vt_dead())
        return;
    if (rule->delay_ns && rule->share_permille > m->life->slow_most_percent * 10)
        vt_problem("%s is slowed by %u of a thousand, where %u %% are allowed", m->life->vm,
                   rule->share_permille, m->life->slow_most_percent);
    m->pace.rule = *rule;
    m->pace.until_ns = vt_now() + TW_HOST_PACE_HOLDS_NS;
    m->pace.starts = vt_here()->starts;
    if (rule->delay_ns == 0)
        forget(m);
}

static void pace_stats(void *host, struct tw_host_paced *out)
{
    const struct vt_pace *p = &vt_machine_of(host)->pace;
    *out = (struct tw_host_paced){.waits = p->waits};
    for (unsigned i = 0; i < VT_VCPUS; i++)
        out->wait_ns = p->wait_ns[i] > out->wait_ns ? p->wait_ns[i] : out->wait_ns;
}

const struct tw_host_pace_ops vt_pace_ops = {
    .lines = pace_lines, .rule = pace_rule, .stats = pace_stats};
