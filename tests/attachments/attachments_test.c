/* The contract, kept by every attachment that needs no machine. */
#include "tests/attachments/contract.h"

#include <criterion/criterion.h>

TestSuite(contract, .timeout = 300);

static void expect_kept(const struct world_kind *kind)
{
    char first[512];
    const uint32_t objections = contract_run(kind, first, sizeof first);
    cr_expect_eq(objections, 0, "%u objections; %s", objections, first);
}

Test(contract, cache_model)
{
    expect_kept(&world_cache);
}

Test(contract, no_caches)
{
    expect_kept(&world_uncached);
}

Test(contract, process)
{
    expect_kept(&world_process);
}

Test(contract, process_exact)
{
    expect_kept(&world_process_exact);
}

Test(contract, instrumented_mark)
{
    expect_kept(&world_mark);
}

Test(contract, instrumented_sharing)
{
    expect_kept(&world_sharing);
}

Test(contract, instrumented_owned)
{
    expect_kept(&world_owned);
}

Test(contract, instrumented_through_the_agents_sessions)
{
    expect_kept(&world_session_instrumented);
}

Test(contract, process_through_the_agents_sessions)
{
    expect_kept(&world_session_process);
}

/* The suite is worth something only if it objects to each wrong statement. */
static void expect_noticed(const struct world_kind *kind)
{
    char first[512];
    for (unsigned i = 0; i < CONTRACT_KINDS; i++) {
        struct world_kind wrong = *kind;
        if (kind->verdicts[i] == ABSENT)
            continue;
        wrong.verdicts[i] = kind->verdicts[i] == TOLD ? HIDDEN : TOLD;
        /* Where equal values do not count, neither statement makes a difference. */
        if (!kind->same_value_is_dirty && (i == CONTRACT_SAME || i == CONTRACT_LOAD))
            continue;
        cr_expect_gt(contract_run(&wrong, first, sizeof first), 0, "%s, kind %u", kind->name, i);
    }
}

Test(contract, a_wrong_statement_is_noticed)
{
    expect_noticed(&world_cache);
    expect_noticed(&world_process_exact);
    expect_noticed(&world_mark);
}
