/* Plans: a running VM is measured by its agent, and what its migration would come to is kept under
 * a token until it expires. A controller that was restarted goes on with them. Thread-safe. */
#ifndef TOWLINE_CONTROLLER_PLANS_H
#define TOWLINE_CONTROLLER_PLANS_H

#include "controller/migrations.h"

#define TW_PLAN_FOR_MS     5000u /* measured for, unless asked otherwise */
#define TW_PLAN_FOR_MS_MIN 100u
#define TW_PLAN_FOR_MS_MAX 60000u
#define TW_PLAN_KEPT_MS    600000u /* from the request until the token expires */

/* Each *plan is freed by the caller with towline__v1__plan__free_unpacked. */

/* Places the VM and has its agent begin. */
enum tw_code tw_plans_begin(struct tw_migrations *migrations,
                            const Towline__V1__PlanMigrationRequest *request,
                            Towline__V1__Plan **plan, struct tw_error *err);
/* The plan as it is; asks the agent while that still measures. NOT_FOUND: no such token. */
enum tw_code tw_plans_get(struct tw_migrations *migrations, const char *token,
                          Towline__V1__Plan **plan, struct tw_error *err);
/* The plan, if nothing that it rests on has changed; measures shortly. FAILED_PRECONDITION says
 * what has, and its reasons are kept as those of a refusal. */
enum tw_code tw_plans_still_good(struct tw_migrations *migrations, const char *token,
                                 uint64_t deadline_ns, Towline__V1__Plan **plan,
                                 struct tw_error *err);

/* What earlier migrations tell: of this VM, else of any. *costs is freed by the caller; NULL when
 * there was none that tells. */
enum tw_code tw_plans_history(struct tw_store *store, const char *vm,
                              Towline__V1__FixedCosts **costs, struct tw_error *err);

#endif
