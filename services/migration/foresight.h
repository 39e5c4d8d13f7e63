/* What follows the VM before its turn: the guest's misses train a predictor, and the pages that it
 * names go ahead of the others in the background.
 *
 * TW_FORESIGHT_AUTO tries all predictors: for 64 misses none is followed, so that what is missed
 * does not depend on what was guessed, and each is judged by the misses that it had named; the best
 * is followed for the next 512. One that names less than an eighth is not worth following.
 *
 * Nothing here allocates after open. Not thread-safe.
 *
 * Source: US20200034176 (misses train a predictor that reorders what is fetched). */
#ifndef TOWLINE_SERVICES_MIGRATION_FORESIGHT_H
#define TOWLINE_SERVICES_MIGRATION_FORESIGHT_H

#include "fpga-model/predictor.h"
#include "services/migration/line_set.h"
#include "services/migration/migration.h"

#include <stdbool.h>
#include <stdint.h>

#define TW_AHEAD_MAX     256u /* pages that are named and not sent yet */
#define TW_NAMED_MAX     512u /* pages that a predictor on trial named last */
#define TW_TRIAL_MISSES  64u
#define TW_FOLLOW_MISSES 512u
#define TW_TRIAL_ONE_IN  8u /* misses that it must have named */

struct tw_trial {
    uint64_t named[TW_NAMED_MAX]; /* a ring */
    uint64_t count;               /* ever named */
    unsigned right;
};

struct tw_foresight {
    enum tw_foresight_choice choice;
    enum tw_predictor_kind followed;
    struct tw_predictor *predictor[TW_PREDICTOR_KINDS]; /* those in use */
    struct tw_trial trial[TW_PREDICTOR_KINDS];
    unsigned misses_in_phase;
    bool on_trial;
    uint64_t ahead[TW_AHEAD_MAX]; /* a ring; the last comes first */
    unsigned first, count;
    uint64_t *sent; /* bitmap of pages that went ahead */
    uint64_t pages;
    struct tw_foresight_figures figures;
};

/* A zeroed structure is one that foresees nothing. */
enum tw_code tw_foresight_open(struct tw_foresight *f, enum tw_foresight_choice choice,
                               uint64_t pages, struct tw_error *err);
void tw_foresight_close(struct tw_foresight *f); /* the figures stay */

/* The guest waits for a page; with `part`, only for lines of it, and then the others are the first
 * guess. */
void tw_foresight_miss(struct tw_foresight *f, uint64_t page, bool part);

/* The page to send before its turn, of those that have lines in the set; false = none. */
bool tw_foresight_next(struct tw_foresight *f, const struct tw_line_set *set, uint64_t *page);

/* Name of what orders the background now: "none", "spatial", ... */
const char *tw_foresight_name(const struct tw_foresight *f);

#endif
