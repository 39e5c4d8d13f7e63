#include "services/tracking/guest.h"

#include <criterion/criterion.h>

#define MEMORY (UINT64_C(8) << 20)

/* A machine whose stores lie in a list until somebody takes them off. */
static struct {
    uint64_t now_ns;
    struct tw_clock clock;
    struct tw_device *device;
    uint64_t stores[9000];
    unsigned count, syncs;
    struct tw_host host;
} world;
static struct tw_error err;

static void sync_stores(void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < world.count; i++)
        tw_device_message(world.device, TW_MEM_WR, world.stores[i]);
    world.count = 0;
    world.syncs++;
}

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return world.now_ns;
}

static void store(uint64_t address)
{
    world.stores[world.count++] = address;
}

static void device_open(void)
{
    const struct tw_device_config config = {.memory_bytes = MEMORY};
    cr_assert_eq(tw_device_open(&config, &world.device, &err), TW_OK);
    world.host.device = world.device;
}

static struct tw_guest_meter *meter_open(void)
{
    static const struct tw_host_ops ops = {.sync = sync_stores};
    world.now_ns = TW_SEC;
    world.clock = (struct tw_clock){now_ns, NULL};
    world.host = (struct tw_host){.ops = &ops, .memory_bytes = MEMORY};
    device_open();
    struct tw_guest_meter *m = tw_guest_meter_open(&world.clock, TW_SEC);
    cr_assert(m);
    return m;
}

static struct tw_guest_figures epoch(struct tw_guest_meter *m)
{
    struct tw_guest_figures f;
    world.now_ns += TW_SEC;
    for (unsigned i = 0; tw_guest_meter_step(m, &world.host) <= world.now_ns; i++)
        cr_assert_lt(i, 100);
    tw_guest_meter_get(m, &f);
    return f;
}

Test(guest_meter, counts_lines_pages_and_regions_of_each_epoch)
{
    struct tw_guest_meter *m = meter_open();
    store(0x1000); /* before it begins */
    cr_assert_eq(tw_guest_meter_step(m, &world.host), world.now_ns + TW_SEC);
    store(0x2000);
    store(0x2008);
    store(0x2040);
    store(0x400000);
    struct tw_guest_figures f = epoch(m);
    cr_assert(f.last.lines == 3 && f.last.pages == 2 && f.last.regions == 2 && f.last.epochs == 1);
    cr_assert_eq(f.last.duration_ns, TW_SEC);
    cr_assert(f.hot_count == 2 && f.hot[0].address == 0 && f.hot[0].lines == 2);
    cr_assert(f.hot[1].address == 0x400000 && f.hot[1].pages == 1);
    f = epoch(m);
    cr_assert(f.last.lines == 0 && f.total.lines == 3 && f.total.epochs == 2);
    tw_guest_meter_close(m, &world.host);
    cr_assert_null(tw_tracker_find(world.device, "meter"));
    tw_device_close(world.device);
}

Test(guest_meter, nothing_is_due_before_the_epochs_end)
{
    struct tw_guest_meter *m = meter_open();
    tw_guest_meter_step(m, &world.host);
    const unsigned syncs = world.syncs;
    world.now_ns += TW_SEC / 2;
    cr_assert_eq(tw_guest_meter_step(m, &world.host), world.now_ns + TW_SEC / 2);
    cr_assert_eq(world.syncs, syncs, "it costs nothing meanwhile");
    tw_guest_meter_close(m, &world.host);
    tw_device_close(world.device);
}

Test(guest_meter, another_epoch_of_the_device_is_not_disturbed)
{
    struct tw_guest_meter *m = meter_open();
    const struct tw_range all = {0, MEMORY};
    const struct tw_tracker_config config = {.name = "migration", .ranges = &all, .range_count = 1};
    struct tw_tracker *other;
    struct tw_dirty_page page;
    cr_assert_eq(tw_tracker_start(world.device, &config, &other, &err), TW_OK);
    tw_guest_meter_step(m, &world.host);
    store(0x3000);
    cr_assert_eq(epoch(m).last.lines, 1);
    cr_assert_eq(tw_tracker_collect(other), 1);
    cr_assert_eq(tw_tracker_read(other, &page, 1), 1);
    cr_assert(page.page == 3 && page.lines == 1);
    tw_guest_meter_close(m, &world.host);
    tw_device_close(world.device);
}

/* More dirty pages than one step visits. */
Test(guest_meter, a_step_is_bounded)
{
    struct tw_guest_meter *m = meter_open();
    const uint64_t big = UINT64_C(64) << 20;
    tw_device_close(world.device);
    const struct tw_device_config config = {.memory_bytes = big};
    cr_assert_eq(tw_device_open(&config, &world.device, &err), TW_OK);
    world.host.device = world.device;
    world.host.memory_bytes = big;
    tw_guest_meter_step(m, &world.host);
    for (unsigned i = 0; i < 9000; i++)
        store(i * TW_PAGE_SIZE);
    world.now_ns += TW_SEC;
    struct tw_guest_figures f;
    cr_assert_eq(tw_guest_meter_step(m, &world.host), world.now_ns, "there is more to do");
    tw_guest_meter_get(m, &f);
    cr_assert_eq(f.last.epochs, 0, "not before all of it was counted");
    tw_guest_meter_step(m, &world.host);
    tw_guest_meter_step(m, &world.host);
    tw_guest_meter_get(m, &f);
    cr_assert(f.last.pages == 9000 && f.last.lines == 9000);
    tw_guest_meter_close(m, &world.host);
    tw_device_close(world.device);
}

Test(guest_meter, a_machine_that_ended_and_came_back)
{
    struct tw_guest_meter *m = meter_open();
    tw_guest_meter_step(m, &world.host);
    tw_device_close(world.device);
    device_open();
    world.now_ns += TW_SEC;
    tw_guest_meter_step(m, &world.host);
    store(0x1000);
    cr_assert_eq(epoch(m).last.lines, 1);
    tw_device_close(world.device);
    tw_guest_meter_close(m, NULL);
}
