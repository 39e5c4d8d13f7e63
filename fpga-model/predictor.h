/* Guesses which pages will be missed next, from those that have been missed.
 *
 * Pure: no clock, no I/O, no allocation after open; a guess costs some hundred steps at most. It
 * knows nothing of what has arrived: the caller drops guesses that it does not need. Not
 * thread-safe.
 *
 * Sources: US20200034176 and US20200034294 (misses train what is fetched ahead); the vote over
 * windows of differences is that of Leap (ATC'20). */
#ifndef TOWLINE_FPGA_MODEL_PREDICTOR_H
#define TOWLINE_FPGA_MODEL_PREDICTOR_H

#include "base/error.h"

#include <stdint.h>

#define TW_GUESSES_MAX 64u

enum tw_predictor_kind {
    TW_PREDICTOR_NONE,
    /* The neighbours: the block of 8 pages around the miss, and further on, twice as far each time,
     * while misses follow where the last guesses ended. Several such streams at a time. */
    TW_PREDICTOR_SPATIAL,
    /* One distance: that which more than half of the last 4, 8, 16 or 32 differences agree on. */
    TW_PREDICTOR_STRIDE,
    /* What followed the last time: the page that came after this one, or the difference that came
     * after the last two. */
    TW_PREDICTOR_SEQUENCE,
};
#define TW_PREDICTOR_KINDS 4u

const char *tw_predictor_name(enum tw_predictor_kind kind);

struct tw_predictor;

/* For page numbers in [0, pages). At most 1.2 MiB. */
enum tw_code tw_predictor_open(enum tw_predictor_kind kind, uint64_t pages,
                               struct tw_predictor **predictor, struct tw_error *err);
void tw_predictor_close(struct tw_predictor *predictor); /* NULL is ignored */

/* Learns of a miss and guesses: returns the number of `guesses`, the likeliest first, each once,
 * none of them `page`, all in [0, pages). A page outside is ignored. */
unsigned tw_predictor_miss(struct tw_predictor *predictor, uint64_t page,
                           uint64_t guesses[TW_GUESSES_MAX]);

/* The first touch of a page that was there because it had been guessed, from who can see it. Who
 * cannot never calls this: the predictor then takes a miss behind the guesses as a sign that they
 * were right (spatial, stride), or learns nothing from it (sequence). */
void tw_predictor_touch(struct tw_predictor *predictor, uint64_t page);

#endif
