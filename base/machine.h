/* State machines as data: a table of states, the moves each allows, an invariant, one trace line
 * a move. The diagrams in docs/ are printed from the tables (tw_machine_mermaid).
 *
 * Moving to a state that the table does not allow, or breaking an invariant, is a defect of the
 * program, not of its input: it aborts. Ask tw_machine_may() where the input decides. */
#ifndef TOWLINE_BASE_MACHINE_H
#define TOWLINE_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TW_MAY(state) (UINT64_C(1) << (state))

struct tw_state {
    const char *name;                      /* "final_pass": lower case, as in logs and docs */
    uint64_t next;                         /* TW_MAY(a) | TW_MAY(b): the allowed moves */
    const char *note;                      /* what holds here, for the diagram */
    bool (*invariant)(const void *object); /* checked on entry; NULL = none */
};

struct tw_machine_table {
    const char *name; /* "source"; fault points are called "source.final_pass" */
    const struct tw_state *states;
    unsigned count; /* at most 64; state 0 is the first */
};

struct tw_machine;
typedef void (*tw_machine_trace)(void *ctx, const struct tw_machine *machine, unsigned from,
                                 unsigned to, const char *why);

struct tw_machine {
    const struct tw_machine_table *table;
    unsigned state;
    void *object; /* what the invariants look at */
    tw_machine_trace trace;
    void *trace_ctx;
};

/* Enters state 0. `trace` may be NULL. */
void tw_machine_init(struct tw_machine *m, const struct tw_machine_table *table, void *object,
                     tw_machine_trace trace, void *trace_ctx);

bool tw_machine_may(const struct tw_machine *m, unsigned to);

/* Moves, checks, traces, then passes the fault point of the new state. */
void tw_machine_move(struct tw_machine *m, unsigned to, const char *why);

const char *tw_machine_state_name(const struct tw_machine *m);

/* True when no move leads out of the present state. */
bool tw_machine_done(const struct tw_machine *m);

/* The table as a mermaid state diagram. */
void tw_machine_mermaid(const struct tw_machine_table *table, FILE *out);

#endif
