/* Rules that are broken on purpose. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_MUTATIONS_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_MUTATIONS_H

#include <stdint.h>

struct vt_mutation {
    const char *rule;
    uint64_t seed;   /* plays well, and not with the rule broken; 0 = not known */
    const char *way; /* the same, of the ways to a state (states.h); NULL = none is known */
};
extern const struct vt_mutation vt_mutations[]; /* ends with a rule of NULL */

#endif
