/* Waiting for events. Thread-safe. */
#ifndef TOWLINE_CONTROLLER_EVENTS_H
#define TOWLINE_CONTROLLER_EVENTS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct tw_events;

/* At most `waiting_max` callers may wait at once, so that some RPC workers are always free. */
enum tw_code tw_events_open(unsigned waiting_max, struct tw_events **events, struct tw_error *err);
void tw_events_close(struct tw_events *events);

/* The store's callback (tw_store_config.on_events). */
void tw_events_note(void *events, uint64_t revision);
/* Everybody who waits is sent home, and nobody waits any more. */
void tw_events_stop(struct tw_events *events);

/* Waits until there is an event after `revision` or the time is over. False at once when too many
 * wait already, or after the stop. */
bool tw_events_wait(struct tw_events *events, uint64_t revision, uint64_t deadline_ns);

#endif
