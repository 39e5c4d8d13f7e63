/* Streams whose outcome can be told by hand. */
#include "bench/predictors/replay.h"

#include <criterion/criterion.h>

#define TOUCHES 2000u

static struct tw_miss misses[TOUCHES];
static const struct tw_miss_header header = {TW_MISS_STREAM_MAGIC, 1, 0, 1 << 16, TOUCHES};
/* A page in 10 us, a round trip in 100 us. */
static const struct bench_replay_link fast = {4096 * UINT64_C(100000), 100000};

static struct bench_replay play(enum tw_foresight_choice choice, unsigned step, uint64_t think_ns)
{
    struct bench_replay r;
    uint64_t at_ns = 0;
    for (unsigned i = 0; i < TOUCHES; i++) {
        misses[i] = (struct tw_miss){at_ns, 5000, (uint64_t)i * step % (1 << 16) * 64 + 3};
        at_ns += 5000 + think_ns;
    }
    cr_assert_eq(bench_replay_run(&header, misses, choice, &fast, &r, NULL), TW_OK);
    cr_assert_eq(r.touches, TOUCHES);
    return r;
}

Test(replay, without_a_predictor_each_touch_waits_a_round_trip_and_a_page)
{
    struct bench_replay r = play(TW_FORESIGHT_NONE, 7, 1000);
    cr_expect_eq(r.misses, TOUCHES);
    cr_expect_eq(r.ahead, 0);
    cr_expect_eq(r.wait_ns, TOUCHES * UINT64_C(110000));
    cr_expect_eq(r.total_ns, r.wait_ns + (TOUCHES - 1) * UINT64_C(1000));
}

Test(replay, a_stride_is_foreseen)
{
    struct bench_replay r = play(TW_FORESIGHT_STRIDE, 7, 200000);
    cr_expect_gt(bench_replay_coverage(&r), 90);
    cr_expect_gt(bench_replay_accuracy(&r), 90);
    cr_expect_gt(bench_replay_timeliness(&r), 90);
    struct bench_replay spatial = play(TW_FORESIGHT_SPATIAL, 7, 200000);
    cr_expect_lt(bench_replay_accuracy(&spatial), 30);
}

Test(replay, a_guest_that_does_not_think_is_too_fast_for_the_link)
{
    struct bench_replay r = play(TW_FORESIGHT_SPATIAL, 1, 0);
    cr_expect_gt(r.late, r.touches / 4, "named in time, and not arrived");
    cr_expect_lt(r.wait_ns, TOUCHES * UINT64_C(110000) * 3 / 4, "and still it waits less");
}
