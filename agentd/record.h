/* What an agent keeps on disk: one file for each VM, one for the outcome of each migration.
 *
 * A file is replaced whole: written beside, fsynced, renamed, folder fsynced. So a crash leaves
 * the old record or the new one, never a mixture; a checksum tells what a broken disk left.
 * Used by the data thread only. */
#ifndef TOWLINE_AGENTD_RECORD_H
#define TOWLINE_AGENTD_RECORD_H

#include "base/error.h"
#include "towline/v1/state.pb-c.h"

#include <stdbool.h>

struct tw_record_store;

/* Makes `state_dir` with its sub-folders where they are missing and takes the store's lock: a
 * second agent on the same folder is refused. */
enum tw_code tw_record_store_open(const char *state_dir, struct tw_record_store **store,
                                  struct tw_error *err);
void tw_record_store_close(struct tw_record_store *store);

/* Durable when they return TW_OK. Fault point "record.write" (base/fault.h) makes one fail. */
enum tw_code tw_record_vm_save(struct tw_record_store *store, const Towline__V1__VmRecord *record,
                               struct tw_error *err);
/* Puts on disk, beside the records, what a save of exactly this record will make the truth: that
 * save then costs one sync less. Changes no record; where it fails, the save does all the work.
 * For the moments in which nobody waits, before one in which a guest does. The last
 * TW_RECORDS_STAGED are kept; closing the store removes them. */
#define TW_RECORDS_STAGED 4u
void tw_record_vm_stage(struct tw_record_store *store, const Towline__V1__VmRecord *record);
enum tw_code tw_record_vm_remove(struct tw_record_store *store, const char *name,
                                 struct tw_error *err);
enum tw_code tw_record_migration_save(struct tw_record_store *store,
                                      const Towline__V1__MigrationRecord *record,
                                      struct tw_error *err);

/* NULL when there is none; the caller frees (protobuf_c_message_free_unpacked). */
Towline__V1__MigrationRecord *tw_record_migration_load(struct tw_record_store *store,
                                                       const char *id);

/* Calls `visit` with each VM record; a file that does not check is reported in the log and left
 * where it is. `visit` may save and remove. False when there was such a file. */
bool tw_record_vm_each(struct tw_record_store *store,
                       void (*visit)(void *ctx, const Towline__V1__VmRecord *record), void *ctx);

/* Names that become file names: [a-z0-9][a-z0-9-]{0,62}. */
bool tw_record_name_ok(const char *name);

#endif
