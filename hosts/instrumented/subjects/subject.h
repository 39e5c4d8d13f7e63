/* A program that the tests compile with towline-cc and track. It says "region ADDRESS" and then
 * does what it is told on standard input, a byte a scenario ('a' is the first of the list), and
 * answers each with a '.'. What a scenario stores differs from what was there (0xa5 in every byte,
 * or a multiple of it), so that a comparison finds every line that it stored to. */
#ifndef TOWLINE_SUBJECT_H
#define TOWLINE_SUBJECT_H

#include <stddef.h>
#include <stdint.h>

#define REGION_BYTES (1u << 20)

extern uint8_t *region;

/* Serves until standard input ends. */
int subject_main(void (*const *scenarios)(void), size_t count);
/* One byte from the test. */
int subject_next(void);
void subject_answer(void);

#endif
