/* What loads.c loads: the program and the test count the same lines. */
#ifndef TOWLINE_SUBJECT_LOADS_H
#define TOWLINE_SUBJECT_LOADS_H

#include <stdint.h>

#define LOADS_THREADS 4u
#define LOADS_EACH    500u  /* of a thread, in the scenario of threads */
#define LOADS_LINES   8192u /* the first of the region: nobody stores there but the test */
#define LOADS_NOTES   8192u /* line at which the storm puts a byte for each of these lines */

/* What the scenarios of functions that only look find: texts and bytes of 0xa5 but for these. */
struct loads_ends {
    uint32_t line;
    uint8_t byte, value;
};
static const struct loads_ends loads_ends[] = {
    {9002, 10, 0},  {9021, 0, 0}, {9031, 5, 0},   {9061, 1, 0},    {9071, 1, 0},    {9101, 5, 'x'},
    {9103, 0, 0},   {9112, 0, 0}, {9121, 0, 'x'}, {9122, 0, 0},    {9131, 1, 'x'},  {9131, 2, 'y'},
    {9131, 3, 'z'}, {9133, 0, 0}, {9141, 9, 'b'}, {9142, 0, 0},    {9152, 63, 0},   {9161, 3, 'y'},
    {9163, 0, 0},   {9201, 6, 1}, {9241, 3, 'x'}, {9251, 63, 'x'}, {9261, 63, 'x'}, {9262, 0, 'y'},
    {9391, 4, 0},   {0, 0, 0},
};
struct loads_range {
    uint32_t first, last;
};
/* Lines that they look at: as far as the answer depends on them. */
static const struct loads_range loads_texts[] = {
    {9000, 9002},               /* strlen */
    {9010, 9011},               /* strnlen of 100 bytes */
    {9020, 9021},               /* strcmp: one ends in its second line, */
    {9030, 9031},               /* the other a little later */
    {9040, 9040},               /* strncmp of 64 */
    {9050, 9050}, {9060, 9061}, /* strcasecmp of equal ones */
    {9070, 9071}, {9080, 9080}, /* strncasecmp of 10 */
    {9090, 9090}, {9100, 9101}, /* strchr: the text goes on behind what it finds */
    {9110, 9112},               /* strchrnul that finds nothing */
    {9120, 9122},               /* strrchr: all of it */
    {9130, 9131},               /* strstr */
    {9140, 9141},               /* strspn */
    {9150, 9152},               /* strcspn */
    {9160, 9161},               /* strpbrk */
    {0, 0},
};
static const struct loads_range loads_bytes[] = {
    {9200, 9201},               /* memcmp: they differ in the second line */
    {9210, 9211}, {9220, 9220}, /* bcmp of 64 */
    {9230, 9230}, {9240, 9241}, /* memchr */
    {9251, 9252},               /* memrchr: from behind */
    {9260, 9262},               /* memmem: across two lines */
    {0, 0},
};
static const struct loads_range loads_given[] = {
    {9300, 9302}, /* write */
    {9310, 9310}, /* pwrite */
    {9320, 9320}, /* writev */
    {9330, 9330}, /* the same, and sendmsg */
    {9340, 9341}, /* pwritev */
    {9350, 9350}, /* send */
    {9360, 9360}, /* sendto */
    {9370, 9370}, /* sendmsg */
    {9380, 9381}, /* fwrite */
    {9390, 9391}, /* fputs */
    {0, 0},
};

/* Lines at random, never line 0: the test stores there to end the storm. */
static inline uint32_t loads_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return 1 + (*state >> 8) % (LOADS_LINES - 1);
}

#endif
