/* Inside the migrations' files: the first states of a migration, before the source is told. */
#ifndef TOWLINE_CONTROLLER_DRIVE_BEGIN_H
#define TOWLINE_CONTROLLER_DRIVE_BEGIN_H

#include "controller/drive.h"

/* Steps of the states pending and preparing; each returns when to go on. */
uint64_t tw_drive_pending(struct tw_drive *drive);
uint64_t tw_drive_prepare(struct tw_drive *drive);

/* When the migration's time is over, wall clock in milliseconds. */
uint64_t tw_drive_deadline_ms(const struct tw_migration_record *record);

/* Tells people that the sides contradict each other. */
void tw_drive_alarm(struct tw_drive *drive, const char *reason);

#endif
