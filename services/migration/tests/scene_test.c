#include "services/migration/destination.h"
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct scene s;

/* TOWLINE_SEEDS multiplies what is played by default. */
static unsigned seeds(unsigned standard)
{
    const char *text = getenv("TOWLINE_SEEDS");
    long factor = text ? strtol(text, NULL, 10) : 1;
    return standard * (unsigned)(factor > 1 ? factor : 1);
}

/* ---- Undisturbed -------------------------------------------------------------------------------
 */

static void expect_moved(const struct scene_config *c)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert(s.memory_checked && s.memory_equal);
}

Test(plain, every_link_moves_the_vm)
{
    for (unsigned seed = 0; seed < seeds(30); seed++) {
        struct scene_config c = scene_plain(seed);
        c.link = seed % 3;
        c.sees_all_writers = seed % 2;
        c.hook = seed % 5 == 0;
        c.limits.skip_verify = seed % 7 == 0;
        c.stores_per_ms = seed % 4 * 20;
        expect_moved(&c);
        cr_assert_eq(s.at_source.memory_compared, !c.limits.skip_verify);
        cr_assert_eq(s.at_source.memory_equal, !c.limits.skip_verify);
        cr_assert_eq(s.at_source.hook_ns > 0, c.hook);
        if (c.sees_all_writers)
            cr_assert_eq(s.at_source.lines_found_by_compare_only, 0,
                         "seed %u: a compare found what a sweep had missed", seed);
    }
}

Test(plain, progress_adds_up)
{
    struct scene_config c = scene_plain(3);
    c.stores_per_ms = 60;
    expect_moved(&c);
    const struct tw_migration_progress *p = &s.at_source, *q = &s.at_destination;
    uint64_t bytes = 0;
    cr_assert_geq(p->round_count, 3, "full copy, the round after the compare, final pass");
    for (unsigned i = 0; i < p->round_count; i++) {
        const struct tw_round *r = &p->rounds[i];
        cr_assert_eq(r->index, i);
        cr_assert_eq(r->final, i + 1 == p->round_count);
        cr_assert_leq(r->zero_lines, r->lines);
        cr_assert_leq(r->pages, r->lines);
        cr_assert_leq((r->lines - r->zero_lines) * TW_LINE_SIZE, r->bytes);
        cr_assert_eq(q->rounds[i].lines, r->lines, "told to the destination");
        bytes += r->bytes;
    }
    cr_assert_leq(bytes + p->bytes_device_state, p->bytes_sent + p->bytes_device_state);
    cr_assert_eq(p->memory_bytes, c.pages * TW_PAGE_SIZE);
    cr_assert_eq(p->full_copy_bytes_done, p->memory_bytes);
    cr_assert_eq(p->lines_dirty, 0);
    cr_assert_gt(p->lines_found_by_compare_only, 0);
    cr_assert_gt(p->downtime_ns, p->final_pass_ns + p->device_state_ns);
    cr_assert_gt(p->total_ns, p->downtime_ns);
    cr_assert_gt(p->bytes_if_pages, bytes - p->rounds[0].bytes);
    cr_assert_eq(p->bytes_device_state, q->bytes_device_state);
    cr_assert_str_eq(p->phase, "completed");
    cr_assert_str_eq(q->phase, "committed");
}

Test(plain, whole_migration_obeys_the_bandwidth_limit)
{
    struct scene_config c = scene_plain(4);
    c.pages = 512;
    c.sees_all_writers = true;
    c.stores_per_ms = 1;
    c.limits.bandwidth_bytes_per_s = 4 << 20;
    expect_moved(&c);
    double seconds = (double)s.at_source.total_ns / 1e9;
    double rate = (double)s.at_source.bytes_sent / seconds;
    cr_assert(rate < 1.1 * (4 << 20) && rate > 0.5 * (4 << 20), "%.0f bytes/s", rate);
}

/* ---- Convergence ----------------------------------------------------------------------------- */

static struct scene_config busy(void)
{
    struct scene_config c = scene_plain(5);
    c.stores_per_ms = 150;
    c.hot_pages = 0;
    c.sees_all_writers = true;
    c.limits.bandwidth_bytes_per_s = 2 << 20;
    c.limits.downtime_ns = 10 * TW_MS;
    c.limits.max_rounds = 5;
    return c;
}

Test(convergence, a_writer_faster_than_the_link_ends_the_migration_by_default)
{
    struct scene_config c = busy();
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_FAILED_PRECONDITION);
    cr_assert_str_eq(s.source_error.what, "no convergence after 5 rounds");
    cr_assert_eq(s.at_source.round_count, 6);
    cr_assert_eq(s.at_source.downtime_ns, 0);
    cr_assert_eq(s.destination_error.code, TW_FAILED_PRECONDITION, "the peer is told why");
}

Test(convergence, or_stops_the_vm_where_the_policy_says_so)
{
    struct scene_config c = busy();
    c.limits.on_no_convergence = TW_ON_NO_CONVERGENCE_STOP;
    expect_moved(&c);
    cr_assert_leq(s.at_source.round_count, 7);
    cr_assert_gt(s.at_source.downtime_ns, c.limits.downtime_ns);
}

/* ---- Faults ------------------------------------------------------------------------------------
 */

static void arrange(struct scene_config *c, struct scene_fault fault)
{
    c->faults[c->fault_count++] = fault;
}

/* Every kind of trouble, at every state of both machines, at once and a little later. */
static void sweep(uint64_t delay_ns, unsigned count)
{
    unsigned broken = 0;
    for (unsigned machine = 0; machine < 2; machine++) {
        unsigned states = machine ? TW_DESTINATION_STATES : TW_SOURCE_STATES;
        for (unsigned state = 1; state < states; state++) {
            for (unsigned action = 1; action < SCENE_ACTIONS; action++) {
                struct scene_config c = scene_plain(1000 * state + action);
                c.pages = 64;
                c.hook = state % 2 || state == TW_SOURCE_HOOK;
                arrange(&c, (struct scene_fault){machine == 0, state, delay_ns, action, count});
                broken += !scene_play_loud(&s, &c);
            }
        }
    }
    cr_assert_eq(broken, 0);
}

Test(faults, at_every_state_at_once)
{
    sweep(0, 1);
}

Test(faults, at_every_state_a_moment_later)
{
    sweep(700 * TW_US, 2);
}

static struct scene_config random_scene(uint64_t seed)
{
    struct tw_random r = {seed};
    struct scene_config c = scene_plain(seed);
    c.pages = 32 + tw_random_below(&r, 160);
    c.link = tw_random_below(&r, 3);
    c.sees_all_writers = tw_random_below(&r, 3) == 0;
    c.stores_per_ms = (uint32_t)tw_random_below(&r, 100);
    c.unseen_percent = (uint32_t)tw_random_below(&r, 30);
    c.hot_pages = (uint32_t)tw_random_below(&r, 32);
    c.hook = tw_random_below(&r, 3) == 0;
    c.limits.skip_verify = tw_random_below(&r, 8) == 0;
    c.limits.max_rounds = 1 + (uint32_t)tw_random_below(&r, 8);
    c.limits.on_no_convergence = tw_random_below(&r, 2);
    if (tw_random_below(&r, 3) == 0)
        c.limits.bandwidth_bytes_per_s = (1 + tw_random_below(&r, 64)) << 20;
    if (tw_random_below(&r, 4) == 0)
        c.link_bytes_per_s = (4 + tw_random_below(&r, 64)) << 20;
    if (tw_random_below(&r, 5) == 0)
        c.corrupt_ppm = 50000;
    c.never_connects = tw_random_below(&r, 100) == 0;
    for (uint64_t n = tw_random_below(&r, SCENE_FAULTS_MAX + 1); n; n--) {
        bool at_source = tw_random_below(&r, 2);
        unsigned states = at_source ? TW_SOURCE_STATES : TW_DESTINATION_STATES;
        arrange(&c, (struct scene_fault){
                        .at_source = at_source,
                        .state = 1 + (unsigned)tw_random_below(&r, states - 1),
                        .delay_ns = tw_random_below(&r, 3) ? tw_random_below(&r, 3 * TW_MS) : 0,
                        .action = 1 + (unsigned)tw_random_below(&r, SCENE_ACTIONS - 1),
                        .count = (unsigned)tw_random_below(&r, 5)});
    }
    return c;
}

Test(faults, several_at_random)
{
    unsigned broken = 0, moved = 0, stayed = 0, count = seeds(600);
    const char *one = getenv("SCENE_SEED");
    for (unsigned seed = 0; seed < count; seed++) {
        struct scene_config c = random_scene(one ? strtoul(one, NULL, 10) : 77777 + seed);
        broken += !scene_play_loud(&s, &c);
        moved += s.destination_end == TW_HAND_OVER_COMMITTED;
        stayed += s.destination_end == TW_HAND_OVER_ABORTED;
        if (one)
            break;
    }
    cr_assert_eq(broken, 0);
    if (!one)
        cr_assert(moved > count / 5 && stayed > count / 5, "%u moved, %u stayed", moved, stayed);
}
