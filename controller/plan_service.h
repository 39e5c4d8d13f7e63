/* MigrationService: plans, reasons, changes to what runs, and who made them. Inside the handlers.
 */
#ifndef TOWLINE_CONTROLLER_PLAN_SERVICE_H
#define TOWLINE_CONTROLLER_PLAN_SERVICE_H

#include "controller/services.h"

#define TW_AUDIT_MAX 256u /* entries of one migration that are shown */

enum tw_code tw_adjust_served(void *ctx, const struct tw_rpc_call *call,
                              const ProtobufCMessage *request, ProtobufCMessage *response,
                              struct tw_error *err);
enum tw_code tw_plan_served(void *ctx, const struct tw_rpc_call *call,
                            const ProtobufCMessage *request, ProtobufCMessage *response,
                            struct tw_error *err);
enum tw_code tw_get_plan_served(void *ctx, const struct tw_rpc_call *call,
                                const ProtobufCMessage *request, ProtobufCMessage *response,
                                struct tw_error *err);
enum tw_code tw_why_served(void *ctx, const struct tw_rpc_call *call,
                           const ProtobufCMessage *request, ProtobufCMessage *response,
                           struct tw_error *err);

/* Writes down who did what, and an event that says so. A failure is logged: what was done is done.
 */
void tw_audit(struct tw_store *store, const struct tw_rpc_call *call, const char *id,
              const char *what, const char *from, const char *to);
/* Adds what is kept beside the record: plan, forecast, reasons, audit. */
enum tw_code tw_notes_fill(struct tw_store *store, Towline__V1__Migration *migration,
                           struct tw_error *err);

#endif
