/* Which host keeps what follows a VM, for the case that its source's host is lost: what was asked
 * for, and where that goes. */
#ifndef TOWLINE_CONTROLLER_MIRROR_H
#define TOWLINE_CONTROLLER_MIRROR_H

#include "controller/placement.h"
#include "controller/record.h"
#include "towline/v1/common.pb-c.h"

#define TW_MIRROR_AUTO "auto"
#define TW_MIRROR_NONE "none"

/* The first of these that says anything counts; `name` holds what the limits say then. `vm` may be
 * NULL. */
void tw_mirror_wish(Towline__V1__MigrationLimits *limits, char name[TW_NAME_SIZE],
                    const Towline__V1__MigrationLimits *vm,
                    const Towline__V1__MigrationLimits *defaults);
/* The wanted host, or of those that could the one with the most free memory, into `name`, which the
 * limits say from then on; empty where nothing follows the VM or nobody asked. Each judged host
 * gets its reasons into `why` (may be NULL). */
enum tw_code tw_mirror_place(const struct tw_host_view *hosts, size_t count,
                             const struct tw_move *move, const char *destination,
                             Towline__V1__MigrationLimits *limits, char name[TW_NAME_SIZE],
                             tw_why *why, struct tw_error *err);
/* One was asked for, and no host did it: the limits of one that was placed say "auto" again. */
bool tw_mirror_missed(const struct tw_migration_record *m);
/* The mirror of a migration that was placed; empty = it has none. */
void tw_mirror_host(const struct tw_migration_record *m, char host[TW_NAME_SIZE]);

#endif
