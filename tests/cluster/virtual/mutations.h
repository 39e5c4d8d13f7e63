#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_MUTATIONS_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_MUTATIONS_H

extern const char *const vt_mutations[]; /* names; ends with NULL */

#endif
