/* Named fault points: places where a test may kill or hold this process.
 *
 * TOWLINE_FAULT=NAME:ACTION[,NAME:ACTION...] in the environment arms them; ACTION is
 *   kill       SIGKILL to this process, as if the machine's power went
 *   hold=FILE  creates FILE.reached, then waits until FILE.release exists (at most 30 s)
 *   fail       tw_fault_fails(NAME) answers true, once
 * Every state of a state machine is such a point, "MACHINE.STATE" (base/machine.h).
 * Compiled out when TOWLINE_FAULTS is not defined: the calls cost nothing and arm nothing. */
#ifndef TOWLINE_BASE_FAULT_H
#define TOWLINE_BASE_FAULT_H

#include <stdbool.h>

#ifdef TOWLINE_FAULTS
void tw_fault_point(const char *name);
bool tw_fault_fails(const char *name);
#else
static inline void tw_fault_point(const char *name)
{
    (void)name;
}
static inline bool tw_fault_fails(const char *name)
{
    (void)name;
    return false;
}
#endif

#endif
