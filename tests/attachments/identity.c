#include "tests/attachments/world.h"

#include <stdlib.h>
#include <string.h>

struct watch {
    size_t count;
    struct tw_range ranges[];
};

static enum tw_code watch_open(void *ctx, const struct tw_range *ranges, size_t count, void **watch,
                               struct tw_error *err)
{
    (void)ctx;
    struct watch *w = calloc(1, sizeof *w + count * sizeof *ranges);
    if (!w)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "watch", NULL, NULL, "no memory");
    w->count = count;
    memcpy(w->ranges, ranges, count * sizeof *ranges);
    *watch = w;
    return TW_OK;
}

static void watch_close(void *ctx, void *watch)
{
    (void)ctx;
    free(watch);
}

static const struct tw_range *watch_ranges(const void *watch, size_t *count)
{
    const struct watch *w = watch;
    *count = w->count;
    return w->ranges;
}

static enum tw_code pass_begin(void *ctx, struct tw_error *err)
{
    (void)ctx;
    (void)err;
    return TW_OK;
}

static enum tw_code step(void *ctx, uint64_t slice_ns, bool *done, struct tw_error *err)
{
    const struct identity *i = ctx;
    (void)slice_ns;
    (void)err;
    i->sync(i->own);
    *done = true;
    return TW_OK;
}

static size_t settle(void *ctx)
{
    (void)ctx;
    return 0;
}

static uint64_t due_ns(const void *ctx)
{
    (void)ctx;
    return 0;
}

static uint64_t address(const void *ctx, uint64_t device_page)
{
    (void)ctx;
    return device_page * TW_PAGE_SIZE;
}

static uint64_t device_address(const void *ctx, uint64_t at)
{
    (void)ctx;
    return at;
}

static bool alive(void *ctx)
{
    const struct identity *i = ctx;
    return i->alive == NULL || i->alive(i->own);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

struct tw_attachment identity_attachment(struct identity *identity, struct tw_device *device,
                                         const char *const *blind_spots)
{
    static const struct tw_attachment_ops ops = {
        .watch = watch_open,
        .unwatch = watch_close,
        .watch_ranges = watch_ranges,
        .pass_begin = pass_begin,
        .step = step,
        .settle = settle,
        .due_ns = due_ns,
        .address = address,
        .device_address = device_address,
        .alive = alive,
        .close = nothing,
    };
    return (struct tw_attachment){.ops = &ops,
                                  .ctx = identity,
                                  .device = device,
                                  .same_value_is_dirty = true,
                                  .blind_spots = blind_spots};
}
