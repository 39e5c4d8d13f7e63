/* A recorded stream of misses played again with another predictor, in a model of link and guest.
 *
 * The guest touches the recorded pages in their order and thinks between two touches as long as it
 * did. What it misses is fetched in a round trip and the time that a page takes on the link; what
 * the predictor names is sent whenever the link is free. There is no other background: what is
 * spared, the predictor has spared. */
#ifndef TOWLINE_BENCH_PREDICTORS_REPLAY_H
#define TOWLINE_BENCH_PREDICTORS_REPLAY_H

#include "services/migration/foresight.h"
#include "services/migration/miss_stream.h"

struct bench_replay_link {
    uint64_t bytes_per_s, round_trip_ns;
};

struct bench_replay {
    uint64_t touches;  /* of pages that were not touched before */
    uint64_t misses;   /* of them: nothing was under way */
    uint64_t late;     /* ... it was, and had not arrived */
    uint64_t ahead;    /* pages sent because they were named */
    uint64_t wait_ns;  /* of the guest in all */
    uint64_t total_ns; /* its time for all touches */
};

/* `misses` in the order of their touches, as tw_miss_stream_read gives them. */
enum tw_code bench_replay_run(const struct tw_miss_header *header, const struct tw_miss *misses,
                              enum tw_foresight_choice choice, const struct bench_replay_link *link,
                              struct bench_replay *out, struct tw_error *err);

/* Percent; NAN where there is nothing to judge. */
double bench_replay_accuracy(const struct bench_replay *r);
double bench_replay_coverage(const struct bench_replay *r);
double bench_replay_timeliness(const struct bench_replay *r);

#endif
