#include "services/migration/destination.h"
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* With a slow link there are many rounds, each of many lines. All writers are seen, so if a round
 * lost a line the compare would find it. */
Test(plain, rounds_lose_nothing)
{
    for (unsigned seed = 0; seed < seeds(9); seed++) {
        struct scene_config c = scene_plain(seed);
        c.link = seed % 3;
        c.sees_all_writers = true;
        c.pages = 256;
        c.hot_pages = 64;
        c.stores_per_ms = 60;
        c.limits.bandwidth_bytes_per_s = 3 << 20;
        c.limits.downtime_ns = 20 * TW_MS;
        c.limits.max_rounds = 6;
        c.limits.on_no_convergence = TW_ON_NO_CONVERGENCE_STOP;
        expect_moved(&c);
        cr_assert_geq(s.at_source.round_count, 4);
        cr_assert_gt(s.at_source.rounds[1].lines, 100);
        cr_assert_eq(s.at_source.lines_found_by_compare_only, 0, "seed %u", seed);
    }
}

/* Lines that nobody reported are found while the VM runs, not only when it stands still. */
Test(plain, the_background_compare_leaves_nothing_for_the_stop)
{
    for (unsigned seed = 0; seed < seeds(6); seed++) {
        struct scene_config c = scene_plain(seed);
        c.unseen_percent = 50;
        c.unseen_until_ns = 8 * TW_MS;
        c.stores_per_ms = 40;
        expect_moved(&c);
        cr_assert_gt(s.found_before_stop, 0);
        cr_assert_eq(s.at_source.lines_found_by_compare_only, s.found_before_stop, "seed %u", seed);
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
    cr_assert_leq(bytes + p->bytes_device_state, p->bytes_sent);
    cr_assert_geq(bytes + p->bytes_device_state, p->bytes_sent - p->bytes_sent / 20,
                  "the rest is a few small messages");
    cr_assert_eq(p->memory_bytes, c.pages * TW_PAGE_SIZE);
    cr_assert_eq(p->full_copy_bytes_done, p->memory_bytes);
    cr_assert_eq(p->lines_dirty, 0);
    cr_assert_gt(p->lines_found_by_compare_only, 0);
    cr_assert_geq(p->downtime_ns,
                  p->stop_ns + p->final_pass_ns + p->device_state_ns + p->hand_over_ns);
    cr_assert_gt(p->stop_ns, 0);
    cr_assert_gt(p->hand_over_ns, 0);
    cr_assert_leq(p->compare_ns, p->final_pass_ns);
    cr_assert_leq(p->saving_ns, p->device_state_ns);
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
    /* The limit holds while the guest runs: the device state follows its stop. */
    double rate = (double)(s.at_source.bytes_sent - s.at_source.bytes_device_state) / seconds;
    cr_assert(rate < 1.1 * (4 << 20) && rate > 0.5 * (4 << 20), "%.0f bytes/s", rate);
}

/* ---- Convergence ----------------------------------------------------------------------------- */

static struct scene_config busy(void)
{
    struct scene_config c = scene_plain(5);
    c.stores_per_ms = 150;
    c.hot_pages = 0;
    c.sees_all_writers = true;
    c.limits.bandwidth_bytes_per_s = c.link_bytes_per_s = 2 << 20;
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

Test(convergence, the_policy_need_not_wait_for_the_bound)
{
    struct scene_config c = busy();
    c.limits.on_no_convergence = TW_ON_NO_CONVERGENCE_STOP;
    c.limits.max_rounds = 30;
    expect_moved(&c);
    cr_assert_lt(s.at_source.round_count, 20, "rounds that do not shrink are pointless");
}

/* The tracker knows of next to nothing before a collection sweeps the caches. */
Test(convergence, what_caches_hide_is_not_forgotten)
{
    struct scene_config c = scene_plain(6);
    c.link = FAKE_LINK_CACHE;
    c.sees_all_writers = true;
    c.stores_per_ms = 100;
    c.pages = 2; /* all of it fits in the caches */
    c.hot_pages = 0;
    c.limits.bandwidth_bytes_per_s = c.link_bytes_per_s = 200000;
    c.limits.downtime_ns = 40 * TW_MS;
    c.limits.max_rounds = 4;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_FAILED_PRECONDITION, "%s", s.source_error.what);
}

/* ---- Faults ------------------------------------------------------------------------------------
 */

static void arrange(struct scene_config *c, struct scene_fault fault)
{
    c->faults[c->fault_count++] = fault;
}

/* States that only trouble leads to, behind the switch of a VM whose memory is still on its way. */
static void lead_there(struct scene_config *c, bool at_source, unsigned state)
{
    struct scene_fault f = {at_source, at_source ? TW_SOURCE_SERVING : TW_DESTINATION_FETCHING, 0,
                            SCENE_DROP_CHUNKS, 1};
    if (at_source ? state != TW_SOURCE_PATH_LOST
                  : state != TW_DESTINATION_PATH_LOST && state != TW_DESTINATION_PAUSED &&
                        state != TW_DESTINATION_REJOINING)
        return;
    if (!at_source && state == TW_DESTINATION_REJOINING)
        f.action = SCENE_CRASH_DESTINATION;
    else if (!at_source && state == TW_DESTINATION_PAUSED)
        f.action = SCENE_CUT;
    c->pages = 160;
    c->link_bytes_per_s = 16 << 20;
    arrange(c, f);
}

/* Trouble at a state of one machine: at once, or a while after it was entered. */
static unsigned trouble(bool at_source, unsigned state, enum scene_action action, uint64_t delay_ns,
                        enum tw_migration_method method)
{
    struct scene_config c = scene_plain(1000 * state + action);
    c.pages = 24;
    c.limits.method = method;
    c.hook = state % 2 || state == TW_SOURCE_HOOK;
    lead_there(&c, at_source, state);
    arrange(&c, (struct scene_fault){at_source, state, delay_ns, action, delay_ns ? 2 : 1});
    return !scene_play_loud(&s, &c);
}

/* Moves that take more than one thing to go wrong, or a setting of their own. */
static unsigned rare_moves(void)
{
    struct scene_config c = scene_plain(1);
    c.sees_all_writers = c.limits.skip_verify = true;
    unsigned broken = !scene_play_loud(&s, &c); /* final_pass -> saving_state */
    c = scene_plain(2); /* nothing for the compare to find: precompare -> waiting */
    c.stores_per_ms = 0;
    arrange(&c, (struct scene_fault){true, TW_SOURCE_VERIFYING, 0, SCENE_CANCEL, 1});
    arrange(&c, (struct scene_fault){true, TW_SOURCE_RESUMING, 0, SCENE_KILL_SOURCE_VM, 1});
    return broken + !scene_play_loud(&s, &c); /* resuming -> lost */
}

/* What only a mirror leads to: the wait for it, and each way out of that. */
static unsigned mirrored_moves(void)
{
    static const enum scene_action ways[] = {SCENE_NOTHING, SCENE_CANCEL, SCENE_KILL_SOURCE_VM,
                                             SCENE_NOTHING};
    unsigned broken = 0;
    for (unsigned i = 0; i < 4; i++) {
        struct scene_config c = scene_plain(i);
        c.limits.method = TW_METHOD_POST_COPY;
        c.pages = 256;
        c.link_bytes_per_s = 16 << 20;
        c.mirror = true;
        c.hook = i == 3;
        if (ways[i])
            arrange(&c, (struct scene_fault){true, TW_SOURCE_MIRRORING, 0, ways[i], 1});
        broken += !scene_play_loud(&s, &c);
    }
    return broken;
}

/* Behind the switch, one trouble after the other. */
static unsigned troubles_behind_it(void)
{
    static const struct scene_fault troubles[][3] = {
        /* Without the source's memory the VM is given up. */
        {{false, TW_DESTINATION_FETCHING, 0, SCENE_KILL_SOURCE_VM, 1},
         {false, TW_DESTINATION_FETCHING, 0, SCENE_CUT, 1},
         {false, TW_DESTINATION_PATH_LOST, 0, SCENE_CRASH_SOURCE, 1}},
        {{false, TW_DESTINATION_FETCHING, 0, SCENE_KILL_SOURCE_VM, 1},
         {false, TW_DESTINATION_FETCHING, 0, SCENE_CUT, 1},
         {false, TW_DESTINATION_PAUSED, 0, SCENE_CRASH_SOURCE, 1}},
        /* Its own process ends. */
        {{false, TW_DESTINATION_FETCHING, 0, SCENE_CUT, 1},
         {false, TW_DESTINATION_PAUSED, 0, SCENE_KILL_DESTINATION_VM, 1}},
        {{false, TW_DESTINATION_FETCHING, 0, SCENE_DROP_CHUNKS, 1},
         {false, TW_DESTINATION_PATH_LOST, 0, SCENE_KILL_DESTINATION_VM, 1}},
        {{false, TW_DESTINATION_WAITING, 0, SCENE_FAIL_REJOIN, 3},
         {false, TW_DESTINATION_FETCHING, 0, SCENE_CRASH_DESTINATION, 1},
         {false, TW_DESTINATION_REJOINING, 0, SCENE_KILL_DESTINATION_VM, 1}},
        /* The path goes before the VM runs. */
        {{false, TW_DESTINATION_COMMITTING, 0, SCENE_FAIL_DESTINATION_CONTINUE, 4},
         {false, TW_DESTINATION_RESUMING, 0, SCENE_DROP_CHUNKS, 1}},
    };
    unsigned broken = mirrored_moves();
    for (unsigned i = 0; i < sizeof troubles / sizeof *troubles; i++) {
        struct scene_config c = scene_plain(i);
        c.limits.method = TW_METHOD_POST_COPY;
        c.pages = 256;
        c.link_bytes_per_s = 16 << 20;
        for (unsigned f = 0; f < 3; f++)
            if (troubles[i][f].action)
                arrange(&c, troubles[i][f]);
        broken += !scene_play_loud(&s, &c);
    }
    return broken;
}

static unsigned moves_never_taken(void)
{
    unsigned missing = 0;
    for (unsigned m = 0; m < 2; m++) {
        const struct tw_machine_table *t = m ? &tw_destination_table : &tw_source_table;
        for (unsigned from = 0; from < t->count; from++) {
            for (unsigned to = 0; to < t->count; to++) {
                if (!(t->states[from].next & TW_MAY(to)) || scene_taken[m][from][to])
                    continue;
                fprintf(stderr, "never taken: %s: %s -> %s\n", t->name, t->states[from].name,
                        t->states[to].name);
                missing++;
            }
        }
    }
    return missing;
}

Test(faults, at_every_state_of_both_machines_and_every_move_is_taken)
{
    unsigned broken = rare_moves() + troubles_behind_it();
    for (unsigned machine = 0; machine < 2; machine++)
        for (unsigned state = 1; state < (machine ? TW_DESTINATION_STATES : TW_SOURCE_STATES);
             state++)
            for (unsigned action = 1; action < SCENE_ACTIONS; action++)
                for (unsigned method = 0; method <= TW_METHOD_HYBRID; method++)
                    broken += trouble(machine == 0, state, action, 0, method);
    cr_assert_eq(broken, 0);
    cr_assert_eq(moves_never_taken(), 0);
}

Test(faults, a_moment_later)
{
    unsigned broken = 0;
    for (unsigned machine = 0; machine < 2; machine++)
        for (unsigned state = 1; state < (machine ? TW_DESTINATION_STATES : TW_SOURCE_STATES);
             state++)
            for (unsigned action = 1; action < SCENE_FAIL_SOURCE_JOURNAL; action++)
                for (unsigned method = 0; method <= TW_METHOD_HYBRID; method++)
                    broken += trouble(machine == 0, state, action, 700 * TW_US, method);
    cr_assert_eq(broken, 0);
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
    c.limits.method = tw_random_below(&r, 3);
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
    unsigned broken = 0, moved = 0, stayed = 0, count = seeds(300);
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

/* ---- What the sides say about it ----------------------------------------------------------------
 */

static void play_with(bool at_source, unsigned state, enum scene_action action)
{
    struct scene_config c = scene_plain(11);
    arrange(&c, (struct scene_fault){at_source, state, 0, action, 1});
    cr_assert(scene_play_loud(&s, &c));
}

static void expect_stayed(enum tw_code code, const char *what)
{
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, code, "%s", s.source_error.what);
    cr_assert(strstr(s.source_error.what, what), "%s", s.source_error.what);
}

Test(errors, name_what_happened)
{
    play_with(true, TW_SOURCE_FULL_COPY, SCENE_CANCEL);
    expect_stayed(TW_CANCELLED, "cancelled");
    cr_assert_eq(s.destination_error.code, TW_CANCELLED);
    cr_assert_str_eq(s.source_error.where, "migration m-1");
    play_with(false, TW_DESTINATION_RECEIVING, SCENE_FAIL_RESERVE);
    expect_stayed(TW_RESOURCE_EXHAUSTED, "the disk is full");
    play_with(true, TW_SOURCE_GIVING_UP, SCENE_FAIL_SOURCE_JOURNAL);
    expect_stayed(TW_RESOURCE_EXHAUSTED, "the disk is full");
    cr_assert_gt(s.at_source.downtime_ns, 0, "it stood still for a while");
    play_with(false, TW_DESTINATION_PREPARING, SCENE_FAIL_DESTINATION_JOURNAL);
    expect_stayed(TW_RESOURCE_EXHAUSTED, "the disk is full");
    play_with(true, TW_SOURCE_ROUND, SCENE_KILL_SOURCE_VM);
    expect_stayed(TW_UNAVAILABLE, "the process of vm web has ended");
    cr_assert_str_eq(s.at_source.phase, "lost");
    play_with(false, TW_DESTINATION_LOADING_STATE, SCENE_KILL_DESTINATION_VM);
    expect_stayed(TW_UNAVAILABLE, "the process of the incoming machine has ended");
    play_with(false, TW_DESTINATION_LOADING_STATE, SCENE_FAIL_LOAD);
    expect_stayed(TW_INTERNAL, "operation 4 failed");
    play_with(true, TW_SOURCE_VERIFYING, SCENE_CUT);
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_UNAVAILABLE, "%s", s.source_error.what);
}

Test(errors, a_source_that_never_comes)
{
    struct scene_config c = scene_plain(12);
    c.never_connects = true;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.destination_error.code, TW_DEADLINE_EXCEEDED);
    cr_assert(s.end_ns < 4 * TW_SEC);
}

Test(errors, a_limit_on_the_whole)
{
    struct scene_config c = scene_plain(13);
    c.limits.timeout_ns = 200 * TW_MS;
    c.limits.bandwidth_bytes_per_s = 100000;
    cr_assert(scene_play_loud(&s, &c));
    expect_stayed(TW_DEADLINE_EXCEEDED, "longer than its limit");
}

Test(errors, a_journal_that_fails_at_the_commit_is_tried_again)
{
    struct scene_config c = scene_plain(14);
    arrange(&c, (struct scene_fault){false, TW_DESTINATION_PREPARED, 0,
                                     SCENE_FAIL_DESTINATION_JOURNAL, 3});
    arrange(&c, (struct scene_fault){true, TW_SOURCE_GIVEN_UP, 0, SCENE_FAIL_SOURCE_JOURNAL, 2});
    expect_moved(&c);
    cr_assert_gt(s.at_source.downtime_ns, 300 * TW_MS, "three times 100 ms");
    cr_assert_eq(s.source_error.code, TW_OK, "it went well in the end");
}

/* ---- The checks bite ----------------------------------------------------------------------------
 */

Test(mutations, a_dropped_record_is_noticed_by_its_absence)
{
    struct scene_config c = scene_plain(21);
    c.at_source.drop_record = true;
    cr_assert(scene_play_loud(&s, &c));
    expect_stayed(TW_DATA_LOSS, "not everything that was sent has arrived");
}

Test(mutations, and_by_the_digest_alone)
{
    struct scene_config c = scene_plain(22);
    c.at_source.drop_record = c.at_source.drop_uncounted = true;
    cr_assert(scene_play_loud(&s, &c));
    expect_stayed(TW_DATA_LOSS, "the memory here differs from the source's");
    cr_assert(s.at_source.memory_compared && !s.at_source.memory_equal);
    cr_assert(s.at_destination.memory_compared && !s.at_destination.memory_equal);
    c.limits.skip_verify = true;
    cr_assert_not(scene_play(&s, &c), "without verification nobody would have noticed");
    cr_assert_str_eq(s.problem,
                     "the destination was continued with another memory or device state");
}

Test(mutations, a_skipped_final_sweep_is_mended_by_the_compare_and_shows)
{
    struct scene_config c = scene_plain(23);
    c.sees_all_writers = true;
    c.stores_per_ms = 80;
    c.at_source.skip_final_sweep = true;
    expect_moved(&c);
    cr_assert_gt(s.at_source.lines_found_by_compare_only, 0, "nothing would be found otherwise");
    c.at_source.skip_compare = true;
    cr_assert(scene_play_loud(&s, &c));
    expect_stayed(TW_DATA_LOSS, "the memory here differs from the source's");
    c.limits.skip_verify = true;
    cr_assert_not(scene_play(&s, &c));
}

Test(mutations, a_destination_that_starts_early_breaks_the_first_rule)
{
    struct scene_config c = scene_plain(24);
    c.at_destination.start_early = true;
    cr_assert_not(scene_play(&s, &c));
    cr_assert_str_eq(s.problem, "destination was continued without the right to run");
}
