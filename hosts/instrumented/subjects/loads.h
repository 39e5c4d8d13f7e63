/* What loads.c loads: the program and the test count the same lines. */
#ifndef TOWLINE_SUBJECT_LOADS_H
#define TOWLINE_SUBJECT_LOADS_H

#include <stdint.h>

#define LOADS_THREADS 4u
#define LOADS_EACH    500u  /* of a thread, in the scenario of threads */
#define LOADS_LINES   8192u /* the first of the region: nobody stores there but the test */
#define LOADS_NOTES   8192u /* line at which the storm puts a byte for each of these lines */

/* Lines at random, never line 0: the test stores there to end the storm. */
static inline uint32_t loads_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return 1 + (*state >> 8) % (LOADS_LINES - 1);
}

#endif
