/* The same contract, kept by the plugin and the link of a real machine. */
#include "tests/attachments/contract.h"

#include <criterion/criterion.h>

TestSuite(contract, .timeout = 600);

static void expect_kept(const struct world_kind *kind)
{
    char first[512];
    const uint32_t objections = contract_run(kind, first, sizeof first);
    cr_expect_eq(objections, 0, "%u objections; %s", objections, first);
}

Test(contract, qemu_marks)
{
    expect_kept(&world_qemu);
}

Test(contract, qemu_cache_model)
{
    expect_kept(&world_qemu_cache);
}
