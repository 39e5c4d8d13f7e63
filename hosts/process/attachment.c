/* The process attachment as the table that all attachments have. */
#include "hosts/process/process.h"

static enum tw_code table_watch(void *ctx, const struct tw_range *ranges, size_t count,
                                void **watch, struct tw_error *err)
{
    struct tw_process_watch *w = NULL;
    const enum tw_code code = tw_process_watch(ctx, ranges, count, &w, err);
    *watch = w;
    return code;
}

static void table_unwatch(void *ctx, void *watch)
{
    (void)ctx;
    tw_process_unwatch(watch);
}

static const struct tw_range *table_watch_ranges(const void *watch, size_t *count)
{
    return tw_process_watch_ranges(watch, count);
}

static enum tw_code table_pass_begin(void *ctx, struct tw_error *err)
{
    return tw_process_pass_begin(ctx, err);
}

static enum tw_code table_step(void *ctx, uint64_t slice_ns, bool *done, struct tw_error *err)
{
    return tw_process_step(ctx, slice_ns, done, err);
}

/* A page is told after it was stored to, and was protected before it was read: nothing that the
 * trackers know of is still on its way. */
static size_t table_settle(void *ctx)
{
    (void)ctx;
    return 0;
}

static uint64_t table_due_ns(const void *ctx)
{
    return tw_process_due_ns(ctx);
}

static enum tw_hold table_hold(const void *ctx)
{
    return tw_process_held(ctx);
}

static void table_go(void *ctx)
{
    tw_process_go(ctx);
}

static enum tw_code table_observe(void *ctx, tw_told_fn told, void *arg, struct tw_error *err)
{
    (void)err;
    tw_process_observe(ctx, told, arg);
    return TW_OK;
}

static uint64_t table_address(const void *ctx, uint64_t device_page)
{
    return tw_process_address(ctx, device_page);
}

static uint64_t table_device_address(const void *ctx, uint64_t address)
{
    return tw_process_device_address(ctx, address);
}

static bool table_alive(void *ctx)
{
    tw_process_poll(ctx);
    return tw_process_state_get(ctx) == TW_PROCESS_ATTACHED;
}

static void table_close(void *ctx)
{
    tw_process_detach(ctx);
}

struct tw_attachment tw_process_attachment(struct tw_process *process)
{
    static const struct tw_attachment_ops ops = {
        .watch = table_watch,
        .unwatch = table_unwatch,
        .watch_ranges = table_watch_ranges,
        .pass_begin = table_pass_begin,
        .step = table_step,
        .settle = table_settle,
        .due_ns = table_due_ns,
        .hold = table_hold,
        .go = table_go,
        .observe = table_observe,
        .address = table_address,
        .device_address = table_device_address,
        .alive = table_alive,
        .close = table_close,
    };
    return (struct tw_attachment){.ops = &ops,
                                  .ctx = process,
                                  .device = tw_process_device(process),
                                  .same_value_is_dirty = false,
                                  .whole_pages = true,
                                  .kind = TW_ATTACHMENT_PROCESS,
                                  .blind_spots = tw_process_blind_spots};
}
