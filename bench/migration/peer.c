/* QEMU's own migration: pre-copy, pre-copy with XBZRLE, post-copy after the first pass. */
#include "bench/migration/run.h"

#include "base/clock.h"
#include "bench/migration/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS      5u
#define RESUME_MS    5000u
#define XBZRLE_CACHE (UINT64_C(512) << 20) /* bytes: every page of the guest fits */

struct pair {
    struct bench_machine source, destination;
    struct bench_watch *watch;
    enum bench_contender kind;
    uint64_t began_ns, completed_ns;
    bool postcopy_started, trace;
    json_t *last; /* answer of query-migrate */
};

static enum tw_code limits(struct bench_machine *m, enum bench_contender kind, struct tw_error *err)
{
    const json_int_t bandwidth = (json_int_t)BENCH_BANDWIDTH;
    json_t *p = json_pack("{s:I, s:I, s:i}", "max-bandwidth", bandwidth, "max-postcopy-bandwidth",
                          bandwidth, "downtime-limit", BENCH_DOWNTIME_MS);
    if (kind == BENCH_QEMU_XBZRLE)
        json_object_set_new(p, "xbzrle-cache-size", json_integer((json_int_t)XBZRLE_CACHE));
    enum tw_code code = bench_machine_do(m, "migrate-set-parameters", p, NULL, err);
    if (code || kind == BENCH_QEMU_PRECOPY)
        return code;
    const char *name = kind == BENCH_QEMU_XBZRLE ? "xbzrle" : "postcopy-ram";
    return bench_machine_do(
        m, "migrate-set-capabilities",
        json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", name, "state", 1), NULL, err);
}

/* Lets the destination listen on a free port of the loopback interface. */
static enum tw_code listen_for(struct pair *p, char uri[64], struct tw_error *err)
{
    json_t *answer = NULL;
    enum tw_code code = bench_machine_do(&p->destination, "migrate-incoming",
                                         json_pack("{s:s}", "uri", "tcp:127.0.0.1:0"), NULL, err);
    if (!code)
        code = bench_machine_do(&p->destination, "query-migrate", NULL, &answer, err);
    if (code)
        return code;
    const json_t *address = json_array_get(json_object_get(answer, "socket-address"), 0);
    const char *port = json_string_value(json_object_get(address, "port"));
    if (port)
        snprintf(uri, 64, "tcp:127.0.0.1:%s", port);
    json_decref(answer);
    if (!port)
        return tw_fail(err, TW_UNIMPLEMENTED, "QEMU", "socket-address with a port", NULL,
                       "destination does not say where it listens");
    return TW_OK;
}

static enum tw_code begin(struct pair *p, const struct bench_setting *s,
                          const struct bench_guest *guest, struct tw_error *err)
{
    char source[BENCH_PATH + 16], destination[BENCH_PATH + 16];
    snprintf(source, sizeof source, "%s/source", s->dir);
    snprintf(destination, sizeof destination, "%s/destination", s->dir);
    enum tw_code code = bench_watch_start(guest, source, destination, &p->watch, err);
    if (!code)
        code =
            bench_machine_start(&p->source, s->qemu, source, guest, &s->files, false, false, err);
    if (!code)
        code = bench_machine_start(&p->destination, s->qemu, destination, guest, &s->files, true,
                                   p->trace, err);
    if (code)
        return code;
    bench_machine_join(&p->source, &p->destination);
    return bench_watch_await_ready(p->watch, err);
}

/* ---- The migration --------------------------------------------------------------------------- */

static const char *status(const struct pair *p)
{
    const char *text = json_string_value(json_object_get(p->last, "status"));
    return text ? text : "none";
}

static uint64_t counter(const struct pair *p, const char *group, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(json_object_get(p->last, group), name));
}

static enum tw_code query(struct pair *p, struct tw_error *err)
{
    json_decref(p->last);
    p->last = NULL;
    return bench_machine_do(&p->source, "query-migrate", NULL, &p->last, err);
}

/* The second look at the dirty bitmap is the end of the first pass. */
static enum tw_code maybe_postcopy(struct pair *p, struct tw_error *err)
{
    if (p->kind != BENCH_QEMU_POSTCOPY || p->postcopy_started || strcmp(status(p), "active") != 0 ||
        counter(p, "ram", "dirty-sync-count") < 2)
        return TW_OK;
    p->postcopy_started = true;
    return bench_machine_do(&p->source, "migrate-start-postcopy", NULL, NULL, err);
}

/* Until it has completed or its time is over; *converged says which. */
static enum tw_code follow(struct pair *p, bool *converged, struct tw_error *err)
{
    uint64_t end = p->began_ns + BENCH_TIMEOUT_MS * TW_MS;
    *converged = false;
    while (bench_now_ns() < end) {
        enum tw_code code = query(p, err);
        if (!code)
            code = maybe_postcopy(p, err);
        if (code)
            return code;
        if (strcmp(status(p), "completed") == 0) {
            p->completed_ns = bench_now_ns();
            *converged = true;
            return TW_OK;
        }
        if (strcmp(status(p), "failed") == 0) {
            const char *why = json_string_value(json_object_get(p->last, "error-desc"));
            return tw_fail(err, TW_ABORTED, "QEMU", NULL, NULL, "migration failed: %s",
                           why ? why : "no reason given");
        }
        if (bench_interrupted())
            return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
        bench_machine_wait(&p->source, POLL_MS);
    }
    return bench_machine_do(&p->source, "migrate_cancel", NULL, NULL, err);
}

static void figures(const struct pair *p, struct bench_run *run, bool converged)
{
    double *v = run->sample.value;
    uint64_t total = counter(p, "ram", "transferred");
    uint64_t page_size = counter(p, "ram", "page-size");
    uint64_t pages = page_size ? counter(p, "ram", "total") / page_size : 0;
    uint64_t full = bench_qemu_full_copy_bytes(pages, counter(p, "ram", "duplicate"));
    v[BENCH_CONVERGED] = converged;
    v[BENCH_BYTES_TOTAL] = (double)total;
    v[BENCH_BYTES_RESENT] = total > full ? (double)(total - full) : 0;
    int n = snprintf(run->note, sizeof run->note, "%s: %llu passes, %llu pages, %llu zero pages",
                     status(p), (unsigned long long)counter(p, "ram", "dirty-sync-count"),
                     (unsigned long long)counter(p, "ram", "normal"),
                     (unsigned long long)counter(p, "ram", "duplicate"));
    if (run->contender == BENCH_QEMU_XBZRLE)
        snprintf(run->note + n, sizeof run->note - (size_t)n, ", %llu packed pages",
                 (unsigned long long)counter(p, "xbzrle-cache", "pages"));
    if (!converged)
        return;
    uint64_t ended = p->kind == BENCH_QEMU_POSTCOPY ? p->completed_ns : p->destination.resumed_ns;
    v[BENCH_TOTAL] = (double)(ended - p->began_ns) / (double)TW_MS;
    v[BENCH_DOWNTIME] = (double)(p->destination.resumed_ns - p->source.stopped_ns) / (double)TW_MS;
}

/* A page is 4096 bytes and a header of 8. */
static void waits(const struct pair *p, struct bench_run *run)
{
    static struct bench_waits w;
    char path[2 * BENCH_PATH], line[512];
    memset(&w, 0, sizeof w);
    snprintf(path, sizeof path, "%s/qemu.log", p->destination.dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        bench_waits_line(&w, line);
    if (f)
        fclose(f);
    run->following.faults = (double)w.count;
    run->following.p50_us = bench_waits_us(&w, 50);
    run->following.p99_us = bench_waits_us(&w, 99);
    run->following.bytes_on_demand = (double)counter(p, "ram", "postcopy-requests") * (4096 + 8);
}

static enum tw_code await_resume(struct pair *p, struct tw_error *err)
{
    for (unsigned ms = 0; ms < RESUME_MS && !bench_interrupted(); ms++) {
        if (p->destination.resumed_ns && p->source.stopped_ns)
            return TW_OK;
        bench_machine_wait(&p->source, 1);
    }
    return tw_fail(err, TW_DEADLINE_EXCEEDED, "QEMU", NULL, NULL,
                   "the destination did not resume the guest");
}

static enum tw_code migrate(struct pair *p, struct bench_run *run, struct tw_error *err)
{
    char uri[64];
    bool converged;
    enum tw_code code = limits(&p->source, p->kind, err);
    if (!code)
        code = limits(&p->destination, p->kind, err);
    if (!code)
        code = listen_for(p, uri, err);
    if (code)
        return code;
    bench_machine_wait(&p->source, run->guest->warm_up_ms);
    p->began_ns = bench_now_ns();
    code = bench_machine_do(&p->source, "migrate", json_pack("{s:s}", "uri", uri), NULL, err);
    if (!code)
        code = follow(p, &converged, err);
    if (!code && converged)
        code = await_resume(p, err);
    if (code)
        return code;
    uint64_t ended = bench_now_ns();
    figures(p, run, converged);
    if (p->trace && converged)
        waits(p, run);
    bench_run_finish(run, p->watch, p->began_ns, ended);
    return TW_OK;
}

enum tw_code bench_peer_run(const struct bench_setting *setting, struct bench_run *run,
                            struct tw_error *err)
{
    struct pair p = {.kind = run->contender,
                     .trace = run->follow && run->contender == BENCH_QEMU_POSTCOPY};
    enum tw_code code = begin(&p, setting, run->guest, err);
    if (!code)
        code = migrate(&p, run, err);
    bench_watch_stop(p.watch);
    bench_machine_end(&p.source);
    bench_machine_end(&p.destination);
    json_decref(p.last);
    return code;
}
