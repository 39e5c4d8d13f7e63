/* What it costs a guest that every store is reported, and that a migration runs beside it. */
#include "bench/migration/cluster.h"
#include "bench/migration/machine.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>

#define LOW_BANDWIDTH (UINT64_C(8) << 20) /* bytes per second: keeps a migration at its copy */
#define SPAN_MS       5000u               /* over which a speed is measured */
#define COPYING_MS    5000u               /* until the copy has begun */

static enum tw_code speed(struct bench_watch *watch, double *ops_per_s, struct tw_error *err)
{
    uint64_t from = bench_now_ns();
    bench_sleep_ms(SPAN_MS);
    uint64_t to = bench_now_ns();
    bench_watch_await_ops(watch, to, 2000);
    *ops_per_s = bench_watch_rate(watch, from, to);
    if (bench_interrupted())
        return tw_fail(err, TW_CANCELLED, "benchmark", NULL, NULL, "interrupted");
    if (isnan(*ops_per_s))
        return tw_fail(err, TW_UNAVAILABLE, "guest", NULL, NULL, "no operation was counted");
    return TW_OK;
}

static enum tw_code plain(const struct bench_setting *s, const struct bench_guest *guest,
                          double *ops_per_s, struct tw_error *err)
{
    char dir[BENCH_PATH + 16];
    struct bench_machine m = {0};
    struct bench_watch *watch = NULL;
    snprintf(dir, sizeof dir, "%s/plain", s->dir);
    enum tw_code code = bench_watch_start(guest, dir, "", &watch, err);
    if (!code)
        code = bench_machine_start(&m, s->qemu, dir, guest, &s->files, false, false, err);
    if (!code)
        code = bench_watch_await_ready(watch, err);
    if (!code && bench_sleep_ms(guest->warm_up_ms))
        code = speed(watch, ops_per_s, err);
    bench_watch_stop(watch);
    bench_machine_end(&m);
    return code;
}

static enum tw_code await_copying(struct bench_cluster *c, const char *id, struct tw_error *err)
{
    for (unsigned ms = 0; ms < COPYING_MS && !bench_interrupted(); ms += 20) {
        Towline__V1__Migration *m;
        enum tw_code code = bench_cluster_migration(c, id, &m, err);
        if (code)
            return code;
        bool copying = m->progress && m->progress->full_copy_bytes_done > 0;
        towline__v1__migration__free_unpacked(m, NULL);
        if (copying)
            return TW_OK;
        bench_sleep_ms(20);
    }
    return tw_fail(err, TW_DEADLINE_EXCEEDED, id, NULL, NULL, "the copy has not begun");
}

/* A VM that is being migrated cannot be deleted, so the end is waited for. */
static enum tw_code break_off(struct bench_cluster *c, const char *id, struct tw_error *err)
{
    Towline__V1__Migration *m = NULL;
    enum tw_code code = bench_cluster_cancel(c, id, err);
    if (!code)
        code = bench_cluster_await_end(c, id, &m, err);
    if (m)
        towline__v1__migration__free_unpacked(m, NULL);
    return code;
}

static enum tw_code ours(struct bench_cluster *c, const struct bench_guest *guest,
                         struct bench_slowdown *out, struct tw_error *err)
{
    char source[BENCH_PATH + 32], id[64];
    struct bench_watch *watch = NULL;
    bench_cluster_vm_dir(c, guest, 0, source);
    enum tw_code code = bench_watch_start(guest, source, "", &watch, err);
    if (!code)
        code = bench_cluster_create_vm(c, guest, err);
    if (!code)
        code = bench_watch_await_ready(watch, err);
    if (!code && bench_sleep_ms(guest->warm_up_ms))
        code = speed(watch, &out->attached, err);
    if (!code)
        code = bench_cluster_migrate(c, &(struct bench_wish){.bandwidth = LOW_BANDWIDTH}, id, err);
    if (!code)
        code = await_copying(c, id, err);
    if (!code)
        code = speed(watch, &out->tracked, err);
    if (!code)
        code = break_off(c, id, err);
    bench_watch_stop(watch);
    bench_cluster_delete_vm(c);
    return code;
}

enum tw_code bench_slowdown_run(const struct bench_setting *setting, struct bench_cluster *cluster,
                                const struct bench_guest *guest, struct bench_slowdown *out,
                                struct tw_error *err)
{
    *out = (struct bench_slowdown){NAN, NAN, NAN};
    enum tw_code code = plain(setting, guest, &out->plain, err);
    return code ? code : ours(cluster, guest, out, err);
}
