/* One run: a guest, a contender, a sample. */
#ifndef TOWLINE_BENCH_MIGRATION_RUN_H
#define TOWLINE_BENCH_MIGRATION_RUN_H

#include "base/error.h"
#include "bench/migration/figures.h"
#include "bench/migration/guest.h"
#include "bench/migration/process.h"
#include "bench/migration/watch.h"

#define BENCH_BANDWIDTH   (UINT64_C(128) << 20) /* bytes per second, for every contender */
#define BENCH_DOWNTIME_MS 300u
#define BENCH_TIMEOUT_MS  15000u /* a migration that has not converged by then is broken off */
#define BENCH_AFTER_MS    1000u  /* the guest is watched for that long behind it */

/* The surroundings of all runs. */
struct bench_setting {
    char dir[BENCH_PATH];   /* on tmpfs, ours alone: guest memory, sockets */
    char state[BENCH_PATH]; /* on disk, ours alone: what agents and controller make durable */
    const char *qemu;
    struct bench_files files;
    const char *agent, *controller, *plugin;
    const char *miss_streams; /* folder for recordings of the guests' waits; NULL = none */
};

/* What a guest waited for that ran before its memory was there; NAN = not measured. */
struct bench_following {
    double faults, p50_us, p99_us;
    double bytes_on_demand;
    double recover90_ms;
    double accuracy, coverage; /* of the predictor, percent */
    double forecast_downtime_ms;
    double forecast_error, forecast_bytes_error; /* of the plan, percent of what happened */
};

/* What is worth keeping of a run beside its figures. */
struct bench_run {
    const struct bench_guest *guest;
    enum bench_contender contender;
    unsigned number;
    struct bench_sample sample;
    int method, predictor; /* ours: as in the contract; 0 = its default */
    uint64_t bandwidth;    /* ours; 0 = BENCH_BANDWIDTH */
    bool plan;             /* ours: plans first, and runs that plan */
    bool follow;           /* looks for waits, and longer for what comes behind the move */
    struct bench_following following;
    uint64_t guest_errors;
    char note[512]; /* rounds, parts of the downtime, why it ended */
};

/* QEMU's own migration between two plain QEMUs. */
enum tw_code bench_peer_run(const struct bench_setting *setting, struct bench_run *run,
                            struct tw_error *err);

/* Ours: a controller and two agents that serve all runs. */
struct bench_cluster;
enum tw_code bench_cluster_start(const struct bench_setting *setting,
                                 struct bench_cluster **cluster, struct tw_error *err);
void bench_cluster_stop(struct bench_cluster *cluster); /* NULL is fine */
enum tw_code bench_ours_run(struct bench_cluster *cluster, struct bench_run *run,
                            struct tw_error *err);

/* The guest's operations per second in plain QEMU, under our agent (every store reported), and
 * there while a migration tracks it and copies. */
struct bench_slowdown {
    double plain, attached, tracked;
};
enum tw_code bench_slowdown_run(const struct bench_setting *setting, struct bench_cluster *cluster,
                                const struct bench_guest *guest, struct bench_slowdown *out,
                                struct tw_error *err);

/* Waits for what is still to be seen of the guest and takes what the watch knows. The span of the
 * migration ends at `ended_ns`, and not before the guest runs at the destination. */
void bench_run_finish(struct bench_run *run, struct bench_watch *watch, uint64_t began_ns,
                      uint64_t ended_ns);

#endif
