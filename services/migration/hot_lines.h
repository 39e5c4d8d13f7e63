/* Which lines are hot: written again in each of the last rounds. Two bits a line, and for each page
 * the round in which it was told last; lines that are chosen stay so until they are let go. */
#ifndef TOWLINE_SERVICES_MIGRATION_HOT_LINES_H
#define TOWLINE_SERVICES_MIGRATION_HOT_LINES_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_HOT_ROUNDS    3u                  /* in a row, this one included */
#define TW_HOT_LINES_MAX (UINT64_C(1) << 20) /* chosen at a time: 64 MiB */

struct tw_hot_lines {
    uint64_t *planes; /* of each page four words: low and high bit of each line's count of rounds,
                         the lines chosen, and the round (from 1) in which it was told */
    uint64_t pages;
    uint64_t round;
    uint64_t chosen; /* lines */
};

enum tw_code tw_hot_lines_open(struct tw_hot_lines *h, uint64_t pages, struct tw_error *err);
void tw_hot_lines_close(struct tw_hot_lines *h); /* fine when it is not open */
static inline bool tw_hot_lines_is_open(const struct tw_hot_lines *h)
{
    return h->planes != NULL;
}

/* Another round begins. */
void tw_hot_lines_round(struct tw_hot_lines *h);
/* These lines of a page are dirty in this round; a page is told once a round. Returns which of its
 * lines are hot now. */
uint64_t tw_hot_lines_add(struct tw_hot_lines *h, uint64_t page, uint64_t lines);
/* Chooses as many of these lines as there is room for, and returns all that are chosen of the page.
 */
uint64_t tw_hot_lines_choose(struct tw_hot_lines *h, uint64_t page, uint64_t lines);

#endif
