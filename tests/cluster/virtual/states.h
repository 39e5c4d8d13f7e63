/* Every state of both machines with each kind of trouble, one scenario each, made from the tables:
 * a state that no scenario comes to fails. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_STATES_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_STATES_H

#include "tests/cluster/virtual/world.h"

/* 0: every state was reached and no rule was broken. `verbose` names each scenario. */
int vt_play_states(bool verbose);

/* The scenario of a way to a state. False: none has that name. */
bool vt_way(const char *name, struct vt_scenario *scenario);

#endif
