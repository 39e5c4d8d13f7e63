/* A loop of stores at random over memory beyond the caches, alone and under each way of tracking,
 * which all pass once a second (ours: or when its budget allows). */
#include "bench/tracking/bench.h"

#define BYTES  (UINT64_C(256) << 20)
#define SETTLE (1500 * TW_MS)
#define SPAN   (12 * TW_SEC) /* with several passes in it, whatever the budget says */

typedef struct tracker_thread *start_tracker(const struct tracked *t);

static double speed_under(start_tracker *start, bool trap, double *passes)
{
    struct program p;
    program_start(&p, BYTES, trap);
    program_loop(&p);
    bench_sleep(TW_SEC / 4);
    const struct tw_range range = {(uint64_t)(uintptr_t)p.memory, p.bytes};
    const struct tracked tracked = {p.pid, &range, 1, false, &p.shared->protect};
    struct tracker_thread *tracker = start ? start(&tracked) : NULL;
    bench_sleep(SETTLE);
    const unsigned before = tracker ? tracker_passes(tracker) : 0;
    const double speed = program_speed(&p, SPAN);
    *passes = tracker ? tracker_passes(tracker) - before : 0;
    if (tracker)
        tracker_stop(tracker);
    program_end(&p);
    return speed;
}

unsigned bench_random_store(const struct bench_case *self, unsigned runs, struct bench_row *rows)
{
    static const struct {
        const char *name;
        start_tracker *start;
        bool trap;
    } ways[] = {
        {"process", tracker_process, false},           {"untracked", NULL, false},
        {"wp_sync", tracker_wp_sync, false},           {"sigsegv", tracker_sigsegv, true},
        {"full_compare", tracker_full_compare, false},
    };
    double speeds[sizeof ways / sizeof ways[0]][BENCH_RUNS_MAX];
    double passes[sizeof ways / sizeof ways[0]][BENCH_RUNS_MAX];
    (void)self;
    for (unsigned i = 0; i < runs; i++) {
        for (unsigned w = 0; w < sizeof ways / sizeof ways[0]; w++)
            speeds[w][i] = speed_under(ways[w].start, ways[w].trap, &passes[w][i]);
    }
    rows[0] = (struct bench_row){.metric = "stores_per_s",
                                 .unit = "1/s",
                                 .ours = bench_median(speeds[0], runs),
                                 .peer_count = BENCH_PEERS_MAX};
    for (unsigned i = 0; i < BENCH_PEERS_MAX; i++) {
        rows[0].peers[i].name = ways[i + 1].name;
        rows[0].peers[i].value = bench_median(speeds[i + 1], runs);
        rows[0].peers[i].ratio = rows[0].ours / rows[0].peers[i].value;
    }
    rows[1] = (struct bench_row){
        .metric = "passes_per_s",
        .unit = "1/s",
        .ours = bench_median(passes[0], runs) / ((double)SPAN * 1e-9),
    };
    return 2;
}
