/* TOWLINE_SEEDS=N in the environment runs N seeds instead of the usual number. */
#include "tests/property/world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define SEEDS         3000u
#define SEEDS_MUTATED 300u /* within which each mutation must show */

static uint64_t seeds(void)
{
    const char *text = getenv("TOWLINE_SEEDS");
    uint64_t n = text ? strtoull(text, NULL, 10) : 0;
    return n ? n : SEEDS;
}

Test(property, nothing_missed_nothing_invented)
{
    struct world_failure failure;
    for (uint64_t seed = 0; seed < seeds(); seed++) {
        bool passed = world_run(seed, (struct tw_device_mutations){0}, &failure);
        cr_assert(passed, "seed %llu, step %u: %s", (unsigned long long)failure.seed, failure.step,
                  failure.what);
    }
}

/* The oracle is worth something only if it sees each rule broken. */
static void expect_noticed(const char *rule, struct tw_device_mutations mutations)
{
    struct world_failure failure;
    for (uint64_t seed = 0; seed < SEEDS_MUTATED; seed++) {
        if (!world_run(seed, mutations, &failure)) {
            printf("%s broken: seed %llu, step %u: %s\n", rule, (unsigned long long)failure.seed,
                   failure.step, failure.what);
            return;
        }
    }
    cr_assert_fail("%s is broken and %u seeds do not show it", rule, SEEDS_MUTATED);
}

Test(property, start_without_sweep_is_noticed)
{
    expect_noticed("R1", (struct tw_device_mutations){.skip_start_sweep = true});
}

Test(property, collect_without_sweep_is_noticed)
{
    expect_noticed("R2", (struct tw_device_mutations){.skip_collect_sweep = true});
}

Test(property, clearing_after_reading_is_noticed)
{
    expect_noticed("R3", (struct tw_device_mutations){.clear_after_read = true});
}

Test(property, dropping_on_overflow_is_noticed)
{
    expect_noticed("R4", (struct tw_device_mutations){.drop_on_overflow = true});
}
