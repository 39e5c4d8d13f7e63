/* Accesses through the cache model, the device and one tracker over all memory. */
#include "base/line.h"
#include "bench/device/bench.h"
#include "bench/device/ceiling.h"
#include "bench/device/stream.h"
#include "fpga-model/device.h"
#include "hosts/cache/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS ((size_t)1 << 22) /* in a run */
#define BATCH  ((size_t)4096)    /* as taken from a ring */

struct machine {
    struct tw_cache *cache;
    struct tw_device *device;
    struct ceiling *ceiling;
    uint64_t *events;
};

static void to_device(void *ctx, enum tw_link_message message, uint64_t address)
{
    struct machine *m = ctx;
    tw_device_message(m->device, message, address);
}

static uint64_t to_cache(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind)
{
    struct machine *m = ctx;
    return tw_cache_snoop(m->cache, page, lines, kind);
}

static void machine_open(struct machine *m, uint64_t memory_bytes)
{
    struct tw_cache_config cache = {
        .cores = 1, .l1 = {32 << 10, 8}, .l2 = {256 << 10, 8}, .last = {8 << 20, 16}};
    struct tw_link_sink sink = {to_device, m};
    struct tw_snoop_ops snoop = {to_cache, m};
    struct tw_device_config device = {memory_bytes, &snoop};
    struct tw_range all = {0, memory_bytes};
    struct tw_tracker_config tracker = {"bench", &all, 1, 0, false};
    struct tw_tracker *started;
    struct tw_error err;
    char text[256];
    if (tw_cache_open(&cache, &sink, &m->cache, &err) ||
        tw_device_open(&device, &m->device, &err) ||
        tw_tracker_start(m->device, &tracker, &started, &err)) {
        fprintf(stderr, "%s\n", tw_error_text(&err, text, sizeof text));
        exit(1);
    }
    m->ceiling = ceiling_open();
    m->events = bench_alloc(EVENTS * sizeof *m->events);
}

static uint64_t run_ours(void *ctx)
{
    struct machine *m = ctx;
    for (size_t i = 0; i < EVENTS; i += BATCH)
        tw_cache_run(m->cache, 0, m->events + i, BATCH);
    return EVENTS;
}

static uint64_t run_ceiling(void *ctx)
{
    struct machine *m = ctx;
    for (size_t i = 0; i < EVENTS; i += BATCH)
        ceiling_run(m->ceiling, m->events + i, BATCH);
    return EVENTS;
}

struct bench_row bench_events(const struct bench_case *self, unsigned runs)
{
    struct machine m;
    const uint64_t lines = tw_line_of(self->memory_bytes);
    machine_open(&m, self->memory_bytes);
    if (strcmp(self->name, "seq") == 0)
        stream_sequential(m.events, EVENTS, lines);
    else if (strcmp(self->name, "random") == 0)
        stream_random(m.events, EVENTS, lines);
    else
        stream_zipf(m.events, EVENTS, lines);
    struct bench_pair pair = {run_ours, run_ceiling, NULL, &m};
    struct bench_result result = bench_measure(&pair, runs);
    if (ceiling_write_backs(m.ceiling) == 0)
        abort(); /* the loop has been optimised away, or the stream is no stream */
    tw_device_close(m.device);
    tw_cache_close(m.cache);
    ceiling_close(m.ceiling);
    free(m.events);
    return bench_rate("events_per_s", "1/s", result);
}
