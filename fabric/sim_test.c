/* What only the simulated network can do. */
#include "base/random.h"
#include "fabric/contract.h"

#include <criterion/criterion.h>
#include <string.h>

static uint8_t block[TW_CHUNK_PAYLOAD];

static enum tw_code send_one(struct tw_conn *conn, uint32_t length)
{
    return tw_conn_send(conn, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, block, length, NULL);
}

Test(sim_only, dropped_chunk_is_noticed_by_the_next)
{
    struct world *w = world_open(true, NULL, NULL);
    cr_assert(world_connect(w));
    tw_sim_drop_chunks(w->sim, 1);
    cr_assert_eq(send_one(w->b.conn, 10), TW_OK);
    cr_assert_not(WORLD_UNTIL(w, 100, w->a.downs > 0));
    cr_assert_eq(send_one(w->b.conn, 10), TW_OK);
    cr_assert(WORLD_UNTIL(w, 100, w->a.downs == 1 && w->b.downs == 1));
    cr_assert_eq(w->a.why.code, TW_DATA_LOSS);
    cr_assert_eq(w->a.logged, 0);
    world_close(w);
}

Test(sim_only, corruption_is_always_noticed)
{
    unsigned downs = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        const struct tw_sim_config config = {.seed = seed, .corrupt_ppm = 100000};
        struct world *w = world_open(true, NULL, &config);
        cr_assert(world_connect(w));
        memset(block, 1, 300);
        for (unsigned i = 0; i < 16; i++)
            cr_assert_eq(send_one(w->b.conn, 300), TW_OK);
        WORLD_UNTIL(w, 100, w->a.downs || w->a.logged == 16);
        cr_assert_eq(w->a.sums, w->a.logged * 300, "a spoilt chunk got through");
        downs += w->a.downs;
        world_close(w);
    }
    cr_assert_gt(downs, 150);
    cr_assert_lt(downs, 300);
}

Test(sim_only, bandwidth_and_latency_are_kept)
{
    const struct tw_sim_config config = {.seed = 3,
                                         .latency_min_ns = TW_MS,
                                         .latency_max_ns = TW_MS,
                                         .bandwidth_bytes_per_s = 100000000};
    struct world *w = world_open(true, &(struct tw_fabric_config){.bulk_credits = 64}, &config);
    cr_assert(world_connect(w));
    const uint64_t before = tw_now(w->clock);
    for (unsigned i = 0; i < 50; i++)
        cr_assert_eq(send_one(w->b.conn, 100000 - 64), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.logged == 50));
    const uint64_t took = tw_now(w->clock) - before; /* 5 MB at 100 MB/s, one latency */
    cr_assert_eq(took, 51 * TW_MS, "%llu", (unsigned long long)took);
    world_close(w);
}

/* Everything that one run shows, as one number. */
static uint64_t run(uint64_t seed)
{
    const struct tw_sim_config config = {.seed = seed, .corrupt_ppm = 2000};
    struct world *w = world_open(true, NULL, &config);
    struct tw_random random = {seed};
    uint64_t seen = 0;
    world_connect(w);
    for (unsigned i = 0; i < 400; i++) {
        const uint64_t dice = tw_random_below(&random, 100);
        if (dice < 2)
            world_cut(w);
        else if (dice < 20)
            world_mend(w);
        else if (w->b.conn && dice < 60)
            send_one(w->b.conn, (uint32_t)tw_random_below(&random, 5000));
        else if (w->a.conn && dice < 80)
            send_one(w->a.conn, (uint32_t)tw_random_below(&random, 5000));
        if (!w->b.conn)
            world_connect(w);
        world_step(w);
        seen = seen * 31 + tw_now(w->clock) + w->a.bytes[0] * 7 + w->b.bytes[0] + w->a.downs;
    }
    world_close(w);
    return seen;
}

Test(sim_only, the_same_seed_is_the_same_run)
{
    for (uint64_t seed = 1; seed < 20; seed++)
        cr_assert_eq(run(seed), run(seed));
    cr_assert_neq(run(1), run(2));
}

Test(sim_only, hidden_cut_between_two_of_three)
{
    struct world *w = world_open(true, NULL, NULL);

    cr_assert(world_connect(w));
    tw_sim_cut(w->sim, "a", "c");
    cr_assert_not(WORLD_UNTIL(w, 1000, w->a.downs || w->b.downs), "not their cut");
    tw_sim_cut(w->sim, "b", "a");
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs && w->b.downs));

    world_close(w);
}
