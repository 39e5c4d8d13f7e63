/* VMs at the operators' request: create, stop, delete.
 *
 * A wish is written down before the agent is told, so that a controller that was killed in
 * between, or an agent that does not answer, only delays it: the settler goes on (settle.h).
 * Thread-safe; two operations on one VM at once: the second is refused (ABORTED). */
#ifndef TOWLINE_CONTROLLER_VMS_H
#define TOWLINE_CONTROLLER_VMS_H

#include "controller/reach.h"
#include "controller/store.h"
#include "towline/v1/common.pb-c.h"

#define TW_VMS_BUSY_MAX 64u

struct tw_vms;

enum tw_code tw_vms_open(struct tw_store *store, const struct tw_reach *reach, struct tw_vms **vms,
                         struct tw_error *err);
void tw_vms_close(struct tw_vms *vms);

/* `host` "" = the best one. Returns when the VM runs or has failed; a VM that the agent refused
 * leaves no record. `deadline_ns`: tw_monotonic. */
enum tw_code tw_vms_create(struct tw_vms *vms, const Towline__V1__VmSpec *spec, const char *host,
                           uint64_t deadline_ns, struct tw_vm_record *record, struct tw_error *err);
enum tw_code tw_vms_stop(struct tw_vms *vms, const char *name, uint64_t deadline_ns,
                         struct tw_vm_record *record, struct tw_error *err);
enum tw_code tw_vms_delete(struct tw_vms *vms, const char *name, uint64_t deadline_ns,
                           struct tw_error *err);

/* NOT_FOUND for those of which nothing is left. */
enum tw_code tw_vms_get(struct tw_vms *vms, const char *name, struct tw_vm_record *record,
                        struct tw_error *err);

/* Finishes what an operation left undone for that VM; `silent`: its host did not answer. */
void tw_vms_settle(struct tw_vms *vms, const char *name, bool *silent);

/* True when the settler has something to do for the VM. */
static inline bool tw_vm_unsettled(const struct tw_vm_record *vm)
{
    if (vm->wanted == TW_WANTED_RUNNING)
        return vm->state == TW_VM_STARTING;
    return vm->host[0] != 0 && vm->state != TW_VM_STOPPED;
}

#endif
