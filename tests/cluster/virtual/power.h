/* What a power failure takes of what was written. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_POWER_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_POWER_H

#include "tests/cluster/virtual/fiber.h"

void vt_power_begin(void);
void vt_power_end(void);

/* The node is about to rename to or remove a file of that name. */
void vt_power_changes(struct vt_node *node, int folder, const char *name);
/* What was changed in that folder lasts. */
void vt_power_lasts(struct vt_node *node, int folder);

/* Behind the end of the node's process, before it is started again. */
void vt_power_fails(struct vt_node *node);

#endif
