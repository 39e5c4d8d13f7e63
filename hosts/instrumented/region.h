/* A region of an instrumented program (towline-region.h) as a machine whose memory moves: what a
 * migration needs of a host (hosts/host.h), with misses of single lines.
 *
 *   stop        every line is held; done when no store to it is under way
 *   state       where the region lies: pointers in it stay what they are
 *   guard       lines that are to come are absent: who touches one waits for that line only
 *   continue    lines are held no longer; the threads that wait for a held one go on
 *
 * The program is tracked as TW_INST_MOVING, by nobody else. A source finds what is stored while it
 * sends by the program's marks. A destination is any program that has made a region of the same
 * size at the same address. What neither can see is in docs/instrumented.md, so a source also
 * compares.
 *
 * A wait has no other end than its line, the release of the guard, or the program's death by SIGBUS
 * when its patience is over: also when the agent has gone or closed the region. Lines that are held
 * or absent stay so.
 *
 * The table's functions belong to the thread that owns the program. Only open waits. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_REGION_H
#define TOWLINE_HOSTS_INSTRUMENTED_REGION_H

#include "base/clock.h"
#include "hosts/host.h"
#include "hosts/instrumented/instrumented.h"

struct tw_instrumented_region;

struct tw_instrumented_region_config {
    uint64_t address;             /* of the region in the program */
    const struct tw_clock *clock; /* of deadlines; NULL = tw_monotonic */
    bool incoming;                /* held at once, and emptied: it waits for another's contents */
    uint64_t patience_ns;         /* of the program; 0 = 600 s */
};

/* NOT_FOUND: the program has no region there. INVALID_ARGUMENT: what it says about it is wrong.
 * DEADLINE_EXCEEDED: incoming, and the program does not leave it alone. */
enum tw_code tw_instrumented_region_open(struct tw_instrumented *program,
                                         const struct tw_instrumented_region_config *config,
                                         uint64_t deadline_ns,
                                         struct tw_instrumented_region **region,
                                         struct tw_error *err);
void tw_instrumented_region_close(struct tw_instrumented_region *region); /* NULL is fine */

/* The same as a table; valid until it is closed. */
struct tw_host *tw_instrumented_region_host(struct tw_instrumented_region *region);

struct tw_instrumented_region_stats {
    uint64_t waits;   /* that its threads told of */
    uint64_t misses;  /* lines in them that were absent */
    uint64_t woken;   /* words whose sleepers were woken */
    uint64_t carried; /* stores under way when a sync ended: told by the next one, too */
};
void tw_instrumented_region_stats_get(const struct tw_instrumented_region *region,
                                      struct tw_instrumented_region_stats *out);

/* Test-only switches that break one rule each, for the mutation check. */
struct tw_instrumented_region_mutations {
    bool forget_in_flight; /* stores under way are not waited for, nor told by the next sync */
    bool open_page;        /* a line that has come opens its whole page */
    bool sleep_on;         /* nobody is woken */
};
void tw_instrumented_region_mutate(struct tw_instrumented_region *region,
                                   struct tw_instrumented_region_mutations mutations);

#endif
