/* A mirror: the third agent of a post-copy or hybrid migration that outlives its source's host.
 *
 * Once the VM stands still at the source, every line that is to follow it goes here, too, and the
 * source does not give the VM up before this side has said that it holds all of them, equal to what
 * was sent. As the VM never runs at the source again, what is held does not age: until the
 * destination has all of its memory, each missing line is at two places. A destination that has
 * lost its source connects here instead and says what it misses, as it would there.
 *
 * Nothing is applied that was not named in the map, comes twice, or is not what the source's digest
 * tells; nothing is served before all is there. What is held lives in this process's memory: it
 * ends with the agent, and then the migration goes on without a mirror.
 *
 * Driven like the other sides, see migration.h. `env` needs clock, fabric and trace only. */
#ifndef TOWLINE_SERVICES_MIGRATION_MIRROR_H
#define TOWLINE_SERVICES_MIGRATION_MIRROR_H

#include "services/migration/migration.h"

struct tw_mirror;
extern const struct tw_machine_table tw_mirror_table;

struct tw_mirror_progress {
    const char *phase;
    uint64_t memory_bytes;      /* of the VM: what may come to be held at most */
    uint64_t lines_named;       /* in the map; 0 = it has not come */
    uint64_t lines_held;        /* of these */
    uint64_t bytes_held;        /* memory that these take, in whole pages */
    uint64_t lines_served;      /* sent to a destination */
    bool complete;              /* all are held and were compared */
    bool source_there, serving; /* who is connected */
};

/* Waits for the source. params->token is what both it and the destination have to show. */
enum tw_code tw_mirror_start(const struct tw_migration_env *env,
                             const struct tw_migration_params *params, uint64_t memory_bytes,
                             uint64_t connect_timeout_ns, struct tw_mirror **mirror,
                             struct tw_error *err);
/* Whoever asked for it has asked again. */
void tw_mirror_wait_anew(struct tw_mirror *mirror, uint64_t connect_timeout_ns);
/* Somebody with this token has said hello: the source first, behind it the destination.
 * *end = what the connection's context has to be. */
enum tw_code tw_mirror_accept(struct tw_mirror *mirror, struct tw_conn *conn,
                              const struct tw_hello *hello, struct tw_migration_end **end,
                              struct tw_error *err);
uint64_t tw_mirror_step(struct tw_mirror *mirror);
/* What is held is of no use any more: it goes at once. */
void tw_mirror_release(struct tw_mirror *mirror, const char *why);
bool tw_mirror_done(const struct tw_mirror *mirror);
const struct tw_error *tw_mirror_error(const struct tw_mirror *mirror); /* NULL = none */
void tw_mirror_progress(const struct tw_mirror *mirror, struct tw_mirror_progress *out);
void tw_mirror_free(struct tw_mirror *mirror);

#endif
