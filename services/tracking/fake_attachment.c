#include "services/tracking/fake_attachment.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct fake_watch {
    struct tw_range ranges[16];
    size_t count;
};

static enum tw_code watch(void *ctx, const struct tw_range *ranges, size_t count, void **out,
                          struct tw_error *err)
{
    struct fake_program *p = ctx;
    struct fake_watch *w = calloc(1, sizeof *w);
    assert(w && count <= 16);
    for (size_t i = 0; i < count; i++) {
        assert(ranges[i].start % TW_PAGE_SIZE == 0 && ranges[i].length % TW_PAGE_SIZE == 0);
        if (ranges[i].start < FAKE_BASE) {
            free(w);
            return tw_fail(err, TW_NOT_FOUND, "fake", NULL, NULL, "not mapped");
        }
        w->ranges[i] = (struct tw_range){ranges[i].start - FAKE_BASE, ranges[i].length};
    }
    w->count = count;
    if (count == 0)
        w->ranges[w->count++] = (struct tw_range){0, FAKE_BYTES};
    p->watches++;
    *out = w;
    return TW_OK;
}

static void unwatch(void *ctx, void *w)
{
    ((struct fake_program *)ctx)->watches--;
    free(w);
}

static const struct tw_range *watch_ranges(const void *w, size_t *count)
{
    const struct fake_watch *f = w;
    *count = f->count;
    return f->ranges;
}

static enum tw_code ended(struct tw_error *err)
{
    return tw_fail(err, TW_ABORTED, "fake", NULL, NULL, "it has ended");
}

static enum tw_code pass_begin(void *ctx, struct tw_error *err)
{
    struct fake_program *p = ctx;
    if (p->dead && !p->outlives)
        return ended(err);
    p->seen = p->count;
    p->steps_left = p->steps;
    return TW_OK;
}

static void found(struct fake_program *p)
{
    for (unsigned i = 0; i < p->seen; i++) {
        const uint64_t at = p->stores[i] - FAKE_BASE;
        const uint64_t line = UINT64_C(1) << (at / TW_LINE_SIZE % TW_LINES_PER_PAGE);
        const struct tw_told told = {.device_page = at / TW_PAGE_SIZE,
                                     .lines = p->bytes ? line : 0,
                                     .bytes = p->bytes,
                                     .same = p->stores_seen && !p->bytes && !p->unsure ? line : 0,
                                     .unsure = p->unsure ? line : 0};
        if (p->bytes || p->stores_seen)
            tw_device_message(p->device, TW_MEM_WR, at);
        if (p->told)
            p->told(p->told_arg, &told);
    }
    p->count -= p->seen;
    memmove(p->stores, p->stores + p->seen, p->count * sizeof *p->stores);
    p->seen = 0;
}

static enum tw_code step(void *ctx, uint64_t slice_ns, bool *done, struct tw_error *err)
{
    struct fake_program *p = ctx;
    (void)slice_ns;
    if (p->dead && !p->outlives)
        return ended(err);
    if (p->pass_error) {
        enum tw_code code = p->pass_error;
        p->pass_error = TW_OK;
        return tw_fail(err, code, "fake", NULL, NULL, "the pass failed");
    }
    *done = p->steps_left == 0;
    if (*done) {
        found(p);
        p->passes++;
    } else {
        p->steps_left--;
    }
    return TW_OK;
}

static size_t settle(void *ctx)
{
    (void)ctx;
    return 0;
}

static enum tw_hold hold(const void *ctx)
{
    return ((const struct fake_program *)ctx)->hold;
}

static void go(void *ctx)
{
    ((struct fake_program *)ctx)->hold = TW_HOLD_LATER;
}

static enum tw_code observe(void *ctx, tw_told_fn told, void *arg, struct tw_error *err)
{
    struct fake_program *p = ctx;
    (void)err;
    p->told = told;
    p->told_arg = arg;
    return TW_OK;
}

static uint64_t due_ns(const void *ctx)
{
    return ((const struct fake_program *)ctx)->due_ns;
}

static uint64_t address(const void *ctx, uint64_t page)
{
    (void)ctx;
    return FAKE_BASE + page * TW_PAGE_SIZE;
}

static uint64_t device_address(const void *ctx, uint64_t a)
{
    (void)ctx;
    return a - FAKE_BASE;
}

static bool alive(void *ctx)
{
    return !((struct fake_program *)ctx)->dead;
}

static void close_it(void *ctx)
{
    struct fake_program *p = ctx;
    assert(p->watches == 0);
    tw_device_close(p->device);
    p->device = NULL;
    p->closed++;
}

static enum tw_code attach(void *ctx, uint64_t pid, const struct tw_tracking_wish *wish,
                           struct tw_attachment *out, struct tw_error *err)
{
    static const struct tw_attachment_ops ops = {
        .watch = watch,
        .unwatch = unwatch,
        .watch_ranges = watch_ranges,
        .pass_begin = pass_begin,
        .step = step,
        .settle = settle,
        .due_ns = due_ns,
        .hold = hold,
        .go = go,
        .observe = observe,
        .address = address,
        .device_address = device_address,
        .alive = alive,
        .close = close_it,
    };
    struct fake_world *w = ctx;
    const struct tw_device_config config = {.memory_bytes = FAKE_BYTES};
    (void)wish;
    if (pid < 1 || pid > 2)
        return tw_fail(err, TW_NOT_FOUND, "fake", NULL, NULL, "no such program");
    struct fake_program *p = &w->program[pid - 1];
    enum tw_code code = tw_device_open(&config, &p->device, err);
    *out = (struct tw_attachment){.ops = &ops,
                                  .ctx = p,
                                  .device = p->device,
                                  .outlives = p->outlives,
                                  .same_value_is_dirty = p->stores_seen,
                                  .compares_on_demand = p->stores_seen};
    w->attached++;
    return code;
}

static uint64_t now_ns(void *ctx)
{
    return ((struct fake_world *)ctx)->now_ns;
}

void fake_open(struct fake_world *w)
{
    *w = (struct fake_world){.now_ns = TW_SEC};
    w->clock = (struct tw_clock){now_ns, w};
    w->program[0].bytes = w->program[1].bytes = 8;
    const struct tw_tracking_env env = {.clock = &w->clock, .attach = attach, .ctx = w};
    struct tw_error err;
    if (tw_tracking_open(&env, &w->tracking, &err))
        abort();
}

void fake_close(struct fake_world *w)
{
    tw_tracking_close(w->tracking);
}

void fake_store(struct fake_world *w, unsigned pid, uint64_t offset)
{
    struct fake_program *p = &w->program[pid - 1];
    assert(p->count < FAKE_STORES);
    p->stores[p->count++] = FAKE_BASE + offset;
}

void fake_whole(struct fake_world *w, unsigned pid, uint64_t offset)
{
    struct fake_program *p = &w->program[pid - 1];
    const struct tw_told told = {.device_page = offset / TW_PAGE_SIZE, .whole = true};
    tw_device_message_whole(p->device, offset / TW_PAGE_SIZE);
    if (p->told)
        p->told(p->told_arg, &told);
}

void fake_run(struct fake_world *w)
{
    for (unsigned i = 0; i < 10000; i++)
        if (tw_tracking_step(w->tracking, TW_MS) > w->now_ns)
            return;
    abort();
}
