/* A real guest whose writer of hot lines is slowed, while what it writes elsewhere is not.
 *
 * The guest writes the two halves of its pages in turns of a millisecond. How many pages each half
 * comes to is its own progress; a busy machine takes as much from the one as from the other. */
#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "hosts/qemu/qemu_impl.h"

TestSuite(pace_guest, .timeout = 120);

#define PAGES 200u

static struct tw_pace_rule hard = {.delay_ns = TW_PACE_DELAY_MAX_NS,
                                   .share_permille = TW_PACE_SHARE_MAX};

static void pace_half(struct test_vm *vm, unsigned half)
{
    const struct tw_host_pace_ops *pace = vm->host->pace;
    for (uint32_t page = half * PAGES / 2; page < (half + 1) * PAGES / 2; page++) {
        const uint64_t at = tw_sparse_word(page);
        pace->lines(vm->host->ctx, tw_page_of(at), tw_line_bit(at));
    }
    pace->rule(vm->host->ctx, &hard);
}

/* Steps the guest, tells the link's reader to look, and has what is paced go on if it is. */
static void go_on(struct test_vm *vm, uint64_t duration_ns, const struct tw_pace_rule *rule)
{
    const uint64_t end_ns = tw_after(tw_now(&tw_monotonic), duration_ns);
    while (tw_now(&tw_monotonic) < end_ns) {
        test_vm_run(vm, 5 * TW_MS);
        vm->host->ops->sync(vm->host->ctx); /* what is read is clean again */
        if (rule)
            vm->host->pace->rule(vm->host->ctx, rule);
    }
}

struct progress {
    uint64_t half[2];
};

/* Until both have had a good number of turns. */
static struct progress measure(struct test_vm *vm, const struct tw_pace_rule *rule)
{
    struct progress p;
    go_on(vm, 50 * TW_MS, rule);
    const uint64_t a = vm->control->turn_writes[0], b = vm->control->turn_writes[1];
    const uint64_t from = vm->control->now_tsc;
    const uint64_t end_ns = tw_after(tw_now(&tw_monotonic), 60 * TW_SEC);
    while (vm->control->now_tsc - from < 300ull * vm->control->tsc_khz) {
        cr_assert_lt(tw_now(&tw_monotonic), end_ns);
        go_on(vm, 20 * TW_MS, rule);
    }
    p.half[0] = vm->control->turn_writes[0] - a;
    p.half[1] = vm->control->turn_writes[1] - b;
    printf("%s: halves %llu and %llu\n", vm->config.name, (unsigned long long)p.half[0],
           (unsigned long long)p.half[1]);
    cr_assert_eq(vm->control->bad, 0);
    return p;
}

static void expect_alike(struct progress p)
{
    cr_assert_geq(p.half[0], p.half[1] / 2);
    cr_assert_geq(p.half[1], p.half[0] / 2);
}

static void expect_slowed(struct progress p, unsigned half)
{
    cr_assert_gt(p.half[half], 0, "a slowed writer goes on");
    cr_assert_leq(p.half[half], p.half[!half] / 4);
}

static void start(struct test_vm *vm)
{
    vm->config.command_line = "mode=turns pages=200";
    test_vm_spawn(vm);
    test_vm_await_ready(vm);
    test_vm_run(vm, 50 * TW_MS);
}

static void slow_each_half(struct test_vm *vm)
{
    const struct tw_pace_rule none = {0};
    struct tw_host_paced before, after;
    start(vm);
    expect_alike(measure(vm, NULL));
    for (unsigned half = 0; half < 2; half++) {
        vm->host->pace->stats(vm->host->ctx, &before);
        pace_half(vm, half);
        expect_slowed(measure(vm, &hard), half);
        vm->host->pace->stats(vm->host->ctx, &after);
        cr_assert_gt(after.waits, before.waits);
        cr_assert_gt(after.wait_ns, before.wait_ns);
        vm->host->pace->rule(vm->host->ctx, &none);
        expect_alike(measure(vm, NULL));
    }
    /* Lines in the same pages that are not written, nor those: the long way is not a slow one. */
    for (uint32_t page = 0; page < PAGES / 2; page++) {
        const uint64_t at = tw_sparse_word(page);
        vm->host->pace->lines(vm->host->ctx, tw_page_of(at), ~tw_line_bit(at));
    }
    vm->host->pace->stats(vm->host->ctx, &before);
    struct progress p = measure(vm, &hard);
    vm->host->pace->stats(vm->host->ctx, &after);
    cr_assert_eq(after.waits, before.waits);
    cr_assert_geq(p.half[0], p.half[1] / 4);
    test_vm_must(vm, TW_HOST_STOP, NULL); /* while it is paced */
    test_vm_destroy(vm);
}

Test(pace_guest, only_the_writer_of_hot_lines_is_slowed)
{
    struct test_vm vm;
    test_vm_init(&vm, "turns");
    slow_each_half(&vm);
}

Test(pace_guest, the_same_where_addresses_come_from_the_api)
{
    struct test_vm vm;
    test_vm_init(&vm, "turns by api");
    vm.config.plugin_options = "mismatch=100";
    slow_each_half(&vm);
}

Test(pace_guest, the_same_behind_a_cache_model)
{
    const struct tw_cache_config cache = {
        .cores = 1, .l1 = {4096, 4}, .l2 = {16384, 4}, .last = {65536, 8}};
    struct test_vm vm;
    test_vm_init(&vm, "turns behind a cache");
    vm.config.cache = &cache;
    slow_each_half(&vm);
}

/* ---- Nobody is left slowed ------------------------------------------------------------------- */

/* Whoever says nothing any more, be he dead or stopped. */
Test(pace_guest, ends_when_it_is_not_said_again)
{
    struct test_vm vm;
    struct tw_host_paced before, after;
    test_vm_init(&vm, "unsaid");
    start(&vm);
    pace_half(&vm, 0);
    expect_slowed(measure(&vm, &hard), 0);
    go_on(&vm, TW_HOST_PACE_HOLDS_NS + 100 * TW_MS, NULL);
    vm.host->pace->stats(vm.host->ctx, &before);
    expect_alike(measure(&vm, NULL));
    vm.host->pace->stats(vm.host->ctx, &after);
    cr_assert_eq(after.waits, before.waits);
    test_vm_destroy(&vm);
}

/* As an agent that is killed leaves it, and as the next one finds it. */
Test(pace_guest, ends_when_another_agent_adopts_the_machine)
{
    struct test_vm vm;
    struct tw_error err;
    test_vm_init(&vm, "adopted");
    start(&vm);
    pace_half(&vm, 0);
    expect_slowed(measure(&vm, &hard), 0);
    const pid_t pid = tw_qemu_pid(vm.qemu);
    const uint64_t ticks = tw_qemu_start_ticks(vm.qemu);
    tw_qemu_release(vm.qemu); /* says nothing */
    cr_assert_eq(tw_qemu_adopt(&vm.config, pid, ticks, &vm.qemu, &err), TW_OK, "%s", err.what);
    vm.host = tw_qemu_host(vm.qemu);
    vm.control = (const void *)(vm.host->memory + TW_SPARSE_CONTROL);
    for (uint64_t page = 0; page < vm.host->memory_bytes / TW_PAGE_SIZE; page++)
        cr_assert_eq(vm.qemu->link.paced[page], 0);
    expect_alike(measure(&vm, NULL));
    test_vm_destroy(&vm);
}
