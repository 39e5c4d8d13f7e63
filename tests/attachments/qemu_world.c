/* A guest in QEMU, heard through the plugin and the link. */
#include "hosts/qemu/test_vm.h"
#include "tests/attachments/guest.h"
#include "tests/attachments/world.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct own {
    struct identity identity;
    struct test_vm vm;
};

static const char *const blind_spots[] = {
    "device DMA, firmware loading, and the accessed and dirty bits that a page walker sets",
    NULL,
};

static volatile struct tw_contract_control *control(const struct own *own)
{
    return (volatile void *)(own->vm.host->memory + TW_CONTRACT_CONTROL);
}

static void sync_link(void *ctx)
{
    const struct own *own = ctx;
    own->vm.host->ops->sync(own->vm.host->ctx);
}

static bool is_alive(void *ctx)
{
    const struct own *own = ctx;
    return own->vm.host->ops->alive(own->vm.host->ctx);
}

static void await(struct own *own, const volatile uint32_t *word, uint32_t value)
{
    const struct contract_store last = control(own)->store;
    const uint64_t end = tw_after(tw_now(&tw_monotonic), 60 * TW_SEC);
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value) {
        cr_assert(is_alive(own), "%s", tw_qemu_exit_reason(own->vm.qemu));
        cr_assert_lt(tw_now(&tw_monotonic), end, "the guest does not answer; kind %u, %u bytes",
                     last.kind, last.size);
        test_vm_run(&own->vm, 1000);
    }
}

static void world_open(struct world *w)
{
    static const struct tw_cache_config cache = {
        .cores = 1, .l1 = {4096, 4}, .l2 = {16384, 4}, .last = {65536, 8}};
    struct own *own = calloc(1, sizeof *own);
    cr_assert_not_null(own);
    test_vm_init(&own->vm, "contract");
    own->vm.config.command_line = "";
    own->vm.config.cache = w->kind->variant ? &cache : NULL;
    test_vm_spawn(&own->vm);
    test_vm_while(&own->vm, TW_QEMU_STARTING);
    await(own, &control(own)->magic, TW_CONTRACT_MAGIC);
    own->identity = (struct identity){.sync = sync_link, .alive = is_alive, .own = own};
    w->own = own;
    w->region = TW_CONTRACT_REGION;
    w->attachment = identity_attachment(&own->identity, own->vm.host->device, blind_spots);
    w->attachment.sees_loads = w->kind->variant != 0; /* events of rings; marks are of stores */
}

static void perform(struct world *w, const struct contract_store *store)
{
    struct own *own = w->own;
    volatile struct tw_contract_control *c = control(own);
    if (store->kind == CONTRACT_OUTSIDE) { /* as a device would: past the guest's processor */
        for (uint32_t i = 0; i < store->size; i++)
            own->vm.host->memory[w->region + store->offset + i] = (uint8_t)(store->value + i);
        return;
    }
    c->store = *store;
    const uint32_t number = c->asked + 1;
    __atomic_store_n(&c->asked, number, __ATOMIC_RELEASE);
    await(own, &c->done, number);
}

static void read_region(struct world *w, uint8_t copy[CONTRACT_BYTES])
{
    const struct own *own = w->own;
    memcpy(copy, own->vm.host->memory + w->region, CONTRACT_BYTES);
}

static void storm(struct world *w, bool begin)
{
    struct own *own = w->own;
    __atomic_store_n(&control(own)->storm, begin ? 1u : 0u, __ATOMIC_RELEASE);
    await(own, &control(own)->storming, begin ? 1 : 0);
}

static void world_close(struct world *w)
{
    struct own *own = w->own;
    w->attachment.ops->close(w->attachment.ctx);
    test_vm_destroy(&own->vm);
    free(own);
}

#define QEMU_WORLD(title, cached)                                                                  \
    {                                                                                              \
        .name = title, .open = world_open, .perform = perform, .read = read_region,                \
        .storm = storm, .close = world_close, .same_value_is_dirty = true,                         \
        .sees_loads = (cached) != 0, .variant = cached, .verdicts = {                              \
            [CONTRACT_KERNEL] = ABSENT,                                                            \
            [CONTRACT_OUTSIDE] = HIDDEN,                                                           \
            [CONTRACT_LOAD] = HIDDEN,                                                              \
        }                                                                                          \
    }

const struct world_kind world_qemu = QEMU_WORLD("QEMU, marks", 0);
const struct world_kind world_qemu_cache = QEMU_WORLD("QEMU, cache model", 1);
