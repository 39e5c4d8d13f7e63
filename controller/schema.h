/* The store's tables, and how older files become newer ones.
 *
 * A schema version is the number of steps that were applied. Steps are never changed once they
 * were released; a change of the tables is a new step at the end. */
#ifndef TOWLINE_CONTROLLER_SCHEMA_H
#define TOWLINE_CONTROLLER_SCHEMA_H

#include "controller/db.h"

extern const char *const tw_schema_steps[];
extern const unsigned tw_schema_version; /* number of steps */

/* Brings the file to `count` steps, each in a transaction of its own. A file with more steps was
 * written by a newer program and is refused untouched (FAILED_PRECONDITION). */
enum tw_code tw_schema_apply(struct tw_db *db, const char *const *steps, unsigned count,
                             struct tw_error *err);

#endif
