#include "services/migration/tests/fake_host.h"

#include <stdlib.h>
#include <string.h>

#define STORES_AT_ONCE 300u
#define STATE_MAX      300000u

/* ---- Stores ---------------------------------------------------------------------------------- */

static void report(struct fake_host *h, uint64_t address)
{
    switch (h->config.link) {
    case FAKE_LINK_EVENTS:
        tw_device_message(h->host.device, TW_MEM_WR, address);
        break;
    case FAKE_LINK_MARKS:
        h->marks[tw_page_of(address)] |= tw_line_bit(address);
        break;
    case FAKE_LINK_CACHE:
        tw_cache_store(h->cache, (unsigned)tw_random_below(&h->random, 2), address);
        break;
    }
}

static bool may_hide(const struct fake_host *h)
{
    uint64_t until = h->config.unseen_until_ns;
    return !h->config.sees_all_writers &&
           (until == 0 || tw_now(h->config.clock) < h->opened_ns + until);
}

static uint64_t store_some(struct fake_host *h, bool hot)
{
    struct tw_random *r = &h->random;
    uint64_t page = tw_random_below(r, hot ? h->config.hot_pages : h->config.pages);
    uint64_t address = page * TW_PAGE_SIZE + tw_random_below(r, TW_PAGE_SIZE / 8) * 8;
    uint64_t value = tw_random_below(r, 8) ? tw_random_next(r) : 0;
    bool unseen = may_hide(h) && tw_random_below(r, 100) < h->config.unseen_percent;
    memcpy(h->host.memory + address, &value, sizeof value);
    h->data[page] = true;
    h->stores++;
    h->unseen += unseen;
    if (!unseen)
        report(h, address);
    return address;
}

static void store(struct fake_host *h)
{
    store_some(h, h->config.hot_pages && tw_random_below(&h->random, 10) != 0);
}

/* ---- Slowed writers ---------------------------------------------------------------------------
 */

bool fake_host_is_slowed(const struct fake_host *h)
{
    return h->pace_rule.delay_ns && tw_now(h->config.clock) < h->pace_until_ns;
}

/* What the plugin does, but for one thing: each store to a paced line counts, be it dirty or not.
 */
static void store_slowed(struct fake_host *h, unsigned who)
{
    struct fake_writer *w = &h->writers[who];
    uint64_t address = store_some(h, who == FAKE_WRITER_HOT);
    w->slowed++;
    if (!(h->paced[tw_page_of(address)] & tw_line_bit(address)) ||
        !tw_pace_owe(&w->bucket, h->pace_rule.delay_ns))
        return;
    uint64_t wait = tw_pace_wait(&w->bucket, h->pace_rule.share_permille, w->at_ns);
    tw_pace_waited(&w->bucket, wait);
    w->at_ns += wait;
    w->wait_ns += wait;
    h->pace_waits += wait != 0;
    h->pace_wait_max_ns = wait > h->pace_wait_max_ns ? wait : h->pace_wait_max_ns;
}

/* Nine stores of ten are the hot writer's. */
static void run_slowed(struct fake_host *h, uint64_t now_ns)
{
    const uint64_t each_ns[] = {10 * TW_MS / (9 * h->config.stores_per_ms),
                                10 * TW_MS / h->config.stores_per_ms};
    h->paced_ns += now_ns - h->wrote_ns;
    for (unsigned who = 0; who < FAKE_WRITERS; who++) {
        struct fake_writer *w = &h->writers[who];
        w->at_ns = w->at_ns > h->wrote_ns ? w->at_ns : h->wrote_ns;
        for (; w->at_ns + each_ns[who] <= now_ns; w->at_ns += each_ns[who])
            store_slowed(h, who);
    }
    h->wrote_ns = now_ns;
}

static void fake_pace_lines(void *ctx, uint64_t page, uint64_t lines)
{
    ((struct fake_host *)ctx)->paced[page] = lines;
}

static void fake_pace_rule(void *ctx, const struct tw_pace_rule *rule)
{
    struct fake_host *h = ctx;
    h->pace_rule = *rule;
    h->pace_until_ns = tw_now(h->config.clock) + TW_HOST_PACE_HOLDS_NS;
    if (rule->delay_ns == 0)
        memset(h->paced, 0, h->config.pages * sizeof *h->paced);
}

static void fake_pace_stats(void *ctx, struct tw_host_paced *out)
{
    const struct fake_host *h = ctx;
    *out = (struct tw_host_paced){h->pace_waits, h->writers[FAKE_WRITER_HOT].wait_ns};
}

static const struct tw_host_pace_ops pace_ops = {
    .lines = fake_pace_lines, .rule = fake_pace_rule, .stats = fake_pace_stats};

/* Now and then a page is given back, which no store event reports. */
static void punch(struct fake_host *h)
{
    if (!may_hide(h) || h->config.unseen_percent == 0 || tw_random_below(&h->random, 200) != 0)
        return;
    uint64_t page = tw_random_below(&h->random, h->config.pages);
    memset(h->host.memory + page * TW_PAGE_SIZE, 0, TW_PAGE_SIZE);
    h->data[page] = false;
}

/* ---- A guest whose memory follows it -----------------------------------------------------------
 */

static bool is_open(const struct fake_host *h, uint64_t address)
{
    uint64_t page = tw_page_of(address);
    return h->opened[page] || (h->lines[page] & tw_line_bit(address));
}

static bool may_touch(struct fake_host *h, struct fake_waiter *w)
{
    if (!h->guarded || is_open(h, w->address))
        return true;
    if (!w->waits) {
        h->waits++;
        for (unsigned i = 0; i < FAKE_WAITERS; i++)
            h->merged += &h->waiters[i] != w && h->waiters[i].waits &&
                         tw_page_of(h->waiters[i].address) == tw_page_of(w->address);
    }
    w->told &= w->waits;
    w->waits = true;
    return false;
}

static void load_or_store(struct fake_host *h, uint64_t address)
{
    struct tw_random *r = &h->random;
    uint64_t value = tw_random_below(r, 4) ? tw_random_next(r) : 0;
    h->saw_wrong |= memcmp(h->host.memory + address, h->expected + address, 8) != 0;
    if (tw_random_below(r, 2))
        return;
    memcpy(h->host.memory + address, &value, sizeof value);
    memcpy(h->expected + address, &value, sizeof value);
    h->data[tw_page_of(address)] = true;
    h->stores++;
}

static uint64_t next_page(struct fake_host *h, unsigned vcpu, uint64_t touches)
{
    struct tw_random *r = &h->random;
    uint64_t pages = h->config.pages, part = pages / FAKE_VCPUS;
    if (h->config.touches == FAKE_TOUCH_ASCENDING)
        return vcpu * part + touches % part;
    if (h->config.touches == FAKE_TOUCH_STRIDE)
        return vcpu ? 0 : touches * 7 % pages;
    bool hot = h->config.hot_pages && tw_random_below(r, 3) != 0;
    return tw_random_below(r, hot ? h->config.hot_pages : pages);
}

static bool is_under_way(const struct fake_host *h, uint64_t address)
{
    for (unsigned i = 0; i < FAKE_WAITERS; i++)
        if (h->waiters[i].waits && h->waiters[i].address / TW_LINE_SIZE == address / TW_LINE_SIZE)
            return true;
    return false;
}

/* What the cache has, it does not ask memory for: such a line must be there, or another core has
 * asked for it just before. */
static void look_up(struct fake_host *h, unsigned vcpu, uint64_t address)
{
    if (!h->cache)
        return;
    h->missed = false;
    if (tw_random_below(&h->random, 2))
        tw_cache_store(h->cache, vcpu, address);
    else
        tw_cache_load(h->cache, vcpu, address);
    if (h->missed)
        return;
    h->hits++;
    h->saw_wrong |= h->guarded && !is_open(h, address) && !is_under_way(h, address);
}

static void run_vcpu(struct fake_host *h, unsigned vcpu)
{
    struct fake_waiter *w = &h->waiters[vcpu];
    for (unsigned i = 0; i < 4; i++) {
        if (!w->waits) {
            uint64_t page = next_page(h, vcpu, w->touches++);
            w->address = page * TW_PAGE_SIZE + tw_random_below(&h->random, TW_PAGE_SIZE / 8) * 8;
            look_up(h, vcpu, w->address);
        }
        if (!may_touch(h, w))
            return;
        w->waits = false;
        h->reached += h->guarded && !h->touched[tw_page_of(w->address)];
        h->touched[tw_page_of(w->address)] = true;
        load_or_store(h, w->address);
    }
}

void fake_host_expect(struct fake_host *h)
{
    h->expected = malloc(h->host.memory_bytes);
    memcpy(h->expected, h->original, h->host.memory_bytes);
}

bool fake_host_as_expected(const struct fake_host *h)
{
    return !h->saw_wrong && memcmp(h->host.memory, h->expected, h->host.memory_bytes) == 0;
}

static bool fake_guard(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct fake_host *h = ctx;
    uint64_t now = tw_now(h->config.clock);
    if (h->guard_ends_ns == 0)
        h->guard_ends_ns = now + tw_random_below(&h->random, 2 * TW_MS);
    if (now < h->guard_ends_ns)
        return false;
    *code = TW_OK;
    h->guarded = h->fail_guard == 0;
    if (h->fail_guard) {
        h->fail_guard--;
        *code = tw_fail(err, TW_UNIMPLEMENTED, "fake host", NULL, NULL, "memory has no guard");
    }
    return true;
}

/* Who waits is told of again, whatever the last agent knew. */
static bool fake_rejoin(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct fake_host *h = ctx;
    *code = TW_OK;
    if (h->fail_rejoin) {
        h->fail_rejoin--;
        *code = tw_fail(err, TW_UNAVAILABLE, "fake host", NULL, NULL, "memory is not handed out");
    }
    for (unsigned i = 0; i < FAKE_WAITERS && *code == TW_OK; i++)
        h->waiters[i].told = false;
    return true;
}

static size_t fake_take(void *ctx, struct tw_host_fault *out, size_t max)
{
    struct fake_host *h = ctx;
    size_t n = 0;
    for (unsigned i = 0; i < FAKE_WAITERS && n < max; i++) {
        if (!h->waiters[i].waits || h->waiters[i].told)
            continue;
        h->waiters[i].told = true;
        out[n++] = (struct tw_host_fault){.address = h->waiters[i].address};
    }
    return n;
}

static void open_lines(struct fake_host *h, uint64_t page, uint64_t lines)
{
    lines &= h->opened[page] ? 0 : ~h->lines[page];
    for (uint64_t left = lines; left && h->original; left &= left - 1) {
        uint64_t at = page * TW_PAGE_SIZE + (unsigned)__builtin_ctzll(left) * TW_LINE_SIZE;
        h->saw_wrong |= memcmp(h->host.memory + at, h->original + at, TW_LINE_SIZE) != 0;
    }
    h->lines[page] |= lines;
}

static void open_page(struct fake_host *h, uint64_t page)
{
    open_lines(h, page, TW_ALL_LINES);
    h->opened[page] = true;
}

static enum tw_code fake_ready(void *ctx, uint64_t page, uint64_t pages, struct tw_error *err)
{
    struct fake_host *h = ctx;
    (void)err;
    for (uint64_t end = page + pages; page < end; page++)
        open_page(h, page);
    return TW_OK;
}

static enum tw_code fake_ready_lines(void *ctx, uint64_t page, uint64_t lines, struct tw_error *err)
{
    (void)err;
    open_lines(ctx, page, lines);
    return TW_OK;
}

static void fake_release(void *ctx)
{
    struct fake_host *h = ctx;
    for (uint64_t p = 0; p < h->config.pages && h->running; p++)
        open_page(h, p);
    h->guarded = false;
}

static const struct tw_host_fault_ops fault_ops = {.guard = fake_guard,
                                                   .rejoin = fake_rejoin,
                                                   .take = fake_take,
                                                   .ready = fake_ready,
                                                   .release = fake_release};

static const struct tw_host_fault_ops line_fault_ops = {.guard = fake_guard,
                                                        .rejoin = fake_rejoin,
                                                        .take = fake_take,
                                                        .ready_lines = fake_ready_lines,
                                                        .release = fake_release};

void fake_host_run(struct fake_host *h)
{
    if (h->config.incoming) {
        for (unsigned i = 0; i < FAKE_VCPUS && h->running && h->expected; i++)
            run_vcpu(h, i);
        return;
    }
    uint64_t now = tw_now(h->config.clock);
    uint64_t n = (now - h->wrote_ns) * h->config.stores_per_ms / TW_MS;
    if (!h->running) {
        h->wrote_ns = now;
        return;
    }
    if (fake_host_is_slowed(h)) {
        run_slowed(h, now);
        return;
    }
    if (n == 0)
        return;
    h->wrote_ns = now;
    for (uint64_t i = 0; i < n && i < STORES_AT_ONCE; i++)
        store(h);
    punch(h);
}

/* ---- The host interface ------------------------------------------------------------------------
 */

static void fake_sync(void *ctx)
{
    struct fake_host *h = ctx;
    for (uint64_t p = 0; p < h->config.pages; p++) {
        if (h->marks[p])
            tw_device_message_page(h->host.device, TW_MEM_WR, p, h->marks[p]);
        h->marks[p] = 0;
    }
}

static enum tw_code fake_begin(void *ctx, enum tw_host_operation op,
                               const struct tw_host_state *state, uint64_t deadline_ns,
                               struct tw_error *err)
{
    struct fake_host *h = ctx;
    (void)deadline_ns;
    if (h->busy)
        abort(); /* one at a time: a defect of the caller */
    if (h->fail[op].begin) {
        h->fail[op].begin--;
        return tw_fail(err, TW_UNAVAILABLE, "fake host", NULL, NULL, "operation %d not begun", op);
    }
    if (op == TW_HOST_CONTINUE) {
        if (h->on_continue)
            h->on_continue(h->ctx);
        h->ran_too_early |= !h->may_run;
    }
    h->busy = true;
    h->op = op;
    h->waiters[FAKE_VCPUS] =
        (struct fake_waiter){.address = h->config.seed % h->config.pages * TW_PAGE_SIZE};
    h->to_load = state;
    h->op_ends_ns = tw_now(h->config.clock) + tw_random_below(&h->random, 4 * TW_MS);
    return TW_OK;
}

static void save(struct fake_host *h, struct tw_host_state *state)
{
    h->state_size = 1 + tw_random_below(&h->random, STATE_MAX);
    free(h->state);
    h->state = malloc(h->state_size);
    for (size_t i = 0; i < h->state_size; i++)
        h->state[i] = (uint8_t)tw_random_next(&h->random);
    state->data = malloc(h->state_size);
    state->size = h->state_size;
    memcpy(state->data, h->state, h->state_size);
}

static void load(struct fake_host *h)
{
    free(h->state);
    h->state_size = h->to_load->size;
    h->state = malloc(h->state_size);
    memcpy(h->state, h->to_load->data, h->state_size);
}

static bool fake_poll(void *ctx, struct tw_host_state *state, enum tw_code *code,
                      struct tw_error *err)
{
    struct fake_host *h = ctx;
    if (!h->busy)
        abort(); /* nothing was begun */
    if (h->alive && tw_now(h->config.clock) < h->op_ends_ns)
        return false;
    struct fake_waiter *loader = &h->waiters[FAKE_VCPUS];
    if (h->alive && h->op == TW_HOST_LOAD_STATE && h->guarded && !may_touch(h, loader))
        return false;
    loader->waits = false;
    h->busy = false;
    *code = TW_OK;
    if (!h->alive)
        *code = tw_fail(err, TW_UNAVAILABLE, "fake host", NULL, NULL, "the process has ended");
    else if (h->fail[h->op].poll) {
        h->fail[h->op].poll--;
        *code = tw_fail(err, TW_INTERNAL, "fake host", NULL, NULL, "operation %d failed", h->op);
    }
    /* A failed stop may have stopped it all the same. */
    if (h->op == TW_HOST_STOP && (*code == TW_OK || tw_random_below(&h->random, 2)))
        h->running = false;
    if (*code != TW_OK)
        return true;
    if (h->op == TW_HOST_CONTINUE)
        h->running = true;
    else if (h->op == TW_HOST_SAVE_STATE)
        save(h, state);
    else if (h->op == TW_HOST_LOAD_STATE)
        load(h);
    return true;
}

static bool fake_alive(void *ctx)
{
    return ((struct fake_host *)ctx)->alive;
}

static struct tw_range fake_next_data(void *ctx, uint64_t address)
{
    const struct fake_host *h = ctx;
    uint64_t page = tw_page_of(address), end;
    while (page < h->config.pages && !h->data[page])
        page++;
    for (end = page; end < h->config.pages && h->data[end];)
        end++;
    return (struct tw_range){page * TW_PAGE_SIZE, (end - page) * TW_PAGE_SIZE};
}

static enum tw_code fake_reserve(void *ctx, struct tw_range range, struct tw_error *err)
{
    struct fake_host *h = ctx;
    if (h->fail_reserve && --h->fail_reserve == 0)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "fake host", NULL, NULL, "the disk is full");
    for (uint64_t p = tw_page_of(range.start); p < tw_page_of(range.start + range.length); p++)
        h->reserved[p] = true;
    return TW_OK;
}

static const struct tw_host_ops ops = {
    .sync = fake_sync,
    .begin = fake_begin,
    .poll = fake_poll,
    .alive = fake_alive,
    .next_data = fake_next_data,
    .reserve = fake_reserve,
};

/* ---- Made and ended ----------------------------------------------------------------------------
 */

static void link_message(void *ctx, enum tw_link_message message, uint64_t address)
{
    const struct fake_host *h = ctx;
    tw_device_message(h->host.device, message, address);
}

static uint64_t link_snoop(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    const struct fake_host *h = ctx;
    return tw_cache_snoop(h->cache, page, lines, kind);
}

/* The cache of an incoming machine has nobody to tell but the guest. */
static void hear_miss(void *ctx, enum tw_link_message message, uint64_t address)
{
    struct fake_host *h = ctx;
    (void)address;
    h->missed |= message == TW_MEM_RD_DATA || message == TW_MEM_RD_INV;
}

static void open_cache(struct fake_host *h, unsigned cores, const struct tw_link_sink *sink)
{
    struct tw_cache_config cache = {.cores = cores,
                                    .l1 = {8 * TW_LINE_SIZE, 2},
                                    .l2 = {32 * TW_LINE_SIZE, 4},
                                    .last = {128 * TW_LINE_SIZE, 8}};
    if (tw_cache_open(&cache, sink, &h->cache, NULL) != TW_OK)
        abort();
}

static void open_device(struct fake_host *h)
{
    struct tw_snoop_ops snoop = {link_snoop, h};
    struct tw_device_config device = {.memory_bytes = h->host.memory_bytes};
    if (h->config.link == FAKE_LINK_CACHE) {
        struct tw_link_sink sink = {link_message, h};
        device.snoop = &snoop;
        open_cache(h, 2, &sink);
    }
    if (tw_device_open(&device, &h->host.device, NULL) != TW_OK)
        abort();
}

/* Runs of data, zero pages and holes. */
static void fill(struct fake_host *h)
{
    struct tw_random *r = &h->random;
    for (uint64_t p = 0; p < h->config.pages;) {
        uint64_t length = 1 + tw_random_below(r, 24), kind = tw_random_below(r, 4);
        for (; length-- && p < h->config.pages; p++) {
            h->data[p] = kind != 0;
            for (uint64_t i = 0; kind >= 2 && i < TW_PAGE_SIZE; i += 8) {
                uint64_t value = tw_random_below(r, 16) ? tw_random_next(r) : 0;
                memcpy(h->host.memory + p * TW_PAGE_SIZE + i, &value, sizeof value);
            }
        }
    }
}

void fake_host_open(struct fake_host *h, const struct fake_host_config *config)
{
    *h = (struct fake_host){.config = *config, .random = {config->seed}, .alive = true};
    uint64_t bytes = config->pages * TW_PAGE_SIZE;
    h->marks = calloc(config->pages, sizeof *h->marks);
    h->paced = calloc(config->pages, sizeof *h->paced);
    h->data = calloc(config->pages, sizeof *h->data);
    h->reserved = calloc(config->pages, sizeof *h->reserved);
    h->opened = calloc(config->pages, sizeof *h->opened);
    h->lines = calloc(config->pages, sizeof *h->lines);
    h->touched = calloc(config->pages, sizeof *h->touched);
    h->host = (struct tw_host){.ops = &ops,
                               .ctx = h,
                               .memory = aligned_alloc(TW_PAGE_SIZE, bytes),
                               .memory_bytes = bytes,
                               .pace = &pace_ops,
                               .sees_all_writers = config->sees_all_writers};
    memset(h->host.memory, 0, bytes);
    h->wrote_ns = h->opened_ns = tw_now(config->clock);
    if (config->incoming) {
        struct tw_link_sink sink = {hear_miss, h};
        h->host.faults = config->by_line ? &line_fault_ops : &fault_ops;
        if (config->by_line)
            open_cache(h, FAKE_VCPUS, &sink);
        return;
    }
    open_device(h);
    fill(h);
    h->running = h->may_run = true;
}

void fake_host_close(struct fake_host *h)
{
    tw_device_close(h->host.device);
    tw_cache_close(h->cache);
    free(h->host.memory);
    free(h->marks);
    free(h->paced);
    free(h->data);
    free(h->reserved);
    free(h->opened);
    free(h->lines);
    free(h->touched);
    free(h->expected);
    free(h->state);
}

void fake_host_kill(struct fake_host *h)
{
    h->alive = false;
    h->running = false;
}

void fake_host_forget_operation(struct fake_host *h)
{
    if (h->busy && h->op == TW_HOST_STOP)
        h->running = false;
    h->busy = false;
    h->to_load = NULL;
}

void fake_host_continue(struct fake_host *h)
{
    if (!h->alive)
        return;
    if (h->on_continue && !h->running)
        h->on_continue(h->ctx);
    h->ran_too_early |= !h->may_run;
    h->running = true;
}
