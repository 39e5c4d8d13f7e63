/* What the tests of the whole controller have in common: two agents and the VM "web" on node-a. */
#ifndef TOWLINE_CONTROLLER_SCENE_H
#define TOWLINE_CONTROLLER_SCENE_H

#include "controller/play.h"

enum { A, B, C, D }; /* agents */

/* Two agents and the VM "web" on node-a. */
void scene_populate(struct play *p);
/* With the controller in this process. */
void scene_begin(struct play *p);
/* With the controller in a process of its own, which can be killed. */
void scene_begin_apart(struct play *p);
void scene_migrate(struct play *p, char id[64]);
void scene_await_hand_over(struct play *p, unsigned agent, const char *id, enum tw_known known);
/* The migration stands before `step` and the controller has seen it on its way. */
void scene_await_step(struct play *p, const char *id, unsigned step);
/* The destination of a migration that stands before FAKE_COMMITTED runs the VM, and lacks memory;
 * the migration stands before FAKE_FINISHED then. */
void scene_await_partly(struct play *p, const char *id);
/* The controller, too, knows what the agents hold. */
void scene_let_it_see(void);
enum tw_code scene_vm_call(struct play *p, const char *method, const char *name,
                           struct tw_error *err);

#endif
