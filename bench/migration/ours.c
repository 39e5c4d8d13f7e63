/* Our migration, started and followed through the controller as an operator would. */
#include "bench/migration/cluster.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>

static void note(const Towline__V1__Migration *m, struct bench_run *run)
{
    const Towline__V1__MigrationProgress *p = m->progress;
    snprintf(run->note, sizeof run->note,
             "%s: %zu rounds, stop %.1f ms, last lines %.1f, compare %.1f, device state %.1f (%llu "
             "bytes), hand-over %.1f, %llu lines by compare only, memory %s%s%s",
             m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED ? "completed"
                                                                                 : "not completed",
             p->n_rounds, (double)p->stop_us / 1e3,
             ((double)p->final_pass_us - (double)p->compare_us) / 1e3, (double)p->compare_us / 1e3,
             (double)p->device_state_us / 1e3, (unsigned long long)p->bytes_device_state,
             (double)p->hand_over_us / 1e3, (unsigned long long)p->lines_found_by_compare_only,
             p->memory_compared ? (p->memory_equal ? "equal" : "DIFFERS") : "not compared",
             m->error ? ": " : "", m->error ? m->error->what : "");
}

/* By how much the forecast was off, in per cent of what happened. */
static double off(uint64_t said, uint64_t was)
{
    return was ? fabs((double)said - (double)was) * 100 / (double)was : NAN;
}

static void forecast(const Towline__V1__Forecast *f, const Towline__V1__MigrationProgress *p,
                     struct bench_following *out)
{
    out->forecast_downtime_ms = (double)f->downtime_us / 1e3;
    out->forecast_error = off(f->downtime_us, p->downtime_us);
    out->forecast_bytes_error = off(f->bytes, p->bytes_sent);
}

static void figures(const Towline__V1__Migration *m, struct bench_run *run)
{
    double *v = run->sample.value;
    const Towline__V1__MigrationProgress *p = m->progress;
    v[BENCH_CONVERGED] = m->state == TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED;
    if (!p)
        return;
    note(m, run);
    uint64_t resent = 0;
    for (size_t i = 0; i < p->n_rounds; i++)
        resent += p->rounds[i]->index > 0 ? p->rounds[i]->bytes : 0;
    v[BENCH_BYTES_RESENT] = (double)resent;
    /* QEMU's counters leave out the device state. */
    v[BENCH_BYTES_TOTAL] = (double)(p->bytes_sent - p->bytes_device_state);
    if (v[BENCH_CONVERGED] == 0)
        return;
    run->following.faults = (double)p->faults;
    run->following.p50_us = p->faults ? (double)p->fault_p50_us : NAN;
    run->following.p99_us = p->faults ? (double)p->fault_p99_us : NAN;
    run->following.bytes_on_demand = (double)p->bytes_on_demand;
    run->following.accuracy = p->pages_watched ? (double)p->accuracy_percent : NAN;
    run->following.coverage = p->pages_watched ? (double)p->coverage_percent : NAN;
    v[BENCH_DOWNTIME] = (double)p->downtime_us / 1e3;
    v[BENCH_TOTAL] = (double)p->total_us / 1e3;
    if (p->memory_compared && !p->memory_equal)
        run->guest_errors++;
    if (m->forecast)
        forecast(m->forecast, p, &run->following);
}

static enum tw_code begin(struct bench_cluster *c, const struct bench_guest *guest,
                          struct bench_watch **watch, struct tw_error *err)
{
    char source[BENCH_PATH + 32], destination[BENCH_PATH + 32];
    bench_cluster_vm_dir(c, guest, 0, source);
    bench_cluster_vm_dir(c, guest, 1, destination);
    enum tw_code code = bench_watch_start(guest, source, destination, watch, err);
    if (!code)
        code = bench_cluster_create_vm(c, guest, err);
    return code ? code : bench_watch_await_ready(*watch, err);
}

/* The peers' destination waits already when their migration begins; ours is started by it. So the
 * span under load is counted back from the switch-over. */
static void finish(struct bench_run *run, struct bench_watch *watch, uint64_t began_ns)
{
    uint64_t ended = bench_now_ns();
    double total_ms = run->sample.value[BENCH_TOTAL];
    if (!isnan(total_ms) && bench_watch_await_moved(watch, BENCH_AFTER_MS)) {
        ended = bench_watch_moved_ns(watch);
        began_ns = ended - (uint64_t)(total_ms * (double)TW_MS);
    }
    bench_run_finish(run, watch, began_ns, ended);
}

enum tw_code bench_ours_run(struct bench_cluster *cluster, struct bench_run *run,
                            struct tw_error *err)
{
    struct bench_watch *watch = NULL;
    Towline__V1__Migration *m = NULL;
    char id[64];
    uint64_t began = 0;
    enum tw_code code = begin(cluster, run->guest, &watch, err);
    struct bench_wish wish = {.bandwidth = run->bandwidth ? run->bandwidth : BENCH_BANDWIDTH,
                              .method = run->method,
                              .predictor = run->predictor};
    if (!code && bench_sleep_ms(run->guest->warm_up_ms)) {
        if (run->plan)
            code = bench_cluster_plan(cluster, &wish, err);
        began = bench_now_ns();
        if (!code)
            code = bench_cluster_migrate(cluster, &wish, id, err);
    }
    if (!code && !bench_interrupted())
        code = bench_cluster_await_end(cluster, id, &m, err);
    if (!code && m) {
        figures(m, run);
        finish(run, watch, began);
    }
    if (m)
        towline__v1__migration__free_unpacked(m, NULL);
    bench_watch_stop(watch);
    bench_cluster_delete_vm(cluster);
    return code;
}
