/* An operator's pause, in virtual time. */
#include "services/migration/source.h"
#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>

static struct scene s;

static struct scene_config paused(unsigned state, enum tw_migration_method method,
                                  uint64_t resume_ns)
{
    struct scene_config c = scene_plain(11);
    c.limits.method = method;
    c.limits.bandwidth_bytes_per_s = 8 << 20;
    c.faults[c.fault_count++] = (struct scene_fault){true, state, 0, SCENE_PAUSE, 1};
    if (resume_ns)
        c.faults[c.fault_count++] = (struct scene_fault){true, state, resume_ns, SCENE_RESUME, 1};
    return c;
}

static void expect_moved_after(const struct scene_config *c, uint64_t ns)
{
    cr_assert(scene_play_loud(&s, c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert(s.memory_equal);
    cr_assert_geq(s.at_source.paused_ns, ns - ns / 8);
    cr_assert_leq(s.at_source.paused_ns, ns + TW_SEC);
    cr_assert_geq(s.at_source.total_ns, s.at_source.paused_ns);
}

Test(pause, precopy_stands_still_and_goes_on)
{
    struct scene_config c = paused(TW_SOURCE_FULL_COPY, TW_METHOD_PRE_COPY, 3 * TW_SEC);
    expect_moved_after(&c, 3 * TW_SEC);
    c = paused(TW_SOURCE_WAITING, TW_METHOD_HYBRID, 2 * TW_SEC);
    expect_moved_after(&c, 2 * TW_SEC);
}

Test(pause, ends_by_itself)
{
    struct scene_config c = paused(TW_SOURCE_FULL_COPY, TW_METHOD_PRE_COPY, 0);
    c.stores_per_ms = 1;
    c.limits.timeout_ns = 2 * TW_PAUSE_LIMIT_NS;
    expect_moved_after(&c, TW_PAUSE_LIMIT_NS);
}

Test(pause, does_not_stop_the_clock_of_the_whole)
{
    struct scene_config c = paused(TW_SOURCE_FULL_COPY, TW_METHOD_PRE_COPY, 0);
    c.limits.timeout_ns = 5 * TW_SEC;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_ABORTED);
    cr_assert_eq(s.source_error.code, TW_DEADLINE_EXCEEDED);
}

/* The played guest touches all of its memory at once: without a background all of it is asked for.
 */
Test(pause, of_what_follows_holds_no_demand_up)
{
    struct scene_config c = paused(TW_SOURCE_GIVEN_UP, TW_METHOD_POST_COPY, 60 * TW_SEC);
    c.pages = 2048;
    c.limits.bandwidth_bytes_per_s = 1 << 20;
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED, "%s", s.source_error.what);
    cr_assert(s.memory_equal);
    cr_assert_gt(s.at_source.paused_ns, 0);
    cr_assert_geq(s.at_source.lines_on_demand, s.at_source.lines_to_come * 9 / 10);
}

Test(pause, has_no_effect_while_the_vm_stands)
{
    struct scene_config c = paused(TW_SOURCE_STOPPING, TW_METHOD_PRE_COPY, 0);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
    cr_assert_leq(s.at_source.downtime_ns, 10 * TW_SEC);
}
