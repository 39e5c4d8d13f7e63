/* Which lines of a page differ: the inner loop of the process attachment.
 *
 * Each way gives the same answer; the fastest that this processor has is chosen once. Bit i of an
 * answer is line i. Pages are 4096 bytes, aligned to 64. */
#ifndef TOWLINE_HOSTS_PROCESS_COMPARE_H
#define TOWLINE_HOSTS_PROCESS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

struct tw_compare {
    const char *name; /* "portable", "avx2", "avx512" */
    /* The lines in which `now` differs from `copy`, which becomes equal to `now`. Adds to *bytes
     * how many bytes of them differ. */
    uint64_t (*update)(const uint8_t *now, uint8_t *copy, uint64_t *bytes);
    /* The lines that are not all zeros. */
    uint64_t (*nonzero)(const uint8_t *now);
    bool (*supported)(void);
};

#define TW_COMPARE_WAYS 3u
extern const struct tw_compare tw_compare_ways[TW_COMPARE_WAYS]; /* the slowest first */

/* The fastest way of this processor. Thread-safe. */
const struct tw_compare *tw_compare_best(void);

#endif
