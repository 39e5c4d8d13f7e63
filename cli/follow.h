/* Following something that goes on without us: interruption by the operator, and a controller
 * that may be away for a while. */
#ifndef TOWLINE_CLI_FOLLOW_H
#define TOWLINE_CLI_FOLLOW_H

#include "cli/tow.h"

#include <stdbool.h>
#include <stdint.h>

/* From now on SIGINT and SIGTERM do not end the program but show in tow_interrupted(). */
void tow_interrupt_catch(void);
bool tow_interrupted(void);

/* How long the controller has been away, and may be. */
struct tow_absence {
    uint64_t since_ns; /* 0 = it answers */
    uint64_t limit_ms;
};

void tow_absence_init(struct tow_absence *absence, const struct tow *tow);
/* After each call. False when its failure ends the following: it is not one of reachability, or
 * the controller has been away for too long. Pauses before a repetition. */
bool tow_absence_bridge(struct tow_absence *absence, enum tw_code code);
uint64_t tow_absence_ms(const struct tow_absence *absence);

void tow_sleep_ms(unsigned ms);

#endif
