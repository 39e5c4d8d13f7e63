/* What the files of the migration jobs share. */
#ifndef TOWLINE_AGENTD_JOB_IMPL_H
#define TOWLINE_AGENTD_JOB_IMPL_H

#include "agentd/agent.h"

/* ---- job.c ----------------------------------------------------------------------------------- */

/* NULL: no memory. Belongs to nobody until it is linked to its VM. */
struct tw_job *tw_job_new(struct tw_agent *agent, const char *id, const char *peer, uint64_t epoch,
                          const Towline__V1__MigrationLimits *limits);
void tw_job_link(struct tw_job *job, struct tw_vm *vm);

/* ---- job_write.c: callbacks of a side get the job as ctx --------------------------------------
 */

void tw_job_set_text(char **field, const char *text);
/* What connecting again takes goes into the VM's record, which is not saved yet. */
enum tw_code tw_job_set_stream(struct tw_vm *vm, const struct tw_job *job,
                               const Towline__V1__MigrationLimits *limits, struct tw_error *err);
/* Whether the outcome could be written; `job` is NULL for a migration this agent has no part in. */
enum tw_code tw_job_save_outcome(struct tw_agent *agent, const struct tw_job *job, const char *id,
                                 enum tw_hand_over hand_over, struct tw_error *err);
/* Changes the VM's record on disk, or leaves it as it was when that fails. */
enum tw_code tw_job_save_ownership(struct tw_job *job, Towline__V1__Ownership ownership,
                                   enum tw_hand_over hand_over, uint64_t epoch,
                                   struct tw_error *err);
enum tw_code tw_job_journal(void *ctx, enum tw_hand_over state, struct tw_error *err);
void tw_job_stage(void *ctx);
/* A file in the VM's run folder, mapped until the job is freed. */
enum tw_code tw_job_keep(void *ctx, uint64_t words, bool fresh, uint64_t **memory,
                         struct tw_error *err);
void tw_job_keep_close(struct tw_job *job); /* the file stays */
void tw_job_keep_remove(const struct tw_job *job);

/* ---- job_path.c ------------------------------------------------------------------------------ */

void tw_job_path_set(struct tw_job *job, const struct tw_path *path);
enum tw_code tw_job_dial(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                         void *conn_ctx, struct tw_conn **conn, struct tw_error *err);
/* The same towards its mirror, which the VM's record names. */
enum tw_code tw_job_dial_mirror(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                                void *conn_ctx, struct tw_conn **conn, struct tw_error *err);
/* A source that has just started. */
enum tw_code tw_job_mirror_to(struct tw_job *job, const Towline__V1__MirrorTarget *mirror,
                              struct tw_error *err);

#endif
