/* Playing scenarios in child processes, so that one that aborts, hangs or leaks is a finding like
 * any other; and making a scenario that breaks a rule as short as can be. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_RUN_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_RUN_H

#include "tests/cluster/virtual/world.h"

struct vt_result {
    bool good;
    bool struck; /* every fault that was kept has happened */
    uint64_t problem_ns;
    char problem[400];
    unsigned reached[2][64]; /* states of source and destination: how often they were entered */
    unsigned reconnects;     /* orders to connect again that were taken */
    bool paced, mirrored, served, saved; /* as in the world */
};

typedef void (*vt_make)(struct vt_scenario *scenario, uint64_t index, const void *ctx);

/* Plays scenarios `first` to `last`, several in one child; `said` gets each one that breaks a rule
 * (or each one, with `all`) and returns false to stop. Returns how many broke one. */
unsigned vt_run_all(uint64_t first, uint64_t last, vt_make make, const void *ctx, bool all,
                    bool (*said)(const struct vt_scenario *s, const struct vt_result *r, void *to),
                    void *to);

struct vt_result vt_run_one(const struct vt_scenario *scenario, bool trace);

/* Fewer faults, fewer VMs, fewer moves, as long as some rule is still broken. */
void vt_shrink(struct vt_scenario *scenario, struct vt_result *result);

/* What went wrong, with which faults, and how to see it again. */
void vt_report(const struct vt_scenario *scenario, const struct vt_result *result, FILE *out);

#endif
