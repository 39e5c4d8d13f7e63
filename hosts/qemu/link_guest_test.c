/* What the link reports of a real guest, against what its memory shows. */
#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hosts/qemu/qemu_impl.h"

TestSuite(link_guest, .timeout = 60);

struct findings {
    uint64_t reported;     /* lines */
    uint64_t changed;      /* lines that differ from the snapshot */
    uint64_t compare_only; /* changed, and not reported */
    uint64_t unchanged;    /* reported, and equal to the snapshot */
};

/* Reads memory without filling its holes. */
static uint8_t *snapshot(const struct tw_host *h)
{
    uint8_t *copy = calloc(1, h->memory_bytes);
    for (uint64_t at = 0;;) {
        const struct tw_range r = h->ops->next_data(h->ctx, at);
        if (r.length == 0)
            return copy;
        memcpy(copy + r.start, h->memory + r.start, r.length);
        at = r.start + r.length;
    }
}

static uint64_t *collected(struct test_vm *vm, struct tw_tracker *tracker)
{
    uint64_t *lines = calloc(vm->host->memory_bytes / TW_PAGE_SIZE, sizeof *lines);
    struct tw_dirty_page pages[64];
    vm->host->ops->sync(vm->host->ctx);
    tw_tracker_collect(tracker);
    for (size_t n; (n = tw_tracker_read(tracker, pages, 64));)
        for (size_t i = 0; i < n; i++)
            lines[pages[i].page] |= pages[i].lines;
    return lines;
}

/* Stops the guest, tracks it through `duration_ns` of running, and compares. */
static struct findings track(struct test_vm *vm, uint64_t duration_ns)
{
    struct findings f = {0};
    struct tw_error err;
    struct tw_tracker *tracker;
    const struct tw_range all = {.length = vm->host->memory_bytes};
    const struct tw_tracker_config config = {.name = "test", .ranges = &all, .range_count = 1};
    test_vm_must(vm, TW_HOST_STOP, NULL);
    vm->host->ops->sync(vm->host->ctx);
    cr_assert_eq(tw_tracker_start(vm->host->device, &config, &tracker, &err), TW_OK);
    uint8_t *before = snapshot(vm->host);
    test_vm_must(vm, TW_HOST_CONTINUE, NULL);
    test_vm_run(vm, duration_ns);
    test_vm_must(vm, TW_HOST_STOP, NULL);
    uint64_t *lines = collected(vm, tracker);
    uint8_t *after = snapshot(vm->host);
    for (uint64_t line = 0; line < vm->host->memory_bytes / TW_LINE_SIZE; line++) {
        const uint64_t at = line * TW_LINE_SIZE;
        const bool reported = lines[tw_page_of(at)] & tw_line_bit(at);
        const bool changed = memcmp(before + at, after + at, TW_LINE_SIZE) != 0;
        f.reported += reported;
        f.changed += changed;
        f.compare_only += changed && !reported;
        f.unchanged += reported && !changed;
    }
    printf("%s: %llu lines reported, %llu changed, %llu found by comparing only, %llu unchanged\n",
           vm->config.name, (unsigned long long)f.reported, (unsigned long long)f.changed,
           (unsigned long long)f.compare_only, (unsigned long long)f.unchanged);
    cr_assert_eq(vm->control->bad, 0);
    tw_tracker_stop(tracker);
    free(before);
    free(after);
    free(lines);
    return f;
}

/* No device writes this guest's memory: every change is a store. What is reported beyond the
 * changes are lines that hold what they held before, such as the stack. */
static void expect_exact(struct findings f, uint64_t at_least)
{
    cr_assert_geq(f.changed, at_least);
    cr_assert_eq(f.compare_only, 0);
    cr_assert_leq(f.unchanged, 16);
}

static void start(struct test_vm *vm)
{
    test_vm_spawn(vm);
    test_vm_await_ready(vm);
    test_vm_run(vm, 50 * TW_MS);
}

static struct tw_qemu_link_stats stats_of(const struct test_vm *vm)
{
    struct tw_qemu_link_stats s;
    tw_qemu_link_stats_get(vm->qemu, &s);
    return s;
}

Test(link_guest, marks_are_the_lines_that_change)
{
    struct test_vm vm;
    test_vm_init(&vm, "sparse");
    start(&vm);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    const struct tw_qemu_link_stats s = stats_of(&vm);
    cr_assert_str_eq(s.address_mode, "host");
    cr_assert_eq(s.self_check_failures, 0);
    cr_assert_geq(s.self_checks, 4096);
    test_vm_destroy(&vm);
}

/* Every store of the firmware and of the guest: what is remembered of a page is always right. */
Test(link_guest, each_store_agrees_with_the_api)
{
    struct test_vm vm;
    test_vm_init(&vm, "checked");
    vm.config.vcpus = 2;
    vm.config.plugin_options = "recheck=1";
    start(&vm);
    expect_exact(track(&vm, 100 * TW_MS), 100);
    const struct tw_qemu_link_stats s = stats_of(&vm);
    cr_assert_str_eq(s.address_mode, "host");
    cr_assert_eq(s.self_check_failures, 0);
    cr_assert_geq(s.self_checks, s.stores - s.stores / 100);
    cr_assert_geq(s.self_checks, 100000);
    test_vm_destroy(&vm);
}

Test(link_guest, dense_writer)
{
    struct test_vm vm;
    test_vm_init(&vm, "dense");
    vm.config.command_line = "mode=dense pages=100";
    start(&vm);
    expect_exact(track(&vm, 100 * TW_MS), 6400);
    test_vm_destroy(&vm);
}

Test(link_guest, idle_guest_reports_next_to_nothing)
{
    struct test_vm vm;
    test_vm_init(&vm, "idle");
    vm.config.command_line = "mode=idle";
    start(&vm);
    const struct findings f = track(&vm, 100 * TW_MS);
    cr_assert_eq(f.compare_only, 0);
    cr_assert_leq(f.reported, 16);
    test_vm_destroy(&vm);
}

/* The firmware starts every processor, and each of them stores something. */
Test(link_guest, every_vcpu_is_heard)
{
    struct test_vm vm;
    test_vm_init(&vm, "four vCPUs");
    vm.config.vcpus = 4;
    start(&vm);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_gt(vm.qemu->link.header->vcpu[i].stores, 0, "vCPU %u", i);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    test_vm_destroy(&vm);
}

Test(link_guest, through_a_cache_model)
{
    const struct tw_cache_config cache = {
        .cores = 3, .l1 = {4096, 4}, .l2 = {16384, 4}, .last = {65536, 8}};
    struct test_vm vm;
    test_vm_init(&vm, "cached");
    vm.config.cache = &cache;
    vm.config.vcpus = 3;
    start(&vm);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    cr_assert_gt(stats_of(&vm).stores, 1000);
    test_vm_destroy(&vm);
}

/* Rings far too small, and an owner that looks rarely: nothing is lost, and the guest runs on. */
Test(link_guest, full_rings_lose_nothing)
{
    const struct tw_cache_config cache = {.cores = 1, .l1 = {4096, 4}, .last = {65536, 8}};
    struct test_vm vm;
    test_vm_init(&vm, "overflowing");
    vm.config.cache = &cache;
    vm.config.ring_events = 64;
    start(&vm);
    expect_exact(track(&vm, 100 * TW_MS), 1000);
    cr_assert_gt(stats_of(&vm).ring_overflows, 0);
    test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    const uint64_t before = vm.control->writes;
    const struct timespec pause = {.tv_nsec = 100000000};
    nanosleep(&pause, NULL); /* as if the agent were dead */
    cr_assert_gt(vm.control->writes, before);
    test_vm_destroy(&vm);
}

/* ---- The self-check -------------------------------------------------------------------------- */

Test(link_guest, a_mismatch_at_the_start_means_the_api)
{
    struct test_vm vm;
    test_vm_init(&vm, "mismatch");
    vm.config.plugin_options = "mismatch=100";
    start(&vm);
    cr_assert_str_eq(stats_of(&vm).address_mode, "api");
    cr_assert_eq(stats_of(&vm).self_check_failures, 1);
    expect_exact(track(&vm, 200 * TW_MS), 1000);
    test_vm_destroy(&vm);
}

/* The check after trust: from the next store on the API, and all memory counts as dirty, since
 * nobody knows how long the addresses were wrong. */
Test(link_guest, a_later_mismatch_makes_everything_dirty)
{
    struct test_vm vm;
    test_vm_init(&vm, "late mismatch");
    vm.config.plugin_options = "mismatch=4300";
    test_vm_spawn(&vm);
    test_vm_await_ready(&vm);
    const uint64_t end = tw_after(tw_now(&tw_monotonic), 40 * TW_SEC);
    bool trusted = false;
    while (strcmp(stats_of(&vm).address_mode, "api")) {
        trusted = trusted || strcmp(stats_of(&vm).address_mode, "host") == 0;
        cr_assert_lt(tw_now(&tw_monotonic), end, "%llu checks",
                     (unsigned long long)stats_of(&vm).self_checks);
        test_vm_run(&vm, TW_MS);
    }
    cr_assert(trusted);
    test_vm_must(&vm, TW_HOST_STOP, NULL);
    struct tw_device_counters before, after;
    tw_device_counters_get(vm.host->device, &before);
    vm.host->ops->sync(vm.host->ctx);
    tw_device_counters_get(vm.host->device, &after);
    cr_assert_eq(after.messages[TW_MEM_WR] - before.messages[TW_MEM_WR],
                 vm.config.memory_bytes / TW_LINE_SIZE);
    test_vm_must(&vm, TW_HOST_CONTINUE, NULL);
    expect_exact(track(&vm, 200 * TW_MS), 1000);
    test_vm_destroy(&vm);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

Test(link_guest, data_is_found_and_holes_are_left_alone)
{
    struct test_vm vm;
    test_vm_init(&vm, "holes");
    vm.config.memory_bytes = 256u << 20;
    vm.config.command_line = "mode=sparse pages=10";
    start(&vm);
    const struct tw_host *h = vm.host;
    uint64_t data = 0, parts = 0, at = 0;
    for (;; parts++) {
        const struct tw_range r = h->ops->next_data(h->ctx, at);
        if (r.length == 0)
            break;
        cr_assert_geq(r.start, at);
        cr_assert_eq((r.start | r.length) % TW_PAGE_SIZE, 0);
        at = r.start + r.length;
        data += r.length;
    }
    cr_assert_gt(parts, 1);
    cr_assert_gt(data, 10u * TW_PAGE_SIZE);
    cr_assert_lt(data, 32u << 20, "the rest was never touched");
    cr_assert_eq(h->ops->next_data(h->ctx, h->memory_bytes).length, 0);
    cr_assert_eq(h->ops->next_data(h->ctx, UINT64_MAX).length, 0);
    struct tw_error err;
    const struct tw_range outside = {.start = h->memory_bytes - 4096, .length = 8192};
    cr_assert_eq(h->ops->reserve(h->ctx, outside, &err), TW_OUT_OF_RANGE);
    test_vm_destroy(&vm);
}
