/* Every state of both machines with each kind of trouble, one scenario each, made from the tables:
 * a state that no scenario comes to fails. */
#ifndef TOWLINE_TESTS_CLUSTER_VIRTUAL_STATES_H
#define TOWLINE_TESTS_CLUSTER_VIRTUAL_STATES_H

#include <stdbool.h>

/* 0: every state was reached and no rule was broken. `verbose` names each scenario. */
int vt_play_states(bool verbose);

#endif
