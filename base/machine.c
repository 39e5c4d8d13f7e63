#include "base/machine.h"

#include "base/fault.h"

#include <assert.h>
#include <stdlib.h>

static void check_invariant(const struct tw_machine *m)
{
    const struct tw_state *s = &m->table->states[m->state];
    if (s->invariant && !s->invariant(m->object)) {
        fprintf(stderr, "towline: invariant of state %s.%s is broken\n", m->table->name, s->name);
        abort();
    }
}

void tw_machine_init(struct tw_machine *m, const struct tw_machine_table *table, void *object,
                     tw_machine_trace trace, void *trace_ctx)
{
    assert(table->count > 0 && table->count <= 64);
    *m = (struct tw_machine){
        .table = table, .object = object, .trace = trace, .trace_ctx = trace_ctx};
    check_invariant(m);
}

bool tw_machine_may(const struct tw_machine *m, unsigned to)
{
    return to < m->table->count && (m->table->states[m->state].next & TW_MAY(to)) != 0;
}

void tw_machine_move(struct tw_machine *m, unsigned to, const char *why)
{
    if (!tw_machine_may(m, to)) {
        fprintf(stderr, "towline: %s may not move from %s to %s (%s)\n", m->table->name,
                m->table->states[m->state].name,
                to < m->table->count ? m->table->states[to].name : "nowhere", why);
        abort();
    }
    unsigned from = m->state;
    m->state = to;
    check_invariant(m);
    if (m->trace)
        m->trace(m->trace_ctx, m, from, to, why);
    char point[96];
    snprintf(point, sizeof point, "%s.%s", m->table->name, m->table->states[to].name);
    tw_fault_point(point);
}

const char *tw_machine_state_name(const struct tw_machine *m)
{
    return m->table->states[m->state].name;
}

bool tw_machine_done(const struct tw_machine *m)
{
    return m->table->states[m->state].next == 0;
}

void tw_machine_mermaid(const struct tw_machine_table *table, FILE *out)
{
    fprintf(out, "stateDiagram-v2\n    [*] --> %s\n", table->states[0].name);
    for (unsigned i = 0; i < table->count; i++) {
        const struct tw_state *s = &table->states[i];
        if (s->note)
            fprintf(out, "    %s: %s<br/>%s\n", s->name, s->name, s->note);
        for (unsigned j = 0; j < table->count; j++)
            if (s->next & TW_MAY(j))
                fprintf(out, "    %s --> %s\n", s->name, table->states[j].name);
        if (!s->next)
            fprintf(out, "    %s --> [*]\n", s->name);
    }
}
