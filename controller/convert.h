/* Records into messages. Everything is malloc'ed, to be freed with the message that holds it;
 * NULL = no memory. */
#ifndef TOWLINE_CONTROLLER_CONVERT_H
#define TOWLINE_CONTROLLER_CONVERT_H

#include "controller/catalogue.h"
#include "controller/store.h"
#include "towline/v1/host.pb-c.h"
#include "towline/v1/migration.pb-c.h"
#include "towline/v1/vm.pb-c.h"

Towline__V1__Host *tw_host_to_proto(const struct tw_host_view *host);
Towline__V1__VmReport *tw_report_to_proto(const struct tw_report *report);
/* `host_alive` false: what the VM does is not known. */
Towline__V1__Vm *tw_vm_to_proto(const struct tw_vm_record *vm, bool host_alive);
Towline__V1__Migration *tw_migration_to_proto(const struct tw_migration_record *m);

/* Appends to a repeated field; frees `item` and returns false when there is no memory. `array` is
 * the address of the field's pointer. */
bool tw_append(void *array, size_t *count, ProtobufCMessage *item);

/* A string field: left as initialised when empty. False: no memory. */
bool tw_text_set(char **field, const char *text);

#endif
