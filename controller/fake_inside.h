/* Inside the played agents: called with the world's lock. */
#ifndef TOWLINE_CONTROLLER_FAKE_INSIDE_H
#define TOWLINE_CONTROLLER_FAKE_INSIDE_H

#include "controller/fake_agent.h"
#include "towline/v1/agent.pb-c.h"

struct fake_vm *fake_vm_find(struct fake_agent *a, const char *name);
void fake_vm_drop(struct fake_agent *a, const char *name);
struct fake_side *fake_side_find(struct fake_agent *a, const char *id);
struct fake_side *fake_side_add(struct fake_agent *a, const char *id, const char *vm);
void fake_watch(struct fake_world *w);
void fake_source_back(struct fake_agent *a, struct fake_side *s, const char *why);
void fake_destination_out(struct fake_agent *a, struct fake_side *s, const char *why);
void fake_peer_lost(struct fake_agent *a, struct fake_side *s);
Towline__V1__HostDescription *fake_describe(const struct fake_agent *a);
Towline__V1__VmReport **fake_reports(const struct fake_agent *a, size_t *count);

/* AgentService, with a struct fake_agent as context. */
extern const struct tw_rpc_method fake_methods[];
extern const size_t fake_method_count;

#endif
